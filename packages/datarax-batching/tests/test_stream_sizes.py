"""Streams that are saved at one batch size and go on at another: no record lost, none doubled."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarax.batching import (
    BucketBatcher,
    BucketBatcherConfig,
    DefaultBatcher,
    DefaultBatcherConfig,
    MultiRateBatcher,
    MultiRateBatcherConfig,
    PackingBatcher,
    PackingBatcherConfig,
    rebatch,
)
from datarax.core.element_batch import Batch, Element

COUNT = 60
LENGTHS = np.random.default_rng(1).integers(1, 9, COUNT).tolist()


def ragged(wrong=()):
    for number, length in enumerate(LENGTHS):
        dtype = np.float32 if number in wrong else np.int32
        yield Element({"t": np.full(length, number, dtype)})


def fixed(wrong=()):
    for number in range(COUNT):
        yield Element({"t": np.full(3 if number in wrong else 2, number, np.int32)})


def rows_as_records(batch):
    return batch["t"][batch.valid_mask][:, 0].tolist()


def segments_as_records(batch):
    found = []
    for steps, ids in zip(batch["t"], batch["segment_ids"], strict=True):
        for segment in range(1, ids.max() + 1):
            (number,) = set(steps[ids == segment].tolist())
            assert (ids == segment).sum() == LENGTHS[number]
            found.append(number)
    return found


def steps_as_records(batch):
    return batch["t"][batch["rate_1_mask"] & batch.valid_mask[:, None]][:, 0].tolist()


def bucket(**options):
    config = BucketBatcherConfig(boundaries=(2, 4, 8), length_fields=("t",), **options)
    return BucketBatcher(config)


KINDS = {
    "default": (lambda **o: DefaultBatcher(DefaultBatcherConfig(**o)), fixed, rows_as_records),
    "bucket": (bucket, ragged, rows_as_records),
    "pack": (
        lambda **o: PackingBatcher(PackingBatcherConfig(row_length=8, **o)),
        ragged,
        segments_as_records,
    ),
    "windows": (
        lambda **o: MultiRateBatcher(MultiRateBatcherConfig(steps=3, rates={"t": 1}, **o)),
        fixed,
        steps_as_records,
    ),
}
SESSIONS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=5)


def resumed(make, source, sessions, **options):
    """Batches of one stream, which goes on in another batch size after so many batches."""
    state = None
    for size, count in [*sessions, (3, None)]:
        pulled = int(state["pulled"]) if state else 0
        stream = make(**options)(itertools.islice(source(), pulled, None), batch_size=size)
        if state:
            stream.set_state(state)
        for batch in itertools.islice(stream, count):
            if options.get("remainder") != "partial":
                assert len(batch) == size
            yield batch
        state = stream.get_state()


@pytest.mark.parametrize(("make", "source", "records_of"), KINDS.values(), ids=KINDS)
@given(sessions=SESSIONS, remainder=st.sampled_from(["pad", "partial"]))
@settings(deadline=None, max_examples=25)
def test_a_stream_goes_on_at_any_batch_size(make, source, records_of, sessions, remainder):
    """Every record comes once, in batches of the size that is asked for then."""
    batches = resumed(make, source, sessions, remainder=remainder)
    found = [number for batch in batches for number in records_of(batch)]
    assert sorted(found) == list(range(COUNT))
    if source is fixed:
        assert found == sorted(found)


@pytest.mark.parametrize("name", ["default", "bucket"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_full_groups_come_without_padding_after_a_resume(name, size):
    """What waited for a large batch makes several small ones; only the end is padded."""
    make, source, records_of = KINDS[name]
    # A stream whose source fails keeps what it has.
    failing = itertools.chain(itertools.islice(source(), 40), map(int, "x"))
    saved = make()(failing, batch_size=100)
    with pytest.raises(ValueError, match="invalid literal"):
        next(saved)
    stream = make()(itertools.islice(source(), 40, None), batch_size=size)
    stream.set_state(saved.get_state())
    batches = list(stream)
    partly = [index for index, batch in enumerate(batches) if not batch.valid_mask.all()]
    assert all(index >= len(batches) - 3 for index in partly)
    assert sorted(n for batch in batches for n in records_of(batch)) == list(range(COUNT))


@pytest.mark.parametrize("name", ["default", "bucket"])
def test_counts_are_those_of_the_batches_after_a_resume(name):
    """Applied records are those delivered, whatever the sizes."""
    make, source, _ = KINDS[name]
    stream = make()(source(), batch_size=9)
    next(stream)
    state = stream.get_state()
    batcher = make()
    rest = batcher(itertools.islice(source(), int(state["pulled"]), None), batch_size=2)
    rest.set_state(state)
    assert sum(int(batch.valid_mask.sum()) for batch in rest) == COUNT - 9
    assert batcher.get_operation_stats() == {"applied_count": COUNT - 9, "skipped_count": 0}


def test_a_wrong_record_among_those_that_wait_is_the_only_one_lost():
    """Refused records do not make a later batch of a resumed stream too small or too large."""
    failing = itertools.chain(itertools.islice(fixed(wrong={5}), 10), map(int, "x"))
    saved = DefaultBatcher(DefaultBatcherConfig())(failing, batch_size=20)
    with pytest.raises(ValueError, match="invalid literal"):
        next(saved)
    stream = DefaultBatcher(DefaultBatcherConfig())(itertools.islice(fixed(), 10, 14), batch_size=3)
    stream.set_state(saved.get_state())
    found = rows_as_records(next(stream))
    with pytest.raises(ValueError, match=r"data\['t'\] of record 5 must be int32\[2\]"):
        next(stream)
    found += [number for batch in stream for number in rows_as_records(batch)]
    assert found == [number for number in range(14) if number != 5]


def bucket_of(boundaries):
    return BucketBatcher(BucketBatcherConfig(boundaries=boundaries, length_fields=("t",)))


OTHERS = {
    "boundaries": ("bucket", lambda: bucket_of((2, 8))),
    "pad values": ("bucket", lambda: bucket(pad_values=1)),
    "row length": ("pack", lambda: PackingBatcher(PackingBatcherConfig(row_length=9))),
    "steps": (
        "windows",
        lambda: MultiRateBatcher(MultiRateBatcherConfig(steps=2, rates={"t": 1})),
    ),
}


@pytest.mark.parametrize(("name", "other"), OTHERS.values(), ids=OTHERS)
def test_another_config_than_that_of_the_waiting_records_is_refused(name, other):
    """Records that wait were prepared under the old one."""
    make, source, _ = KINDS[name]
    stream = make()(source(), batch_size=4)
    next(stream)
    state = stream.get_state()
    with pytest.raises(ValueError, match=r"state is of another batcher: it .* use the config"):
        other()(source(), batch_size=4).set_state(state)


def test_an_error_that_is_due_comes_after_a_resume_too():
    """A record that was refused is named even if the stream is saved before that."""
    long = Element({"t": np.zeros(99, np.int32)})
    stream = bucket()([*itertools.islice(ragged(), 3), long], batch_size=8)
    next(stream)
    again = bucket()([], batch_size=8)
    again.set_state(stream.get_state())
    for left in (stream, again):
        with pytest.raises(ValueError, match="'t' of record 3 has length 99"):
            list(left)


@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    size=st.integers(1, 9),
    compact=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_rebatching_keeps_every_row_in_order(sizes, size, compact):
    """Whatever the sizes before and after."""
    ends = np.cumsum(sizes)
    batches = [
        Batch.from_arrays({"x": np.arange(end - rows, end)}, valid_mask=np.arange(rows) % 3 != 1)
        for rows, end in zip(sizes, ends, strict=True)
    ]
    made = list(rebatch(batches, size, compact=compact))
    assert {len(batch) for batch in made} <= {size}
    found = [x for batch in made for x in batch["x"][batch.valid_mask].tolist()]
    valid = [x for batch in batches for x in batch["x"][batch.valid_mask].tolist()]
    assert found == valid
