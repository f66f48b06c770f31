"""Count, mean, variance and extremes of one field: of a batch, merged, and across devices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from datarax.core._double_float import DoubleFloat

_CHUNK = 2**20  # host values widened to float64 at a time


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("count", "mean", "variance", "minimum", "maximum"),
    meta_fields=("axes",),
)
@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of one field, reduced over `axes`; while the count is 0, all the rest is 0."""

    count: DoubleFloat
    mean: DoubleFloat
    variance: DoubleFloat
    minimum: Any
    maximum: Any
    axes: tuple[int, ...]


def is_moments(leaf: Any) -> bool:
    return isinstance(leaf, Moments)


def empty_moments(kept: tuple[int, ...], dtype: Any, axes: tuple[int, ...]) -> Moments:
    """The moments of no values; `kept` is the shape of the axes that are not reduced."""
    zeros, extreme = np.zeros(kept), np.zeros(kept, dtype)
    return _from_float64((0, zeros, zeros), (extreme, extreme), axes)


def _from_float64(floats: Any, extremes: tuple[Any, Any], axes: tuple[int, ...]) -> Moments:
    count, mean, variance = map(DoubleFloat.from_array, floats)
    return Moments(count, mean, variance, *extremes, axes)


def batch_moments(values: Any, mask: Any, axes: tuple[int, ...]) -> Moments:
    """The moments of `values` `(batch, ...)`, without the rows where the mask is False.

    NumPy arrays are reduced on the host, and a concrete mask is brought there.
    """
    if isinstance(values, jax.Array) or isinstance(mask, Tracer):
        mask = np.ones(values.shape[0], bool) if mask is None else mask
        return _on_device(values, mask, axes)
    return _on_host(values, None if mask is None else np.asarray(mask), axes)


@partial(jax.jit, static_argnames="axes")
def _on_device(values: jax.Array, mask: jax.Array, axes: tuple[int, ...]) -> Moments:
    valid = mask.reshape(-1, *[1] * (values.ndim - 1))
    per_row = math.prod(values.shape[axis] for axis in axes if axis != 0)
    count = DoubleFloat.from_array(jnp.sum(mask, dtype=jnp.int32)) * DoubleFloat.from_array(per_row)
    least, greatest = limits(values.dtype)
    minimum = jnp.min(values, axes, where=valid, initial=greatest)
    maximum = jnp.max(values, axes, where=valid, initial=least)

    # Deviations from a float32 near the mean, so that neither they nor their squares cancel. Within
    # the extremes it is finite and, of equal values, exact.
    numbers = DoubleFloat.from_array(values)
    roughly = numbers.where(valid).hi.sum(axes) / _divisor(count).hi
    roughly = jnp.clip(roughly, *(DoubleFloat.from_array(x).hi for x in (minimum, maximum)))
    center = DoubleFloat.from_array(roughly).where(count.hi > 0)
    deviation = numbers - DoubleFloat(*(jnp.expand_dims(x, axes) for x in (center.hi, center.lo)))
    mean = deviation.where(valid).sum(axes) / _divisor(count)
    variance = (deviation * deviation).where(valid).sum(axes) / _divisor(count) - mean * mean
    variance = variance.where(~(variance.hi < 0))  # rounding may lead below 0; NaN stays
    return Moments(count, center + mean, variance, minimum, maximum, axes)


def _on_host(values: np.ndarray, mask: np.ndarray | None, axes: tuple[int, ...]) -> Moments:
    kept = tuple(size for axis, size in enumerate(values.shape) if axis not in axes)
    result = empty_moments(kept, values.dtype, axes)
    rows = max(1, _CHUNK // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), rows):
        chunk = values[start : start + rows]
        if mask is not None:
            chunk = chunk[mask[start : start + rows]]
        count = math.prod(chunk.shape[axis] for axis in axes)
        if count == 0:
            continue
        flat = np.moveaxis(chunk, axes, range(-len(axes), 0)).reshape(*kept, count)
        with np.errstate(over="ignore", invalid="ignore"):
            wide = flat.astype(np.float64)
            mean = wide.mean(-1)
            wide -= mean[..., None]
            variance = np.square(wide, out=wide).mean(-1)
        extremes = flat.min(-1), flat.max(-1)
        result = merge(result, _from_float64((count, mean, variance), extremes, axes))
    return result


def merge(first: Moments, second: Moments) -> Moments:
    """The moments of the values of both."""
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((first, second))):
        return _merge_on_device(first, second)
    with np.errstate(over="ignore", invalid="ignore"):
        wide = [[number.float64() for number in _floats(each)] for each in (first, second)]
        return _from_float64(_combine(*wide), _extremes(first, second, np), first.axes)


@jax.jit
def _merge_on_device(first: Moments, second: Moments) -> Moments:
    count, mean, variance = _combine(_floats(first), _floats(second))
    return Moments(count, mean, variance, *_extremes(first, second, jnp), first.axes)


def _floats(moments: Moments) -> tuple[DoubleFloat, DoubleFloat, DoubleFloat]:
    return moments.count, moments.mean, moments.variance


def _combine(first: Any, second: Any) -> tuple[Any, Any, Any]:
    """Chan et al. (1983), of (count, mean, variance), as float64 or as `DoubleFloat`s."""
    (count, mean, variance), (other_count, other_mean, other_variance) = first, second
    total = count + other_count
    weight, other_weight = count / _divisor(total), other_count / _divisor(total)
    delta = other_mean - mean
    return (
        total,
        mean + delta * other_weight,
        variance
        + (other_variance - variance) * other_weight
        + delta * delta * (weight * other_weight),
    )


def _divisor(count: Any) -> Any:
    """The count, or 1 in place of 0."""
    if isinstance(count, DoubleFloat):
        return DoubleFloat(jnp.maximum(count.hi, jnp.float32(1)), count.lo)
    return np.maximum(count, 1)


def _extremes(first: Moments, second: Moments, library: Any) -> tuple[Any, Any]:
    def pick(extreme: Any, one: Any, other: Any) -> Any:
        both = library.where(first.count.hi == 0, other, extreme(one, other))
        return library.where(second.count.hi == 0, one, both)

    return (
        pick(library.minimum, first.minimum, second.minimum),
        pick(library.maximum, first.maximum, second.maximum),
    )


def limits(dtype: Any) -> tuple[Any, Any]:
    """The least and the greatest value of a dtype, infinities included, as arrays of it."""
    if jnp.issubdtype(dtype, jnp.integer):
        return np.asarray(jnp.iinfo(dtype).min, dtype), np.asarray(jnp.iinfo(dtype).max, dtype)
    return np.asarray(-np.inf, dtype), np.asarray(np.inf, dtype)


def gather_and_merge(moments: Any, axis_name: Any) -> Any:
    """Merges a pytree of `Moments` over the devices of a mapped axis; all get the same result."""
    devices = jax.lax.axis_size(axis_name)
    here = jnp.arange(devices) == jax.lax.axis_index(axis_name)

    def gather(leaf: Any) -> jax.Array:
        # A sum in which the other devices have zeros: unlike the result of an all-gather, it is
        # known to be the same everywhere, so that shard_map lets it out under `P()`.
        leaf = jnp.asarray(leaf)
        rows = here.reshape(devices, *[1] * leaf.ndim)
        return jax.lax.psum(jnp.where(rows, leaf, jnp.zeros_like(leaf)), axis_name)

    each = jax.tree.map(gather, moments)
    first, others = (jax.tree.map(lambda leaf, s=s: leaf[s], each) for s in (0, slice(1, None)))
    return jax.lax.scan(lambda merged, one: (merge_all(merged, one), None), first, others)[0]


def merge_all(first: Any, second: Any) -> Any:
    """`merge` for every field of two pytrees of the same fields."""
    return jax.tree.map(merge, first, second, is_leaf=is_moments)
