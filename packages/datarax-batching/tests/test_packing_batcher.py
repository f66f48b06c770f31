"""Short sequences packed into rows."""

from cProfile import Profile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarax.batching import PackingBatcher, PackingBatcherConfig, check_batch, record_spec
from datarax.core.element_batch import Element


def record(number, length):
    steps = np.arange(length, dtype=np.int32) + 100 * number
    return Element({"t": steps, "v": np.stack([steps, -steps], 1).astype(np.float32)})


def batcher(**options):
    return PackingBatcher(PackingBatcherConfig(**{"row_length": 7, **options}))


def first_fit(lengths, rows, room):
    """The oracle: batches of rows of record numbers."""
    batches, row_lists = [], [[] for _ in range(rows)]
    for number, length in enumerate(lengths):
        for row in row_lists:
            if sum(lengths[i] for i in row) + length <= room:
                row.append(number)
                break
        else:
            batches.append(row_lists)
            row_lists = [[number]] + [[] for _ in range(rows - 1)]
    if any(row_lists):
        batches.append(row_lists)
    return batches


@given(
    lengths=st.lists(st.integers(1, 7), max_size=40),
    rows=st.integers(1, 4),
    remainder=st.sampled_from(["pad", "drop", "partial"]),
)
@settings(deadline=None, max_examples=60)
def test_sequences_lie_where_first_fit_puts_them(lengths, rows, remainder):
    """Segments in order are the records in order; positions count each from 0."""
    records = [record(i, n) for i, n in enumerate(lengths)]
    made = batcher(remainder=remainder)
    spec = made.batch_spec(record_spec(record(0, 1)), batch_size=rows)
    expected = first_fit(lengths, rows, 7)
    if remainder == "drop" and expected and not all(expected[-1]):
        expected.pop()
    batches = list(made(records, batch_size=rows))
    assert len(batches) == len(expected)
    used = 0
    for batch, layout in zip(batches, expected, strict=True):
        if remainder != "partial":
            check_batch(batch, spec)
            assert batch.valid_mask.tolist() == [bool(row) for row in layout]
        for row, numbers in enumerate(row for row in layout if row):
            for segment, number in enumerate(numbers, start=1):
                where = batch["segment_ids"][row] == segment
                assert batch["t"][row][where].tolist() == records[number].data["t"].tolist()
                assert batch["v"][row][where].tolist() == records[number].data["v"].tolist()
                assert batch["positions"][row][where].tolist() == list(range(lengths[number]))
                used += lengths[number]
        padding = batch["segment_ids"] == 0
        assert not batch["t"][padding].any()
        assert not batch["positions"][padding].any()
    steps = sum(batch["t"].size for batch in batches)
    report = made.packing_report()
    assert report["efficiency"] == (used / steps if steps else 0)
    assert report["sequences"] == sum(len(row) for layout in expected for row in layout)


def test_padding_holds_the_number_that_was_asked_for():
    """Data gets it, segments and positions stay zero."""
    (made,) = batcher(row_length=3, pad_values={"t": -1})([record(1, 2)], batch_size=2)
    assert made["t"].tolist() == [[100, 101, -1], [-1, -1, -1]]
    assert made["v"][1].tolist() == [[0, 0]] * 3
    assert made["segment_ids"].tolist() == [[1, 1, 0], [0, 0, 0]]


def test_a_row_has_the_metadata_of_its_sequences():
    """One tuple a row, None for padding."""
    records = [record(i, 3).replace(metadata=f"r{i}") for i in range(3)]
    (made,) = batcher()(records, batch_size=3)
    assert made.metadata == (("r0", "r1"), ("r2",), None)


def test_a_sequence_longer_than_a_row_comes_as_an_error_after_those_before_it():
    """What waited is delivered, then the error, then the rest."""
    stream = batcher()([record(0, 3), record(1, 8), record(2, 2)], batch_size=2)
    assert next(stream)["segment_ids"].max(1).tolist() == [1, 0]
    with pytest.raises(ValueError, match="record 1 has length 8, more than row_length=7"):
        next(stream)
    assert next(stream)["t"][0, :2].tolist() == [200, 201]


@pytest.mark.parametrize(
    ("element", "error", "message"),
    [
        (Element({"t": np.ones(2, np.int32)}), ValueError, r"like that of record 0 in all but len"),
        (
            record(0, 1).update_data({"t": np.ones(2, np.int32)}),
            ValueError,
            "must be of one length",
        ),
        (record(0, 1).update_data({"t": np.ones(1)}), ValueError, r"expected .*t: int32\[0\]"),
        (record(0, 1).replace(state={"s": 1}), ValueError, "record 1 has a state"),
        (
            record(0, 1).update_data({"positions": 1}),
            ValueError,
            "must not have a field 'positions'",
        ),
        (Element({"t": 1}), ValueError, "must have a length on axis 0"),
        (("t", 1), TypeError, "record 1 must be an Element or a dict of fields, got tuple"),
    ],
    ids=["missing", "lengths", "dtype", "state", "reserved", "scalar", "no element"],
)
def test_wrong_records_are_named(element, error, message):
    """The field, the record, what was expected and what came."""
    with pytest.raises(error, match=message):
        list(batcher()([record(0, 1), element], batch_size=2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"row_length": 0}, ValueError, "row_length must be a positive integer, got 0"),
        ({"pad_values": "last"}, ValueError, "pad_values must be numbers"),
        ({"remainder": 3}, ValueError, "remainder must be one of"),
    ],
    ids=str,
)
def test_options_are_checked_at_construction(options, error, message):
    """Each wrong option names its field, what is expected and what came."""
    with pytest.raises(error, match=message):
        batcher(**options)


def test_sequences_without_a_step_are_left_out():
    """They get no number of a row, no row of their own, and are counted."""
    batcher = PackingBatcher(PackingBatcherConfig(row_length=4))
    records = [{"t": np.full(length, length)} for length in (0, 3, 0, 4, 0)]
    (batch,) = batcher(records, batch_size=3)
    assert batch["segment_ids"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert batch.valid_mask.tolist() == [True, True, False]
    assert batcher.get_operation_stats() == {"applied_count": 2, "skipped_count": 3}
    assert list(batcher([{"t": np.zeros(0)}], batch_size=1)) == []


def test_packing_takes_time_that_grows_with_the_sequences():
    """Twice as many in a row take twice as many calls, not four times."""

    def calls(count):
        batcher = PackingBatcher(PackingBatcherConfig(row_length=count))
        records, profile = [{"t": np.ones(1, np.int32)}] * count, Profile()
        profile.runcall(list, batcher(records, batch_size=1))
        return sum(entry.callcount for entry in profile.getstats())

    assert calls(400) < 2.5 * calls(200)
