"""Ragged records by length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarax.batching import BucketBatcher, BucketBatcherConfig, check_batch, record_spec
from datarax.core.element_batch import Element


def record(number, length):
    tokens = np.arange(length, dtype=np.int32) + 100 * number
    return Element({"tokens": tokens, "id": np.int32(number)}, metadata=number)


def batcher(**options):
    options = {"boundaries": (2, 5, 9), "length_fields": ("tokens",), **options}
    return BucketBatcher(BucketBatcherConfig(**options))


@given(
    lengths=st.lists(st.integers(0, 9), max_size=40),
    sizes=st.tuples(*[st.integers(1, 5)] * 3),
    remainder=st.sampled_from(["pad", "drop", "partial"]),
)
@settings(deadline=None, max_examples=60)
def test_every_record_comes_once_in_the_smallest_bucket(lengths, sizes, remainder):
    """Tokens under the mask are the record's own; shapes are those announced."""
    records = [record(i, n) for i, n in enumerate(lengths)]
    made = batcher(batch_sizes=sizes, remainder=remainder)
    specs = made.batch_specs(record_spec(record(0, 1)))
    seen = {boundary: [] for boundary in (2, 5, 9)}
    for batch in made(records):
        boundary = batch["tokens"].shape[1]
        if remainder != "partial":
            check_batch(batch, specs[(2, 5, 9).index(boundary)])
        assert not batch["tokens_mask"][~batch.valid_mask].any()
        for row in np.flatnonzero(batch.valid_mask):
            number = int(batch["id"][row])
            tokens = batch["tokens"][row][batch["tokens_mask"][row]]
            assert tokens.tolist() == records[number].data["tokens"].tolist()
            assert batch.metadata[row] == number
            seen[boundary].append(number)
    for low, boundary, size in zip((-1, 2, 5), (2, 5, 9), sizes, strict=True):
        expected = [i for i, n in enumerate(lengths) if low < n <= boundary]
        kept = len(expected) - len(expected) % size if remainder == "drop" else len(expected)
        assert seen[boundary] == expected[:kept]


def test_padding_holds_the_number_that_was_asked_for():
    """Steps and rows alike; masks and other fields are zero in padding."""
    (made,) = batcher(pad_values={"tokens": -1})([record(3, 1)], batch_size=2)
    assert made["tokens"].tolist() == [[300, -1], [-1, -1]]
    assert made["tokens_mask"].tolist() == [[True, False], [False, False]]
    assert made["id"].tolist() == [3, 0]


def test_the_longest_field_decides_and_each_has_its_mask():
    """Source and target of unequal length go to one bucket."""
    data = {"pair": {"source": np.ones(4, np.float32), "target": np.ones((1, 3), np.int64)}}
    config = {"length_fields": ("pair.source", "pair.target")}
    (made,) = batcher(**config)([Element(data)], batch_size=1)
    assert made["pair"]["source"].shape == (1, 5)
    assert made["pair"]["target"].shape == (1, 5, 3)
    assert made["pair"]["source_mask"].sum() == 4
    assert made["pair"]["target_mask"].tolist() == [[True, False, False, False, False]]
    check_batch(made, batcher(**config).batch_specs(record_spec(Element(data)), batch_size=1)[1])


def test_waste_is_reported():
    """Steps of padding over steps, per bucket and in all."""
    made = batcher()
    list(made([record(0, 1), record(1, 2), record(2, 5)], batch_size=2))
    assert made.padding_report() == {
        "waste": 1 - 8 / 14,
        "buckets": {
            2: {"batches": 1, "records": 2, "waste": 0.25},
            5: {"batches": 1, "records": 1, "waste": 0.5},
            9: {"batches": 0, "records": 0, "waste": 0.0},
        },
    }
    again = batcher()
    again.set_state(made.get_state())
    assert again.padding_report() == made.padding_report()


def test_a_record_that_is_too_long_comes_as_an_error_after_those_before_it():
    """What waited is delivered, then the error, then the rest of the stream."""
    records = [record(0, 1), record(1, 4), record(2, 10), record(3, 1)]
    made = batcher()
    stream = made(records, batch_size=2)
    assert [next(stream)["id"].tolist(), next(stream)["id"].tolist()] == [[0, 0], [1, 0]]
    message = (
        r"'tokens' of record 2 has length 10, more than the last of the boundaries \(2, 5, 9\)"
    )
    with pytest.raises(ValueError, match=message):
        next(stream)
    assert [batch["id"].tolist() for batch in stream] == [[3, 0]]
    assert made.get_operation_stats() == {"applied_count": 3, "skipped_count": 1}


def test_records_go_on_waiting_when_a_remainder_would_be_dropped():
    """With "drop", an error must not cost the records that wait."""
    records = [record(0, 1), record(1, 10), record(2, 1)]
    stream = batcher(remainder="drop")(records, batch_size=2)
    with pytest.raises(ValueError, match="record 1 has length 10"):
        next(stream)
    assert [batch["id"].tolist() for batch in stream] == [[0, 2]]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"id": 1}, KeyError, r"data of record 1 has no field 'tokens'; there are \['id'\]"),
        (
            {"tokens": 5, "id": 1},
            ValueError,
            "'tokens' of data of record 1 must have a length on axis 0",
        ),
        ({"tokens": "abc", "id": 1}, TypeError, "'tokens' of data of record 1 must be an array"),
        (
            {"tokens": np.ones(1), "id": 1},
            ValueError,
            r"data\['tokens'\] of record 1 must be int32",
        ),
        (
            {"tokens": np.ones(1, np.int32), "tokens_mask": 1},
            ValueError,
            "has a field 'tokens_mask', the name of the mask of 'tokens'; rename it",
        ),
    ],
    ids=["missing", "scalar", "string", "dtype", "mask"],
)
def test_wrong_records_are_named(data, error, message):
    """The field, the record and what came."""
    stream = batcher()([record(0, 1), Element(data)], batch_size=2)
    with pytest.raises(error, match=message):
        list(stream)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"boundaries": (4, 2)}, ValueError, r"boundaries must increase, got \(4, 2\)"),
        ({"boundaries": ()}, ValueError, "boundaries must increase"),
        ({"boundaries": (0, 2)}, ValueError, "boundaries must be a positive integer, got 0"),
        ({"length_fields": ()}, ValueError, "must name at least one field"),
        ({"length_fields": "tokens"}, TypeError, "must be a tuple of field names, got 'tokens'"),
        ({"batch_sizes": (1, 2)}, ValueError, "one entry for each of the 3 boundaries, got 2"),
        ({"pad_values": "last"}, ValueError, "pad_values must be numbers, got 'last'"),
        ({"remainder": "x"}, ValueError, "remainder must be one of"),
        ({"mask_suffix": ""}, ValueError, "mask_suffix must be a non-empty string"),
    ],
    ids=str,
)
def test_options_are_checked_at_construction(options, error, message):
    """Each wrong option names its field, what is expected and what came."""
    with pytest.raises(error, match=message):
        batcher(**options)


def test_sizes_come_from_the_config_or_the_call():
    """Two that could contradict each other are refused, and none as well."""
    with pytest.raises(ValueError, match="has no effect beside the config's batch_sizes"):
        batcher(batch_sizes=(1, 2, 3))([], batch_size=2)
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got None"):
        batcher()([])


def test_one_spec_is_not_enough_for_several_buckets():
    """`batch_spec` serves one bucket and points to `batch_specs` otherwise."""
    spec = record_spec(record(0, 1))
    one = batcher(boundaries=(4,))
    assert one.batch_spec(spec, batch_size=2) == one.batch_specs(spec, batch_size=2)[0]
    with pytest.raises(ValueError, match=r"3 shapes.*use batch_specs"):
        batcher().batch_spec(spec, batch_size=2)
