"""Streams that put each record in one of several groups."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from datarax.batching import _ragged
from datarax.batching._assemble import Assembler
from datarax.batching._stream import Group, RecordStream
from datarax.core.batcher import BatcherModule
from datarax.core.element_batch import Batch, Element


class SortingStream(RecordStream):
    """Pulls one record at a time and puts it in one of several groups.

    When a record is refused, what came before it is delivered first, unless a remainder is to be
    dropped: then it waits for more.
    """

    def __init__(
        self, batcher: BatcherModule, elements: Any, groups: tuple[str, ...], remainder: str
    ) -> None:
        super().__init__(elements, ("incoming", *groups), remainder, batcher._count_records)
        self._pad_values = batcher.config.pad_values
        self._assemblers: dict[str, Assembler] = {}
        self._error: Exception | None = None

    @abstractmethod
    def _accept(self, element: Element, number: int) -> list[str]:
        """Puts a record in its group; returns the groups whose batches are due."""

    @abstractmethod
    def _deliver(self, name: str) -> Batch:
        """Makes the batch of a group and empties it."""

    @abstractmethod
    def _rest(self) -> list[str]:
        """The groups that make smaller batches at the end; leaves records out if so configured."""

    def _batch(self, name: str, rows: Group, size: int, added: tuple[str, ...]) -> Batch:
        """The batch of these rows, padded to its size unless the remainder is partial.

        Args:
          name: batches of one name look alike.
          rows: the rows as records.
          size: rows of a full batch.
          added: dotted paths of the fields that the stream adds; their padding is 0.
        """
        if name not in self._assemblers:
            values = _ragged.row_values(rows.elements[0].data, self._pad_values, added)
            self._assemblers[name] = Assembler(values)
        count = len(rows) if self._remainder == "partial" else size
        return self._assembled(self._assemblers[name], rows, count)

    def _leave_out(self, names: Iterable[str]) -> None:
        """Empties groups whose records go into no batch."""
        for name in names:
            self._count(0, len(self._groups[name]))
            self._groups[name].clear()

    def __next__(self) -> Batch:
        incoming = self._groups["incoming"]
        while True:
            if self._due:
                return self._deliver(self._due.pop(0))
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if not len(incoming):
                if not self._ended:
                    self._pull(incoming, 1)
                if not len(incoming):
                    self._due = self._rest()
                    if not self._due:
                        raise StopIteration
                    continue
            element, number = incoming.elements[0], incoming.numbers[0]
            incoming.clear()
            try:
                if not isinstance(element, Element):
                    raise TypeError(
                        f"record {number} must be an Element, got {type(element).__name__}; wrap "
                        "it: Element(data)"
                    )
                self._due = self._accept(element, number)
            except (KeyError, TypeError, ValueError) as error:
                self._count(0, 1)
                self._error = error
                if self._remainder != "drop":
                    self._due = self._rest()
