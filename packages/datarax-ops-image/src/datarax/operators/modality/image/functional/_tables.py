"""Functions of one pixel's value: invert, solarize, solarize-add and posterize."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from datarax.operators.modality.image.functional._compiled import compiled
from datarax.operators.modality.image.functional._dtypes import checked, computing
from datarax.operators.modality.image.functional._exact import product, stored
from datarax.operators.modality.image.functional._levels import of_levels
from datarax.operators.modality.image.functional._numbers import scalar


def _inverted(pixels: Array) -> Array:
    """What is left to white, which is 255 for integers and 1 for floats."""
    white = 1 if jnp.issubdtype(pixels.dtype, jnp.floating) else 255
    return jnp.subtract(np.asarray(white, pixels.dtype), pixels)


def _below(pixels: Array, threshold: Array) -> Array:
    """Whether integers from 0 to 255 are below a float32, compared as integers."""
    return pixels.astype(jnp.int16) < _integer(jnp.ceil(threshold), 256)


def _integer(number: Array, largest: int) -> Array:
    """A whole number as int16, not below -largest and not above largest."""
    return jnp.clip(number, np.float32(-largest), np.float32(largest)).astype(jnp.int16)


@compiled()
def invert(image: Shaped[Array, "height width *channel"]) -> Shaped[Array, "height width *channel"]:
    """White minus the image: 255 - x for uint8, 1 - x for floats.

    Args:
      image: `(height, width, channel)` or `(height, width)`, uint8 or floating (white is 1).

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank.
    """
    image = checked(image)
    if image.dtype == jnp.uint8:
        return _inverted(image)
    return stored(_inverted(image.astype(computing(image.dtype))), image.dtype)


@compiled()
def solarize(
    image: Shaped[Array, "height width *channel"], threshold: ArrayLike
) -> Shaped[Array, "height width *channel"]:
    """Inverts the values that are not below the threshold.

    Args:
      image: `(height, width, channel)` or `(height, width)`, uint8 or floating (white is 1).
      threshold: a number in the image's unit, 0 to 256 for uint8 and about 0 to 1 for floats.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank, or the threshold is not one number.
    """
    image = checked(image)
    number = scalar("threshold", threshold, computing(image.dtype))
    if image.dtype == jnp.uint8:
        return jnp.where(_below(image, number), image, _inverted(image))
    pixels = image.astype(number.dtype)
    return stored(jnp.where(pixels < number, pixels, _inverted(pixels)), image.dtype)


@compiled()
def solarize_add(
    image: Shaped[Array, "height width *channel"],
    addend: ArrayLike,
    threshold: ArrayLike = 128,
) -> Shaped[Array, "height width *channel"]:
    """Adds to the values that are below the threshold.

    Args:
      image: `(height, width, channel)` or `(height, width)`, uint8 or floating (white is 1).
      addend: a number in the image's unit. For uint8 it is truncated to an integer, and the sum
        clipped to 0..255.
      threshold: a number in the image's unit. 128 is the middle for floats too: 128/255.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank, or a number is not one number.

    References:
      Cubuk et al., "RandAugment", 2020, appendix: SolarizeAdd of the TensorFlow implementation.
    """
    image = checked(image)
    wide = computing(image.dtype)
    integers = image.dtype == jnp.uint8
    number, limit = scalar("addend", addend, wide), scalar("threshold", threshold, wide)
    if integers:
        raised = image.astype(jnp.int16) + _integer(jnp.trunc(number), 255)
        raised = jnp.clip(raised, np.int16(0), np.int16(255)).astype(jnp.uint8)
        return jnp.where(_below(image, limit), raised, image)
    pixels = image.astype(wide)
    limit = jnp.where(limit == np.asarray(128, wide), np.asarray(128 / 255, wide), limit)
    return stored(jnp.where(pixels < limit, pixels + number, pixels), image.dtype)


@compiled()
def posterize(
    image: Shaped[Array, "height width *channel"], bits: ArrayLike
) -> Shaped[Array, "height width *channel"]:
    """Keeps the upper bits of each value.

    Args:
      image: `(height, width, channel)` or `(height, width)`, uint8 or floating. The levels of a
        float are 255 times its value, and the result is the largest level not above it of which
        the lower bits are zero, divided by 255; its gradient is zero.
      bits: how many of 8 bits to keep, truncated to an integer and clipped to 0..8.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank, or `bits` is not one number.
    """
    image = checked(image)
    kept = jnp.clip(scalar("bits", bits, jnp.float32), np.float32(0), np.float32(8))
    dropped = np.int32(8) - kept.astype(jnp.int32)
    if image.dtype == jnp.uint8:
        mask = (np.int32(255) << dropped) & np.int32(255)
        return image & mask.astype(jnp.uint8)
    wide = computing(image.dtype)
    step = (np.int32(1) << dropped).astype(wide)
    pixels = product(image.astype(wide), np.asarray(255, wide))
    # Powers of two, by which nothing is rounded.
    levels = jnp.floor(lax.div(pixels, step)) * step
    return stored(of_levels(levels), image.dtype)
