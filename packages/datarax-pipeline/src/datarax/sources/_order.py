"""The order of an epoch's records: a pure function of a key, the epoch and the position."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Int, Key, UInt32

from datarax.sources._permutation import permuted

if TYPE_CHECKING:
    from datarax.sources._source import DataSourceModule

KEY_WORDS = 4
# As many positions are turned into record numbers at once, where batches are smaller.
_AT_ONCE = 4096


def words_of_seed(words: int | Sequence[int]) -> UInt32[np.ndarray, "4"]:
    """The key that a seed, or the words of a random key, stands for."""
    return np.random.SeedSequence(words).generate_state(KEY_WORDS, np.uint32)


def words_of_key(key: Key[Array, ""]) -> UInt32[np.ndarray, "4"]:
    """The key that a JAX random key, threefry or rbg, stands for."""
    return words_of_seed(np.asarray(jax.random.key_data(key)).ravel().tolist())


def seed_of_epoch(words: UInt32[np.ndarray, "4"], epoch: int) -> int:
    """A seed of 32 bits for a shuffling that is not ours."""
    return int(np.random.SeedSequence([*words.tolist(), epoch]).generate_state(1, np.uint32)[0])


@dataclass(frozen=True)
class Order:
    """Which record stands at which position of one epoch; plain data, for other processes too.

    Args:
      length: how many records there are.
      words: what decides on a random order, the epoch included; None: records as they are.
    """

    length: int
    words: tuple[int, ...] | None

    def at(self, positions: Int[np.ndarray, " n"]) -> UInt32[np.ndarray, " n"]:
        """The numbers of the records at these positions, each from 0 and less than `length`."""
        if self.words is None:
            return positions.astype(np.uint32)
        return permuted(positions, self.words, self.length).astype(np.uint32)


@dataclass(frozen=True)
class Positions:
    """The positions of an epoch that each batch of one host has; plain data.

    Args:
      start: the first position of the first batch.
      stop: the end of the epoch, or of what is read of it.
      batch_size: rows of a batch on all hosts together.
      rows: which of these rows this host reads, ascending.
    """

    start: int
    stop: int
    batch_size: int
    rows: range | tuple[int, ...]

    def __len__(self) -> int:
        return max(-(-(self.stop - self.start) // self.batch_size), 0)

    def present(self, number: int) -> int:
        """How many records of this host a batch has: fewer where the epoch ends in it."""
        return bisect_left(self.rows, self.stop - self.start - number * self.batch_size)

    def __getitem__(self, number: Any) -> Int[np.ndarray, " records"]:
        """The positions of a batch; if there are none for this host, the last one stands in."""
        if not 0 <= number < len(self):
            raise IndexError(f"number must be from 0 to {len(self) - 1}, got {number}")
        first = self.start + number * self.batch_size
        there = self.rows[: self.present(number)]
        if not there:
            return np.asarray([self.stop - 1])
        return first + np.asarray(there, np.int64)


class Plan:
    """The numbers of the records of each batch, at least one, computed when they are asked for.

    Args:
      source: whose records.
      epoch: from 0.
      positions: which positions of the epoch.
    """

    def __init__(self, source: DataSourceModule[Any], epoch: int, positions: Positions) -> None:
        self.epoch, self.positions = epoch, positions
        self._source = source

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: Any) -> UInt32[np.ndarray, " records"]:
        return self._source.record_numbers(self.epoch, self.positions[number])

    def __iter__(self) -> Iterator[UInt32[np.ndarray, " records"]]:
        together = max(_AT_ONCE // len(self.positions.rows), 1)
        for first in range(0, len(self), together):
            numbers = range(first, min(first + together, len(self)))
            positions = [self.positions[number] for number in numbers]
            found = self._source.record_numbers(self.epoch, np.concatenate(positions))
            ends = np.cumsum([len(part) for part in positions])[:-1]
            # Copies: a batch that is kept shall not keep the numbers of others.
            yield from (part.copy() for part in np.split(found, ends))
