"""Batchers take native arrays of numbers whatever they came as, and name what is none."""

import sys

import jax
import numpy as np
import pytest

from datarax.batching import (
    BucketBatcher,
    BucketBatcherConfig,
    DefaultBatcher,
    DefaultBatcherConfig,
    MultiRateBatcher,
    MultiRateBatcherConfig,
    PackingBatcher,
    PackingBatcherConfig,
    record_spec,
)
from datarax.core.element_batch import Element

SWAPPED = ">" if sys.byteorder == "little" else "<"

BATCHERS = {
    "default": lambda: DefaultBatcher(DefaultBatcherConfig()),
    "bucket": lambda: BucketBatcher(BucketBatcherConfig(boundaries=(2,), length_fields=("t",))),
    "pack": lambda: PackingBatcher(PackingBatcherConfig(row_length=2)),
    "windows": lambda: MultiRateBatcher(MultiRateBatcherConfig(steps=1, rates={"t": 1})),
}
EACH_BATCHER = pytest.mark.parametrize("make", BATCHERS.values(), ids=BATCHERS)


def first_batch(make, leaves):
    (batch,) = make()([{"t": leaf} for leaf in leaves], batch_size=len(leaves))
    return np.asarray(batch["t"]).reshape(len(leaves), 2)


@EACH_BATCHER
@pytest.mark.parametrize("code", ["f4", "i4", "u2", "f8", "i8"])
def test_records_of_another_byte_order_are_converted(make, code):
    """In whichever place they come, and after native records of the same shape."""
    native = np.arange(6).astype(code).reshape(3, 2)
    swapped = native.astype(SWAPPED + code)
    for records in (swapped, [native[0], *swapped[1:]], [swapped[0], *native[1:]]):
        came = first_batch(make, records)
        assert came.dtype.isnative
        np.testing.assert_array_equal(jax.jit(lambda x: x + x)(came), 2 * native)


REFUSED = {
    "masked": (np.ma.masked_array(np.float32([1, 9]), mask=[0, 1]), ValueError, "masked entries"),
    "longdouble": (np.ones(2, np.longdouble), TypeError, r"cast it with array.astype"),
    "void": (np.zeros(2, "V4"), TypeError, "view the bytes as numbers"),
    "structured": (np.zeros(2, "i4,f4"), TypeError, "make each of its parts a field"),
    "large": (np.array([1, 1e39]), ValueError, "finite values beyond float32"),
    "string": (np.array(["a", "b"]), TypeError, "belong in metadata"),
}


@EACH_BATCHER
@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize(("leaf", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_records_that_no_batch_can_hold_are_named(make, position, leaf, error, message):
    """The field, the record and the remedy."""
    leaves = [np.ones(2, np.float32)] * 2
    leaves[position] = leaf
    with pytest.raises(error, match=rf"'t'.* of .*record {position}.*{message}"):
        first_batch(make, leaves)


@pytest.mark.parametrize(
    "leaf", [np.ma.masked, np.ma.masked_array(1.0, mask=True)], ids=["constant", "scalar"]
)
def test_masked_numbers_are_refused_too(leaf):
    """A record whose only number is masked has none."""
    records = [{"t": np.float64(1)}, {"t": leaf}]
    with pytest.raises(ValueError, match=r"data\['t'\] of record 1 is a masked array"):
        next(BATCHERS["default"]()(records, batch_size=2))
    with pytest.raises(ValueError, match=r"data\['t'\] of record 0 is a masked array"):
        next(BATCHERS["default"]()(records[1:], batch_size=1))


def test_arrays_that_cannot_be_narrowed_are_named_in_a_later_batch_too():
    """When the stream's records are known and their dtypes are compared by columns."""
    for wrong in (np.zeros(2, "i4,f4"), np.zeros(2, "V4"), np.ones(2, np.longdouble)):
        stream = BATCHERS["default"]()([{"t": np.ones(2)}] * 2 + [{"t": wrong}] * 2, batch_size=2)
        next(stream)
        with pytest.raises(TypeError, match=r"data\['t'\] of record 2 must be an array of numbers"):
            next(stream)


@EACH_BATCHER
def test_dicts_are_records_too(make):
    """A dict is an element without state and metadata; both kinds go together."""
    first, second = (np.full(2, number, np.int32) for number in range(2))
    assert first_batch(make, [first, second]).tolist() == [[0, 0], [1, 1]]
    (batch,) = make()([Element({"t": first}), {"t": second}], batch_size=2)
    assert np.asarray(batch["t"]).reshape(2, 2).tolist() == [[0, 0], [1, 1]]
    assert record_spec({"t": first}) == record_spec(Element({"t": first}))
