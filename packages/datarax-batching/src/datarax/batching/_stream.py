"""Streams of batches: nothing is lost when a record is wrong, and their state can be saved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import numpy as np

from datarax.batching import _saved
from datarax.batching._assemble import Assembler
from datarax.batching._errors import WrongRecordError
from datarax.batching._input import (
    elements_of_dicts,
    ended_early,
    length_of,
    record_iterator,
    stopped,
)
from datarax.batching._transfers import transferring
from datarax.core.batcher import BatcherModule, logger
from datarax.core.element_batch import Batch, Element

_ELEMENTS = {Element}


@dataclass
class Group:
    """Records that wait for a batch together, and their numbers in the stream."""

    elements: list[Any] = field(default_factory=list)
    numbers: range | list[int] = range(0)

    def add(self, element: Element, number: int) -> None:
        """Puts a record at the end."""
        self.elements.append(element)
        self._listed().append(number)

    def add_first(self, element: Element, number: int) -> None:
        """Puts a record at the beginning."""
        self.elements.insert(0, element)
        self._listed().insert(0, number)

    def number_from(self, first: int) -> int:
        """Gives numbers from `first` on to records that have none; returns how many these are."""
        new = range(first, first + len(self.elements) - len(self.numbers))
        if self.numbers:
            self._listed().extend(new)
        else:
            self.numbers = new
        return len(new)

    def first(self, count: int) -> Group:
        """At most so many records from the beginning, which stay in the group."""
        if len(self) <= count:
            return self
        return Group(self.elements[:count], self.numbers[:count])

    def remove(self, position: int, count: int = 1) -> None:
        """Takes records out, from this position on."""
        if position == 0 and count >= len(self):
            self.clear()
        else:
            del self.elements[position : position + count]
            del self._listed()[position : position + count]

    def clear(self) -> None:
        """Takes all records out."""
        self.elements.clear()
        self.numbers = range(0)

    def _listed(self) -> list[int]:
        if isinstance(self.numbers, range):
            self.numbers = list(self.numbers)
        return self.numbers

    def __len__(self) -> int:
        return len(self.elements)


class RecordStream(Iterator[Batch]):
    """Batches of a stream of records, which batchers return.

    Records that were pulled stay in groups until their batch is delivered: if the source raises, or
    a record is wrong, the next call goes on with them.

    >>> from datarax.batching import DefaultBatcher, DefaultBatcherConfig
    >>> records = [{"x": i} for i in range(5)]
    >>> stream = DefaultBatcher(DefaultBatcherConfig())(records, batch_size=2)
    >>> next(stream)["x"].tolist()
    [0, 1]
    >>> rest = DefaultBatcher(DefaultBatcherConfig())(
    ...     records[stream.records_pulled :], batch_size=3
    ... )
    >>> rest.set_state(stream.get_state())
    >>> next(rest)["x"].tolist()
    [2, 3, 4]
    """

    def __init__(
        self, batcher: BatcherModule[Any], elements: Any, groups: tuple[str, ...], remainder: str
    ) -> None:
        self._owner = batcher
        self._elements, self._missing = record_iterator(elements), length_of(elements)
        self._groups = {name: Group() for name in groups}
        self._remainder = remainder
        # Groups of the rest, whose records make smaller batches.
        self._due: list[str] = []
        self._pulled = 0
        self._ended = False
        # Record numbers that a kind of stream has to remember.
        self._marks: list[int] = []
        # What a record was refused for, if batches before it come first.
        self._error: Exception | None = None
        # For the log: rows of padding, and what went into no batch at the end.
        self._padding = self._left_out = 0

    def __iter__(self) -> Self:
        return self

    @transferring
    def __next__(self) -> Batch:
        try:
            batch = self._next()
        except StopIteration as error:
            raise stopped(f"what makes batches of the first {self._pulled} records") from error
        if batch is None:
            self._log_end()
            raise StopIteration
        return batch

    @abstractmethod
    def _next(self) -> Batch | None:
        """The next batch; None at the end."""

    @property
    def records_pulled(self) -> int:
        """How many records came from the source, those that still wait included."""
        return self._pulled

    def get_state(self) -> dict[str, Any]:
        """Copies what a stream over the rest of the source needs to go on: arrays in nested dicts.

        Returns:
          `pulled`, the number of records that came from the source, and the records that wait.

        Raises:
          TypeError: if records wait whose data or state is not of nested dicts, or whose metadata
            cannot be written as JSON.
        """
        groups = {
            name: _saved.encoded_records(group.elements, group.numbers)
            for name, group in self._groups.items()
            if len(group)
        }
        progress = {
            "due": self._due,
            "marks": self._marks,
            "config": self._config_of_waiting(),
            "error": _saved.encoded_error(self._error),
        }
        return {
            "pulled": np.asarray(self._pulled, np.int64),
            "progress": _saved.json_array(progress),
            **({"groups": groups} if groups else {}),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where `get_state` was called, with batches of this stream's size.

        Args:
          state: what it returned. This stream's records must be those after the first
            `state["pulled"]` of that stream's source. The batch size may be another one.

        Raises:
          TypeError: if `state` is not a dict.
          ValueError: if it is not of a stream like this one; the stream is then unchanged.
        """
        saved = _saved.checked(
            state, self._may_wait_in, len(self._marks), self._config_of_waiting()
        )
        self._groups = {name: Group() for name in self._groups}
        self._due, self._marks, self._pulled = saved.due, saved.marks, saved.pulled
        self._ended, self._error = False, saved.error
        self._take_back({name: Group(*records) for name, records in saved.groups.items()})

    def _may_wait_in(self, name: str) -> bool:
        """Whether a stream like this one, of any batch size, may have such a group."""
        return name in self._groups

    def _config_of_waiting(self) -> dict[str, str]:
        """The options that decide what waiting records look like, which must not change."""
        return {}

    def _take_back(self, groups: dict[str, Group]) -> None:
        """Puts saved records back, which can be more than a batch of this stream's size."""
        self._groups |= groups

    def _pull(self, group: Group, count: int) -> None:
        waiting, new = len(group), 0
        try:
            # What came before an exception stays in the list.
            group.elements.extend(islice(self._elements, count))
        except Exception as error:
            # A source that raises need not have that record any more.
            self._missing = None
            if ended_early(error):
                number = self._pulled + len(group) - waiting
                raise stopped(f"what gives record {number}") from error.__cause__
            raise
        finally:
            if not set(map(type, group.elements)) <= _ELEMENTS:
                group.elements[:] = elements_of_dicts(group.elements)
            new = group.number_from(self._pulled)
            self._pulled += new
            self._missing = None if self._missing is None else self._missing - new
        self._ended = new < count
        if self._ended and self._missing is not None and self._missing > 0:
            missing, self._missing = self._missing, None
            raise RuntimeError(
                f"elements ended before record {self._pulled}, but by its len() there are "
                f"{missing} more; whatever raises StopIteration inside it ends it early"
            )

    def _assembled(self, assembler: Assembler, group: Group, rows: int) -> Batch:
        """The batch of at most `rows` records of a group; on error without the wrong record."""
        records = group.first(rows)
        try:
            batch = assembler.assemble(records.elements, records.numbers, rows)
        except WrongRecordError as error:
            group.remove(error.position)
            self._owner._count_records(0, 1)
            raise error.reason from None
        self._padding += rows - len(records)
        return batch

    def _leave_out(self, count: int) -> None:
        """Counts records that go into no batch."""
        self._owner._count_records(0, count)
        self._left_out += count

    def _log_end(self) -> None:
        padding, left_out, self._padding, self._left_out = self._padding, self._left_out, 0, 0
        name = self._owner._label()
        if padding:
            logger.info("%s added %d rows of padding, which valid_mask marks", name, padding)
        if left_out:
            logger.info(
                "%s left out %d: too few for a batch at the end, which remainder='pad' keeps, or "
                "without a step",
                name,
                left_out,
            )


class ConsecutiveStream(RecordStream):
    """Batches of consecutive records."""

    def __init__(
        self,
        batcher: BatcherModule[Any],
        elements: Any,
        batch_size: int,
        remainder: str,
        assembler: Assembler,
    ) -> None:
        super().__init__(batcher, elements, ("waiting",), remainder)
        self._batch_size, self._assembler = batch_size, assembler

    def _next(self) -> Batch | None:
        size, waiting = self._batch_size, self._groups["waiting"]
        if not self._ended and len(waiting) < size:
            self._pull(waiting, size - len(waiting))
        kept = min(len(waiting), size)
        if not kept:
            return None
        if kept < size and self._remainder == "drop":
            waiting.clear()
            self._leave_out(kept)
            return None
        rows = kept if self._remainder == "partial" else size
        batch = self._assembled(self._assembler, waiting, rows)
        waiting.remove(0, kept)
        self._owner._count_records(kept, 0)
        return batch
