"""CutMix of two arrays: the box of one pasted into the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, Shaped


def paste(
    own: Shaped[Array, "batch *rest"],
    other: Shaped[Array, "batch *rest"],
    box: Int32[Array, "batch bounds"],
    axes: Sequence[int],
) -> Shaped[Array, "batch *rest"]:
    """`other` inside the box, `own` outside.

    Args:
      own: arrays of any dtype.
      other: like `own`.
      box: starts and then stops on each axis, half-open.
      axes: the axes, ascending, that the box is on.
    """
    shape = own.shape
    last = axes[-1]
    # Channels merge into the last axis of the box: long rows make fast loops.
    channels = math.prod(shape[last + 1 :])
    flat = (*shape[:last], shape[last] * channels)
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
    return jnp.where(inside, other.reshape(flat), own.reshape(flat)).reshape(shape)
