"""Windows over fields of different rates."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarax.batching import MultiRateBatcher, MultiRateBatcherConfig, check_batch, record_spec
from datarax.core.element_batch import Element


def record(step):
    audio = np.stack([np.arange(4 * step, 4 * step + 4)] * 2, 1).astype(np.float64)
    return Element(
        {"video": np.full((2, 2), step, np.uint8), "sound": {"audio": audio}, "step": step},
        {"s": np.int32(step)},
        metadata=step,
    )


def batcher(**options):
    options = {"steps": 3, "rates": {"video": 1, "sound.audio": 4}, **options}
    return MultiRateBatcher(MultiRateBatcherConfig(**options))


def starts(count, steps, hop):
    """The oracle: (first step, number of steps) of every window, the last one perhaps short."""
    found, covered, start = [], 0, 0
    while start + steps <= count:
        found.append((start, steps))
        covered, start = start + steps, start + hop
    if start < count and covered < count:
        found.append((start, count - start))
    return found


@given(
    count=st.integers(0, 25),
    steps=st.integers(1, 5),
    hop=st.integers(1, 7),
    batch_size=st.integers(1, 4),
    remainder=st.sampled_from(["pad", "drop", "partial"]),
)
@settings(deadline=None, max_examples=80)
def test_windows_are_aligned_in_time_whatever_the_hop(count, steps, hop, batch_size, remainder):
    """Each rate covers the window's steps; masks end where the stream ends."""
    made = batcher(steps=steps, hop=hop, remainder=remainder)
    spec = made.batch_spec(record_spec(record(0)), batch_size=batch_size)
    expected = starts(count, steps, hop)
    if remainder == "drop":
        expected = [window for window in expected if window[1] == steps]
        expected = expected[: len(expected) - len(expected) % batch_size]
    batches = list(made(map(record, range(count)), batch_size=batch_size))
    rows = []
    for batch in batches:
        if remainder != "partial":
            check_batch(batch, spec)
        rows += [(batch, row) for row in np.flatnonzero(batch.valid_mask)]
        assert not batch["rate_1_mask"][~batch.valid_mask].any()
        assert not batch["rate_4_mask"][~batch.valid_mask].any()
    assert len(rows) == len(expected)
    for (batch, row), (start, length) in zip(rows, expected, strict=True):
        frames, samples = batch["rate_1_mask"][row], batch["rate_4_mask"][row]
        assert frames.tolist() == [True] * length + [False] * (steps - length)
        assert samples.tolist() == np.repeat(frames, 4).tolist()
        assert batch["step"][row][frames].tolist() == list(range(start, start + length))
        assert batch["video"][row][frames][:, 0, 1].tolist() == list(range(start, start + length))
        audio = batch["sound"]["audio"][row][samples][:, 1]
        assert audio.tolist() == list(range(4 * start, 4 * (start + length)))
        assert batch.states["s"][row][:length].tolist() == list(range(start, start + length))
        assert batch.metadata[row] == (*range(start, start + length), *[None] * (steps - length))


def test_the_spec_has_steps_times_rate():
    """`batch_spec` is overridden accordingly."""
    spec = batcher().batch_spec(record_spec(record(0)), batch_size=5)
    shapes = {name: leaf.shape for name, leaf in spec.items() if name != "sound"}
    assert shapes == {
        "video": (5, 3, 2, 2),
        "step": (5, 3),
        "rate_1_mask": (5, 3),
        "rate_4_mask": (5, 12),
        "valid_mask": (5,),
    }
    assert spec["sound"]["audio"] == jax.ShapeDtypeStruct((5, 12, 2), np.float32)


def test_padding_holds_the_number_that_was_asked_for():
    """Samples after the end and whole rows alike."""
    made = batcher(pad_values={"video": 9, "sound": -1})
    (batch,) = made([record(1)], batch_size=2)
    assert batch["video"][0, :, 0, 0].tolist() == [1, 9, 9]
    assert batch["sound"]["audio"][0, 3:6, 0].tolist() == [7, -1, -1]
    assert batch["video"][1].min() == 9
    assert batch["sound"]["audio"][1].max() == -1


def test_windows_are_counted():
    """Applied are windows in batches, skipped those that were dropped."""
    made = batcher(remainder="drop")
    assert len(list(made(map(record, range(11)), batch_size=2))) == 1
    assert made.get_operation_stats() == {"applied_count": 2, "skipped_count": 2}


@pytest.mark.parametrize("remainder", ["pad", "drop"])
def test_no_window_reaches_across_a_record_that_was_refused(remainder):
    """Time does not go on there: a new window begins behind it."""
    records = [record(step) for step in range(8)]
    records[4] = Element({"video": np.zeros(3)})
    stream = batcher(remainder=remainder)(records, batch_size=1)
    steps = []
    with pytest.raises(ValueError, match="data of record 4 differs in structure from record 0"):
        steps.extend(batch["step"][batch["rate_1_mask"]].tolist() for batch in stream)
    assert steps == ([[0, 1, 2], [3]] if remainder == "pad" else [[0, 1, 2]])
    assert next(stream)["step"].tolist() == [[5, 6, 7]]
    assert next(stream, None) is None


@pytest.mark.parametrize(
    ("element", "error", "message"),
    [
        (
            Element({"video": 1, "sound": {"audio": np.ones((3, 2))}}),
            ValueError,
            r"data\['sound'\]\['audio'\] of record 0 must have 4 samples on axis 0, its rate, got",
        ),
        (
            Element({"video": 1}),
            KeyError,
            r"data of record 0 has no field 'sound.audio'; there are",
        ),
        (
            record(0).update_data({"rate_4_mask": 1}),
            ValueError,
            "must not have a field 'rate_4_mask'",
        ),
        (
            record(0).update_data({"key": jax.random.key(0)}),
            TypeError,
            "must be numbers to be put in",
        ),
        (5, TypeError, "record 0 must be an Element or a dict of fields, got int"),
    ],
    ids=["samples", "missing", "reserved", "key", "no element"],
)
def test_a_wrong_first_record_is_named(element, error, message):
    """The field, the record, what was expected and what came."""
    with pytest.raises(error, match=message):
        next(batcher()([element], batch_size=1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be a positive integer, got 0"),
        ({"hop": -1}, ValueError, "hop must be a positive integer, got -1"),
        ({"rates": {"a": 0.5}}, ValueError, r"rates\['a'\] must be a positive integer, got 0.5"),
        ({"rates": {}}, ValueError, "rates must name at least one field"),
        ({"pad_values": "last"}, ValueError, "pad_values must be numbers"),
    ],
    ids=str,
)
def test_options_are_checked_at_construction(options, error, message):
    """Each wrong option names its field, what is expected and what came."""
    with pytest.raises(error, match=message):
        batcher(**options)
