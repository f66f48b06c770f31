"""Several epochs in one iterator, a look ahead, copies, threads, and other people's checkpoints."""

import copy
import json
import threading

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.pipeline import Pipeline, _pipeline
from datarax.sources import DataSourceModule, MemorySource, MemorySourceConfig, SourceConfig

pytestmark = pytest.mark.usefixtures("quick_compiles")


def drawn(element, key):
    return element.update_data({"drawn": jax.random.bits(key)})


def scaled(element, key=None):
    return element.update_data({"x": element.data["x"] * 2})


def shifted(element, key=None):
    return element.update_data({"x": element.data["x"] + 3})


def plain(function):
    return ElementOperator(ElementOperatorConfig(), fn=function)


def drawing(seed=0):
    return ElementOperator(ElementOperatorConfig(stochastic=True), fn=drawn, rngs=nnx.Rngs(seed))


def pipeline(length=10, first=0, stages=None, **options):
    data = {"x": np.arange(first, first + length, dtype=np.int32)}
    source = MemorySource(MemorySourceConfig(shuffle=True, seed=0), data=data)
    stages = [drawing()] if stages is None else stages
    return Pipeline(source=source, stages=stages, **({"batch_size": 4} | options))


def leaves(batches):
    return [np.asarray(leaf) for batch in batches for leaf in jax.tree.leaves(batch)]


def assert_same(came, expected):
    for one, other in zip(leaves(came), leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_one_iterator_goes_through_several_epochs(prefetch):
    """It gives what as many iterators give, and the next one begins behind it."""
    single, several = pipeline(prefetch=prefetch), pipeline(prefetch=prefetch, epochs=3)
    assert (len(single), len(several)) == (3, 9)
    expected = [batch for _ in range(4) for batch in single]
    assert_same([*several, *several.repeat(1)], expected)
    endless = pipeline(prefetch=prefetch, epochs=None)
    assert_same([batch for batch, _ in zip(endless, range(12), strict=False)], expected)
    with pytest.raises(TypeError, match="it has no end"):
        len(endless)


def test_a_resumed_iterator_has_as_many_epochs_left():
    """Counted from where it began, in the middle of the second one."""
    iterator = iter(pipeline(epochs=3))
    for _ in range(4):
        next(iterator)
    new = pipeline(epochs=3)
    resumed = iter(new)
    resumed.set_state(iterator.get_state())
    assert (resumed.epoch, new.epoch) == (1, 3)
    assert_same([*resumed], [*iterator])


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_look_at_a_batch_costs_nothing(prefetch):
    """It stays the next one, and stages count no record for it."""
    looking, expected = pipeline(prefetch=prefetch), list(pipeline())
    assert_same([looking.peek()], [expected[0]])
    assert looking.epoch == 0
    iterator = iter(looking)
    assert_same([iterator.peek(), iterator.peek()], [expected[0]] * 2)
    assert looking.stages[0].get_operation_stats()["applied_count"] == 0
    state = iterator.get_state()
    assert_same([next(iterator), iterator.peek()], expected[:2])
    assert looking.stages[0].get_operation_stats()["applied_count"] == 4
    iterator.set_state(state)
    assert_same([*iterator], expected)
    with pytest.raises(StopIteration, match=r"^$"):
        iterator.peek()


def test_padding_holds_what_it_is_told():
    """A copy of the last record where zeros would become NaN."""
    (*_, last) = pipeline(stages=[], pad_values="last")
    assert last["x"].tolist() == [*last["x"].tolist()[:2]] + [last["x"].tolist()[1]] * 2
    assert last.valid_mask.tolist() == [True, True, False, False]
    (*_, last) = pipeline(stages=[], pad_values={"x": -1})
    assert last["x"].tolist()[2:] == [-1, -1]
    with pytest.raises(ValueError, match="pad_values=1 has no effect with remainder='drop'"):
        pipeline(pad_values=1, remainder="drop")


def test_assigned_stages_work_from_the_next_batch_on():
    """In a running iterator, too."""
    changing = pipeline(stages=[plain(scaled)])
    expected = {int(i): int(i) for i in range(10)}
    iterator = iter(changing)
    first = next(iterator)
    changing.stages = [plain(shifted)]
    second = next(iterator)
    assert first["x"].tolist() == [2 * expected[i] for i in first.record_index.tolist()]
    assert second["x"].tolist() == [3 + expected[i] for i in second.record_index.tolist()]
    with pytest.raises(TypeError, match=r"stages\[0\] must be an operator"):
        changing.stages = [scaled]


@pytest.mark.parametrize("of", ["pipeline", "iterator"])
def test_deep_copies_go_on_by_themselves(of):
    """With the same batches, and without a trace in the original."""
    original = pipeline(epochs=2, prefetch=2)
    iterator = iter(original)
    next(iterator)
    if of == "pipeline":
        copied, going_on = copy.deepcopy(original), original
    else:
        copied, going_on = copy.deepcopy(iterator), iterator
    batches = list(copied)
    counts = original.stages[0].get_operation_stats()
    assert counts["applied_count"] == 4
    assert_same(batches, list(going_on))


def test_threads_share_an_iterator():
    """Each batch goes to one of them."""

    class Slow(DataSourceModule):
        def __len__(self):
            return 64

        def __getitem__(self, index):
            return {"x": np.int32(index)}

    iterator = iter(Pipeline(source=Slow(SourceConfig()), batch_size=2, prefetch=0))
    found, errors = [], []

    def consume():
        try:
            found.extend(int(x) for batch in iterator for x in batch["x"])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=consume) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(found) == list(range(64))


def test_an_iterator_tells_how_it_fares():
    """Batches, records, seconds and padding; an unused one has nothing to tell."""
    iterator = iter(pipeline())
    assert iterator.stats.rate == 0
    list(iterator)
    stats = iterator.stats
    assert (stats.batches, stats.records, stats.padding) == (3, 10, pytest.approx(2 / 12))
    assert 0 < stats.waited <= stats.seconds
    assert stats.rate == pytest.approx(10 / stats.seconds)


def test_a_state_is_a_short_text():
    """JSON holds it, with any number of stages in less than 4 kB, and it comes back from there."""
    stages = [drawing(seed) for seed in range(20)]
    iterator = iter(pipeline(stages=stages, batch_size=3))
    next(iterator)
    text = json.dumps(iterator.get_state())
    assert len(text) < 3000
    few = json.dumps(iter(pipeline()).get_state())
    assert len(few) < 800
    many = pipeline(
        stages=[drawing(seed) for seed in range(80)], transforms=[lambda record: record] * 40
    )
    assert len(json.dumps(iter(many).get_state())) < 4096
    resumed = iter(pipeline(stages=[drawing(seed + 1) for seed in range(20)], batch_size=3))
    resumed.set_state(json.loads(text))
    assert_same([*resumed], [*iterator])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": 1}, "source/content: expected "),
        ({"length": 11}, "source/records: expected '11', got '10'"),
        ({"stages": [plain(shifted), plain(scaled)]}, "stages/0/options: expected"),
        ({"stages": [plain(scaled)]}, "stages/1/kind: not expected, got 'ElementOperator'"),
        ({"stages": [plain(scaled), drawing()]}, "stages/1/options"),
        ({"stages": [plain(lambda e, k=None: e), plain(shifted)]}, "stages/0/options"),
    ],
    ids=["other data", "other length", "swapped stages", "fewer", "another", "other function"],
)
def test_a_state_of_something_else_is_refused(options, message):
    """Other data of the same length, and stages that no Variable tells apart."""
    state = iter(pipeline(stages=[plain(scaled), plain(shifted)])).get_state()
    other = iter(pipeline(**({"stages": [plain(scaled), plain(shifted)]} | options)))
    with pytest.raises(ValueError, match=message):
        other.set_state(state)


def test_many_stages_are_told_apart_one_by_one():
    """The first 24 by name, the later ones together; with and without the details of 0.3."""
    same, other = [plain(scaled) for _ in range(30)], plain(shifted)

    def state(*changes, count=30):
        stages = [other if number in changes else same[number] for number in range(count)]
        return iter(pipeline(stages=stages))

    iterator = state()
    saved = iterator.get_state()
    of_another_python = json.loads(json.dumps(saved).replace(" 3.", " 2."))
    detailed = saved | {
        "stages": {str(n): state(count=1).get_state()["stages"]["0"] for n in range(30)}
    }
    for fits in (saved, of_another_python, detailed):
        state().set_state(fits)
    with pytest.raises(
        ValueError, match=r"(?s)stages/7: expected 'ElementOp.*, got 'ElementOp"
    ) as e:
        state(7).set_state(saved)
    assert str(e.value).count("stages/") == 1
    with pytest.raises(ValueError, match="stages/24 and later: expected '6 more"):
        state(24).set_state(saved)
    with pytest.raises(ValueError, match="stages/29/options: expected"):
        state(29).set_state(detailed)
    with pytest.raises(ValueError, match="stages/2: not expected, got 'ElementOperator "):
        state(count=2).set_state(saved)
    with pytest.raises(ValueError, match="stages/2/kind: expected 'ElementOperator', got nothing"):
        state().set_state(state(count=2).get_state())


def test_stages_that_come_to_share_a_stream_are_told_apart(monkeypatch):
    """From the next batch on; the keys of all stages are compared only when one has changed."""
    compared = []
    monkeypatch.setattr(_pipeline, "ordinals", lambda stages: compared.append(1) or (0, 1))
    changing = pipeline(stages=[drawing(1), drawing(2)], length=6, batch_size=2)
    iterator = iter(changing)
    next(iterator), next(iterator)
    assert not compared
    first, second = changing.stages
    second.rngs = first.rngs
    *_, expected = pipeline(stages=[drawing(1), drawing(1)], length=6, batch_size=2)
    assert_same([next(iterator)], [expected])
    assert compared


def test_records_with_texts_and_objects_tell_their_source_too():
    """By numbers, texts and times; objects, which show their address, by their class alone."""

    class Note:
        pass

    def state(word="a", number=0, stamp=0, note=Note):
        records = [
            {
                "x": np.float32(number),
                "name": word * (1 + index),
                "words": np.array([word, "b"], object),
                "time": np.datetime64(stamp, "s"),
                "note": note(),
            }
            for index in range(3)
        ]
        fields = ("name", "words", "time", "note")
        return iter(Pipeline(source=records, batch_size=2, metadata_fields=fields))

    saved = state().get_state()
    assert saved["source"]["fields"].startswith("name text rank 0, note text rank 0, time ")
    state().set_state(saved)
    for other in ({"word": "c"}, {"number": 1}, {"stamp": 1}, {"note": object}):
        with pytest.raises(ValueError, match="source/content: expected"):
            state(**other).set_state(saved)


def test_functions_are_told_apart_by_what_they_do():
    """Of one name, by their code and by what they close over; the same again is the same."""

    def times(factor):
        return plain(lambda element, key=None: element.update_data({"y": factor}))

    state = iter(pipeline(stages=[times(2)])).get_state()
    iter(pipeline(stages=[times(2)])).set_state(state)
    with pytest.raises(ValueError, match="stages/0/code"):
        iter(pipeline(stages=[times(3)])).set_state(state)
    # Another Python cannot read the code, so it does not compare it.
    older = copy.deepcopy(state)
    older["stages"]["0"]["code"] = "3.10:0123456789ab"
    iter(pipeline(stages=[times(3)])).set_state(older)


@pytest.mark.parametrize(
    "state",
    [
        {"epoch": np.uint32(0), "record": np.uint32(4), "pipeline": {}},
        {"epoch": np.uint32(1), "source_length": np.uint32(10), "source": {}, "stages": {}},
    ],
    ids=["iterator", "pipeline"],
)
def test_states_of_older_versions_are_refused(state):
    """They are recognised as such."""
    for owner in (iter(pipeline()), pipeline()):
        with pytest.raises(ValueError, match=r"state was saved by version 0\.1 or 0\.2"):
            owner.set_state(state)


def test_grains_checkpoints_take_our_iterators(tmp_path):
    """As Orbax's manager saves and restores an iterator of Grain beside the model."""
    checkpoint = pytest.importorskip("grain.checkpoint", reason="needs the extra [grain]")
    ocp = pytest.importorskip("orbax.checkpoint")
    iterator, resumed = iter(pipeline()), iter(pipeline())
    next(iterator)
    with ocp.CheckpointManager(tmp_path / "steps") as manager:
        save = ocp.args.Composite(data=checkpoint.CheckpointSave(iterator))
        manager.save(1, args=save)
        manager.wait_until_finished()
        restore = ocp.args.Composite(data=checkpoint.CheckpointRestore(resumed))
        manager.restore(1, args=restore)
    assert_same([*resumed], [*iterator])


def test_orbax_keeps_the_state_as_json(tmp_path):
    """`JsonSave` takes it as it is."""
    ocp = pytest.importorskip("orbax.checkpoint")
    iterator, resumed = iter(pipeline()), iter(pipeline())
    next(iterator)
    with ocp.CheckpointManager(tmp_path / "steps") as manager:
        manager.save(1, args=ocp.args.JsonSave(iterator.get_state()))
        manager.wait_until_finished()
        resumed.set_state(manager.restore(1, args=ocp.args.JsonRestore()))
    assert_same([*resumed], [*iterator])
