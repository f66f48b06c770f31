"""Values between pixels: sums over the two or four nearest of each axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, UInt8

from datarax.operators.modality.image.functional._exact import product
from datarax.operators.modality.image.functional._fixed import Fixed, high_product, less_a_half

# Of the place between two pixels, bilinear takes so many bits, and bicubic weights have so many.
LINEAR_BITS = 22
CUBIC_BITS = 21


class Place(NamedTuple):
    """Where output pixels lie among the input pixels of one axis.

    Attributes:
      pixel: the pixel whose centre is at or before the place.
      fraction: the way from its centre to the next, in units of 2 ** -32.
    """

    pixel: Int32[Array, "height width"]
    fraction: Array


def place(centre: Fixed) -> Place:
    """The place of a coordinate in which pixel i has its centre at i + 1/2."""
    return Place(*less_a_half(centre))


def neighbours(place: Place, count: int, side: int) -> list[Array]:
    """The 2 or 4 pixels around a place, the border repeated."""
    first = 1 - count // 2
    return [jnp.clip(place.pixel + first + step, 0, side - 1) for step in range(count)]


def fetched(pixels: Array, row: Array, column: Array) -> Array:
    """The pixels at rows and columns inside the image, of any dtype and rank."""
    if pixels.dtype == jnp.uint8 and pixels.ndim == 3 and pixels.shape[2] <= 4:
        found = lax.bitcast_convert_type(fetched(words(pixels), row, column), jnp.uint8)
        return found[..., : pixels.shape[2]]
    lines = pixels.reshape(-1, *pixels.shape[2:])
    return lines.at[row * pixels.shape[1] + column].get(mode="promise_in_bounds")


def words(image: UInt8[Array, "height width channel"]) -> Array:
    """Up to four channels in one uint32 a pixel, so that a pixel is fetched at once."""
    missing = 4 - image.shape[2]
    padded = jnp.pad(image, ((0, 0), (0, 0), (0, missing)))
    return lax.bitcast_convert_type(padded, jnp.uint32)


def from_words(channels: Sequence[Int32[Array, "height width"]]) -> UInt8[Array, "..."]:
    """The image whose channels are these values from 0 to 255."""
    word = jnp.zeros(channels[0].shape, jnp.uint32)
    for number, channel in enumerate(channels):
        word |= channel.astype(jnp.uint32) << (8 * number)
    return lax.bitcast_convert_type(word, jnp.uint8)[..., : len(channels)]


def channel(word: Array, number: int) -> Int32[Array, "height width"]:
    """The values of one channel of words."""
    return ((word >> (8 * number)) & 255).astype(jnp.int32)


def linear_integers(rows: Sequence[Sequence[Array]], y: Place, x: Place) -> Int32[Array, "..."]:
    """Bilinear values, downwards to integers, of 2 x 2 arrays of values from 0 to 255."""
    dy, dx = (_linear_weight(axis.fraction) for axis in (y, x))
    above, below = ((a << LINEAR_BITS) + (b - a) * dx for a, b in rows)
    return (above + _scaled(below - above, dy, LINEAR_BITS)) >> LINEAR_BITS


def _linear_weight(fraction: Array) -> Int32[Array, "..."]:
    """The way to the next pixel in units of 2 ** -LINEAR_BITS, odd where bits were cut.

    So a value a little below an integer does not become it.
    """
    cut = 32 - LINEAR_BITS
    rest = (fraction & ((1 << cut) - 1)) != 0
    return ((fraction >> cut) | rest.astype(jnp.uint32)).astype(jnp.int32)


def cubic_integers(rows: Sequence[Sequence[Array]], y: Place, x: Place) -> Int32[Array, "..."]:
    """Bicubic values, downwards to integers, of 4 x 4 arrays of values from 0 to 255."""
    across, down = _cubic_weights(x.fraction), _cubic_weights(y.fraction)
    lines = [
        sum((weight * value for weight, value in zip(across, row, strict=True)), jnp.int32(0))
        for row in rows
    ]
    # Differences, because a sum of rounded products of one value would be less than the value.
    total = lines[1]
    for line, weight in zip(lines, down, strict=True):
        if line is not lines[1]:
            total += _scaled(line - lines[1], weight, CUBIC_BITS)
    return jnp.clip(total >> CUBIC_BITS, 0, 255)


def _cubic_weights(fraction: Array) -> list[Int32[Array, "..."]]:
    """The four weights of a place, which sum to 2 ** CUBIC_BITS.

    A place off a pixel's centre stays off it, for the reason that a linear weight is odd.
    """
    least = np.uint32(1 << (32 - CUBIC_BITS))
    off = jnp.clip(fraction, least, np.uint32(2**32 - int(least)))
    fraction = jnp.where(fraction == 0, fraction, off)
    square = high_product(fraction, fraction)
    cube = high_product(square, fraction)
    extra = 29 - CUBIC_BITS
    d, dd, ddd = ((power >> 3).astype(jnp.int32) for power in (fraction, square, cube))
    before, after, last = (
        (weight + (1 << (extra - 1))) >> extra
        for weight in (2 * dd - d - ddd, d + dd - ddd, ddd - dd)
    )
    return [before, (1 << CUBIC_BITS) - before - after - last, after, last]


def _scaled(value: Int32[Array, "..."], factor: Int32[Array, "..."], bits: int) -> Array:
    """`value * factor >> bits`, exactly, though the product has more than 32 bits."""
    low = bits // 2
    high = bits - low
    value_high, value_low = value >> high, value & ((1 << high) - 1)
    factor_high, factor_low = factor >> low, factor & ((1 << low) - 1)
    small = (value_low * factor_high + (value_low * factor_low >> low)) >> (high - low)
    return value_high * factor_high + ((value_high * factor_low + small) >> low)


def linear_floats(rows: Sequence[Sequence[Array]], dy: Array, dx: Array) -> Array:
    """Bilinear values of 2 x 2 arrays."""
    above, below = (a + product(b - a, dx) for a, b in rows)
    return above + product(below - above, dy)


def cubic_floats(values: Sequence[Array], d: Array) -> Array:
    """The value at a place between the second and third of four, by the cubic with a = -1."""
    a, b, c, e = values
    linear, square, cube = c - a, 2 * (a - b) + c - e, b - a - c + e
    return b + product(d, linear + product(d, square + product(d, cube)))
