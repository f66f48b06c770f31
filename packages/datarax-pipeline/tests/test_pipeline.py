"""Epochs: which records come, in which order and form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.batching import check_batch
from datarax.core.element_batch import Element
from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.pipeline import Pipeline
from datarax.sources import DataSourceModule, MemorySource, MemorySourceConfig, SourceConfig

ARRAYS = pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["host", "device"])


def numbers(length=10, *, shuffle=True, seed=0, array=np.asarray):
    """A source whose record i has x = 100 + i."""
    data = {"x": array(np.arange(100, 100 + length, dtype=np.int32))}
    return MemorySource(MemorySourceConfig(shuffle=shuffle, seed=seed), data=data)


def halved(element, key=None):
    return element.update_data({"half": element.data["x"].astype(jnp.float32) / 2})


def operator(function=halved, **options):
    return ElementOperator(ElementOperatorConfig(**options), fn=function)


@ARRAYS
@pytest.mark.parametrize("prefetch", [0, 2], ids=["no prefetch", "prefetch"])
@pytest.mark.parametrize("stages", [(), (operator(),)], ids=["no stage", "one stage"])
def test_every_record_comes_exactly_once_in_each_epoch(array, prefetch, stages):
    """Valid rows of an epoch are all records, each with its own number in the source."""
    pipeline = Pipeline(source=numbers(array=array), stages=stages, batch_size=4, prefetch=prefetch)
    orders = []
    for epoch in range(3):
        batches = list(pipeline)
        assert [len(batch) for batch in batches] == [4, 4, 4]
        valid = [batch.compact() for batch in batches]
        index = np.concatenate([batch.record_index for batch in valid])
        values = np.concatenate([batch["x"] for batch in valid])
        assert sorted(index.tolist()) == list(range(10))
        np.testing.assert_array_equal(values, 100 + index)
        assert {int(batch.epoch) for batch in batches} == {epoch}
        orders.append(index.tolist())
    assert orders[0] != orders[1] != orders[2]


@ARRAYS
def test_a_new_pipeline_repeats_the_epochs(array):
    """Order and batches depend on the seed alone, on the host and on the device alike."""

    def epochs(array):
        pipeline = Pipeline(source=numbers(array=array), stages=[operator()], batch_size=3)
        return [[np.asarray(b[f]) for b in pipeline for f in ("x", "half")] for _ in range(2)]

    for expected, came in zip(epochs(np.asarray), epochs(array), strict=True):
        np.testing.assert_array_equal(expected, came)


def test_the_last_batch_is_padded_with_zeros():
    """Padding is zero and invalid, with record number 0, so that it is no copy of a record."""
    for array in (np.asarray, jnp.asarray):
        source = numbers(5, shuffle=False, array=array)
        last = list(Pipeline(source=source, batch_size=3))[-1]
        assert last["x"].tolist() == [103, 104, 0]
        assert last.valid_mask.tolist() == [True, True, False]
        assert last.record_index.tolist() == [3, 4, 0]


@pytest.mark.parametrize(
    ("remainder", "length", "rows"),
    [
        ("pad", 10, [4, 4, 4]),
        ("drop", 10, [4, 4]),
        ("partial", 10, [4, 4, 2]),
        ("drop", 8, [4, 4]),
        ("pad", 3, [4]),
        ("partial", 3, [3]),
    ],
)
@ARRAYS
def test_remainder_decides_about_the_last_batch(remainder, length, rows, array):
    """It is padded, dropped or smaller; `len` is the number of batches that come."""
    pipeline = Pipeline(
        source=numbers(length, array=array), stages=[operator()], batch_size=4, remainder=remainder
    )
    for _ in range(2):
        assert [len(batch) for batch in pipeline] == rows
    assert len(pipeline) == len(rows)


@ARRAYS
@pytest.mark.parametrize("prefetch", [0, 2], ids=["no prefetch", "prefetch"])
def test_data_is_on_the_device_and_the_mask_on_the_host(array, prefetch):
    """Touched and untouched fields come as jax.Arrays of canonical dtype, the rest as NumPy."""
    data = {"x": array(np.arange(3)), "y": array(np.arange(3, dtype=np.float64))}
    source = MemorySource(MemorySourceConfig(), data=data)
    for stages in ((), (operator(),)):
        batch = next(iter(Pipeline(source=source, stages=stages, batch_size=2, prefetch=prefetch)))
        for field in batch.data.values():
            assert isinstance(field, jax.Array)
        assert batch["x"].dtype == np.int32
        assert batch["y"].dtype == np.float32
        assert isinstance(batch.valid_mask, np.ndarray)
        assert isinstance(batch.record_index, np.ndarray)
        assert batch.epoch.dtype == batch.record_index.dtype == np.uint32


@ARRAYS
def test_metadata_and_states_stay_with_their_records(array):
    """Through shuffling, stages and padding, each row keeps its record's metadata and state."""
    records = [
        Element({"x": array(np.int32(100 + i))}, {"age": array(np.int32(i))}, metadata=f"{i}.png")
        for i in range(5)
    ]
    source = MemorySource(MemorySourceConfig(shuffle=True, seed=0), data=records)
    for batch in Pipeline(source=source, stages=[operator()], batch_size=3):
        for row in np.flatnonzero(batch.valid_mask):
            number = int(batch.record_index[row])
            assert batch.metadata[row] == f"{number}.png"
            assert batch.states["age"][row] == number
            assert batch["half"][row] == (100 + number) / 2
        assert all(batch.metadata[row] is None for row in np.flatnonzero(~batch.valid_mask))


@pytest.mark.parametrize("remainder", ["pad", "drop"])
@ARRAYS
def test_one_trace_serves_all_epochs(remainder, array):
    """Stages are traced once: for full and last batches, and for every later epoch."""
    traces = []

    def counted(element, key=None):
        traces.append(1)
        return halved(element)

    pipeline = Pipeline(
        source=numbers(array=array),
        stages=[operator(counted)],
        batch_size=4,
        remainder=remainder,
    )
    for _ in range(3):
        for _ in pipeline:
            pass
    assert len(traces) == 1


def test_nan_in_padding_reaches_no_record():
    """A stage that divides by the field makes NaN of padding and leaves the records right."""

    def inverse(element, key=None):
        return element.update_data({"x": 0 / element.data["x"].astype(jnp.float32)})

    source = numbers(3, shuffle=False)
    last = list(Pipeline(source=source, stages=[operator(inverse)], batch_size=2))[-1]
    assert np.isnan(last["x"][1])
    assert last.compact()["x"].tolist() == [0.0]


def test_no_batch_is_changed_by_a_later_one():
    """Batches that are kept hold what they held when they came: no memory is shared."""
    source = numbers(2000)
    for stages in ((), (operator(),)):
        pipeline = Pipeline(source=source, stages=stages, batch_size=100)
        kept = [(batch, np.array(batch["x"])) for batch in pipeline]
        for batch, copied in kept:
            np.testing.assert_array_equal(batch["x"], copied)


def test_the_given_data_never_changes():
    """Running a pipeline leaves the arrays of the source as they were."""
    data = {"x": np.arange(8, dtype=np.float32)}
    source = MemorySource(MemorySourceConfig(), data=data)

    def zeroed(element, key=None):
        return element.update_data({"x": jnp.zeros_like(element.data["x"])})

    for _ in Pipeline(source=source, stages=[operator(zeroed)], batch_size=4):
        pass
    assert data["x"].tolist() == list(range(8))


@pytest.mark.parametrize("stages", [(), (operator(),), (operator(), operator())])
@ARRAYS
def test_batch_spec_is_what_comes(stages, array):
    """The spec found without reading has the structure, shapes and dtypes of every batch."""
    data = {"x": array(np.arange(5)), "nested": {"image": array(np.zeros((5, 2, 3), np.uint8))}}
    source = MemorySource(MemorySourceConfig(), data=data)
    pipeline = Pipeline(source=source, stages=stages, batch_size=2)
    spec = pipeline.batch_spec()
    assert ("half" in spec) == bool(stages)
    for batch in pipeline:
        check_batch(batch, spec)


def test_batch_spec_reads_no_data():
    """Only the source's spec is asked for."""

    class Unread(DataSourceModule):
        def __len__(self):
            return 3

        def element_spec(self):
            return {"x": jax.ShapeDtypeStruct((4,), np.uint8)}

    spec = Pipeline(source=Unread(SourceConfig()), stages=[operator()], batch_size=2).batch_spec()
    assert spec["half"] == jax.ShapeDtypeStruct((2, 4), np.float32)
    assert spec["valid_mask"] == jax.ShapeDtypeStruct((2,), np.bool_)


@pytest.mark.parametrize(
    "source", [[{"x": i} for i in range(5)], [Element({"x": i}, metadata=i) for i in range(5)]]
)
def test_anything_with_length_and_records_is_a_source(source):
    """A list of records is read in order, without being stacked as a whole."""
    batches = list(Pipeline(source=source, batch_size=2))
    assert [batch["x"].tolist() for batch in batches] == [[0, 1], [2, 3], [4, 0]]


def test_a_source_without_seed_is_ordered_by_the_pipelines_rngs():
    """The pipeline's rngs decide the order only where the source has no seed and no rngs."""

    def order(source, rngs):
        pipeline = Pipeline(source=source, batch_size=50, rngs=rngs)
        return next(iter(pipeline)).record_index.tolist()

    config, data = MemorySourceConfig(shuffle=True), {"x": np.arange(50)}
    bare = MemorySource(config, data=data)
    assert order(bare, nnx.Rngs(0)) == order(bare, nnx.Rngs(0)) != order(bare, nnx.Rngs(1))
    own = MemorySource(config, data=data, rngs=nnx.Rngs(0))
    assert order(own, nnx.Rngs(1)) == order(own, None) == order(bare, nnx.Rngs(0))
    seeded = numbers(50, seed=3)
    assert order(seeded, nnx.Rngs(0)) == order(seeded, nnx.Rngs(1))
    assert bare.shuffle_key is None


def test_repr_says_what_the_pipeline_does():
    """Source, stages, batches and the next epoch are named."""
    pipeline = Pipeline(source=numbers(), stages=[operator()], batch_size=4)
    iterator = iter(pipeline)
    next(iterator)
    assert repr(pipeline) == (
        "Pipeline(source=MemorySource, stages=[ElementOperator], batch_size=4, batches=3, epoch=1)"
    )
    assert repr(iterator) == "PipelineIterator(epoch=0, record=4 of 10)"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more, got 0"),
        ({"batch_size": -2}, ValueError, "batch_size must be 1 or more, got -2"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an integer, got float 2.0"),
        ({"batch_size": True}, TypeError, "batch_size must be an integer, got bool True"),
        ({"prefetch": -1}, ValueError, "prefetch must be 0 or more, got -1"),
        ({"prefetch": 1.5}, TypeError, "prefetch must be an integer, got float 1.5"),
        (
            {"remainder": "keep"},
            ValueError,
            r"remainder must be one of \('pad', 'drop', 'partial'\)",
        ),
        ({"remainder": "drop", "batch_size": 11}, ValueError, "leaves no batch of the 10 records"),
        ({"progress": 1}, TypeError, "progress must be True or False, got 1"),
        ({"name": 3}, TypeError, "name must be a string or None, got int 3"),
        ({"rngs": 0}, TypeError, r"rngs must be nnx.Rngs or None, got int; pass nnx.Rngs\(0\)"),
        ({"stages": operator()}, TypeError, "stages must be a list or tuple of operators"),
        ({"stages": [halved]}, TypeError, r"stages\[0\] must be an operator, got function"),
        ({"stages": [ElementOperator]}, TypeError, "got the class ElementOperator"),
        ({"stages": [operator(), None]}, TypeError, r"stages\[1\] must be an operator"),
        ({"source": {"x": np.zeros(3)}}, TypeError, "got dict; for arrays use MemorySource"),
        ({"source": np.zeros(3)}, TypeError, "got ndarray; for arrays use MemorySource"),
        ({"source": iter([1])}, TypeError, "got list_iterator"),
        ({"source": []}, ValueError, r"from 1 to .* records, but len\(\) of list is 0"),
        (
            {"source": MemorySource(MemorySourceConfig(shuffle=True), data={"x": np.zeros(3)})},
            ValueError,
            "shuffle=True, but nothing to derive the order from",
        ),
    ],
)
def test_bad_arguments_are_refused(options, error, message):
    """Each bad argument is refused when the pipeline is made, by name and with the remedy."""
    with pytest.raises(error, match=message):
        Pipeline(**({"source": numbers(), "batch_size": 4} | options))


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (np.zeros(3), TypeError, "must yield Batch objects, got ndarray"),
        (numbers().gather(np.arange(3)), ValueError, "at most 4 rows with record_index and epoch"),
        (
            next(numbers().batches(0, 0, 5)),
            ValueError,
            "at most 4 rows with record_index and epoch",
        ),
    ],
    ids=["no batch", "no index", "too many rows"],
)
def test_a_source_that_gives_something_else_is_refused(batch, error, message):
    """Batches of a source of one's own are checked before a stage sees them."""

    class Wrong(DataSourceModule):
        def __len__(self):
            return 3

        def batches(self, epoch, start, batch_size):
            yield batch

    with pytest.raises(error, match=message):
        next(iter(Pipeline(source=Wrong(SourceConfig()), batch_size=4)))
