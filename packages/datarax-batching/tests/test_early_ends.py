"""A stream ends where its records end, not where a function of the user raises StopIteration."""

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
    equal_steps,
    rebatch,
    unbatch,
)
from datarax.core.element_batch import Batch, Element


def record(number):
    return Element({"t": np.full(2, number, np.int32)})


def decode(number):
    if number == 5:
        raise StopIteration
    return record(number)


def accept(element):
    if element.data["t"][0] == 5:
        raise StopIteration
    return True


BATCHERS = {
    "default": lambda: DefaultBatcher(DefaultBatcherConfig()),
    "bucket": lambda: BucketBatcher(BucketBatcherConfig(boundaries=(2,), length_fields=("t",))),
    "pack": lambda: PackingBatcher(PackingBatcherConfig(row_length=2)),
    "windows": lambda: MultiRateBatcher(MultiRateBatcherConfig(steps=1, rates={"t": 1})),
}
STREAMS = {
    "map": lambda: map(decode, range(8)),
    "map of a map": lambda: map(Element.replace, map(decode, range(8))),
    "map of two": lambda: map(lambda n, _: decode(n), range(8), range(8)),
    "filter": lambda: filter(accept, map(record, range(8))),
    "generator": lambda: (decode(number) for number in range(8)),
}


@pytest.mark.parametrize("make", BATCHERS.values(), ids=BATCHERS)
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_function_that_raises_stop_iteration_is_an_error_about_its_record(make, stream):
    """Complete batches come first; then the record is named, and what was pulled is not lost."""
    batches = make()(stream(), batch_size=2)
    found = [next(batches)["t"].ravel()[::2].tolist() for _ in range(2)]
    with pytest.raises(RuntimeError, match="what gives record 5 raised StopIteration") as caught:
        next(batches)
    assert isinstance(caught.value.__cause__, StopIteration)
    assert found == [[0, 1], [2, 3]]
    assert next(batches)["t"].ravel()[0] == 4


def test_a_mapped_stream_goes_on_behind_the_record():
    """As after any other error of a source."""
    batches = DefaultBatcher(DefaultBatcherConfig())(map(decode, range(8)), batch_size=4)
    next(batches)
    with pytest.raises(RuntimeError, match="record 5"):
        next(batches)
    assert [batch["t"][:, 0].tolist() for batch in batches] == [[4, 6, 7, 0]]


@pytest.mark.parametrize(
    "stream",
    [
        lambda: map(record, range(5)),
        lambda: filter(None, map(record, range(5))),
        lambda: filter(accept, map(record, range(5))),
        lambda: map(lambda n, _: record(n), range(5), range(9)),
    ],
    ids=["map", "filter", "filter by function", "map of two"],
)
def test_streams_that_end_well_are_what_they_were(stream):
    """Every record of a map or filter, in order."""
    batches = DefaultBatcher(DefaultBatcherConfig(remainder="partial"))(stream(), batch_size=2)
    assert [n for batch in batches for n in batch["t"][:, 0].tolist()] == list(range(5))


class Short:
    """Says that it has ten records and gives four."""

    def __init__(self, make):
        self._make = make

    def __len__(self):
        return 10

    def __iter__(self):
        return map(self._make, range(4))


@pytest.mark.parametrize("make", BATCHERS.values(), ids=BATCHERS)
def test_fewer_records_than_the_length_says_are_an_error(make):
    """The records that came are delivered all the same."""
    batches = make()(Short(record), batch_size=3)
    assert next(batches)["t"].ravel()[0] == 0
    with pytest.raises(
        RuntimeError, match=r"ended before record 4, but by its len\(\) there are 6"
    ):
        next(batches)
    assert [batch["t"].ravel()[0] for batch in batches] == [3]


@pytest.mark.parametrize("remainder", ["pad", "drop", "partial"])
def test_a_collate_function_cannot_end_the_stream(remainder):
    """The function and the records are named."""

    def join(elements):
        if elements[0].data["t"][0] == 4:
            return next(iter([]))
        return {"t": np.stack([element.data["t"] for element in elements])}

    config = DefaultBatcherConfig(collate_fn=join, remainder=remainder)
    batches = DefaultBatcher(config)(map(record, range(8)), batch_size=2)
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(RuntimeError, match="collate_fn 'join' for records 4 to 5 raised Stop"):
        next(batches)


def test_nothing_that_a_record_does_can_end_the_stream():
    """Not even reading its values."""

    class Lazy:
        def __array__(self, dtype=None, copy=None):
            raise StopIteration

    stream = DefaultBatcher(DefaultBatcherConfig())([Element({"t": Lazy()})], batch_size=1)
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        next(stream)


def batch_of(number):
    if number == 2:
        raise StopIteration
    return Batch.from_arrays({"x": np.full(2, number)})


@pytest.mark.parametrize(
    "use",
    [lambda b: rebatch(b, 3), unbatch, lambda b: equal_steps(b, 9)],
    ids=["rebatch", "unbatch", "equal_steps"],
)
def test_streams_of_batches_do_not_end_early_either(use):
    """A function that raises StopIteration, and fewer batches than the length says."""
    with pytest.raises(RuntimeError, match=r"what gives batches\[2\] raised StopIteration"):
        list(use(map(batch_of, range(5))))
    with pytest.raises(RuntimeError, match=r"batches ended before batches\[4\].* its len.. is 10"):
        list(use(Short(lambda number: batch_of(number % 2))))
