"""Between the levels 0..255 of uint8 and floats from 0 to 1; normalisation."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Shaped, UInt8

from datarax.operators.modality.image.functional._compiled import compiled
from datarax.operators.modality.image.functional._dtypes import checked, computing
from datarax.operators.modality.image.functional._exact import product, settled, stored


def of_levels(levels: Array) -> Array:
    """Levels divided by 255, correctly rounded for whole levels from 0 to 255.

    A division by a constant is the compiler's to replace by a product that is not. As 1/255 is the
    sum of 256**-n, a whole level times the first terms is exact, and the rest is rounded once.

    Args:
      levels: float32 or float64.
    """
    dtype, terms = levels.dtype, 3 if levels.dtype == jnp.float32 else 6
    first = sum(256.0**-n for n in range(1, terms + 1))
    rest = sum(256.0**-n for n in range(terms + 1, terms + 3))
    return product(levels, np.asarray(first, dtype)) + product(levels, np.asarray(rest, dtype))


def to_levels(pixels: Array) -> Array:
    """The nearest level of floats, the even one of two, as floats; NaN becomes 0.

    Args:
      pixels: float32 or float64.
    """
    levels = jnp.round(pixels * np.asarray(255, pixels.dtype))
    zero, white = np.asarray(0, pixels.dtype), np.asarray(255, pixels.dtype)
    return jnp.where(levels > zero, jnp.minimum(levels, white), zero)


def _unit(image: Array) -> Array:
    """The image in a dtype of computation, uint8 from 0 to 1."""
    wide = image.astype(computing(image.dtype))
    return of_levels(wide) if image.dtype == jnp.uint8 else wide


@compiled("dtype")
def to_float(
    image: Shaped[Array, "height width *channel"], dtype: DTypeLike = jnp.float32
) -> Shaped[Array, "height width *channel"]:
    """The image as floats, where 255 of uint8 becomes 1.

    Args:
      image: `(height, width, channel)` or `(height, width)`; uint8, or floating, of which only the
        dtype changes.
      dtype: a floating dtype. uint8 is divided by 255 in float32, then rounded to it.

    Returns:
      The shape of `image`.

    Raises:
      TypeError: if a dtype is not allowed.
      ValueError: if the image has another rank.
    """
    image = checked(image)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"dtype must be floating, got {jnp.dtype(dtype).name}; use to_uint8 for uint8"
        )
    if image.dtype == jnp.uint8 and jnp.dtype(dtype) == jnp.float64:
        return of_levels(image.astype(jnp.float64))
    pixels = _unit(image)
    return pixels.astype(dtype) if pixels.dtype == jnp.float64 else stored(pixels, dtype)


@compiled()
def to_uint8(
    image: Shaped[Array, "height width *channel"],
) -> UInt8[Array, "height width *channel"]:
    """The image as uint8, where 1 of floats becomes 255.

    Args:
      image: `(height, width, channel)` or `(height, width)`; floating, or uint8, which stays.

    Returns:
      The nearest of the levels 0..255, the even one of two; NaN becomes 0. The shape of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank.
    """
    image = checked(image)
    if image.dtype == jnp.uint8:
        return image
    return to_levels(image.astype(computing(image.dtype))).astype(jnp.uint8)


@compiled()
def normalize(
    image: Shaped[Array, "height width *channel"], mean: ArrayLike, std: ArrayLike
) -> Shaped[Array, "height width *channel"]:
    """Subtracts a mean and divides by a standard deviation.

    Args:
      image: `(height, width, channel)` or `(height, width)`; floating, or uint8, which becomes
        float32 from 0 to 1 first.
      mean: a number, or one per channel, in the unit of floats (0 to 1).
      std: the same for the standard deviation.

    Returns:
      The shape of `image`; float32 for uint8, else the image's dtype.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank, or the numbers do not fit its channels.
    """
    image = checked(image)
    pixels = _unit(image)
    center = _per_channel("mean", mean, image).astype(pixels.dtype)
    scale = _per_channel("std", std, image).astype(pixels.dtype)
    # A division by constants is the compiler's to replace by this product.
    value = product(pixels - center, settled(np.asarray(1, pixels.dtype) / scale))
    return stored(value, jnp.float32 if image.dtype == jnp.uint8 else image.dtype)


def _per_channel(name: str, numbers: ArrayLike, image: Array) -> Array:
    numbers = jnp.asarray(numbers)
    channels = image.shape[2] if image.ndim == 3 else 1
    if numbers.ndim > 1 or numbers.size not in (1, channels):
        raise ValueError(
            f"{name} must be a number or {channels}, one per channel of an image of shape "
            f"{image.shape}, got shape {numbers.shape}"
        )
    return numbers.reshape(()) if numbers.size == 1 else numbers
