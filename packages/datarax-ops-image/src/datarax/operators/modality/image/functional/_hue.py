"""Turning the hue, in Pillow's HSV for uint8 and in the continuous one for floats.

References:
  Smith, "Color Gamut Transform Pairs", 1978.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from datarax.operators.modality.image.functional._compiled import compiled
from datarax.operators.modality.image.functional._dtypes import computing
from datarax.operators.modality.image.functional._exact import product, settled, stored
from datarax.operators.modality.image.functional._luminance import in_colour
from datarax.operators.modality.image.functional._numbers import scalar

# The hues h for which Pillow's float32 of h/255 of a turn falls short, so that it stores h - 1
# where the hue is exactly h/255. Bit h % 32 of word h // 32.
_FALLS_SHORT = (0xFFFFFFFE, 0, 0x11000000, 0x111, 0x222AAAAA, 0x23232222, 0x22222, 0)


@compiled()
def hue(
    image: Shaped[Array, "height width *channel"], shift: ArrayLike
) -> Shaped[Array, "height width *channel"]:
    """Turns the hue by a fraction of the colour circle.

    uint8: the image goes to Pillow's HSV, whose three numbers are bytes, where the shift times 255,
    truncated, is added modulo 256, and back. So a shift of 0 changes colours a little. Floats: the
    hue turns continuously, value and chroma stay.

    Args:
      image: `(height, width, channel)` with 1 or 3 channels, or `(height, width)`; uint8 or
        floating. A grey image stays as it is.
      shift: a number of turns, from -0.5 to 0.5.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another shape, or the shift is not one number.
    """
    colour = in_colour(image, "hue")
    turns = scalar("shift", shift, computing(colour.dtype))
    if colour.shape[2] == 1:
        return image
    if colour.dtype == jnp.uint8:
        steps = jnp.trunc(product(turns, np.float32(255))).astype(jnp.int32)
        hues, saturations, values = _bytes_of(*_channels(colour.astype(jnp.int32)))
        return _colour_of((hues + steps) & np.int32(255), saturations, values)
    return stored(_turned(colour.astype(turns.dtype), turns), colour.dtype)


def _channels(image: Array) -> tuple[Array, Array, Array]:
    return image[..., 0], image[..., 1], image[..., 2]


def _floor_divide(numerator: Array, denominator: Array) -> Array:
    """The quotient of integers below 2**18 that is below 2**8, by a denominator below 2**9.

    Half a unit keeps the float32, as rounded as it may be, away from whole numbers.
    """
    half = np.float32(0.5)
    return ((numerator.astype(jnp.float32) + half) / denominator.astype(jnp.float32)).astype(
        jnp.int32
    )


def _sixths(red: Array, green: Array, blue: Array, chroma: Array) -> Array:
    """The hue in sixths of a turn, from 0 to 6, times the chroma."""
    largest = jnp.maximum(jnp.maximum(red, green), blue)

    def chromas(number: int) -> Array:
        multiple = jnp.multiply(np.asarray(number, chroma.dtype), chroma)
        return settled(multiple) if jnp.issubdtype(chroma.dtype, jnp.floating) else multiple

    from_red = jnp.where(green < blue, chromas(6), 0) + (green - blue)
    from_green, from_blue = chromas(2) + (blue - red), chromas(4) + (red - green)
    return jnp.where(red == largest, from_red, jnp.where(green == largest, from_green, from_blue))


def _bytes_of(red: Array, green: Array, blue: Array) -> tuple[Array, Array, Array]:
    """Hue, saturation and value from 0 to 255 of integers, as Pillow rounds them."""
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    divisor = jnp.maximum(chroma, 1)
    # 255 sixths / 6 = 85 sixths / 2.
    numerator, doubled = np.int32(85) * _sixths(red, green, blue, chroma), np.int32(2) * divisor
    exact = _floor_divide(numerator, doubled)
    short = jnp.where(exact * doubled == numerator, _bit_of(exact), 0)
    saturation = _floor_divide(np.int32(255) * chroma, jnp.maximum(value, 1))
    return jnp.where(chroma > 0, exact - short, 0), saturation, value


def _bit_of(hues: Array) -> Array:
    """1 for the hues of `_FALLS_SHORT`, else 0."""
    place, word = hues >> np.int32(5), jnp.zeros_like(hues, jnp.uint32)
    for index, bits in enumerate(_FALLS_SHORT):
        word = jnp.where(place == index, np.uint32(bits), word) if bits else word
    return ((word >> (hues & np.int32(31)).astype(jnp.uint32)) & np.uint32(1)).astype(jnp.int32)


def _colour_of(hues: Array, saturations: Array, values: Array) -> Array:
    """The colour `(height, width, 3)` of Pillow's HSV: each channel the nearest integer.

    No denominator is even, so that no result lies halfway.
    """
    doubled = np.uint32(2) * hues.astype(jnp.uint32)
    sextant = doubled // np.uint32(85)
    offset = doubled - np.uint32(85) * sextant

    def part(weight: Array) -> Array:
        """The value times (1 - saturation * weight), weights in 85ths."""
        white = np.uint32(255 * 85)
        number = values.astype(jnp.uint32) * (white - saturations.astype(jnp.uint32) * weight)
        return (np.uint32(2) * number + white) // (np.uint32(2) * white)

    least, falling = part(jnp.full_like(offset, 85)), part(offset)
    rising = part(np.uint32(85) - offset)
    value = values.astype(jnp.uint32)
    around = (value, falling, least, least, rising, value)
    sextant = jnp.where(sextant == 6, 0, sextant.astype(jnp.int32))
    channels = [
        lax.select_n(sextant, *(around[(place + turn) % 6] for place in range(6)))
        for turn in (0, 4, 2)
    ]
    return jnp.stack(channels, -1).astype(jnp.uint8)


def _turned(image: Array, turns: Array) -> Array:
    """Floats with the hue turned: value - chroma * the distance of the hue from each channel's."""
    red, green, blue = _channels(image)
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    zero, one, four, six = (np.asarray(number, image.dtype) for number in (0, 1, 4, 6))
    sixths = _sixths(red, green, blue, chroma) / jnp.where(chroma > zero, chroma, one)
    sixths = settled(settled(sixths) + product(six, turns))
    channels = []
    for place in (5, 3, 1):
        around = sixths + np.asarray(place, image.dtype)
        around = around - product(six, jnp.floor(product(around, np.asarray(1 / 6, image.dtype))))
        distance = jnp.clip(jnp.minimum(around, four - around), zero, one)
        channels.append(value - product(chroma, distance))
    return jnp.stack(channels, -1)
