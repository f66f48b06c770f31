"""Noise and dropped pixels: pure functions of one record."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt32

from datarax.core.randomness import THREEFRY, coin, random_words
from datarax.operators.modality.image._distributions import (
    normal,
    normal_pieces,
    normal_table,
)
from datarax.operators.modality.image.functional._arguments import fill_value
from datarax.operators.modality.image.functional._dtypes import computing
from datarax.operators.modality.image.functional._exact import product, stored


def _words(seed: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    return random_words(jax.random.wrap_key_data(seed, impl=THREEFRY), shape)


def with_noise(image: Array, std: Float32[Array, ""], seed: UInt32[Array, "2"]) -> Array:
    """The image plus normal noise of its own for every element.

    Args:
      image: uint8 or float.
      std: of the noise, where the image's range is 1; from 0 to 1.
      seed: two words.

    Returns:
      Like `image`. For uint8 the noise is an integer: standard normal numbers in units of 2**-12
      times the standard deviation in units of 2**-8, rounded; the sum is cut to 0 to 255.
    """
    words = _words(seed, image.shape)
    if image.dtype == jnp.uint8:
        table = np.round(normal_table() * 2**12).astype(np.int32)
        scale = jnp.round(jnp.float32(255 * 2**8) * std).astype(jnp.int32)
        noise = (jnp.asarray(table)[normal_pieces(words)] * scale + 2**19) >> 20
        noise = jnp.where(words >> np.uint32(31) == 0, -noise, noise)
        return jnp.clip(image.astype(jnp.int32) + noise, 0, 255).astype(jnp.uint8)
    dtype = computing(image.dtype)
    noise = product(normal(words), jnp.asarray(std, jnp.float32)).astype(dtype)
    return stored(image.astype(dtype) + noise, image.dtype)


def without_pixels(
    image: Array,
    rate: Float32[Array, ""],
    seed: UInt32[Array, "2"],
    *,
    fill: float | Sequence[float],
    per_channel: bool,
) -> Array:
    """The image with each pixel dropped by chance; the others keep every bit.

    Args:
      image: any image.
      rate: the probability that a pixel is dropped.
      seed: two words.
      fill: what stands in dropped pixels, a number or one per channel.
      per_channel: whether each channel of a pixel is dropped for itself.
    """
    shape = image.shape if per_channel else image.shape[:2] + (1,) * (image.ndim - 2)
    dropped = coin(_words(seed, shape), jnp.asarray(rate, np.float32))
    return jnp.where(dropped, fill_value(fill, image), image)
