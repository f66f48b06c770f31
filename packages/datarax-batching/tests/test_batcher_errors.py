"""Streams and options that `DefaultBatcher` refuses, and what it delivers all the same."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.batching import DefaultBatcher, DefaultBatcherConfig
from datarax.core.element_batch import Element

GOOD = {"x": np.zeros((2, 3), np.float32), "n": {"label": np.int32(1)}}


def batcher(**options):
    return DefaultBatcher(DefaultBatcherConfig(**options))


BAD = {
    "shape": (
        {**GOOD, "x": np.zeros((2, 4), np.float32)},
        r"data\['x'\] of record 5 must be float32\[2,3\] like record 0, got float32\[2,4\]",
    ),
    "equal size": (
        {**GOOD, "x": np.zeros((3, 2), np.float32)},
        r"data\['x'\] of record 5 must be float32\[2,3\] like record 0, got float32\[3,2\]",
    ),
    "rank": (
        {**GOOD, "x": np.zeros((2, 3, 1), np.float32)},
        r"data\['x'\] of record 5 must be float32\[2,3\] like record 0, got float32\[2,3,1\]",
    ),
    "rank 0": (
        {**GOOD, "x": np.zeros((), np.float32)},
        r"data\['x'\] of record 5 must be float32\[2,3\] like record 0, got float32\[\]",
    ),
    "byte order": (
        {**GOOD, "x": np.zeros((2, 3), ">i4")},
        r"data\['x'\] of record 5 must be float32\[2,3\] like record 0, got int32\[2,3\]",
    ),
    "dtype": (
        {**GOOD, "x": np.zeros((2, 3), np.int32)},
        r"data\['x'\] of record 5 must be float32\[2,3\] like record 0, got int32\[2,3\]",
    ),
    "number dtype": (
        {**GOOD, "n": {"label": 1.0}},
        r"data\['n'\]\['label'\] of record 5 must be int32\[\] like record 0, got float32\[\]",
    ),
    "missing": (
        {"x": GOOD["x"], "n": {}},
        r"data of record 5 differs in structure from record 0: \['n'\]\['label'\] missing",
    ),
    "extra": (
        {**GOOD, "y": 1},
        r"data of record 5 differs in structure from record 0: \['y'\] not expected",
    ),
    "other keys": (
        {"x": GOOD["x"], "m": {"label": np.int32(1)}},
        r"\['n'\]\['label'\] missing and \['m'\]\['label'\] not expected",
    ),
    "ordered dict for dict": (
        {**GOOD, "n": OrderedDict(label=np.int32(1))},
        r"data of record 5 differs in structure from record 0: expected PyTreeDef.*OrderedDict",
    ),
    "list for array": (
        {**GOOD, "x": [1.0, 2.0]},
        r"\['x'\] missing and \['x'\]\[0\], \['x'\]\[1\]",
    ),
    "string": (
        {**GOOD, "n": {"label": "cat"}},
        r"data\['n'\]\['label'\] of record 5 must be an array of numbers, got str",
    ),
    "int64 too large": (
        {**GOOD, "n": {"label": np.int64(2**31)}},
        r"data\['n'\]\['label'\] of record 5 has int64 values from 2147483648",
    ),
    "python int too large": (
        {**GOOD, "n": {"label": 2**40}},
        r"data\['n'\]\['label'\] of record 5 has int64 values from 1099511627776",
    ),
    "float64 too large": (
        {**GOOD, "x": np.full((2, 3), 1e300)},
        r"data\['x'\] of record 5 has finite values beyond float32",
    ),
    "key": ({**GOOD, "x": jax.random.key(0)}, r"data\['x'\] of record 5 must be float32\[2,3\]"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_a_wrong_record_is_named_after_what_came_before_it(data, message):
    """Complete batches come first; then the error names leaf, record and both specs."""
    stream = batcher()([Element(GOOD)] * 5 + [Element(data)], batch_size=2)
    assert [len(next(stream)), len(next(stream))] == [2, 2]
    with pytest.raises((TypeError, ValueError), match=message):
        next(stream)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.int64([1, 2]), np.int64([1, 2**31])),
        (np.float64([1, 2]), np.float64([1, 1e300])),
        (np.uint64([1, 2]), np.uint64([1, 2**32])),
    ],
    ids=["int64", "float64", "uint64"],
)
def test_wide_leaves_that_do_not_fit_are_named(first, second):
    """Records of 64-bit arrays are narrowed only if their values allow it."""
    stream = batcher()([Element({"x": first}), Element({"x": second})], batch_size=2)
    with pytest.raises(ValueError, match=r"data\['x'\] of record 1 has .* values"):
        next(stream)


def test_lengths_that_add_up_are_told_apart():
    """Two wrong records do not make up for each other."""
    lengths = (2, 1, 3)
    records = [Element({"x": np.zeros((length, 3), np.float32)}) for length in lengths]
    message = r"data\['x'\] of record 1 must be float32\[2,3\] like record 0, got float32\[1,3\]"
    with pytest.raises(ValueError, match=message):
        next(batcher()(records, batch_size=3))


@pytest.mark.parametrize("state", [{"s": 1}, OrderedDict(), [], None], ids=repr)
def test_a_state_where_others_have_none_is_an_error(state):
    """No state is a structure like any other."""
    records = [Element(GOOD), Element(GOOD, state)]
    with pytest.raises(ValueError, match="state of record 1 differs in structure from record 0"):
        next(batcher()(records, batch_size=2))


def test_states_are_checked_like_data():
    """The message says that it is the state."""
    records = [Element(GOOD, {"s": np.int32(1)}), Element(GOOD, {"s": np.float32(1)})]
    with pytest.raises(ValueError, match=r"state\['s'\] of record 1 must be int32\[\]"):
        next(batcher()(records, batch_size=2))


def test_keys_of_two_kinds_do_not_go_together():
    """Key implementations are part of the spec."""
    records = [Element({"k": jax.random.key(0, impl=impl)}) for impl in ("threefry2x32", "rbg")]
    message = r"data\['k'\] of record 1 must be key<fry>\[\] like record 0, got key<rbg>\[\]"
    with pytest.raises(ValueError, match=message):
        next(batcher()(records, batch_size=2))


def test_nothing_but_the_wrong_record_is_lost():
    """Asked again, the iterator goes on with the records around the wrong one."""
    records = [Element({"x": np.int32(i)}) for i in range(6)]
    records[2] = Element({"x": np.float32(2)})
    made = batcher()
    stream = made(records, batch_size=3)
    with pytest.raises(ValueError, match="record 2"):
        next(stream)
    assert [batch["x"].tolist() for batch in stream] == [[0, 1, 3], [4, 5, 0]]
    assert made.get_operation_stats() == {"applied_count": 5, "skipped_count": 1}


def test_later_errors_still_give_the_number_in_the_stream():
    """Numbers count pulled records, those that were wrong included."""
    records = [Element({"x": value}) for value in (1, 2.0, 3, 4, "five", 6)]
    stream = batcher()(records, batch_size=3)
    with pytest.raises(ValueError, match="record 1 "):
        next(stream)
    assert next(stream)["x"].tolist() == [1, 3, 4]
    with pytest.raises(TypeError, match="record 4 "):
        next(stream)
    assert next(stream)["x"].tolist() == [6, 0, 0]


def test_a_source_that_raises_loses_no_record():
    """Its error comes through after complete batches; what was pulled stays for the next call."""

    class Flaky:
        def __init__(self):
            self.count = -1

        def __iter__(self):
            return self

        def __next__(self):
            self.count += 1
            if self.count == 5:
                raise OSError("disk")
            if self.count == 8:
                raise StopIteration
            return Element({"x": np.int32(self.count)})

    stream = batcher()(Flaky(), batch_size=2)
    assert [next(stream)["x"].tolist(), next(stream)["x"].tolist()] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="disk"):
        next(stream)
    assert [batch["x"].tolist() for batch in stream] == [[4, 6], [7, 0]]


@pytest.mark.parametrize(
    ("records", "error", "message"),
    [
        ([Element({})], ValueError, "data of record 0 must have at least one leaf"),
        ([Element({"valid_mask": 1})], ValueError, "must not have a field 'valid_mask'"),
        ([("x", 1)], TypeError, "record 0 must be an Element or a dict of fields, got tuple; wrap"),
        ([Element({"x": object()})], TypeError, r"data\['x'\] of record 0 .* belong in metadata"),
        ([Element({"x": 2**31})], ValueError, r"data\['x'\] of record 0 has int64 values"),
        (
            [Element({"x": 2**70})],
            TypeError,
            r"data\['x'\] of record 0 must be an array of numbers",
        ),
    ],
    ids=["empty", "reserved", "no element", "object", "large", "very large"],
)
def test_a_wrong_first_record_is_named(records, error, message):
    """The first record is checked for what no batch could hold."""
    with pytest.raises(error, match=message):
        next(batcher()(records, batch_size=1))


@pytest.mark.parametrize("size", [0, -3, 1.5, "8", None, True, jnp.float32(1)], ids=repr)
def test_batch_size_is_checked_before_anything_is_pulled(size):
    """A bad size is an error of the call, not of the first batch."""
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        batcher()(iter([]), batch_size=size)


@pytest.mark.parametrize("elements", [5, None, Element({"x": 1}), {"x": [1]}, "abc"], ids=repr)
def test_elements_must_be_a_stream_of_records(elements):
    """One record, or what is no stream at all, is an error of the call."""
    with pytest.raises(TypeError, match="elements must be a list or iterator of Element records"):
        batcher()(elements, batch_size=1)


def test_drop_remainder_must_be_bool():
    """A policy's name in place of a flag is not taken for True."""
    with pytest.raises(TypeError, match="drop_remainder must be True or False, got 'pad'"):
        batcher()([], batch_size=1, drop_remainder="pad")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"remainder": "wrap"},
            ValueError,
            r"remainder must be one of \('pad', 'drop', 'partial'\)",
        ),
        ({"pad_values": "first"}, ValueError, "pad_values must be a number or 'last'"),
        ({"pad_values": {0}}, TypeError, "pad_values must be a number or 'last'.*got set"),
        ({"pad_values": {"x": None}}, TypeError, r"pad_values\['x'\] must be a number"),
        ({"pad_values": {1: 0}}, TypeError, "pad_values must map field names"),
        ({"pad_values": 1, "remainder": "drop"}, ValueError, "has no effect with remainder='drop'"),
        ({"collate_fn": 3}, TypeError, "collate_fn must be callable, got int"),
        ({"reuse_buffers": 1}, TypeError, "reuse_buffers must be True or False"),
    ],
    ids=str,
)
def test_options_are_checked_at_construction(options, error, message):
    """Each wrong option names its field, what is expected and what came."""
    with pytest.raises(error, match=message):
        DefaultBatcherConfig(**options)


@pytest.mark.parametrize(
    ("pad_values", "error", "message"),
    [
        ({"y": 1}, KeyError, r"pad_values names the field 'y', but there are \['k', 'x'\]"),
        ({"x": -1}, ValueError, r"pad_values of data\['x'\] must fit its dtype uint8, got -1"),
        ({"x": 0.5}, ValueError, r"must fit its dtype uint8, got 0.5"),
        ({"x": np.nan}, ValueError, r"must fit its dtype uint8, got nan"),
        ({"k": 1}, ValueError, r"pad_values of data\['k'\], random keys, must be 0"),
    ],
    ids=str,
)
def test_pad_values_that_do_not_fit_are_refused_with_the_first_batch(pad_values, error, message):
    """Not only when a last batch needs padding."""
    records = [Element({"x": np.uint8(1), "k": jax.random.key(0)})] * 2
    with pytest.raises(error, match=message):
        next(batcher(pad_values=pad_values)(records, batch_size=2))


@pytest.mark.parametrize(
    ("collate", "error", "message"),
    [
        (
            lambda e: {"x": np.zeros((len(e) + 1, 2))},
            ValueError,
            "must have a row for each of the 2",
        ),
        (lambda e: {"x": np.zeros((2, int(e[0].data["x"])))}, ValueError, "pad to a fixed length"),
        (lambda e: {"x": ["a"] * len(e)}, TypeError, "must be an array of numbers"),
    ],
    ids=["rows", "shape", "strings"],
)
def test_results_of_collate_fn_are_checked(collate, error, message):
    """Rows, and a shape that is the same for every batch."""
    records = [Element({"x": i}) for i in range(1, 5)]
    with pytest.raises(error, match=message):
        list(batcher(collate_fn=collate)(records, batch_size=2))
