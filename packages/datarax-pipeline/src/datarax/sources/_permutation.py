"""A random order of any number of records, found position by position.

A keyed permutation of exactly `range(length)`, for which nothing as long as the order is stored.
Positions are cells of a table of about as many rows as columns. Each round shifts every column by a
random number of rows, or every row by a random number of columns, which can be undone; a cell
beyond the length is permuted again until one within it comes ("cycle walking"). Small tables mix
slowly, so that the few records of a short order are sorted by random numbers instead, which makes
all of their orders equally likely.

Only what NumPy promises never to change goes in (`SeedSequence`, and the raw bits of Philox), so
that an epoch can be resumed under another NumPy.

References:
  Black, Rogaway: Ciphers with Arbitrary Finite Domains, CT-RSA 2002 (method 3 and cycle walking).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np
from jaxtyping import Int, UInt64

SHORT = 1024
# Three times as many as chi-squared tests over 100,000 keys ask for, of the places of two and three
# records of 1,025.
ROUNDS = 12

_MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_32 = np.uint64(32)


def permuted(
    positions: Int[np.ndarray, " n"], words: Sequence[int], length: int
) -> UInt64[np.ndarray, " n"]:
    """What stands at these positions of a random order of `range(length)`.

    Args:
      positions: each at least 0 and less than `length`.
      words: non-negative integers that decide on the order, such as those of a seed and the epoch.
      length: how many records there are, at most 2^63.
    """
    seed = np.random.SeedSequence([int(word) for word in words])
    if length <= SHORT:
        return _sorted_order(seed, length)[positions]
    keys = seed.generate_state(2 * ROUNDS, np.uint64).reshape(ROUNDS, 2)
    rows = _even(isqrt(length - 1) + 1)
    columns = _even(-(-length // rows))
    sides = np.uint64(rows), np.uint64(columns)
    found = _once(positions.astype(np.uint64), keys, *sides)
    outside = np.flatnonzero(found >= length)
    while outside.size:
        found[outside] = _once(found[outside], keys, *sides)
        outside = outside[found[outside] >= length]
    return found


def _sorted_order(seed: np.random.SeedSequence, length: int) -> UInt64[np.ndarray, " length"]:
    bits = np.random.Philox(seed).random_raw(length)
    # Random high bits with the record in the low ones: one sort of values, without ties.
    low = np.uint64((1 << max(length - 1, 1).bit_length()) - 1)
    tagged = (bits & ~low) | np.arange(length, dtype=np.uint64)
    tagged.sort()
    return tagged & low


def _even(number: int) -> int:
    # A shift by one of an odd number of cells is an even permutation, and so would all orders be.
    return number + number % 2


def _once(
    cells: UInt64[np.ndarray, " n"],
    keys: UInt64[np.ndarray, "rounds 2"],
    rows: np.uint64,
    columns: np.uint64,
) -> UInt64[np.ndarray, " n"]:
    row, column = np.divmod(cells, columns)
    for pair in range(0, len(keys), 2):
        row = _shifted(row, column, keys[pair], rows)
        column = _shifted(column, row, keys[pair + 1], columns)
    return row * columns + column


def _shifted(
    moved: UInt64[np.ndarray, " n"],
    other: UInt64[np.ndarray, " n"],
    key: UInt64[np.ndarray, "2"],
    side: np.uint64,
) -> UInt64[np.ndarray, " n"]:
    """`moved` plus a number below `side` that the key draws for each value of `other`."""
    bits = (other ^ key[0]) * _MIX_1
    bits ^= bits >> _32
    bits += key[1]
    bits *= _MIX_2
    bits ^= bits >> _32
    bits *= _MIX_1
    bits >>= _32
    # Now 32 random bits, brought below `side` without a division.
    bits *= side
    bits >>= _32
    bits += moved
    # Less one side where that is not below 0, which would be a huge number.
    return np.minimum(bits, bits - side)
