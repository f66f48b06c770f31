"""A region of one array pasted into another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32, Shaped

from datarax.operators._mix.region import Region


def paste(
    own: Shaped[Array, "batch *rest"],
    other: Shaped[Array, "batch *rest"],
    region: Region,
    axes: tuple[int, ...],
) -> Shaped[Array, "batch *rest"]:
    """`other` inside the region, `own` outside.

    Args:
      own: arrays of any dtype.
      other: like `own`.
      region: boxes or masks, one a row.
      axes: the axes, ascending, that the region is on.
    """
    flat = pasted_lines(axes, own.shape)
    inside = pasted_pixels(region, axes, own.shape)
    return jnp.where(inside, other.reshape(flat), own.reshape(flat)).reshape(own.shape)


def pasted_lines(axes: tuple[int, ...], shape: Sequence[int]) -> tuple[int, ...]:
    """The shape with the channels merged into the last axis of the region, for long fast loops."""
    last = axes[-1]
    return *shape[:last], math.prod(shape[last:])


def pasted_pixels(
    region: Region, axes: tuple[int, ...], shape: Sequence[int]
) -> Bool[Array, "batch *flat"]:
    """Where the region is, broadcastable to `pasted_lines(axes, shape)`."""
    channels = math.prod(shape[axes[-1] + 1 :])
    if region.dtype == jnp.bool_:
        return _inside_mask(region, axes, channels)
    return _inside_box(region, axes, channels, pasted_lines(axes, shape))


def _inside_box(
    box: Int32[Array, "batch bounds"], axes: tuple[int, ...], channels: int, flat: Sequence[int]
) -> Bool[Array, "batch *flat"]:
    last = axes[-1]
    inside = jnp.bool_(True)
    for number, axis in enumerate(axes):
        scale = channels if axis == last else 1
        start, stop = (
            scale * box[:, bound].reshape(-1, *(1,) * last)
            for bound in (number, number + len(axes))
        )
        extent = (1,) * axis + (flat[axis],) + (1,) * (last - axis)
        place = jax.lax.broadcasted_iota(jnp.int32, extent, axis)
        inside = inside & (place >= start) & (place < stop)
    return inside


def _inside_mask(
    mask: Bool[Array, "batch *sizes"], axes: tuple[int, ...], channels: int
) -> Bool[Array, "batch *flat"]:
    shape = [1] * (axes[-1] + 1)
    shape[0] = mask.shape[0]
    for axis, size in zip(axes, mask.shape[1:], strict=True):
        shape[axis] = size
    return jnp.repeat(mask.reshape(shape), channels, axis=-1)
