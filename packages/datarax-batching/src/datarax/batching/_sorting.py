"""Streams that put each record in one of several groups."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from datarax.batching import _ragged
from datarax.batching._assemble import Assembler
from datarax.batching._input import require_element
from datarax.batching._stream import Group, RecordStream
from datarax.core.batcher import BatcherModule
from datarax.core.element_batch import Batch, Element


class SortingStream(RecordStream):
    """Pulls one record at a time and puts it in one of several groups.

    When a record is refused, what came before it is delivered first, unless a remainder is to be
    dropped: then it waits for more.
    """

    def __init__(
        self, batcher: BatcherModule[Any], elements: Any, groups: tuple[str, ...], remainder: str
    ) -> None:
        super().__init__(batcher, elements, ("incoming", *groups), remainder)
        self._pad_values = batcher.config.pad_values
        self._assemblers: dict[str, Assembler] = {}
        # Records of a full batch, for each group that waits for one.
        self._sizes: dict[str, int] = {}
        # Groups that have a full batch, one entry for each; not saved, because sizes may change.
        self._full: list[str] = []

    @abstractmethod
    def _accept(self, element: Element, number: int) -> list[str]:
        """Puts a record in its group; returns the groups that have a full batch then."""

    @abstractmethod
    def _deliver(self, name: str) -> Batch:
        """Makes a batch of a group's first records and takes them out."""

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
        count = min(len(rows), size) if self._remainder == "partial" else size
        return self._assembled(self._assemblers[name], rows, count)

    def _take_back(self, groups: dict[str, Group]) -> None:
        super()._take_back(groups)
        self._full = [
            name
            for name, size in self._sizes.items()
            for _ in range(len(self._groups[name]) // size)
        ]

    def _leave_out_groups(self, names: Iterable[str]) -> None:
        """Empties groups whose records go into no batch."""
        for name in names:
            self._leave_out(len(self._groups[name]))
            self._groups[name].clear()

    def _next(self) -> Batch | None:
        incoming = self._groups["incoming"]
        while True:
            if self._full:
                name = self._full.pop(0)
                # There can be fewer records by now, because one of them was refused.
                if len(self._groups[name]) >= self._sizes.get(name, 1):
                    return self._deliver(name)
                continue
            if self._due:
                name = self._due.pop(0)
                if not len(self._groups[name]):
                    continue
                batch = self._deliver(name)
                if len(self._groups[name]):
                    self._due.insert(0, name)
                return batch
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if not len(incoming):
                if not self._ended:
                    self._pull(incoming, 1)
                if not len(incoming):
                    self._due = self._rest()
                    if not self._due:
                        return None
                    continue
            element, number = incoming.elements[0], incoming.numbers[0]
            incoming.remove(0)
            try:
                require_element(element, number)
                self._full = self._accept(element, number)
            except (KeyError, TypeError, ValueError) as error:
                self._owner._count_records(0, 1)
                self._error = error
                if self._remainder != "drop":
                    self._due = self._rest()
