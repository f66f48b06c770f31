"""`PipelineIterator`: epochs of a pipeline, which can be saved and resumed between batches."""

from __future__ import annotations

import copy
import itertools
import sys
import threading
import weakref
from collections.abc import Generator, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from datarax.core.element_batch import Batch
from datarax.pipeline._prefetch import Prefetcher
from datarax.pipeline._progress import require_tqdm
from datarax.pipeline._ragged import read_batched
from datarax.pipeline._reader import (
    Epoch,
    Read,
    computes_on_cpu,
    on_device,
    read,
    transfer,
)
from datarax.pipeline._stages import StageStoppedError
from datarax.pipeline._state import Place, positions_of_text, text_of_positions
from datarax.pipeline._statistics import Meter, PipelineStats
from datarax.pipeline._transfers import transferring
from datarax.sources._ends import stopped

if TYPE_CHECKING:
    from datarax.pipeline._host import HostWork
    from datarax.pipeline._pipeline import Pipeline

# How many batches are read ahead where that is of use and nobody has said how many.
READ_AHEAD = 2

# How many record numbers an error lists.
_SHOWN = 16

_NUMBERS = ("epoch", "position", "waiting", "stream", "first_epoch", "next_epoch")


class Open:
    """What an iterator holds open: the reader, with its thread, and the progress bar."""

    def __init__(self) -> None:
        self.reader: Any = None
        self.bar: Any = None

    def close(self) -> None:
        """Closes what is open; the next batch opens it again."""
        reader, bar, self.reader, self.bar = self.reader, self.bar, None, None
        if reader is not None:
            reader.close()
        if bar is not None:
            bar.close()


class PipelineIterator:
    """Iterates over the batches of one epoch or several; made by `iter(pipeline)`.

    Nothing is read before the first batch is asked for. An iterator that is no longer used stops
    reading ahead; `close` does so at once. Threads may share one: each batch goes to one of them.
    `grain.checkpoint` and Orbax save and restore it as they do an iterator of Grain.

    Args:
      pipeline: what to iterate over.
      first: the number of the first epoch, from 0.
      epochs: how many epochs; None: without end.

    >>> from datarax.pipeline import Pipeline
    >>> pipeline = Pipeline(source=[{"x": 0}, {"x": 1}, {"x": 2}], batch_size=1)
    >>> iterator = iter(pipeline)
    >>> next(iterator)["x"].tolist()
    [0]
    >>> resumed = iter(pipeline)
    >>> resumed.set_state(iterator.get_state())
    >>> [batch["x"].tolist() for batch in resumed]
    [[1], [2]]
    """

    def __init__(self, pipeline: Pipeline, first: int, epochs: int | None) -> None:
        self._pipeline = pipeline
        self._first, self._epochs = first, epochs
        self._place = Place(first)
        self._ahead: Read | None = None
        self._meter = Meter()
        self._lock = threading.RLock()
        self._open = Open()
        weakref.finalize(self, self._open.close)
        _introduce(type(self))

    def __repr__(self) -> str:
        done, length = self._place.position, len(self._pipeline.source)
        return f"PipelineIterator(epoch={self.epoch}, record={done} of {length})"

    def __deepcopy__(self, memo: dict[int, Any]) -> PipelineIterator:
        with self._lock:
            new = PipelineIterator(copy.deepcopy(self._pipeline, memo), self._first, self._epochs)
            new._place = self._place
        return new

    @property
    def epoch(self) -> int:
        """The number of the epoch that the iterator is in, from 0."""
        return self._place.epoch

    @property
    def stats(self) -> PipelineStats:
        """Batches, records, seconds, waiting and padding so far."""
        return self._meter.read()

    def __iter__(self) -> Iterator[Batch]:
        return self

    @transferring
    def __next__(self) -> Batch:
        with self._lock:
            asked = perf_counter()
            item = self._next_read()
            if item is None:
                raise StopIteration
            came = perf_counter()
            batch = self._transformed(item)
            self._count_losses(item)
            self._ahead = None
            self._place = Place(item.epoch, item.position, item.waiting)
            times = asked, came, perf_counter()
            self._meter.add(times, item.as_read, self._pipeline.batcher)
            if self._open.bar is not None:
                self._open.bar.update()
            return batch

    def _count_losses(self, item: Read) -> None:
        try:
            self._pipeline._losses.add(item.failures, item.epoch)
        except BaseException:
            self.close()
            raise

    @transferring
    def peek(self) -> Batch:
        """The batch that comes next, which stays the next one; stages do not count its records.

        Raises:
          StopIteration: if there is none.
        """
        with self._lock:
            item = self._next_read()
            if item is None:
                raise StopIteration
            with self._pipeline._unchanged():
                return self._transformed(item)

    def _next_read(self) -> Read | None:
        """What is read for the next batch; None after the last one."""
        try:
            if self._ahead is None:
                self._ahead = next(self._open.reader or self._opened_again(), None)
        except BaseException:
            # After an error, the next call reads this batch again.
            self._open.close()
            raise
        if self._ahead is None:
            self._open.close()
        return self._ahead

    def _transformed(self, item: Read) -> Batch:
        """The batch after all stages, on the device; what they check is checked as it was read."""
        pipeline, batch = self._pipeline, item.batch
        try:
            stages = pipeline._one_call()
            if stages is not None:
                pipeline._checks(item.as_read)
                batch = stages(batch)
            if pipeline.placement is not None:
                return pipeline.placement.settled(batch)
            return on_device(batch)
        except BaseException as error:
            self._ahead = None
            self._open.close()
            if not isinstance(error, StageStoppedError | StopIteration):
                raise
            stage, cause = "a stage", error
            if isinstance(error, StageStoppedError):
                stage, cause = str(error), error.__cause__
            what = f"{stage}, for {_text_of_records(item)},"
            raise stopped(what) from cause

    def _opened_again(self) -> Any:
        try:
            return self._reopen()
        except StopIteration as error:
            raise stopped(f"opening {self._pipeline.source._label()}") from error

    def _reopen(self) -> Any:
        pipeline, opened = self._pipeline, self._open
        work = None if pipeline._work is None else pipeline._work.of_one_reader()
        reader: Any = _epochs(pipeline, work, self._place, self._end())
        ahead = pipeline.prefetch
        if ahead is None:
            only_copies = pipeline.source.in_memory and pipeline._work is None
            ahead = 0 if only_copies and computes_on_cpu() else READ_AHEAD
        prepare = transfer(pipeline._before_stages)
        if ahead and not pipeline._gathers():
            reader = Prefetcher(reader, prepare, ahead, work and work.running.close)
        else:
            reader = _prepared(reader, prepare)
        opened.reader = reader
        if pipeline.progress:
            opened.bar = self._progress_bar()
        return reader

    def _end(self) -> int | None:
        return None if self._epochs is None else self._first + self._epochs

    def _progress_bar(self) -> Any:
        pipeline, steps = self._pipeline, self._pipeline._steps()
        total = initial = None
        if steps is not None and self._epochs is not None:
            total = steps * self._epochs
            done = -(-self._place.position // (pipeline.batch_size or 1))
            initial = steps * (self.epoch - self._first) + done
        return require_tqdm().tqdm(
            desc=f"{pipeline.name or 'epoch'} {self.epoch}",
            total=total,
            initial=initial or 0,
            unit="batch",
        )

    def start_prefetch(self) -> None:
        """Begins to read before the first batch is asked for."""
        with self._lock:
            if self._open.reader is None:
                self._opened_again()

    def close(self) -> None:
        """Stops reading ahead and closes the progress bar; a later batch opens them again."""
        self._ahead = None
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_state(self) -> dict[str, Any]:
        """Where the iterator is, and what identifies its pipeline, as values that JSON can hold.

        Returns:
          A dict of numbers and short texts, nested. `epoch` and `position` (how many records of the
          epoch were delivered, on all hosts together; what was read ahead does not count) are the
          same on every host; `waiting` are the positions of records that a batcher still holds,
          `stream` is what a data set that is read one record after the other gives.
          `shuffle_key` and `values` hold the key of the order, and the random keys and counts of
          the stages. A state with another `source` or `stages` is refused.
        """
        with self._lock:
            place = self._place
            return self._pipeline._description().read(
                epoch=place.epoch,
                position=place.position,
                waiting=text_of_positions(place.waiting),
                stream=self._pipeline.source._state_at(place.epoch, place.position),
                first_epoch=self._first,
                next_epoch=self._pipeline.epoch,
            )

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues where `get_state` was called: the same records follow, bit-identical.

        The pipeline continues from there too: its stages and the number of the next epoch. It may
        have another `batch_size`, another sharding, and run on another number of hosts.

        Raises:
          TypeError: if `state` is not a dict.
          ValueError: if it does not fit, listing every difference; nothing has changed then.
        """
        with self._lock:
            pipeline = self._pipeline
            write, numbers = pipeline._description().restorer(state, "iterator", _NUMBERS)
            place = _checked_place(numbers, len(pipeline.source), pipeline.batcher is not None)
            write()
            pipeline.source._resume_at(place.epoch, place.position, str(numbers["stream"]))
            self._place, self._first = place, int(numbers["first_epoch"])
            pipeline._epoch = int(numbers["next_epoch"])
            self.close()


def _checked_place(numbers: dict[str, Any], records: int, has_batcher: bool) -> Place:
    position = int(numbers["position"])
    if position > records:
        raise ValueError(
            f"state does not fit the iterator. Differences:\n  position: expected at most "
            f"{records}, the number of records of the source, got {position}"
        )
    try:
        waiting = positions_of_text(str(numbers["waiting"]))
    except Exception as error:
        raise ValueError(
            f"state does not fit the iterator. Differences:\n  waiting: {error}"
        ) from error
    if waiting and (not has_batcher or not 0 <= waiting[0] <= waiting[-1] < position):
        raise ValueError(
            f"state does not fit the iterator. Differences:\n  waiting: {len(waiting)} records "
            "wait for a batcher; give the pipeline the batcher that it was saved with"
        )
    return Place(int(numbers["epoch"]), position, waiting)


def _epochs(
    pipeline: Pipeline, work: HostWork | None, place: Place, end: int | None
) -> Generator[Read, None, None]:
    """What is left of an epoch, and of those after it."""
    for number in itertools.count(place.epoch):
        if end is not None and number >= end:
            return
        epoch = Epoch(
            pipeline.source,
            number,
            place.position if number == place.epoch else 0,
            pipeline.batch_size or 0,
            pipeline.remainder,
            pipeline.pad_values,
            pipeline.placement,
            work,
        )
        if pipeline.batcher is None:
            yield from read(epoch)
        else:
            waiting = place.waiting if number == place.epoch else ()
            yield from read_batched(epoch, pipeline.batcher, pipeline.batch_size, waiting)


def _prepared(reader: Generator[Read, None, None], prepare: Any) -> Generator[Read, None, None]:
    try:
        for item in reader:
            yield prepare(item)
    finally:
        reader.close()


def _introduce(kind: type) -> None:
    """Makes Grain, if it is there, take our iterators for its own when it saves and restores them.

    Its checkpoint handler asks for the type, and takes iterators of another one to have bytes as
    their state.
    """
    base = getattr(sys.modules.get("grain"), "DatasetIterator", None)
    if base is not None and not issubclass(kind, base):
        base.register(kind)


def _text_of_records(item: Read) -> str:
    """The numbers of a batch's records, in a line."""
    batch = item.as_read
    numbers = np.asarray(batch.record_index)[np.asarray(batch.valid_mask)].tolist()
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return f"the records {shown}{', ...' if len(numbers) > _SHOWN else ''} of epoch {item.epoch}"
