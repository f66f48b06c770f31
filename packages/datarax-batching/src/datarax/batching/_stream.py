"""Streams of batches: nothing is lost when a record is wrong, and their state can be saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import numpy as np

from datarax.batching import _saved
from datarax.batching._assemble import Assembler
from datarax.batching._errors import WrongRecordError
from datarax.core.element_batch import Batch, Element

CountRecords = Callable[[int, int], None]


def record_iterator(elements: Any) -> Iterator[Element]:
    """An iterator over records.

    Raises:
      TypeError: for a single record or batch, a dict, a string, or what cannot be iterated over.
    """
    if isinstance(elements, dict | str | bytes | Element | Batch) or not hasattr(
        elements, "__iter__"
    ):
        raise TypeError(
            f"elements must be a list or iterator of Element records, got {type(elements).__name__}"
        )
    return iter(elements)


@dataclass
class Group:
    """Records that wait for a batch together, and their numbers in the stream."""

    elements: list[Any] = field(default_factory=list)
    numbers: range | list[int] = range(0)

    def add(self, element: Element, number: int) -> None:
        """Puts a record at the end."""
        self.elements.append(element)
        self._listed().append(number)

    def number_from(self, first: int) -> int:
        """Gives numbers from `first` on to records that have none; returns how many these are."""
        new = range(first, first + len(self.elements) - len(self.numbers))
        if self.numbers:
            self._listed().extend(new)
        else:
            self.numbers = new
        return len(new)

    def remove(self, position: int) -> None:
        """Takes one record out."""
        del self.elements[position], self._listed()[position]

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
    """Batches of a stream of records.

    Records that were pulled stay in groups until their batch is delivered: if the source raises, or
    a record is wrong, the next call goes on with them.
    """

    def __init__(
        self, elements: Any, groups: tuple[str, ...], remainder: str, count: CountRecords
    ) -> None:
        self._elements = record_iterator(elements)
        self._groups = {name: Group() for name in groups}
        self._remainder, self._count = remainder, count
        self._due: list[str] = []
        self._pulled = 0
        self._ended = False
        # Record numbers that a kind of stream has to remember.
        self._marks: list[int] = []

    def __iter__(self) -> Self:
        return self

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
        return {
            "pulled": np.asarray(self._pulled, np.int64),
            "progress": _saved.json_array({"due": self._due, "marks": self._marks}),
            **({"groups": groups} if groups else {}),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where `get_state` was called.

        Args:
          state: what it returned. This stream's records must be those after the first
            `state["pulled"]` of that stream's source.

        Raises:
          TypeError: if `state` is no dict.
          ValueError: if it is not of a stream like this one; the stream is then unchanged.
        """
        pulled, due, marks, groups = _saved.checked(state, tuple(self._groups), len(self._marks))
        self._groups = {name: Group(*groups.get(name, ([], []))) for name in self._groups}
        self._due, self._marks, self._pulled, self._ended = due, marks, pulled, False

    def _pull(self, group: Group, count: int) -> None:
        try:
            # What came before an exception stays in the list.
            group.elements.extend(islice(self._elements, count))
        finally:
            new = group.number_from(self._pulled)
            self._pulled += new
        self._ended = new < count

    def _assembled(self, assembler: Assembler, group: Group, rows: int) -> Batch:
        """The batch of a group, which is empty then; on error without the wrong record."""
        try:
            batch = assembler.assemble(group.elements, group.numbers, rows)
        except WrongRecordError as error:
            group.remove(error.position)
            self._count(0, 1)
            raise error.reason from None
        return batch


class ConsecutiveStream(RecordStream):
    """Batches of consecutive records."""

    def __init__(
        self,
        elements: Any,
        batch_size: int,
        remainder: str,
        assembler: Assembler,
        count: CountRecords,
    ) -> None:
        super().__init__(elements, ("waiting",), remainder, count)
        self._batch_size, self._assembler = batch_size, assembler

    def __next__(self) -> Batch:
        size, waiting = self._batch_size, self._groups["waiting"]
        if not self._ended:
            self._pull(waiting, size - len(waiting))
        kept = len(waiting)
        if not kept:
            raise StopIteration
        if kept < size and self._remainder == "drop":
            waiting.clear()
            self._count(0, kept)
            raise StopIteration
        rows = kept if self._remainder == "partial" else size
        batch = self._assembled(self._assembler, waiting, rows)
        waiting.clear()
        self._count(kept, 0)
        return batch
