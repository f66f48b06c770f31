"""Which of several weighted sources the record at a position comes from, and where it stands there.

The positions are cut into blocks of one length. In each, every source has as many positions as its
weight says, to the record, spread as evenly as they can be; so what stands at a position follows
from the position alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm

import numpy as np
from jaxtyping import Int, UInt64

# How long a block may be where the weights are ratios of integers, and how long it is where they
# are not: the longer, the nearer to the weights.
_LONGEST_EXACT = 2**20
_ROUNDED, _ROUNDED_PER_SOURCE = 2**16, 256


class Mixture:
    """The pattern in which sources take turns.

    Args:
      weights: a positive number for each source; only their ratios count.

    Attributes:
      counts: int64 `(sources,)`, how many positions of a block each source has.

    Raises:
      ValueError: if there is no weight, or one is not positive and finite.

    >>> mixture = Mixture([3, 1])
    >>> mixture.at(np.arange(8))[0].tolist()
    [0, 0, 1, 0, 0, 0, 1, 0]
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.counts = _counts(weights)
        sources = np.repeat(np.arange(len(self.counts)), self.counts)
        rank = np.arange(len(sources)) - np.repeat(
            np.cumsum(self.counts) - self.counts, self.counts
        )
        due = (2 * rank + 1) / (2 * np.repeat(self.counts, self.counts))
        turns = np.argsort(due, kind="stable")
        self._sources, self._ranks = sources[turns].astype(np.int32), rank[turns].astype(np.uint32)

    def at(
        self, positions: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], UInt64[np.ndarray, " n"]]:
        """What stands at these positions, each from 0.

        Returns:
          The number of the source and, in the sequence of this source's records, the position.
        """
        block, place = np.divmod(
            np.asarray(positions).astype(np.uint64), np.uint64(len(self._sources))
        )
        source = self._sources[place]
        return source, block * self.counts[source].astype(np.uint64) + self._ranks[place]


def _counts(weights: Sequence[float]) -> Int[np.ndarray, " sources"]:
    """How many positions of a block each source has: exactly the ratios if they are simple."""
    if not len(weights) or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(
            f"weights must be a positive number for each source, got {list(weights)}; leave out "
            "sources that shall give no record"
        )
    exact = [Fraction(float(weight)).limit_denominator(10**6) for weight in weights]
    whole = lcm(*(fraction.denominator for fraction in exact))
    parts = [int(fraction * whole) for fraction in exact]
    simple = all(
        part and abs(float(fraction) - weight) <= 1e-12 * weight
        for part, fraction, weight in zip(parts, exact, weights, strict=True)
    )
    if simple and sum(parts) <= _LONGEST_EXACT * gcd(*parts):
        return np.asarray(parts) // gcd(*parts)
    # Rounded, the largest remainders up; every source has a position.
    length = max(_ROUNDED, _ROUNDED_PER_SOURCE * len(parts))
    shares = np.asarray(weights, np.float64)
    shares = shares / shares.max()
    shares *= length / shares.sum()
    counts = np.maximum(np.floor(shares).astype(np.int64), 1)
    missing = length - int(counts.sum())
    if missing > 0:
        counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    return counts
