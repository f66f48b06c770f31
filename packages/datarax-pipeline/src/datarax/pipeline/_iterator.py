"""`PipelineIterator`: one epoch of a pipeline, which can be saved and resumed between batches."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from datarax.core.element_batch import Batch
from datarax.pipeline._prefetch import Prefetcher
from datarax.pipeline._progress import require_tqdm
from datarax.pipeline._reader import Epoch, Read, computes_on_cpu, on_device, read, transfer
from datarax.pipeline._stages import StageStoppedError
from datarax.pipeline._state import IteratorState, Position
from datarax.sources._ends import stopped

if TYPE_CHECKING:
    from datarax.pipeline._pipeline import Pipeline
    from datarax.pipeline._stages import Stages

# How many batches are read ahead where that is of use and nobody has said how many.
READ_AHEAD = 2

# How many record numbers an error lists.
_SHOWN = 16


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
    """Iterates over the batches of one epoch; made by `iter(pipeline)`.

    Nothing is read before the first batch is asked for. An iterator that is no longer used stops
    reading ahead; `close` does so at once.

    Args:
      pipeline: what to iterate over.
      epoch: the number of the epoch, from 0.

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

    def __init__(self, pipeline: Pipeline, epoch: int) -> None:
        self._pipeline = pipeline
        self._stages: Stages | None = None
        self._epoch, self._record = Position.of(epoch), Position.of(0)
        self._open = Open()
        weakref.finalize(self, self._open.close)

    def __repr__(self) -> str:
        done, length = self._delivered(), len(self._pipeline.source)
        return f"PipelineIterator(epoch={self.epoch}, record={done} of {length})"

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 0."""
        return int(self._epoch.get_value())

    def _delivered(self) -> int:
        return int(self._record.get_value())

    def _state(self) -> IteratorState:
        return IteratorState(self._pipeline._state(), self._epoch, self._record)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        opened = self._open
        try:
            item: Read | None = next(opened.reader or self._opened_again(), None)
            batch = None
            if item is not None:
                batch = self._transformed(item.batch, item.as_read)
                self._pipeline._losses.add(item.failures, self.epoch)
        except BaseException:
            # After an error, the next call reads this batch again.
            opened.close()
            raise
        if item is None or batch is None:
            opened.close()
            raise StopIteration
        self._record.set_value(np.uint32(item.position))
        if opened.bar is not None:
            opened.bar.update()
        return batch

    def _transformed(self, batch: Batch, as_read: Batch) -> Batch:
        """The batch after all stages, on the device; what they check is checked as it was read."""
        try:
            if self._stages is not None:
                self._pipeline._checks(as_read)
                batch = self._stages(batch)
            return on_device(batch)
        except (StageStoppedError, StopIteration) as error:
            stage, cause = "a stage", error
            if isinstance(error, StageStoppedError):
                stage, cause = str(error), error.__cause__
            what = f"{stage}, for {_text_of_records(batch)} of epoch {self.epoch},"
            raise stopped(what) from cause

    def _opened_again(self) -> Any:
        try:
            return self._reopen()
        except StopIteration as error:
            raise stopped(f"opening {self._pipeline.source._label()}") from error

    def _reopen(self) -> Any:
        pipeline, opened = self._pipeline, self._open
        # Not before: a restored state can bring other random keys, by which stages are told apart.
        self._stages = pipeline._one_call()
        size = pipeline.batch_size
        reader: Any = read(
            Epoch(
                pipeline.source,
                self.epoch,
                self._delivered(),
                size,
                range(size),
                pipeline.remainder,
                work=pipeline._work,
            )
        )
        ahead = pipeline.prefetch
        if ahead is None:
            only_copies = pipeline.source.in_memory and pipeline._work is None
            ahead = 0 if only_copies and computes_on_cpu() else READ_AHEAD
        if ahead and (pipeline._work is not None or pipeline.source.device_records() is None):
            reader = Prefetcher(reader, transfer(), ahead)
        opened.reader = reader
        if pipeline.progress:
            opened.bar = require_tqdm().tqdm(
                desc=f"{pipeline.name or 'epoch'} {self.epoch}",
                total=len(pipeline),
                initial=-(-self._delivered() // pipeline.batch_size),
                unit="batch",
            )
        return reader

    def close(self) -> None:
        """Stops reading ahead and closes the progress bar; a later batch opens them again."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_state(self) -> dict[str, Any]:
        """A copy of the position and of the pipeline's state, as Orbax saves it.

        Returns:
          Nested dicts of arrays: `epoch`, `record` (how many records of the epoch were delivered;
          what was read ahead does not count) and `pipeline`, what `Pipeline.get_state` returns.
        """
        return self._state().read()

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues where `get_state` was called: the same batches follow, bit by bit.

        The pipeline continues from there too: its stages and the number of the next epoch. It may
        have another `batch_size`; the records that follow are the same.

        Raises:
          TypeError: if `state` is no dict.
          ValueError: if it does not fit, listing every difference; nothing has changed then.
        """
        self._state().write(state)
        self._open.close()


def _text_of_records(batch: Batch) -> str:
    """The numbers of a batch's records, in a line."""
    numbers = np.asarray(batch.record_index)[np.asarray(batch.valid_mask)].tolist()
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return f"the records {shown}" + (", ..." if len(numbers) > _SHOWN else "")
