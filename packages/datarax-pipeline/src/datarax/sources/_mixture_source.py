"""`MixtureSource`: several sources in given proportions."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Int, UInt32

from datarax.sources._concat import JoinedSource
from datarax.sources._config import SourceConfig
from datarax.sources._mixture import Mixture
from datarax.sources._opaque import Opaque
from datarax.sources._permutation import permuted
from datarax.sources._selected import readable
from datarax.sources._source import MAX_RECORDS


class MixtureSource(JoinedSource):
    """Records of several sources in given proportions, which hold exactly in every block.

    A block is a number of positions, one after the other, in which each source has as many as its
    weight says. Sources take turns as evenly as that allows, and which record stands at a position
    follows from the position alone. Numbers of records, as in `record_index`, are those of a
    `ConcatSource`.

    Args:
      sources: `DataSourceModule`s that do not shuffle, or objects with `__len__` and `__getitem__`.
      weights: a positive number for each source; only their ratios count. 0.7 and 0.3 make blocks
        of ten positions; where a block would need more than 2^20, counts in a long one are rounded.
      length: positions of an epoch; a source that runs out begins again. None: an epoch ends before
        any record would come a second time.
      config: whether each source comes in a random order, and from which seed.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: its name in messages.

    Attributes:
      counts: int64 `(sources,)`, how many positions of a block each source has.

    Raises:
      TypeError: for weights that are not numbers, if there is no source, or for sources that cannot
        be read by number.
      ValueError: for weights of another number than sources, or not positive and finite; for a
        source that shuffles.

    >>> news, books = [[{"x": number}] * 6 for number in range(2)]
    >>> source = MixtureSource([news, books], weights=[2, 1])
    >>> len(source), source.counts.tolist(), source.order(0).tolist()
    (9, [2, 1], [0, 6, 1, 2, 7, 3, 4, 8, 5])
    """

    def __init__(
        self,
        sources: Sequence[Any],
        weights: Sequence[float],
        *,
        length: int | None = None,
        config: SourceConfig | None = None,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(sources, config=config, rngs=rngs, name=name)
        self._pattern = Opaque(Mixture(_checked_weights(weights, len(self.sources))))
        self._length = self._without_repetition() if length is None else _checked_length(length)

    @property
    def counts(self) -> Int[np.ndarray, " sources"]:
        """How many positions of a block each source has."""
        return self._pattern.value.counts

    def _without_repetition(self) -> int:
        """How many positions there are before a source would give a record once more."""
        counts, lengths = self.counts, np.array([readable(source) for source in self.sources])
        block = int(counts.sum())
        which, turns = self._pattern.value.at(np.arange(block))
        places = np.lexsort((turns, which))
        blocks, more = np.divmod(lengths, counts)
        ends = blocks * block + places[np.cumsum(counts) - counts + more]
        return min(int(ends.min()), MAX_RECORDS)

    def __len__(self) -> int:
        return self._length

    def record_numbers(
        self, epoch: int, positions: Int[np.ndarray, " n"]
    ) -> UInt32[np.ndarray, " n"]:
        which, turns = self._pattern.value.at(positions)
        numbers = np.empty(len(which), np.uint32)
        for source in np.unique(which):
            rows = np.flatnonzero(which == source)
            length = readable(self.sources[source])
            rounds, places = np.divmod(turns[rows].astype(np.int64), length)
            if self.config.shuffle:
                words = (*self._require_shuffle_key().tolist(), epoch, int(source))
                for turn in np.unique(rounds):
                    # A source that begins again has another order.
                    own = rounds == turn
                    places[own] = permuted(places[own], (*words, int(turn)), length)
            numbers[rows] = places + self._starts.value[source]
        return numbers


def _checked_weights(weights: Any, count: int) -> list[float]:
    try:
        values = [float(weight) for weight in weights]
    except (TypeError, ValueError) as error:
        raise TypeError(f"weights must be {count} numbers, got {weights!r}") from error
    if len(values) != count:
        raise ValueError(f"weights must have one number for each of {count} sources, got {weights}")
    if not all(isfinite(value) and value > 0 for value in values):
        raise ValueError(
            f"weights must be positive and finite, got {weights}; leave out sources that shall "
            "give no record"
        )
    return values


def _checked_length(length: Any) -> int:
    if isinstance(length, bool) or not hasattr(length, "__index__"):
        raise TypeError(f"length must be an integer or None, got {type(length).__name__}")
    if not 0 < int(length) <= MAX_RECORDS:
        raise ValueError(f"length must be from 1 to {MAX_RECORDS}, got {length}")
    return int(length)
