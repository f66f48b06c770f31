"""Saving and resuming: the same batches follow, bit by bit, or an error and nothing changed."""

import copy
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.checkpoint import Checkpointer
from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

ARRAYS = pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["host", "device"])


def noisy(element, key):
    noise = jax.random.normal(key, element.data["x"].shape)
    before = element.data.get("noisy", element.data["x"])
    return element.update_data({"noisy": before + noise})


def pipeline(
    *, length=11, seed=0, batch_size=4, array=np.asarray, implementation="threefry2x32", **options
):
    data = {"x": array(np.linspace(0, 1, 2 * length, dtype=np.float32).reshape(length, 2))}
    stage = ElementOperator(
        ElementOperatorConfig(stochastic=True),
        fn=noisy,
        rngs=nnx.Rngs(jax.random.key(seed, impl=implementation)),
    )
    return Pipeline(
        source=MemorySource(MemorySourceConfig(shuffle=True, seed=seed), data=data),
        stages=[stage],
        batch_size=batch_size,
        **options,
    )


def arrays(batches):
    """All arrays of some batches, on the host."""
    return [np.asarray(leaf) for batch in batches for leaf in jax.tree.leaves(batch)]


def assert_same(came, expected):
    came, expected = arrays(came), arrays(expected)
    assert len(came) == len(expected)
    for one, other in zip(came, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def assert_same_state(came, expected):
    assert came == expected


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("prefetch", [0, 2], ids=["no prefetch", "prefetch"])
@ARRAYS
@pytest.mark.parametrize("done", [0, 2, 3, 5], ids=["start", "middle", "end", "second epoch"])
def test_a_resumed_iterator_gives_the_same_batches(done, array, prefetch, implementation):
    """After any batch, a new process goes on as the old one would have, also into later epochs."""
    options = {"array": array, "prefetch": prefetch, "implementation": implementation}
    old = pipeline(**options)
    iterator = iter(old)
    for number in range(done):
        if number == 3:
            iterator = iter(old)
        next(iterator)
    state = copy.deepcopy(iterator.get_state())
    expected = [*iterator, *old]

    new = pipeline(**options)
    resumed = iter(new)
    next(resumed)  # what was read before is forgotten
    resumed.set_state(state)
    assert_same([*resumed, *new], expected)
    assert_same_state(new.get_state(), old.get_state())


def test_a_state_brings_seeds_with_it():
    """After a resume, order and randomness are those of the saved pipeline, not the new seeds."""
    old, new = pipeline(seed=1), pipeline(seed=2)
    iterator, resumed = iter(old), iter(new)
    next(iterator)
    resumed.set_state(iterator.get_state())
    assert_same([*resumed, *new], [*iterator, *old])


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2)], ids=["shared", "different"])
def test_a_state_decides_which_stages_share_a_stream(seeds):
    """Stages that shared a key when saved are told apart after a resume, and only those."""

    def build(seeds):
        stages = [
            ElementOperator(ElementOperatorConfig(stochastic=True), fn=noisy, rngs=nnx.Rngs(seed))
            for seed in seeds
        ]
        data = {"x": np.zeros((8, 2), np.float32)}
        source = MemorySource(MemorySourceConfig(), data=data)
        return Pipeline(source=source, stages=stages, batch_size=4)

    iterator = iter(build(seeds))
    next(iterator)
    others = [iter(build(other)) for other in ((3, 3), (3, 4))]
    for resumed in others:
        next(resumed)
        resumed.set_state(iterator.get_state())
    expected = next(iterator)
    for resumed in others:
        assert_same([next(resumed)], [expected])


def test_a_state_is_a_copy():
    """Going on does not change a state that was taken."""
    iterator = iter(pipeline())
    next(iterator)
    state = iterator.get_state()
    before = copy.deepcopy(state)
    for _ in iterator:
        pass
    assert_same_state(state, before)


def test_what_was_read_ahead_does_not_count():
    """With any prefetch, state and counts are those of the batches delivered."""
    states = []
    for prefetch in (0, 1, 5):
        iterator = iter(pipeline(length=50, prefetch=prefetch))
        next(iterator)
        next(iterator)
        states.append(iterator.get_state())
    assert int(states[0]["position"]) == 8
    assert_same_state(states[1], states[0])
    assert_same_state(states[2], states[0])


def test_another_batch_size_goes_on_with_the_next_record():
    """The position counts records: none is lost or repeated when the batch size changes."""
    old = pipeline()
    iterator = iter(old)
    first = next(iterator)
    resumed = iter(pipeline(batch_size=3))
    resumed.set_state(iterator.get_state())
    rest = [batch.compact() for batch in resumed]
    index = np.concatenate([first.record_index, *(batch.record_index for batch in rest)])
    expected = [batch.compact() for batch in iterator]
    assert sorted(index.tolist()) == list(range(11))
    np.testing.assert_array_equal(
        np.concatenate([batch["noisy"] for batch in rest]),
        np.concatenate([batch["noisy"] for batch in expected]),
    )


def test_a_restored_pipeline_starts_the_next_epoch():
    """The pipeline's own state holds the number of the next epoch and the stages' states."""
    old, new = pipeline(), pipeline(seed=3)
    list(old)
    state = old.get_state()
    assert state["epoch"] == 1
    new.set_state(state)
    assert new.epoch == 1
    assert_same(list(new), list(old))
    assert new.stages[0].get_operation_stats() == {"applied_count": 22, "skipped_count": 0}


@pytest.mark.parametrize("of", ["iterator", "pipeline"])
def test_checkpoints_on_disk_resume_exactly(of, tmp_path):
    """Orbax saves the state of both as it is, and it comes back equal."""
    old, new = pipeline(), pipeline(seed=5)
    iterator, resumed = iter(old), iter(new)
    next(iterator)
    saved, restored = (iterator, resumed) if of == "iterator" else (old, new)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, saved)
        state = saved.get_state()
        checkpointer.restore(restored)
    assert_same_state(restored.get_state(), state)
    assert_same([*restored], [*saved])


def _changed(state, path, value):
    """A deep copy of nested dicts with a value at a path; None removes it."""
    state = copy.deepcopy(state)
    *parents, last = path.split("/")
    node = state
    for name in parents:
        node = node[name]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return state


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("position", None, "position: expected a value, got nothing"),
        ("position", 12, "position: expected at most 11"),
        ("position", "1", "position: expected a number from 0, got '1'"),
        ("position", -1, "position: expected a number from 0, got -1"),
        ("epoch", 1.0, "epoch: expected a number from 0, got 1.0"),
        ("more", 1, "more: not expected, got 1"),
        ("waiting", "AAAA", "waiting: "),
        ("source/records", "9", "source/records: expected '11', got '9'"),
        ("source/content", "0" * 12, "source/content: expected "),
        ("shuffle_key", "00", "shuffle_key"),
        ("values", "", "values"),
        ("stages/0/kind", "Other", "stages/0/kind: expected 'ElementOperator', got 'Other'"),
        ("stages/0/options", "x", "stages/0/options: expected"),
        ("stages/1", {"kind": "Other"}, "stages/1/kind: not expected, got 'Other'"),
        ("stages/0", None, "stages/0/kind: expected 'ElementOperator', got nothing"),
        ("layout", None, "is none of a pipeline"),
        ("layout", "?", "has layout '?', but"),
        ("layout", 4, "has layout 4, but this version of datarax-pipeline reads layout 3"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(path, value, message):
    """Every mismatch is a ValueError that names its path, after which all is as it was."""
    iterator = iter(pipeline())
    next(iterator)
    good = iterator.get_state()
    next(iterator)
    before = iterator.get_state()
    with pytest.raises(ValueError, match=re.escape(message)):
        iterator.set_state(_changed(good, path, value))
    assert_same_state(iterator.get_state(), before)
    assert len(list(iterator)) == 1


def test_all_differences_are_listed_at_once():
    """One error tells everything that is wrong with a state."""
    state = _changed(pipeline().get_state(), "epoch", -1)
    state = _changed(state, "stages/0/kind", "Other")
    with pytest.raises(ValueError, match=r"epoch: expected(.|\n)*stages/0/kind"):
        pipeline().set_state(state)


@pytest.mark.parametrize("state", [None, 3, [1]], ids=["None", "number", "list"])
def test_a_state_must_be_a_dict(state):
    """Anything else is a TypeError."""
    for owner in (pipeline(), iter(pipeline())):
        with pytest.raises(TypeError, match="state must be a dict"):
            owner.set_state(state)


def test_iterators_are_epochs_of_their_own():
    """Two iterators at once read two epochs, each its own, and do not disturb each other."""
    expected = [list(epoch) for epoch in (lambda p: [list(p), list(p)])(pipeline())]
    both = pipeline()
    first, second = iter(both), iter(both)
    came = [(one, other) for one, other in zip(first, second, strict=True)]
    assert_same([one for one, _ in came], expected[0])
    assert_same([other for _, other in came], expected[1])


def test_an_exhausted_iterator_stays_exhausted():
    """After the last batch there is none, also after a resume at the end."""
    for remainder in ("pad", "drop", "partial"):
        ended = pipeline(remainder=remainder)
        iterator = iter(ended)
        list(iterator)
        assert list(iterator) == []
        resumed = iter(ended)
        resumed.set_state(iterator.get_state())
        assert list(resumed) == []
