"""Batches into records and into batches of another size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from datarax.batching import (
    DefaultBatcher,
    DefaultBatcherConfig,
    equal_steps,
    masked_mean,
    rebatch,
    shard_batch,
    unbatch,
)
from datarax.core.element_batch import Batch, Element


def batches(count, size, library=np):
    for start in range(0, count, size):
        rows = library.arange(start, start + size)
        yield Batch.from_arrays(
            {"x": rows.astype(np.int32)},
            states={"s": rows.astype(np.float32)},
            valid_mask=rows < count,
            record_index=rows,
            epoch=2,
            metadata=[f"m{i}" for i in range(start, start + size)],
        )


def valid(made):
    return [i for batch in made for i in batch["x"][batch.valid_mask].tolist()]


@given(
    count=st.integers(1, 30),
    size=st.integers(1, 7),
    new_size=st.integers(1, 12),
    remainder=st.sampled_from(["pad", "drop", "partial"]),
    compact=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_rows_keep_order_mask_index_and_metadata(count, size, new_size, remainder, compact):
    """Whatever the sizes, each row is what it was, and only a dropped remainder is missing."""
    made = list(rebatch(batches(count, size), new_size, remainder=remainder, compact=compact))
    rows = count if compact else -(-count // size) * size
    kept = rows - rows % new_size if remainder == "drop" else rows
    assert valid(made) == list(range(min(count, kept)))
    for number, batch in enumerate(made):
        last_partial = remainder == "partial" and number == len(made) - 1 and rows % new_size
        assert len(batch) == (rows % new_size if last_partial else new_size)
        assert batch.epoch == 2
        for row in np.flatnonzero(batch.valid_mask):
            record = batch["x"][row]
            assert batch.record_index[row] == record
            assert batch.states["s"][row] == record
            assert batch.metadata[row] == f"m{record}"


def test_rebatch_reads_no_more_than_it_needs():
    """A new batch is made as soon as its rows are there."""
    read = []

    def source():
        for number, batch in enumerate(batches(12, 4)):
            read.append(number)
            yield batch

    stream = rebatch(source(), 3)
    next(stream)
    assert read == [0]
    next(stream)
    assert read == [0, 1]


def test_device_batches_stay_on_the_device():
    """Rows are cut and joined where they are."""
    made = list(rebatch(batches(5, 3, jnp), 4))
    assert all(isinstance(batch["x"], jax.Array) for batch in made)
    assert valid(made) == list(range(5))


def test_batches_of_different_epochs_do_not_mix():
    """What belongs to a whole batch must be the same in all that are joined."""
    one, two = batches(4, 2)
    with pytest.raises(ValueError, match="epoch must be the same in all batches"):
        list(rebatch([one, two.replace(epoch=3)], 4))


@given(count=st.integers(0, 20), size=st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_unbatch_undoes_batching(count, size):
    """Records come back with their values, states and metadata."""
    records = [Element({"x": np.float32([i])}, {"s": np.int32(-i)}, f"m{i}") for i in range(count)]
    back = list(unbatch(DefaultBatcher(DefaultBatcherConfig())(records, batch_size=size)))
    assert [element.data["x"].tolist() for element in back] == [[i] for i in range(count)]
    assert [element.state["s"] for element in back] == [-i for i in range(count)]
    assert [element.metadata for element in back] == [f"m{i}" for i in range(count)]


def test_one_batch_is_a_stream_too():
    """A `Batch` can stand for a list of one."""
    (batch,) = batches(2, 2)
    assert len(list(unbatch(batch))) == 2
    assert valid(rebatch(batch, 1)) == [0, 1]


def test_hosts_with_fewer_batches_go_on_with_padding():
    """The blanks look like the others and hold no record."""
    given_batches = list(batches(4, 2))
    made = list(equal_steps(given_batches, 5))
    assert made[:2] == given_batches
    assert [int(batch.valid_mask.sum()) for batch in made] == [2, 2, 0, 0, 0]
    for batch in made:
        assert jax.tree.structure(batch) == jax.tree.structure(made[0])
        shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(b)] for b in (batch, made[0])]
        assert shapes[0] == shapes[1]
        assert len(batch.metadata) == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: list(rebatch([{"x": 1}], 2)),
            TypeError,
            r"batches\[0\] must be a Batch, got dict",
        ),
        (lambda: rebatch([], 0), ValueError, "batch_size must be a positive integer"),
        (lambda: rebatch([], 2, remainder="wrap"), ValueError, "remainder must be one of"),
        (lambda: list(equal_steps(batches(4, 2), 1)), ValueError, "at least the number of batches"),
        (lambda: list(equal_steps([], 1)), ValueError, "must hold at least one Batch"),
        (lambda: equal_steps([], 0), ValueError, "steps must be a positive integer"),
    ],
    ids=["no batch", "size", "remainder", "too many", "none", "steps"],
)
def test_bad_arguments_are_refused(make, error, message):
    """Each error names the argument."""
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(("size", "spread"), [(16, True), (5, False)])
def test_rows_of_explicit_axes_are_taken(size, spread):
    """They are spread again if their new number divides evenly."""
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Explicit,))
    arrays = [np.random.default_rng(seed).random((8, 2), np.float32) for seed in range(3)]
    rows = NamedSharding(mesh, PartitionSpec("data"))
    spread_out = [Batch.from_arrays({"x": jax.device_put(array, rows)}) for array in arrays]
    came = list(rebatch(spread_out, size, compact=True))
    plain = list(rebatch([Batch.from_arrays({"x": array}) for array in arrays], size, compact=True))
    for one, other in zip(came, plain, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])
        np.testing.assert_array_equal(one.valid_mask, other.valid_mask)
    assert (jax.typeof(came[0]["x"]).sharding.spec[0] == "data") == spread


def test_device_batches_are_cut_and_filled_under_a_guard():
    """`jax.transfer_guard("disallow")` is for transfers that nobody asks for."""
    given = list(batches(5, 3, jnp))
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    with jax.transfer_guard("disallow"):
        (whole,) = rebatch(given, 8)
        spread = shard_batch(whole, mesh)
        mean = masked_mean(spread["x"], spread.valid_mask)
    assert valid([whole]) == list(range(5))
    assert mean == 2
