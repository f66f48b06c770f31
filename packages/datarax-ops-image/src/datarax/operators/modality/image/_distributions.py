"""Distributions of the numbers that an operator draws for each record.

Draws are sums, or products, of what tables hold for the digits of random words. Nothing is added
to a product, which compilers do with one rounding or with two: a draw has the same bits in every
compiled context, on every backend and in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, Key, UInt32

from datarax.core._modality_config import is_sequence, require_number
from datarax.core.randomness import below, random_words

DIGITS = 3
OCTAVES = 31
SEGMENTS = 512


@dataclass(frozen=True)
class Distribution:
    """Base class of distributions; a subclass implements `quantile` and `support`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> class Halves(Distribution):
    ...     support = (0.0, 0.5)
    ...
    ...     def quantile(self, words):
    ...         return jnp.where(words % 2 == 0, jnp.float32(0), jnp.float32(0.5))
    >>> sorted(set(Halves().draw(jax.random.key(0), (100,)).tolist()))
    [0.0, 0.5]
    """

    @property
    def support(self) -> tuple[float, float]:
        """The smallest and the largest number that can be drawn."""
        raise NotImplementedError(f"{type(self).__name__} must implement support")

    def quantile(self, words: UInt32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        """The numbers that uniform random words of 32 bits stand for."""
        raise NotImplementedError(f"{type(self).__name__} must implement quantile")

    def whole_quantile(self, words: UInt32[Array, "*shape"]) -> Int32[Array, "*shape"]:
        """The same for a number that must be an integer: the nearest one, ties to even."""
        return jnp.round(self.quantile(words)).astype(jnp.int32)

    def draw(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Float32[Array, "*shape"]:
        """Draws numbers.

        Args:
          key: the key.
          shape: how many.

        Returns:
          float32 of this shape.
        """
        return self.quantile(random_words(key, shape))

    def draw_integers(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Int32[Array, "*shape"]:
        """Draws integers.

        Args:
          key: the key.
          shape: how many.

        Returns:
          int32 of this shape.
        """
        return self.whole_quantile(random_words(key, shape))

    def _set_numbers(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None:
                number = require_number(f"{name} of {type(self).__name__}", value)
                object.__setattr__(self, name, number)

    def _refuse(self, problem: str) -> None:
        raise ValueError(f"{self!r} {problem}")


@dataclass(frozen=True)
class Uniform(Distribution):
    """All numbers from `low` to `high` are equally likely.

    Where an operator's number is an integer (as the bits of posterize), so are these, and both ends
    are drawn.

    Args:
      low: the smallest number.
      high: the largest number.

    Raises:
      TypeError: if they are not numbers.
      ValueError: if `low` is above `high`, or one is not finite.

    >>> Uniform(0.6, 1.4).support
    (0.6, 1.4)
    """

    low: float
    high: float
    kind: str = field(default="Uniform", init=False, repr=False)

    def __post_init__(self) -> None:
        self._set_numbers("low", "high")
        if self.low > self.high:
            self._refuse("is empty; give (low, high) with low <= high")

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def quantile(self, words: UInt32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        number = np.float32(self.low)
        for steps, place in _digits(words):
            number = number + jnp.asarray(np.float32(steps * (self.high - self.low)))[place]
        return jnp.minimum(number, np.float32(self.high))

    def whole_quantile(self, words: UInt32[Array, "*shape"]) -> Int32[Array, "*shape"]:
        count = np.int32(self.high - self.low + 1)
        return np.int32(self.low) + below(words, jnp.broadcast_to(count, words.shape))


@dataclass(frozen=True)
class LogUniform(Distribution):
    """The logarithm is uniform, as it should be for scales and ratios.

    Args:
      low: the smallest number, positive.
      high: the largest number.

    Raises:
      TypeError: if they are not numbers.
      ValueError: unless 0 < low <= high.

    >>> LogUniform(3 / 4, 4 / 3).support
    (0.75, 1.3333333333333333)
    """

    low: float
    high: float
    kind: str = field(default="LogUniform", init=False, repr=False)

    def __post_init__(self) -> None:
        self._set_numbers("low", "high")
        if not 0 < self.low <= self.high:
            self._refuse("must have 0 < low <= high")

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def quantile(self, words: UInt32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        # The power of a sum of digits is the product of their powers.
        span, number = math.log(self.high / self.low), np.float32(1)
        for steps, place in _digits(words):
            number = number * jnp.asarray(np.float32(np.exp(span * steps)))[place]
        return jnp.clip(number * np.float32(self.low), np.float32(self.low), np.float32(self.high))


@dataclass(frozen=True)
class Normal(Distribution):
    """A normal distribution, clipped to `low` and `high`.

    Args:
      mean: the mean, before it is clipped.
      std: the standard deviation, before it is clipped; not negative.
      low: the smallest number; None for none.
      high: the largest number; None for none.

    Raises:
      TypeError: if they are not numbers.
      ValueError: if `std` is negative, or `low` above `high`.

    >>> Normal(9, 0.5, low=0, high=10).support
    (0, 10)
    """

    mean: float
    std: float
    low: float | None = None
    high: float | None = None
    kind: str = field(default="Normal", init=False, repr=False)

    def __post_init__(self) -> None:
        self._set_numbers("mean", "std", "low", "high")
        if self.std < 0:
            self._refuse("must have a std of at least 0")
        if self.low is not None and self.high is not None and self.low > self.high:
            self._refuse("is empty; give low <= high")

    @property
    def support(self) -> tuple[float, float]:
        low = -math.inf if self.low is None else self.low
        return low, math.inf if self.high is None else self.high

    def quantile(self, words: UInt32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        number = np.float32(self.mean) + normal(words, self.std)
        if self.low is not None:
            number = jnp.maximum(number, np.float32(self.low))
        return number if self.high is None else jnp.minimum(number, np.float32(self.high))


@dataclass(frozen=True)
class Choice(Distribution):
    """One of a few numbers.

    Args:
      values: the numbers.
      weights: of the values, not negative; they need not sum to 1. None: equally likely.

    Raises:
      TypeError: if one is not a sequence of numbers.
      ValueError: if there is no value, if there are more or fewer weights than values, or if no
        weight is positive.

    >>> Choice((-30, 30), weights=(1, 3)).support
    (-30, 30)
    """

    values: tuple[float, ...]
    weights: tuple[float, ...] | None = None
    kind: str = field(default="Choice", init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("values", "weights"):
            numbers = getattr(self, name)
            if numbers is None and name == "weights":
                continue
            label = f"{name} of Choice"
            if not is_sequence(numbers):
                raise TypeError(f"{label} must be a tuple of numbers, got {numbers!r}")
            numbers = tuple(require_number(label, number) for number in numbers)
            object.__setattr__(self, name, numbers)
        if not self.values:
            self._refuse("must have at least one value")
        if self.weights is None:
            return
        if len(self.weights) != len(self.values):
            self._refuse(f"has {len(self.weights)} weights for {len(self.values)} values")
        if min(self.weights) < 0 or not any(self.weights):
            self._refuse("must have weights of at least 0, and one above 0")

    @property
    def support(self) -> tuple[float, float]:
        weights = self.weights or [1] * len(self.values)
        possible = [v for v, weight in zip(self.values, weights, strict=True) if weight]
        return min(possible), max(possible)

    def quantile(self, words: UInt32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        return jnp.asarray(np.array(self.values, np.float32))[self._places(words)]

    def whole_quantile(self, words: UInt32[Array, "*shape"]) -> Int32[Array, "*shape"]:
        return jnp.asarray(np.array(self.values, np.int32))[self._places(words)]

    def _places(self, words: UInt32[Array, "*shape"]) -> Int32[Array, "*shape"]:
        weights = np.array(self.weights or [1] * len(self.values), np.float64)
        ends = np.cumsum(weights)[:-1] / weights.sum()
        place = jnp.zeros(words.shape, jnp.int32)
        for end in np.round(ends * 2.0**32):
            # The end 2**32, after which nothing can come, does not fit a word.
            passed = words >= np.uint32(end) if end < 2**32 else jnp.zeros(words.shape, bool)
            place = place + passed.astype(jnp.int32)
        return place


def normal(words: UInt32[Array, "*shape"], std: float = 1.0) -> Float32[Array, "*shape"]:
    """Normal numbers of mean 0 out of random words: a sign, and a piece of a tail.

    A tail is cut into octaves, the probabilities from 2**-(n + 1) to 2**-n, and each of these into
    512 pieces; the largest number is 6.2 times `std`.
    """
    size = jnp.asarray(np.float32(normal_table() * std))[normal_pieces(words)]
    return jnp.where(words >> np.uint32(31) == 0, -size, size)


def normal_pieces(words: UInt32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """The places in `normal_table` of random words, whose highest bit is not read."""
    tail = words & np.uint32(2**31 - 1)
    octave = jnp.minimum(lax.clz(tail) - np.uint32(1), np.uint32(OCTAVES - 1))
    # The bits after the first one that is set, moved up to the left end.
    rest = (tail << octave) << np.uint32(2)
    piece = octave * np.uint32(SEGMENTS) + (rest >> np.uint32(32 - (SEGMENTS - 1).bit_length()))
    return piece.astype(jnp.int32)


@lru_cache(1)
def normal_table() -> np.ndarray:
    """The standard normal number in the middle of each piece of a tail, float64."""
    quantile = NormalDist().inv_cdf
    middles = (np.arange(SEGMENTS) + 0.5) / SEGMENTS
    return np.array(
        [
            -quantile(2.0 ** -(octave + 2) * (1 + middle))
            for octave in range(OCTAVES)
            for middle in middles.tolist()
        ]
    )


def _digits(words: UInt32[Array, "*shape"]) -> Iterator[tuple[np.ndarray, Int32[Array, "*shape"]]]:
    """What the 256 values of each of the upper digits stand for, from 0 to 1, and which it is."""
    for digit in range(1, DIGITS + 1):
        steps = (np.arange(256) + (0.5 if digit == DIGITS else 0.0)) * 256.0**-digit
        place = (words >> np.uint32(32 - 8 * digit)) & np.uint32(255)
        yield steps, place.astype(jnp.int32)
