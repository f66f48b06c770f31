"""Cosine and sine of degrees to 31 bits, in integers."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from datarax.operators.modality.image.functional import _fixed
from datarax.operators.modality.image.functional._fixed import Fixed, high_product

# Of 1 - x²/2 (1 - x²/12 (1 - x²/30 ...)) and x (1 - x²/6 (1 - x²/20 ...)).
COSINE = (1 * 2, 3 * 4, 5 * 6, 7 * 8, 9 * 10, 11 * 12)
SINE = (2 * 3, 4 * 5, 6 * 7, 8 * 9, 10 * 11)
ONE = np.uint32(0xFFFFFFFF)


def cosine_and_sine(degrees: Float[Array, ""]) -> tuple[Fixed, Fixed]:
    """Cosine and sine, exact at multiples of 90 degrees and equal at 45; of NaN, those of 0."""
    degrees = jnp.where(jnp.isfinite(degrees), degrees, 0)
    # The remainder of a division is exact, and so is the difference from a quarter turn near it.
    turn = jnp.fmod(degrees, 360)
    quarters = jnp.round(turn / 90)
    rest = turn - quarters * 90
    size = jnp.abs(rest)
    high = size * 2**10
    low = (high - jnp.floor(high)) * 2**16
    # Degrees in units of 2 ** -26, and radians in units of 2 ** -32.
    units = (high.astype(jnp.uint32) << 16) | low.astype(jnp.uint32)
    angle = high_product(units, jnp.uint32(round(math.pi / 180 * 2**37))) << 1
    cosine, sine = _of_small(angle)
    # Equal, so that diagonals cancel.
    sine = _fixed.where(size == 45, cosine, sine)
    sine = _fixed.where(rest < 0, _fixed.negative(sine), sine)
    quarter = quarters.astype(jnp.int32) & 3
    odd, minus = (quarter & 1) == 1, _fixed.negative
    cosine, sine = _fixed.where(odd, minus(sine), cosine), _fixed.where(odd, cosine, sine)
    half = quarter >= 2
    return _fixed.where(half, minus(cosine), cosine), _fixed.where(half, minus(sine), sine)


def _of_small(angle: Array) -> tuple[Fixed, Fixed]:
    """Of radians from 0 to π/4, in units of 2 ** -32."""
    square = high_product(angle, angle)
    cosine = _series(square, COSINE)
    sine = high_product(angle, _series(square, SINE))
    # A factor of one less its last bit is one.
    one = Fixed(jnp.int32(1), jnp.uint32(0))
    zero = jnp.int32(0)
    cosine = _fixed.where(square == 0, one, Fixed(zero, cosine))
    return cosine, Fixed(zero, jnp.where(square == 0, angle, sine))


def _series(square: Array, divisors: tuple[int, ...]) -> Array:
    """`1 - x²/a (1 - x²/b (1 - ...))` in units of 2 ** -32."""
    factor = jnp.asarray(ONE)
    for divisor in divisors[::-1]:
        reciprocal = jnp.uint32(round(2**32 / divisor))
        factor = ONE - high_product(high_product(square, reciprocal), factor)
    return factor
