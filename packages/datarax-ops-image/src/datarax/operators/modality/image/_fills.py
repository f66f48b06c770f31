"""What stands in a dropped patch: pure functions of one record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from datarax.core._value_range import at_working_precision, held_exactly
from datarax.core.randomness import THREEFRY, random_words
from datarax.operators.modality.image import _means
from datarax.operators.modality.image._config import PatchDropoutOperatorConfig
from datarax.operators.modality.image._geometry import channel_axis
from datarax.operators.modality.image._given import Patches
from datarax.operators.modality.image._sampling import below, unit
from datarax.operators.modality.image.functional._backends import record_by_record
from datarax.operators.modality.image.functional._exact import product, stored


def fill_of(
    config: PatchDropoutOperatorConfig,
    image: Array,
    patches: Patches,
    stats: dict[str, Any] | None,
) -> Array:
    """What stands in the patches of one record.

    Args:
      config: which fill.
      image: any shape.
      patches: the record's, with two random words for fills that are random.
      stats: the operator's statistics, for the mean of the data set.

    Returns:
      A scalar, or an array of the image's rank that broadcasts to it; of its dtype.

    Raises:
      KeyError: if the statistics hold no mean.
      ValueError: if a number does not fit the image's dtype or channels.
    """
    channels = channel_axis(config, image.shape)
    if config.fill == "constant":
        constant = _constant(config, image, channels)
        return jnp.asarray(_per_channel(constant, image.ndim, channels))
    if config.fill == "mean":
        return _means.mean_color(image, channel_axis=channels)
    if config.fill == "dataset_mean":
        mean = _means.dataset_mean(stats or {}, config.field_key, image, channels)
        return _per_channel(mean, image.ndim, channels)
    shape = image.shape
    if config.fill == "color":
        shape = tuple(side if axis == channels else 1 for axis, side in enumerate(shape))
    bounds = random_bounds(config.fill_range, config.clip_range, image.dtype)
    assert patches.seed is not None
    values = partial(random_values, shape=shape, dtype=image.dtype, bounds=bounds)
    if config.fill == "color" or patches.count is None:
        return values(patches.seed)
    return _where_dropped(values, patches.seed, patches.count)


def _where_dropped(values: Callable[..., Array], seed: Array, count: Array) -> Array:
    """Random values of a record that has patches, else zeros: on a CPU they cost more than all."""

    def one(seed: Array, count: Array) -> Array:
        made = jax.eval_shape(values, seed)
        nothing = partial(jnp.zeros, made.shape, made.dtype)
        return jax.lax.cond(count > 0, lambda: values(seed), nothing)

    return record_by_record(one, lambda seed, count: values(seed))(seed, count)


def _constant(config: PatchDropoutOperatorConfig, image: Array, channels: int | None) -> np.ndarray:
    value = config.drop_value
    if isinstance(value, tuple):
        found = "no channel axis" if channels is None else f"{image.shape[channels]} channels"
        if channels is None or len(value) != image.shape[channels]:
            raise ValueError(
                f"drop_value {value} has {len(value)} numbers, one per channel, but field "
                f"{config.field_key!r} of shape {image.shape} has {found}; use one number, or set "
                "channel_axis"
            )
    return exact_constant("drop_value", value, image.dtype)


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
    if jnp.issubdtype(dtype, jnp.integer):
        numbers = tuple(int(number) for number in numbers)
    else:
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


def _per_channel(values: Any, rank: int, channel_axis: int | None) -> Any:
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
    first, last = _float_ends(bounds, dtype)
    if not first <= last:
        raise ValueError(
            f"fill_range {bounds} has no value of {jnp.dtype(dtype).name} below its end; use a "
            "wider range"
        )
    return bounds


def _integer_bounds(bounds: tuple[float, float] | None, dtype: Any) -> tuple[int, int]:
    limits, name = jnp.iinfo(dtype), jnp.dtype(dtype).name
    if bounds is None and limits.bits <= 16:
        return int(limits.min), int(limits.max)
    if bounds is None:
        raise ValueError(
            f"fill_range must be given for images of {name}, whose whole range is no sensible "
            "colour; pass for example fill_range=(0, 255)"
        )
    if not all(held_exactly(number, dtype) for number in bounds):
        raise ValueError(
            f"fill_range {bounds} must be integers from {limits.min} to {limits.max} for images "
            f"of {name}"
        )
    low, high = int(bounds[0]), int(bounds[1])
    if high - low >= 2**32:
        raise ValueError(
            f"fill_range {bounds} must have at most 2**32 values, got {high - low + 1}; use a "
            "smaller one"
        )
    return low, high


def _float_ends(bounds: tuple[float, float], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and largest value of a float dtype from bounds[0] to below bounds[1]."""
    low, high = (at_working_precision(number, dtype) for number in bounds)
    first, last = np.asarray(low).astype(dtype), np.asarray(high).astype(dtype)
    if first < low:
        first = np.nextafter(first, np.asarray(np.inf, dtype))
    if high == 0:
        # The next smaller value is subnormal, which a device may take for zero.
        last = np.asarray(-jnp.finfo(dtype).tiny, dtype)
    elif last >= high:
        last = np.nextafter(last, np.asarray(-np.inf, dtype))
    return first, last


@partial(jax.jit, static_argnames=("shape", "dtype", "bounds"))
def random_values(
    seed: UInt32[Array, "2"],
    *,
    shape: tuple[int, ...],
    dtype: Any,
    bounds: tuple[float, float],
) -> Array:
    """Uniform values from bounds[0] to bounds[1], which only integers reach.

    Args:
      seed: two random words, the key of the draw.
      shape: of the result.
      dtype: of the result.
      bounds: smallest and largest value, from `random_bounds`.
    """
    key = jax.random.wrap_key_data(seed, impl=THREEFRY)
    bits = random_words(key, shape)
    if jnp.issubdtype(dtype, jnp.integer):
        return _uniform_integers(bits, int(bounds[0]), int(bounds[1]), dtype)
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    low, high = (at_working_precision(number, dtype) for number in bounds)
    first, last = (np.asarray(end).astype(wide) for end in _float_ends(bounds, dtype))
    with np.errstate(over="ignore"):
        scale = low.dtype.type(1 if np.isfinite(high - low) else 0.5)
    values = product(unit(bits).astype(wide), high * scale - low * scale) + low * scale
    # Half of the values fits where their difference does not.
    values = values if scale == 1 else values / scale
    return stored(jnp.clip(values, first, last), dtype)


def _uniform_integers(bits: Array, low: int, high: int, dtype: Any) -> Array:
    offset = bits if high - low == 2**32 - 1 else below(bits, np.uint32(high - low + 1))
    word = jnp.uint64 if jnp.dtype(dtype).itemsize == 8 else jnp.uint32
    wraps = 2 ** jnp.iinfo(word).bits
    return (offset.astype(word) + np.asarray(low % wraps, word)).astype(dtype)
