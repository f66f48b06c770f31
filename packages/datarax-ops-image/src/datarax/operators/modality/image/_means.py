"""The mean that stands in a dropped patch: of the record, or of the data set."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from datarax.core.fields import field_paths, get_field


@partial(jax.jit, static_argnames="channel_axis")
def mean_color(image: Array, *, channel_axis: int | None) -> Array:
    """The mean of each channel of one record, of the image's rank and dtype.

    Args:
      image: any shape; integers of any width, or floats.
      channel_axis: the axis of the channels, if any.

    Returns:
      For integers, the integer nearest to the exact mean, the even one of two. For floats, a sum
      in float32 (float64 of float64) in an order that no compiler changes.
    """
    image = jax.lax.stop_gradient(image)
    channels = 1 if channel_axis is None else image.shape[channel_axis]
    shape = [channels if axis == channel_axis else 1 for axis in range(image.ndim)]
    if not image.size:
        return jnp.zeros(shape, image.dtype)
    moved = image if channel_axis is None else jnp.moveaxis(image, channel_axis, -1)
    values = moved.reshape(-1, channels)
    integers = jnp.issubdtype(image.dtype, jnp.integer)
    return (_integer_mean if integers else ordered_mean)(values).reshape(shape)


def ordered_mean(values: Array) -> Array:
    """The mean over axis 0 of floats `(number, channel)`, summed by halves."""
    wide = jnp.float64 if values.dtype == jnp.float64 else jnp.float32
    pixels = values.shape[0]
    length = 1 << (pixels - 1).bit_length()
    sums = jnp.pad(values.astype(wide), ((0, length - pixels), (0, 0)))
    while length > 1:
        length //= 2
        sums = sums[:length] + sums[length:]
    return (sums[0] / np.asarray(pixels, wide)).astype(values.dtype)


def mean_half_up(values: Array) -> Array:
    """The mean of bytes `(height, width)`, exactly, then rounded half up; a byte."""
    number = np.uint32(values.size)
    rows = jnp.sum(values, axis=1, dtype=jnp.uint32)
    quotient, rest = _quotient(*_long_sum(rows[:, None], 32), number, 8)
    return (quotient + (rest >= number - rest).astype(jnp.uint32)).astype(values.dtype)[0]


def _integer_mean(values: Array) -> Array:
    """The mean over axis 0 of integers, exactly, then rounded.

    Values count from the smallest of their dtype, so that all are natural numbers.
    """
    word = np.dtype(np.uint64 if values.dtype.itemsize == 8 else np.uint32)
    lowest = word.type(int(jnp.iinfo(values.dtype).min) % 2 ** (8 * word.itemsize))
    bits = jnp.iinfo(values.dtype).bits
    high, low = _long_sum(values.astype(word) - lowest, bits)
    number, one = word.type(values.shape[0]), word.type(1)
    quotient, rest = _quotient(high, low, number, bits)
    odd = (quotient & one) == one
    up = (rest > number - rest) | ((rest == number - rest) & odd)
    return (quotient + up.astype(word) + lowest).astype(values.dtype)


def _long_sum(numbers: Array, bits: int) -> tuple[Array, Array]:
    """The upper and lower word of the sum over axis 0 of fewer than 2**31 numbers of `bits` bits.

    Halves of words are summed over blocks that cannot overflow, and those sums likewise.
    """
    kind, half = numbers.dtype.type, 4 * numbers.dtype.itemsize
    shift, mask = kind(half), kind(2**half - 1)
    block = min(numbers.shape[0], 2**half)
    blocks = jnp.pad(numbers, ((0, -numbers.shape[0] % block), (0, 0)))
    blocks = blocks.reshape(-1, block, numbers.shape[1])

    def total(words: Array, axis: int) -> Array:
        return jnp.sum(words, axis=axis, dtype=numbers.dtype)

    # Numbers without an upper half need no second pass.
    lower = total(blocks & mask, 1)
    upper = total(blocks >> shift, 1) if bits > half else jnp.zeros_like(lower)
    first = total(lower & mask, 0)
    second = total(lower >> shift, 0) + total(upper & mask, 0) + (first >> shift)
    high = total(upper >> shift, 0) + (second >> shift)
    return high, (first & mask) | (second << shift)


def _quotient(high: Array, low: Array, number: np.generic, bits: int) -> tuple[Array, Array]:
    """(high, low) // number, which has at most `bits` bits, and the rest, as on paper."""
    kind = low.dtype.type
    one, width = kind(1), 8 * low.dtype.itemsize
    rest, quotient = high, jnp.zeros_like(low)
    if bits < width:
        rest = (high << kind(width - bits)) | (low >> kind(bits))
    for position in reversed(range(bits)):
        rest = (rest << one) | (low >> kind(position)) & one
        fits = rest >= number
        rest = jnp.where(fits, rest - number, rest)
        quotient = (quotient << one) | fits.astype(low.dtype)
    return quotient, rest


def dataset_mean(stats: Any, key: str, image: Array, channel_axis: int | None) -> Array:
    """The mean that the statistics hold, in an image's dtype.

    Args:
      stats: statistics with `<key>.mean` or `mean`, a number or one per channel.
      key: the image's path.
      image: whose dtype and channels count.
      channel_axis: the axis of its channels, if any.

    Returns:
      A scalar or `(channel,)`; for integers the nearest one that the dtype has.

    Raises:
      KeyError: if the statistics hold no mean.
      ValueError: if it has another number of channels.
    """
    mean = None
    for path in (f"{key}.mean", "mean"):
        if path in field_paths(stats):
            mean = jnp.asarray(get_field(stats, path))
            break
    if mean is None:
        raise KeyError(
            f"fill='dataset_mean' needs the statistic {key + '.mean'!r} or 'mean', but there are "
            f"{field_paths(stats)}; use precomputed_stats, batch_stats_fn or set_statistics"
        )
    channels = 1 if channel_axis is None else image.shape[channel_axis]
    if mean.size not in (1, channels):
        raise ValueError(
            f"the mean of fill='dataset_mean' must be a number or {channels}, one per channel of "
            f"{key!r} of shape {image.shape}, got shape {mean.shape}"
        )
    mean = jax.lax.stop_gradient(mean.reshape(-1) if mean.size > 1 else mean.reshape(()))
    if jnp.issubdtype(image.dtype, jnp.integer):
        return _nearest_integer(mean, image.dtype)
    return mean.astype(image.dtype)


def _nearest_integer(mean: Array, dtype: Any) -> Array:
    """The nearest value of an integer dtype, its smallest and largest beyond them."""
    low, high = int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
    if jnp.issubdtype(mean.dtype, jnp.integer):
        limits = jnp.iinfo(mean.dtype)
        bounds = (max(low, int(limits.min)), min(high, int(limits.max)))
        return jnp.clip(mean, *(np.asarray(bound, mean.dtype) for bound in bounds)).astype(dtype)
    rounded = jnp.round(mean)
    # Powers of two, which every float has or exceeds; the largest integer itself may be rounded.
    with np.errstate(over="ignore"):
        over = rounded >= np.asarray(math.ldexp(1, high.bit_length())).astype(mean.dtype)
        under = rounded <= np.asarray(float(low)).astype(mean.dtype)
    zero = jnp.zeros((), mean.dtype)
    inside = jnp.where(over | under, zero, rounded).astype(dtype)
    return jnp.where(
        over, np.asarray(high, dtype), jnp.where(under, np.asarray(low, dtype), inside)
    )
