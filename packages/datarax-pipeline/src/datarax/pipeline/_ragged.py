"""Reading an epoch through a batcher: records of unequal length, in batches of its making."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from datarax.batching import PackingBatcher
from datarax.core.element_batch import Element
from datarax.pipeline._arguments import Batcher
from datarax.pipeline._failures import Failure
from datarax.pipeline._reader import Epoch, Read, rows_of

# As many records are numbered and read at once.
_AT_ONCE = 32


class Tag(NamedTuple):
    """The metadata under which a record goes through a batcher."""

    position: int
    number: int
    metadata: Any


def read_batched(
    epoch: Epoch, batcher: Batcher, batch_size: int | None, waiting: Sequence[int]
) -> Generator[Read, None, None]:
    """Reads what is left of an epoch; every host reads all records and keeps its rows.

    Args:
      epoch: what to read.
      batcher: makes the batches.
      batch_size: rows of each batch; None if the batcher has sizes of its own.
      waiting: positions before `epoch.start` whose records are still to be delivered.

    Yields:
      Batches. A row's `record_index` is the number of its first record; what the batcher would have
      made of the records' metadata is the metadata.
    """
    pulled = _Pulled(waiting, epoch.start, isinstance(batcher, PackingBatcher))
    elements = pulled.elements(epoch)
    sizes = {} if batch_size is None else {"batch_size": batch_size}
    stream = batcher.process(elements, drop_remainder=epoch.remainder == "drop", **sizes)  # pyright: ignore
    for batch in stream:
        tags = [() if tag is None else _tags(tag) for tag in batch.metadata or ()]
        pulled.delivered(tag.position for row in tags for tag in row)
        whole = dataclasses.replace(
            batch,
            record_index=np.asarray([row[0].number if row else 0 for row in tags], np.uint32),
            epoch=np.asarray(epoch.number, np.uint32),
            metadata=_metadata(batch.metadata or ()),
        )
        mine = whole if epoch.whole else rows_of(whole, epoch.share(len(whole)))
        yield Read(
            mine,
            mine,
            pulled.position,
            epoch.number,
            len(batch),
            tuple(pulled.waiting),
            pulled.failures(),
        )


class _Pulled:
    """Which records a batcher has got, and which of them it still holds."""

    def __init__(self, waiting: Sequence[int], start: int, packs: bool) -> None:
        self.waiting = dict.fromkeys(waiting)
        self.position = start
        self._failures: list[Failure] = []
        self._packs = packs

    def elements(self, epoch: Epoch) -> Iterator[Element]:
        """The records, without those that cannot be read or have nothing to pack."""
        for position, number, record in _records(epoch, tuple(self.waiting)):
            self.position = max(self.position, position + 1)
            if isinstance(record, Failure):
                self.waiting.pop(position, None)
                self._failures.append(record)
                continue
            if self._packs and _is_empty(record):
                # No batch would ever say that it has it.
                self.waiting.pop(position, None)
                continue
            self.waiting[position] = None
            yield record.replace(metadata=Tag(position, number, record.metadata))

    def failures(self) -> tuple[Failure, ...]:
        """What could not be read since the last call."""
        found, self._failures = tuple(self._failures), []
        return found

    def delivered(self, positions: Iterator[int]) -> None:
        for position in positions:
            del self.waiting[position]


def _records(
    epoch: Epoch, waiting: tuple[int, ...]
) -> Iterator[tuple[int, int, Element | Failure]]:
    """Positions, numbers and records: those that wait, then the rest of the epoch."""
    positions = itertools.chain(waiting, range(epoch.start, len(epoch.source)))
    places = _numbered(epoch, positions)
    if epoch.work is None and not epoch.source._differs_by_epoch:
        while chosen := list(itertools.islice(places, _AT_ONCE)):
            elements = epoch.source.read_elements(np.asarray([number for _, number in chosen]))
            for (position, number), element in zip(chosen, elements, strict=True):
                yield position, number, element
        return
    if epoch.work is None:
        for position, number in places:
            yield position, number, epoch.source._element(number, epoch.number)
        return
    places, again = itertools.tee(places)
    found = epoch.work.records(epoch.number, (number for _, number in again))
    try:
        for (position, number), record in zip(places, found, strict=True):
            if isinstance(record, Failure) and not epoch.work.mask:
                raise record.error
            yield position, number, record
    finally:
        found.close()


def _numbered(epoch: Epoch, positions: Iterator[int]) -> Iterator[tuple[int, int]]:
    while chosen := list(itertools.islice(positions, _AT_ONCE)):
        numbers = epoch.source.record_numbers(epoch.number, np.asarray(chosen))
        yield from zip(chosen, numbers.tolist(), strict=True)


def _is_empty(record: Element) -> bool:
    return all(np.shape(leaf)[:1] == (0,) for leaf in jax.tree.leaves(record.data))


def _tags(entry: Any) -> tuple[Tag, ...]:
    return (entry,) if isinstance(entry, Tag) else entry


def _metadata(entries: Sequence[Any]) -> tuple[Any, ...] | None:
    plain = [entry.metadata if isinstance(entry, Tag) else _of_several(entry) for entry in entries]
    return None if plain.count(None) == len(plain) else tuple(plain)


def _of_several(entry: tuple[Tag, ...] | None) -> tuple[Any, ...] | None:
    metadata = tuple(tag.metadata for tag in entry or ())
    return None if metadata.count(None) == len(metadata) else metadata
