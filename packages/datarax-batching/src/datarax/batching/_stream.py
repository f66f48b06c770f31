"""`BatchStream`: batches, one at a time, with nothing lost when a record is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Self

from datarax.batching._assemble import Assembler
from datarax.batching._errors import WrongRecordError
from datarax.core.element_batch import Batch, Element


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


class BatchStream(Iterator[Batch]):
    """Batches of consecutive records.

    Records that were pulled for a batch stay here until it is delivered: if the source raises, or a
    record is wrong, the next call goes on with them.
    """

    def __init__(
        self, elements: Any, batch_size: int, remainder: str, assembler: Assembler, count: Any
    ) -> None:
        self._elements = record_iterator(elements)
        self._batch_size, self._remainder = batch_size, remainder
        self._assembler, self._count = assembler, count
        self._pending: list[Any] = []
        self._numbers: list[int] = []
        self._pulled = 0
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        size, pending = self._batch_size, self._pending
        if not self._ended:
            self._pull(size - len(pending))
        kept = len(pending)
        if not kept:
            raise StopIteration
        if kept < size and self._remainder == "drop":
            self._forget()
            self._count(0, kept)
            raise StopIteration
        try:
            rows = kept if self._remainder == "partial" else size
            batch = self._assembler.assemble(pending, self._numbers, rows)
        except WrongRecordError as error:
            del pending[error.position], self._numbers[error.position]
            self._count(0, 1)
            raise error.reason from None
        self._forget()
        self._count(kept, 0)
        return batch

    def _pull(self, count: int) -> None:
        try:
            # What came before an exception stays in the list.
            self._pending.extend(islice(self._elements, count))
        finally:
            new = len(self._pending) - len(self._numbers)
            self._numbers.extend(range(self._pulled, self._pulled + new))
            self._pulled += new
        self._ended = new < count

    def _forget(self) -> None:
        self._pending.clear()
        self._numbers.clear()
