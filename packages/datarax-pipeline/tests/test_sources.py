"""Sources: what they hold, in which order they give it, and what they refuse."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch, Element
from datarax.pipeline import Pipeline
from datarax.sources import DataSourceModule, MemorySource, MemorySourceConfig, SourceConfig

COLUMNS = {
    "image": np.arange(24, dtype=np.uint8).reshape(6, 2, 2),
    "label": np.arange(6, dtype=np.int64) * 10,
}
PINNED = [
    [2, 7, 1, 0, 3, 5, 6, 4],
    [5, 4, 2, 6, 0, 3, 1, 7],
    [1163, 2439, 649, 2143, 1878, 581, 839, 2598],
]


def shuffled(length=100, *, seed=0, **options):
    return MemorySource(
        MemorySourceConfig(shuffle=True, seed=seed), data={"x": np.arange(length)}, **options
    )


class Doubles(DataSourceModule):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"x": np.float32(2 * index)}


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["host", "device"])
def test_gather_gives_the_named_records(array):
    """Records come in the order asked for, repetitions included, without index and epoch."""
    data = {name: array(column.astype(np.int32)) for name, column in COLUMNS.items()}
    batch = MemorySource(MemorySourceConfig(), data=data).gather(np.array([4, 0, 4]))
    np.testing.assert_array_equal(batch["label"], [40, 0, 40])
    np.testing.assert_array_equal(batch["image"], COLUMNS["image"][[4, 0, 4]])
    assert batch.valid_mask.tolist() == [True] * 3
    assert batch.record_index is None


def test_gathered_rows_are_fresh_memory():
    """Writing to a gathered batch changes neither the source nor another batch."""
    source = MemorySource(MemorySourceConfig(), data={"x": np.arange(4)})
    first, second = source.gather(np.array([1, 2])), source.gather(np.array([1, 2]))
    first["x"][:] = 99
    assert second["x"].tolist() == [1, 2]
    assert source.gather(np.array([1, 2]))["x"].tolist() == [1, 2]


@pytest.mark.parametrize("indices", [[6], [-1], [0, 7]], ids=["end", "negative", "second"])
def test_gather_refuses_records_that_are_not_there(indices):
    """An index outside the source is an IndexError, not another record."""
    source = MemorySource(MemorySourceConfig(), data=COLUMNS)
    with pytest.raises(IndexError, match=re.escape(f"must be from 0 to 5, got {indices}")):
        source.gather(np.array(indices))


def test_records_keep_state_and_metadata():
    """A list of Elements keeps each record's state and metadata, in any order, in copies too."""
    records = [
        Element({"x": np.float32(i)}, {"seen": np.int32(10 * i)}, metadata=f"{i}.png")
        for i in range(4)
    ]
    source = MemorySource(MemorySourceConfig(), data=records)
    for each in (source, source.copy(), source.clone()):
        batch = each.gather(np.array([3, 1]))
        assert batch.metadata == ("3.png", "1.png")
        assert batch.states["seen"].tolist() == [30, 10]
    assert source[2].metadata == "2.png"


def test_a_list_of_dicts_is_a_list_of_records():
    """Dicts of arrays and numbers are stacked field by field."""
    source = MemorySource(
        MemorySourceConfig(), data=[{"x": i, "y": np.array([i, i])} for i in range(3)]
    )
    assert len(source) == 3
    assert source.gather(np.array([2]))["y"].tolist() == [[2, 2]]


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["host", "device"])
def test_element_spec_has_the_dtypes_that_batches_will_have(array):
    """64-bit columns are narrowed as JAX does it; shapes have no batch axis."""
    data = {name: array(column) for name, column in COLUMNS.items()}
    spec = MemorySource(MemorySourceConfig(), data=data).element_spec()
    assert spec == {
        "image": jax.ShapeDtypeStruct((2, 2), np.uint8),
        "label": jax.ShapeDtypeStruct((), np.int32),
    }


def test_records_are_no_state():
    """A checkpoint of a source holds its key and counts, not its data."""
    state = shuffled().get_state()
    assert set(state) == {"_operation_count", "_statistics", "shuffle_key"}
    assert state["shuffle_key"].shape == (4,)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"a": np.zeros(3), "b": np.zeros(2)}, ValueError, r"data\['b'\] must have 3 rows"),
        ({}, ValueError, "at least one leaf and one row"),
        ({"a": np.zeros((0, 2))}, ValueError, "at least one leaf and one row"),
        ([], ValueError, "at least one record, got none"),
        (np.zeros(3), TypeError, "a dict of arrays or a list of records, got ndarray"),
        ([np.zeros(3)], TypeError, r"data\[0\] must be an Element or a dict of arrays"),
        ([{"a": 1}, {"b": 1}], ValueError, "record 1 differs in structure from record 0"),
        ([{"a": np.zeros(2)}, {"a": np.zeros(3)}], ValueError, r"data\['a'\] of record 1 must be"),
        ({"a": np.array(["x"])}, TypeError, r"data\['a'\] must be an array of numbers"),
        ({"a": np.array([2**40])}, ValueError, r"data\['a'\] has int64 values .* do not fit"),
        ({"valid_mask": np.ones(2, bool)}, ValueError, "must not have a field 'valid_mask'"),
    ],
    ids=[
        "lengths",
        "no field",
        "no row",
        "no record",
        "bare array",
        "bare records",
        "structure",
        "shape",
        "strings",
        "wide integers",
        "reserved",
    ],
)
def test_memory_source_refuses_bad_data(data, error, message):
    """Data that cannot be batched is refused when the source is made, by field and reason."""
    with pytest.raises(error, match=message):
        MemorySource(MemorySourceConfig(), data=data)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shuffle": 1}, TypeError, "shuffle must be True or False, got 1"),
        ({"seed": 1.5}, TypeError, "seed must be an integer or None, got float 1.5"),
        ({"seed": True}, TypeError, "seed must be an integer or None, got bool True"),
        ({"seed": -1}, ValueError, "seed must be 0 or more, got -1"),
        ({"stochastic": True}, ValueError, "but shuffle=False"),
        ({"stochastic": True, "shuffle": True, "seed": 1}, ValueError, "and seed=1"),
    ],
    ids=["shuffle", "float seed", "bool seed", "negative seed", "stochastic", "two origins"],
)
def test_config_refuses_bad_options(options, error, message):
    """Bad options are refused when the config is made."""
    with pytest.raises(error, match=message):
        MemorySourceConfig(**options)


def test_config_of_another_kind_is_refused():
    """A dict or another module's config is a TypeError."""
    with pytest.raises(TypeError, match="config of Doubles must be a SourceConfig, got dict"):
        Doubles({"shuffle": True})


@pytest.mark.parametrize("length", [1, 2, 3, 64, 65, 1000])
def test_shuffling_is_a_permutation(length):
    """Every record comes exactly once in each epoch."""
    source = shuffled(length)
    for epoch in range(3):
        assert sorted(source.order(epoch).tolist()) == list(range(length))


def test_order_depends_on_seed_and_epoch_alone():
    """The same seed and epoch give the same order; another seed or epoch another one."""
    one, two = shuffled(seed=3), shuffled(seed=3, rngs=nnx.Rngs(5))
    np.testing.assert_array_equal(one.order(4), two.order(4))
    np.testing.assert_array_equal(one.order(4), one.order(4))
    orders = {tuple(one.order(epoch).tolist()) for epoch in range(20)}
    orders |= {tuple(shuffled(seed=seed).order(0).tolist()) for seed in range(4, 24)}
    assert len(orders) == 40


def test_order_stays_the_same_in_later_releases():
    """A checkpoint of today is resumed by every later version of this package and of NumPy."""
    assert shuffled(8, seed=0).order(0).tolist() == PINNED[0]
    assert shuffled(8, seed=0).order(1).tolist() == PINNED[1]
    assert shuffled(3000, seed=0).order(1)[:8].tolist() == PINNED[2]


def test_without_shuffling_records_come_as_they_are():
    """The order of every epoch is that of the data."""
    source = MemorySource(MemorySourceConfig(seed=3), data=COLUMNS)
    assert source.order(0).tolist() == source.order(1).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_order_can_come_from_rngs(implementation):
    """Without a seed, the next key of the stream decides; other streams do not matter."""
    config = MemorySourceConfig(shuffle=True)

    def order(seed, draws=0, **streams):
        key = jax.random.key(seed, impl=implementation)
        rngs = nnx.Rngs(shuffle=key, **streams)
        for _ in range(draws):
            rngs.shuffle()
        return MemorySource(config, data={"x": np.arange(50)}, rngs=rngs).order(0).tolist()

    assert order(1) == order(1, other=4)
    assert len({tuple(order(1)), tuple(order(2)), tuple(order(1, draws=3))}) == 3


def test_a_stochastic_source_draws_from_its_named_stream():
    """`stochastic=True` with a `stream_name` takes the order from that stream and needs it."""
    config = MemorySourceConfig(shuffle=True, stochastic=True, stream_name="order")
    orders = [
        MemorySource(config, data={"x": np.arange(50)}, rngs=rngs).order(0).tolist()
        for rngs in (nnx.Rngs(order=1), nnx.Rngs(order=1, shuffle=9), nnx.Rngs(order=2))
    ]
    assert orders[0] == orders[1] != orders[2]
    with pytest.raises(ValueError, match=r"needs the random streams \['order'\]"):
        MemorySource(config, data={"x": np.arange(50)}, rngs=nnx.Rngs(shuffle=0))


def test_shuffling_without_any_randomness_is_refused():
    """A source with neither seed nor rngs says what to give it when its order is asked for."""
    source = MemorySource(MemorySourceConfig(shuffle=True), data=COLUMNS)
    with pytest.raises(ValueError, match="shuffle=True, but nothing to derive the order from"):
        source.order(0)


def test_a_restored_source_has_the_order_of_the_saved_one():
    """The key of the order is state: it comes back with a checkpoint."""
    saved, other = shuffled(seed=1), shuffled(seed=2)
    other.set_state(saved.get_state())
    np.testing.assert_array_equal(other.order(5), saved.order(5))


def test_batches_are_slices_of_the_order_from_any_start():
    """Batches from a start are what follows there, with the records' numbers in the source."""
    source = shuffled(10)
    order = source.order(2)
    batches = list(source.batches(2, 3, 4))
    assert [len(batch) for batch in batches] == [4, 3]
    np.testing.assert_array_equal(np.concatenate([b.record_index for b in batches]), order[3:])
    np.testing.assert_array_equal(np.concatenate([b["x"] for b in batches]), order[3:])


def test_two_methods_make_a_source():
    """A source with `__len__` and `__getitem__` alone gathers, specifies and shuffles."""
    source = Doubles(SourceConfig(shuffle=True, seed=1))
    assert isinstance(source(np.array([1, 3])), Batch)
    assert source(np.array([1, 3]))["x"].tolist() == [2.0, 6.0]
    assert source.element_spec() == {"x": jax.ShapeDtypeStruct((), np.float32)}
    batch = next(source.batches(0, 0, 5))
    np.testing.assert_array_equal(batch["x"], 2 * batch.record_index.astype(np.float32))
    assert sorted(batch.record_index.tolist()) == list(range(5))


def test_an_unlike_record_is_named():
    """The error of a record that differs says which records were read."""

    class Ragged(Doubles):
        def __getitem__(self, index):
            return {"x": np.zeros(index)}

    with pytest.raises(ValueError, match="record 1 must be") as caught:
        Ragged(SourceConfig()).gather(np.array([2, 3]))
    assert caught.value.__notes__ == ["while Ragged read the records [2, 3]"]


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["host", "device"])
def test_a_source_can_hold_plain_arrays(array):
    """Arrays that are attributes of a source are data, not state: it resumes without them."""

    class Columns(DataSourceModule):
        def __init__(self, config, column):
            super().__init__(config)
            self.column = column

        def __len__(self):
            return len(self.column)

        def __getitem__(self, index):
            return {"x": self.column[index]}

    def pipeline():
        source = Columns(SourceConfig(shuffle=True, seed=1), array(np.arange(5)))
        return Pipeline(source=source, batch_size=2)

    iterator, resumed = iter(pipeline()), iter(pipeline())
    next(iterator)
    state = iterator.get_state()
    assert "column" not in str(state)
    resumed.set_state(state)
    for came, expected in zip(resumed, iterator, strict=True):
        jax.tree.map(np.testing.assert_array_equal, came, expected)
