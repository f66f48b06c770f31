"""An epoch ends after its last record, and nowhere else without an error."""

import logging

import numpy as np
import pytest

from datarax.core.element_batch import Batch, Element
from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.pipeline import Pipeline
from datarax.pipeline._prefetch import Prefetcher
from datarax.sources import DataSourceModule, MemorySource, MemorySourceConfig, SourceConfig

COUNT = 10
PREFETCH = pytest.mark.parametrize("prefetch", [0, 2], ids=["no prefetch", "prefetch"])


def record(index):
    return {"x": np.int32(index)}


class Stopping:
    """Record 5 raises StopIteration."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return record(index) if index != 5 else next(iter(()))


class StoppingSource(Stopping, DataSourceModule):
    def __init__(self):
        DataSourceModule.__init__(self, SourceConfig(shuffle=True, seed=0))


def valid(batch):
    return np.asarray(batch["x"])[batch.valid_mask].tolist()


def delivered_before(pipeline, error, message):
    """Records of the batches before an error, which the next call meets again."""
    iterator, found = iter(pipeline), []
    with pytest.raises(error, match=message) as caught:
        found.extend(number for batch in iterator for number in valid(batch))
    with pytest.raises(error, match=message):
        next(iterator)
    return found, caught.value


@PREFETCH
@pytest.mark.parametrize("source", [Stopping, StoppingSource])
def test_a_record_that_raises_stop_iteration_is_named(source, prefetch):
    """With its source, after the batches before it; shuffled or not."""
    pipeline = Pipeline(source=source(), batch_size=2, prefetch=prefetch)
    message = rf"record 5 of {source.__name__} raised StopIteration"
    found, error = delivered_before(pipeline, RuntimeError, message)
    assert len(found) < COUNT
    assert 5 not in found
    assert isinstance(error.__cause__, StopIteration)


class Batches(DataSourceModule):
    """Makes its batches itself."""

    def __init__(self, make):
        super().__init__(SourceConfig())
        self.make = make

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return record(index)

    def batches(self, epoch, start, batch_size):
        return self.make(start, batch_size)


def batch_of(indices):
    indices = np.asarray(indices, np.uint32)
    return Batch.from_arrays({"x": indices.astype(np.int32)}, record_index=indices, epoch=0)


def generator(start, size):
    for first in range(start, COUNT, size):
        if first == 4:
            raise StopIteration
        yield batch_of(np.arange(first, first + size))


def mapped(start, size):
    def one(first):
        return batch_of(np.arange(first, first + size)) if first != 4 else next(iter(()))

    return map(one, range(start, COUNT, size))


def too_few(start, size):
    return iter([batch_of(range(first, first + 2)) for first in range(start, 4, 2)])


def small_in_the_middle(start, size):
    return iter([batch_of([0, 1]), batch_of([2, 3]), batch_of([4]), batch_of([5, 6])])


SOURCES = {
    "generator": (generator, "batches of Batches, for batch 2 of epoch 0, raised StopIteration"),
    "map": (mapped, "batches of Batches gave .* after 4 of the 10 records of epoch 0"),
    "too few": (too_few, "after 4 of the 10 records of epoch 0"),
}


@PREFETCH
@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize(("make", "message"), SOURCES.values(), ids=SOURCES)
def test_batches_that_end_before_the_epoch_are_an_error(make, message, remainder, prefetch):
    """Whatever ended them: the records that came are delivered, the others not forgotten."""
    source = Batches(make)
    pipeline = Pipeline(source=source, batch_size=2, remainder=remainder, prefetch=prefetch)
    iterator, found = iter(pipeline), []
    with pytest.raises(RuntimeError, match=message):
        found.extend(number for batch in iterator for number in valid(batch))
    assert found == [0, 1, 2, 3]


def test_a_small_batch_in_the_middle_does_not_end_an_epoch():
    """With the remainder dropped, it would have been taken for the last one."""
    source = Batches(small_in_the_middle)
    with pytest.raises(RuntimeError, match="a smaller batch, or none, after 5 of the 10 records"):
        list(Pipeline(source=source, batch_size=2, remainder="drop", prefetch=0))


@PREFETCH
def test_a_stage_that_raises_stop_iteration_is_named(prefetch):
    """With its place and the batch's records."""

    def first(element, key=None):
        return element

    def stop(element, key=None):
        raise StopIteration

    stages = [ElementOperator(ElementOperatorConfig(), fn=fn) for fn in (first, stop)]
    source = [record(index) for index in range(3)]
    pipeline = Pipeline(source=source, stages=stages, batch_size=2, prefetch=prefetch)
    message = r"stages\[1\] ElementOperator, for the records 0, 1 of epoch 0, raised StopIteration"
    found, error = delivered_before(pipeline, RuntimeError, message)
    assert found == []
    assert isinstance(error.__cause__, StopIteration)


def test_an_item_that_cannot_be_prepared_does_not_end_the_others():
    """StopIteration from what a thread does with an item is an error."""

    def prepare(item):
        return item if item < 2 else next(iter(()))

    items = Prefetcher((number for number in range(4)), prepare, 2)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        next(items)


@pytest.mark.parametrize(
    ("remainder", "message"),
    [("drop", "leaves out the last 1 records"), ("pad", "ends with 2 rows of padding")],
)
def test_what_became_of_the_remainder_is_logged_once_an_epoch(remainder, message, caplog):
    """At INFO, by the batchers' logger."""
    data = {"x": np.arange(7)}
    source = MemorySource(MemorySourceConfig(), data=data)
    pipeline = Pipeline(source=source, batch_size=3, remainder=remainder)
    with caplog.at_level(logging.INFO, logger="datarax.core.batcher"):
        for _ in range(2):
            list(pipeline)
    assert [message in entry.getMessage() for entry in caplog.records] == [True, True]


@pytest.mark.parametrize("make", [dict, lambda data: Element(dict(data))], ids=["dict", "Element"])
def test_records_of_another_byte_order_and_with_masks(make):
    """Converted, or refused with the number of the records."""
    swapped = [make({"x": np.arange(3, dtype=">i4") + index}) for index in range(4)]
    (batch,) = Pipeline(source=swapped, batch_size=4)
    assert np.asarray(batch["x"]).tolist() == [[i, i + 1, i + 2] for i in range(4)]
    masked = [make({"x": np.ma.masked_array([1.0, 2.0], mask=[0, i == 2])}) for i in range(4)]
    with pytest.raises(ValueError, match=r"data\['x'\] is a masked array") as caught:
        list(Pipeline(source=masked, batch_size=4, prefetch=0))
    assert "read the records [0, 1, 2, 3]" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match=r"data\['x'\] is a masked array"):
        MemorySource(MemorySourceConfig(), data={"x": np.ma.masked_array([1, 2], mask=[0, 1])})
