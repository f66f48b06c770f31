"""What stands in a dropped patch: pure functions of one record."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from datarax.core._value_range import at_working_precision, held_exactly
from datarax.core.fields import field_paths, get_field
from datarax.core.randomness import THREEFRY, random_words
from datarax.operators.modality.image._sampling import below, unit


def exact_constant(label: str, value: float | tuple[float, ...], dtype: Any) -> np.ndarray:
    """The number or numbers in an image's dtype.

    Raises:
      ValueError: if the dtype cannot hold one of them exactly.
    """
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if not held_exactly(number, dtype):
            raise ValueError(
                f"{label} {number!r} cannot be held exactly by dtype {jnp.dtype(dtype).name}; use "
                f"{_nearest(number, dtype)}, or convert the field first"
            )
    if not jnp.issubdtype(dtype, jnp.integer):
        numbers = tuple(at_working_precision(number, dtype) for number in numbers)
    stored = np.asarray(numbers).astype(dtype)
    return stored if isinstance(value, tuple) else stored[0]


def _nearest(number: float, dtype: Any) -> str:
    if jnp.issubdtype(dtype, jnp.integer):
        limits = jnp.iinfo(dtype)
        return f"an integer from {limits.min} to {limits.max}"
    if dtype == jnp.bool_:
        return "0 or 1"
    largest = float(jnp.finfo(dtype).max)
    if abs(number) > largest:
        return f"a number from {-largest} to {largest}"
    return str(float(np.asarray(at_working_precision(number, dtype)).astype(dtype)))


def per_channel(values: Any, rank: int, channel_axis: int | None) -> Any:
    """Values `(channel,)` as an array of the image's rank; a scalar as it is."""
    if values.ndim == 0 or channel_axis is None:
        return values
    return values.reshape([-1 if axis == channel_axis else 1 for axis in range(rank)])


def random_bounds(
    fill_range: tuple[float, float] | None, clip_range: tuple[float, float] | None, dtype: Any
) -> tuple[float, float]:
    """Smallest and largest random value for an image's dtype.

    Raises:
      ValueError: if the dtype cannot hold the range, or it must be given and is not.
    """
    bounds = clip_range if fill_range is None else fill_range
    if jnp.issubdtype(dtype, jnp.integer):
        return _integer_bounds(bounds, dtype)
    if bounds is None:
        return 0.0, 1.0
    largest = float(jnp.finfo(dtype).max)
    if not all(abs(number) <= largest for number in bounds):
        raise ValueError(
            f"fill_range {bounds} must lie from {-largest} to {largest} for images of "
            f"{jnp.dtype(dtype).name}"
        )
    return bounds


def _integer_bounds(bounds: tuple[float, float] | None, dtype: Any) -> tuple[float, float]:
    limits = jnp.iinfo(dtype)
    if bounds is None and limits.bits <= 16:
        return int(limits.min), int(limits.max)
    if bounds is None:
        raise ValueError(
            f"fill_range must be given for images of {jnp.dtype(dtype).name}, whose whole range is "
            "no "
            "sensible colour; pass for example fill_range=(0, 255)"
        )
    low, high = max(int(limits.min), -(2**31)), min(int(limits.max), 2**31 - 1)
    if not all(number == int(number) and low <= number <= high for number in bounds):
        raise ValueError(
            f"fill_range {bounds} must be integers from {low} to {high} for images of "
            f"{jnp.dtype(dtype).name}"
        )
    return bounds


@partial(jax.jit, static_argnames=("shape", "dtype", "bounds"))
def random_values(
    seed: UInt32[Array, "2"], *, shape: tuple[int, ...], dtype: Any, bounds: tuple[float, float]
) -> Array:
    """Uniform values from bounds[0] to bounds[1], which only integers reach.

    Args:
      seed: two random words, the key of the draw.
      shape: of the result.
      dtype: of the result.
      bounds: smallest and largest value.
    """
    key = jax.random.wrap_key_data(seed, impl=THREEFRY)
    bits = random_words(key, shape)
    if jnp.issubdtype(dtype, jnp.integer):
        low, high = int(bounds[0]), int(bounds[1])
        offset = below(bits, np.uint32(high - low + 1))
        return (offset.astype(jnp.int32) + np.int32(low)).astype(dtype)
    low, high = np.float32(bounds[0]), np.float32(bounds[1])
    return (unit(bits) * (high - low) + low).astype(dtype)


@partial(jax.jit, static_argnames="channel_axis")
def mean_color(image: Array, *, channel_axis: int | None) -> Array:
    """The mean of each channel, of the image's rank, to the nearest integer for integers.

    Summed by halves, an order that no compiler changes, so that one image always has one mean.
    """
    image = jax.lax.stop_gradient(image)
    channels = 1 if channel_axis is None else image.shape[channel_axis]
    moved = image if channel_axis is None else jnp.moveaxis(image, channel_axis, -1)
    wide = jnp.float64 if image.dtype == jnp.float64 else jnp.float32
    values = moved.reshape(-1, channels).astype(wide)
    pixels = values.shape[0]
    length = 1 << (pixels - 1).bit_length()
    values = jnp.pad(values, ((0, length - pixels), (0, 0)))
    while length > 1:
        length //= 2
        values = values[:length] + values[length:]
    mean = values[0] / np.asarray(pixels, wide)
    if jnp.issubdtype(image.dtype, jnp.integer):
        mean = jnp.round(mean)
    shape = [channels if axis == channel_axis else 1 for axis in range(image.ndim)]
    return mean.astype(image.dtype).reshape(shape)


def dataset_mean(stats: Any, key: str, image: Array, channel_axis: int | None) -> Array:
    """The mean that the statistics hold, in an image's dtype and rank.

    Args:
      stats: statistics with `<key>.mean` or `mean`, a number or one per channel.
      key: the image's path.
      image: whose dtype, rank and channels count.
      channel_axis: the axis of its channels, if any.

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
        limits = jnp.iinfo(image.dtype)
        mean = jnp.clip(jnp.round(mean), limits.min, limits.max)
    return per_channel(mean.astype(image.dtype), image.ndim, channel_axis)
