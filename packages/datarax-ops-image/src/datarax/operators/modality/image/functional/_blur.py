"""The Gaussian blur, one axis after the other."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from datarax.operators.modality.image.functional._backends import record_by_record
from datarax.operators.modality.image.functional._compiled import compiled
from datarax.operators.modality.image.functional._dtypes import checked, computing
from datarax.operators.modality.image.functional._exact import (
    exponential,
    product,
    settled,
    stored,
)
from datarax.operators.modality.image.functional._numbers import scalar

_WEIGHT_BITS = 15
# Of the value between the two axes, beside the 8 of a byte.
_FRACTION_BITS = 7


@compiled("max_sigma")
def gaussian_blur(
    image: Shaped[Array, "height width *channel"], sigma: ArrayLike, *, max_sigma: float
) -> Shaped[Array, "height width *channel"]:
    """Blurs with a Gaussian, cut off at ceil(3 max_sigma) pixels, over a reflected border.

    The weight at a distance of k pixels is exp(-k**2 / (2 sigma**2)), divided by the sum of all.
    For uint8 the weights except the middle one are rounded to 15 fractional bits, half to even, and
    the middle one is what is left to 1. Rows are blurred first and rounded to 7 fractional bits,
    then columns, and the sum is rounded to an integer, both half up.

    Args:
      image: `(height, width, channel)` or `(height, width)`, uint8 or floating. The border is
        reflected about the centre of the outermost pixel, as often as needed.
      sigma: the standard deviation in pixels, from 0 (the image as it is) to `max_sigma`.
      max_sigma: a Python number, which fixes the number of taps.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank, `sigma` is not one number, or `max_sigma` is not
        positive and finite.
    """
    image = checked(image)
    if not 0 < max_sigma < math.inf:
        raise ValueError(
            f"max_sigma must be a positive, finite number of pixels, got {max_sigma}; use the "
            "largest sigma that is drawn"
        )
    weights = _weights(scalar("sigma", sigma, jnp.float32), math.ceil(3 * max_sigma))
    pixels = image.reshape(*image.shape[:2], -1)
    if image.dtype == jnp.uint8:
        return record_by_record(_blurred_bytes)(pixels, weights).reshape(image.shape)
    pixels = pixels.astype(computing(image.dtype))
    taps = [weights[k].astype(pixels.dtype) for k in range(weights.shape[0])]
    for axis in (1, 0):
        pixels = _weighted(pixels, taps, axis)
    return stored(pixels, image.dtype).reshape(image.shape)


def _weights(sigma: Array, radius: int) -> Array:
    """The weights from the middle outwards, float32 `(radius + 1,)`."""
    one = np.float32(1)
    squares = np.arange(1, radius + 1, dtype=np.float32) ** 2
    some = sigma > 0
    variance = product(*2 * (jnp.where(some, sigma, one),))
    sides = exponential(product(-squares, settled(np.float32(0.5) / variance)))
    sides = jnp.where(some, sides, np.float32(0))
    half = np.float32(0)
    # In this order, whatever the compiler would choose for a sum.
    for k in reversed(range(radius)):
        half = half + sides[k]
    scale = settled(one / (one + (half + half)))
    return product(jnp.concatenate([jnp.ones(1, jnp.float32), sides]), scale)


def _weighted(pixels: Array, taps: list[Array], axis: int) -> Array:
    """The sum of the taps times the pixels at both sides, in a fixed order."""
    radius, size = len(taps) - 1, pixels.shape[axis]
    padding = [(0, 0)] * pixels.ndim
    padding[axis] = (radius, radius)
    # A single pixel has nothing to reflect but itself.
    padded = jnp.pad(pixels, padding, mode="reflect" if size > 1 else "edge")
    # Without the barrier every tap computes its pixel again, the other axis and all.
    padded = lax.optimization_barrier(padded)

    def shifted(k: int) -> Array:
        return lax.slice_in_dim(padded, radius + k, radius + k + size, axis=axis)

    times = product if jnp.issubdtype(pixels.dtype, jnp.floating) else jnp.multiply
    total = times(taps[0], shifted(0))
    for k in range(1, radius + 1):
        total = total + times(taps[k], shifted(k) + shifted(-k))
    return total


def _blurred_bytes(pixels: Array, weights: Array) -> Array:
    whole = np.int32(1 << _WEIGHT_BITS)
    sides = jnp.round(weights[1:] * whole.astype(np.float32)).astype(jnp.int32)
    taps = [whole - np.int32(2) * jnp.sum(sides, dtype=jnp.int32), *sides]
    rows = _rounded(_weighted(pixels.astype(jnp.int32), taps, 1), _WEIGHT_BITS - _FRACTION_BITS)
    return _rounded(_weighted(rows, taps, 0), _WEIGHT_BITS + _FRACTION_BITS).astype(jnp.uint8)


def _rounded(number: Array, bits: int) -> Array:
    """The number without its last bits, rounded half up."""
    return (number + np.int32(1 << (bits - 1))) >> np.int32(bits)
