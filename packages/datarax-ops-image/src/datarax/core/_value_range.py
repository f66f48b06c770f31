"""Numbers of a config in the dtype of a field: which fit, and the bounds of a range."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def at_working_precision(number: float, dtype: Any) -> Any:
    """A config's number as float64 for float64 fields and as float32 for all others."""
    with np.errstate(over="ignore"):
        return np.float64(number) if dtype == np.float64 else np.float32(number)


def held_exactly(number: float, dtype: Any) -> bool:
    """Whether a field of this dtype can hold the number.

    Integer fields hold integers within their range. Fields narrower than float32 hold the numbers
    that lose nothing on the way from float32.
    """
    if not math.isfinite(number):
        return False
    if dtype == jnp.bool_:
        return number in (0, 1)
    if jnp.issubdtype(dtype, jnp.integer):
        limits = jnp.iinfo(dtype)
        return number == int(number) and int(limits.min) <= number <= int(limits.max)
    working = at_working_precision(number, dtype)
    with np.errstate(over="ignore"):
        stored = np.asarray(working).astype(dtype)
    return bool(np.isfinite(working)) and float(stored) == float(working)


def clip_bounds(clip_range: tuple[float, float], dtype: Any) -> tuple[Any, Any]:
    """The smallest and largest value of the dtype within the range.

    Raises:
      ValueError: if the dtype has no value in the range.
    """
    low, high = _integer_bounds(clip_range, dtype) or _float_bounds(clip_range, dtype)
    if not low <= high:
        raise ValueError(
            f"clip_range {clip_range} contains no value of dtype {jnp.dtype(dtype).name}; use a "
            "range that does, or convert the field to float32 first"
        )
    return low, high


def _integer_bounds(clip_range: tuple[float, float], dtype: Any) -> tuple[int, int] | None:
    if not jnp.issubdtype(dtype, jnp.integer):
        return None
    limits = jnp.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if clip_range[0] > low:
        low = math.ceil(clip_range[0]) if math.isfinite(clip_range[0]) else high + 1
    if clip_range[1] < high:
        high = math.floor(clip_range[1]) if math.isfinite(clip_range[1]) else low - 1
    return low, high


def _float_bounds(clip_range: tuple[float, float], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rounded inwards, so that a clipped value is never outside the range."""
    bounds = []
    for number, inwards in zip(clip_range, (np.inf, -np.inf), strict=True):
        working = at_working_precision(number, dtype)
        with np.errstate(over="ignore"):
            bound = np.asarray(working).astype(dtype)
        if (float(bound) - float(working)) * inwards < 0:
            bound = np.nextafter(bound, np.asarray(inwards).astype(dtype))
        bounds.append(bound)
    return bounds[0], bounds[1]


def clip(value: Array, clip_range: tuple[float, float]) -> Array:
    """Clips to the range in the value's own dtype; NaN stays NaN, and the gradient within is 1."""
    low, high = clip_bounds(clip_range, value.dtype)
    low, high = jnp.asarray(low, value.dtype), jnp.asarray(high, value.dtype)
    return jnp.where(value < low, low, jnp.where(value > high, high, value))
