"""Sources made of others: a choice of records, one after the other, and in proportions."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Element
from datarax.pipeline import Pipeline
from datarax.sources import (
    ConcatSource,
    DataSourceModule,
    MemorySource,
    MemorySourceConfig,
    MixtureSource,
    SourceConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def memory(first, count, array=np.asarray, **options):
    data = {"x": array(np.arange(first, first + count, dtype=np.int32))}
    return MemorySource(MemorySourceConfig(**options), data=data)


def listed(first, count):
    return [{"x": np.int32(first + number)} for number in range(count)]


def values(source, epoch=0):
    """What an epoch of a source holds, in order, after a check of the record numbers."""
    pipeline = Pipeline(source=source, batch_size=4)
    for _ in range(epoch):
        iter(pipeline)
    batches = [batch.compact() for batch in pipeline]
    numbers = np.concatenate([batch.record_index for batch in batches])
    found = np.concatenate([batch["x"] for batch in batches])
    np.testing.assert_array_equal(source.gather(numbers)["x"], found)
    return found.tolist()


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["host", "device"])
@pytest.mark.parametrize(
    "indices", [[7, 2, 7], np.array([0], np.int64), range(8, 0, -3)], ids=["list", "array", "range"]
)
def test_chosen_records_are_a_source(indices, array):
    """In the given order, repetitions included, numbered from 0."""
    chosen = memory(100, 10, array).select(indices)
    assert values(chosen) == [100 + number for number in indices]
    assert [int(chosen[number].data["x"]) for number in range(len(chosen))] == values(chosen)
    assert values(memory(100, 10).take(3)) == [100, 101, 102]


def test_chosen_records_of_chosen_records():
    """A choice can be made of any source that can be read by number."""
    joined = ConcatSource([listed(0, 6), listed(10, 6)])
    assert values(joined.select([11, 0]).select([1, 0])) == [0, 15]


def test_a_choice_shuffles_as_its_source():
    """In an order of its own length that the same seed decides, and that resumes."""
    chosen = memory(0, 50, shuffle=True, seed=3).take(9)
    again = memory(5, 20, shuffle=True, seed=3).take(9)
    assert sorted(values(chosen)) == list(range(9)) != values(chosen)
    np.testing.assert_array_equal(chosen.order(2), again.order(2))
    config = MemorySourceConfig(shuffle=True)
    undecided = MemorySource(config, data={"x": np.arange(9)}).take(9)
    pipelines = [Pipeline(source=undecided, batch_size=9, rngs=nnx.Rngs(0)) for _ in range(2)]
    first, second = (next(iter(pipeline)).record_index.tolist() for pipeline in pipelines)
    assert first == second != list(range(9))


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], ValueError, "indices must name from 1 to"),
        ([3], IndexError, "from 0 to 2, the last record of MemorySource, got from 3 to 3"),
        ([0, -1], IndexError, "got from -1 to 0"),
        (range(2, 5), IndexError, "got from 2 to 4"),
        ([0.0], TypeError, "integers, got list of dtype float64"),
        (np.array([True, False, True]), TypeError, "of dtype bool .*np.flatnonzero"),
        ([[0]], TypeError, r"shape \(1, 1\)"),
    ],
    ids=["none", "end", "negative", "range", "floats", "mask", "nested"],
)
def test_records_that_are_not_there_cannot_be_chosen(indices, error, message):
    """The error says which there are."""
    with pytest.raises(error, match=message):
        memory(0, 3).select(indices)


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (4, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_take_needs_a_number_of_records(n, error):
    """From 1 to all of them."""
    with pytest.raises(error, match="n must be"):
        memory(0, 3).take(n)


def test_sources_one_after_the_other():
    """Of any kind, in one numbering; records read together and one by one are the same."""
    joined = ConcatSource([memory(0, 3), listed(10, 2), memory(20, 4, jnp.asarray)])
    assert values(joined) == [0, 1, 2, 10, 11, 20, 21, 22, 23]
    order = np.array([8, 0, 3, 2, 5, 4, 1, 7, 6, 3, 0, 1])
    expected = [[0, 1, 2, 10, 11, 20, 21, 22, 23][number] for number in order]
    assert joined.gather(order)["x"].tolist() == expected
    assert [int(joined[int(number)].data["x"]) for number in order] == expected
    with pytest.raises(IndexError, match=r"from 0 to 8, got \[9\]"):
        joined[9]


def test_all_sources_are_shuffled_together():
    """By the seed of the whole."""
    joined = ConcatSource(
        [listed(0, 30), memory(30, 30)], config=SourceConfig(shuffle=True, seed=1)
    )
    first, second = values(joined), values(joined, epoch=1)
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second
    assert min(first[:10]) < 30 <= max(first[:10])


def test_metadata_and_state_of_all_sources_arrive():
    """Also where only some records have metadata, and of fields that only the whole splits off."""
    with_state = [Element({"x": i}, {"seen": np.int32(i)}, metadata=f"m{i}") for i in range(3)]
    without = [Element({"x": i}, {"seen": np.int32(i)}) for i in range(3, 6)]
    first = MemorySource(MemorySourceConfig(), data=with_state)
    second = MemorySource(MemorySourceConfig(), data=without)
    batch = ConcatSource([first, second]).gather(np.array([5, 0, 4, 1, 3, 2, 0, 0]))
    assert batch.metadata == (None, "m0", None, "m1", None, "m2", "m0", "m0")
    assert batch.states["seen"].tolist() == [5, 0, 4, 1, 3, 2, 0, 0]
    named = [{"x": i, "name": f"n{i}"} for i in range(2)]
    joined = ConcatSource([named, named], config=SourceConfig(metadata_fields=("name",)))
    (batch,) = Pipeline(source=joined, batch_size=4)
    assert [entry["name"] for entry in batch.metadata] == ["n0", "n1"] * 2


class Sequential(DataSourceModule):
    sequential = True

    def __len__(self):
        return 3


@pytest.mark.parametrize(
    ("sources", "error", "message"),
    [
        ([], TypeError, "a list of at least one source"),
        (memory(0, 2), TypeError, "a list of at least one source, got MemorySource"),
        ([listed(0, 1), []], ValueError, r"sources\[1\] of ConcatSource has no records"),
        ([memory(0, 2, shuffle=True, seed=0)], ValueError, "ConcatSource decides the order"),
        ([Sequential(SourceConfig())], TypeError, "but Sequential is sequential"),
        ([3], TypeError, "source must be a DataSourceModule, or an object"),
    ],
    ids=["none", "source", "empty", "shuffles", "sequential", "number"],
)
def test_sources_that_cannot_be_joined_are_refused(sources, error, message):
    """When the source is made, with the number of the wrong one."""
    with pytest.raises(error, match=message):
        ConcatSource(sources)


def test_sources_of_other_records_are_named():
    """Records of two sources that do not fit each other say which ones."""
    other = MemorySource(MemorySourceConfig(), data={"x": np.zeros((20, 2), np.int32)})
    with pytest.raises(ValueError, match=r"data\['x'\] of batch 1") as caught:
        ConcatSource([memory(0, 20), other]).gather(np.arange(15, 25))
    assert "batch i has records of sources[i]" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ([0.7, 0.3], [7, 3]),
        ([3, 1], [3, 1]),
        ([1 / 3, 1 / 3, 1 / 3], [1, 1, 1]),
        (np.float32([0.5, 0.25, 0.25]), [2, 1, 1]),
    ],
    ids=str,
)
def test_blocks_are_as_small_as_weights_allow(weights, counts):
    """Weights in small ratios are exact in a small block."""
    sources = [listed(0, 10)] * len(counts)
    assert MixtureSource(sources, weights).counts.tolist() == counts


@pytest.mark.parametrize("shuffle", [False, True])
def test_every_block_has_the_exact_counts(shuffle):
    """Until a source would give a record twice; each source in its order, by epoch if shuffled."""
    config = SourceConfig(shuffle=shuffle, seed=5 if shuffle else None)
    sources = [listed(0, 40), memory(100, 100), listed(300, 12)]
    mixture = MixtureSource(sources, [3, 4, 1], config=config)
    assert 12 * 8 <= len(mixture) < 13 * 8
    epochs = [mixture.order(epoch) for epoch in range(2)]
    for order in epochs:
        assert len(set(order.tolist())) == len(order)
        which, numbers = mixture.locate(order)
        for block in which[:96].reshape(12, 8):
            assert np.bincount(block).tolist() == [3, 4, 1]
        for source in range(3):
            own = numbers[which == source].tolist()
            assert (own == list(range(len(own)))) != shuffle
        assert np.bincount(which)[2] == 12
    assert (epochs[0].tolist() != epochs[1].tolist()) == shuffle
    positions = np.array([90, 3, 3, 41])
    np.testing.assert_array_equal(mixture.record_numbers(1, positions), epochs[1][positions])
    assert len(values(mixture)) == len(mixture)


def test_a_thousand_sources_are_mixed():
    """With weights that are no small fractions, as near to them as a long block comes."""
    weights = np.random.default_rng(0).pareto(1.5, 1000) + 1e-6
    mixture = MixtureSource([listed(0, 1)] * 1000, weights, length=10**9)
    counts, total = mixture.counts, mixture.counts.sum()
    expected = weights / weights.sum() * total
    assert counts.min() >= 1
    assert (np.abs(counts - expected)[expected > 2] < 2).all()
    which, _ = mixture.locate(mixture.record_numbers(0, np.arange(total, 2 * total)))
    assert (np.bincount(which, minlength=1000) == counts).all()


def test_sources_that_run_out_begin_again():
    """Where a length is given; every turn of a shuffled source has another order."""
    mixture = MixtureSource(
        [memory(0, 6), memory(10, 60)], [1, 1], length=48, config=SourceConfig(shuffle=True, seed=2)
    )
    found = np.array(values(mixture))
    turns = found[found < 10].reshape(4, 6)
    assert [sorted(turn.tolist()) for turn in turns] == [list(range(6))] * 4
    assert len({tuple(turn) for turn in turns}) > 1


@pytest.mark.parametrize(
    ("weights", "length", "error", "message"),
    [
        ([1], None, ValueError, "one number for each of 2 sources"),
        ([1, -1], None, ValueError, "positive and finite"),
        ([1, 0], None, ValueError, "leave out sources"),
        ([1, np.nan], None, ValueError, "finite"),
        (["a", 1], None, TypeError, "weights must be 2 numbers"),
        ([1, 1], 0, ValueError, "length must be from 1"),
        ([1, 1], 1.5, TypeError, "length must be an integer"),
    ],
    ids=["number", "negative", "zero", "nan", "text", "no length", "float"],
)
def test_bad_mixtures_are_refused(weights, length, error, message):
    """When the source is made."""
    with pytest.raises(error, match=message):
        MixtureSource([listed(0, 4), listed(0, 4)], weights, length=length)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MixtureSource(
            [listed(0, 9), memory(10, 9)], [2, 1], config=SourceConfig(shuffle=True, seed=4)
        ),
        lambda: ConcatSource(
            [memory(0, 5), listed(5, 6)], config=SourceConfig(shuffle=True, seed=4)
        ),
        lambda: memory(0, 30, shuffle=True, seed=4).select(range(0, 30, 3)),
    ],
    ids=["mixture", "concat", "select"],
)
def test_joined_sources_resume_and_copy(make):
    """Another pipeline goes on with the same records; copies are the same source."""
    source = make()
    iterator, resumed = (iter(Pipeline(source=each, batch_size=2)) for each in (source, make()))
    next(iterator)
    resumed.set_state(iterator.get_state())
    rest = [batch.record_index.tolist() for batch in resumed]
    assert rest == [batch.record_index.tolist() for batch in iterator]
    for each in (source.copy(), source.clone()):
        np.testing.assert_array_equal(each.order(1), source.order(1))


class Records:
    """As Hugging Face data sets are: a length, and a dict of Python objects for each number."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"x": index, "tokens": [index, index + 1]}


def test_a_foreign_object_is_shuffled_and_resumed():
    """By the pipeline, as our own sources are."""
    pipelines = [Pipeline(source=Records(20), batch_size=3, shuffle=True, seed=7) for _ in "ab"]
    iterator, resumed = map(iter, pipelines)
    first = next(iterator)["x"].tolist()
    resumed.set_state(iterator.get_state())
    rest = [number for batch in resumed for number in batch.compact()["x"].tolist()]
    assert rest == [number for batch in iterator for number in batch.compact()["x"].tolist()]
    assert sorted(first + rest) == list(range(20)) != first + rest
    second = np.concatenate([batch.compact()["tokens"] for batch in pipelines[0]])
    assert sorted(second[:, 1].tolist()) == list(range(1, 21)) != second[:, 1].tolist()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (memory(0, 3, shuffle=True, seed=0), {"shuffle": True, "seed": 1}, "order of its own"),
        (Sequential(SourceConfig()), {"shuffle": True, "seed": 1}, "is read sequentially"),
        (Records(3), {"seed": 1}, "seed=1 decides on the order"),
        (Records(3), {"shuffle": True}, "nothing to derive the order from; set seed=0"),
    ],
    ids=["shuffles", "sequential", "seed alone", "no seed"],
)
def test_a_pipeline_shuffles_only_what_has_no_order(source, options, message):
    """An order that a source has already is not shuffled again without a word."""
    with pytest.raises(ValueError, match=re.escape(message)):
        Pipeline(source=source, batch_size=1, **options)


def test_arrays_of_any_layout_are_read_row_by_row():
    """Transposed, every second row, parts of structured ones: never copied as a whole."""
    whole = np.random.default_rng(0).integers(0, 256, (50, 3, 32, 32), np.uint8)
    parts = np.zeros(50, [("flag", np.uint8), ("x", np.float32, (4,))])
    parts["x"] = np.arange(200).reshape(50, 4)
    data = {"image": whole.transpose(0, 2, 3, 1), "x": parts["x"], "y": np.arange(100)[::2]}
    source = MemorySource(MemorySourceConfig(), data=data)
    indices = np.array([49, 3, 3, 0])
    batch = source.gather(indices)
    for name, column in data.items():
        np.testing.assert_array_equal(batch[name], column[indices])
        assert batch[name].flags.c_contiguous


def test_texts_are_metadata_where_the_source_is_told_so():
    """Of columns and of records; without it, the error names the field and the option."""
    config = MemorySourceConfig(metadata_fields=("name",))
    columns = {"x": np.arange(3), "name": ["a", "b", "c"]}
    rows = [{"x": number, "name": name} for number, name in enumerate("abc")]
    for data in (columns, rows):
        batch = MemorySource(config, data=data).gather(np.array([2, 0]))
        assert batch.metadata == ({"name": "c"}, {"name": "a"})
        assert set(batch.keys()) == {"x"}
        with pytest.raises(TypeError, match=r"data\['name'\] must .* metadata_fields=\('name',\)"):
            MemorySource(MemorySourceConfig(), data=data)
    with pytest.raises(KeyError, match=r"names \['name'\], but data has the fields \['x'\]"):
        MemorySource(config, data={"x": np.arange(3)})
    with pytest.raises(ValueError, match="an entry for each of the 3 records"):
        MemorySource(config, data={"x": np.arange(3), "name": ["a"]})
    with pytest.raises(TypeError, match=r"metadata_fields must be names"):
        MemorySourceConfig(metadata_fields="name")
    with pytest.raises(TypeError, match=r"in record 0 of list .* metadata_fields=\('name',\)"):
        next(iter(Pipeline(source=rows, batch_size=2)))
