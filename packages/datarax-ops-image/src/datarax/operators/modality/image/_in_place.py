"""Patches written one after another into the image's own buffer.

Where the caller gives the images away, only the patches' pixels are touched. Under `vmap` one loop
goes over all patches of all records, because a mapped update would become a scatter.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Int

from datarax.operators.modality.image import _patches


@partial(jax.jit, static_argnames=("size", "axes"))
def drop(
    image: Array,
    positions: Int[Array, "patches 2"],
    count: Int[Array, ""] | None,
    fill: Array,
    *,
    size: tuple[int, int],
    axes: tuple[int, int],
) -> Array:
    """The same image as `_patches.drop` returns, for patches of one size and a constant fill.

    Args:
      image: any shape.
      positions: (y, x) of each patch's top-left corner, inside the image.
      count: how many of the patches exist; None if all do.
      fill: a scalar, or an array of the image's rank with length 1 on the spatial axes.
      size: height and width of every patch.
      axes: the image's height and width axis, in this order.
    """
    if not positions.shape[0]:
        return image
    number = np.int32(positions.shape[0]) if count is None else count
    return _drop(image, positions, jnp.asarray(number), fill, size, axes)


@partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _drop(image: Array, positions: Array, count: Array, fill: Array, size: Any, axes: Any) -> Array:
    @custom_vmap
    def one(image: Array, positions: Array, count: Array, fill: Array) -> Array:
        batch = (array[None] for array in (image, positions, count, fill))
        return _write(*batch, size=size, axes=axes)[0]

    @one.def_vmap
    def _(rows: int, batched: list[bool], *arrays: Array) -> tuple[Array, bool]:
        full = (
            array if mapped else jnp.broadcast_to(array, (rows, *array.shape))
            for array, mapped in zip(arrays, batched, strict=True)
        )
        return _write(*full, size=size, axes=axes), True

    return one(image, positions, count, fill)


@_drop.defjvp
def _(size: Any, axes: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    image, positions, count, fill = primals
    tangent, zero = tangents[0], jnp.zeros((), tangents[0].dtype)
    sizes = np.broadcast_to(np.int32(size), positions.shape)
    slope = _patches.drop(tangent, positions, sizes, count, zero, axes=axes)
    return _drop(image, positions, count, fill, size, axes), slope


def _write(
    images: Array, positions: Array, counts: Array, fills: Array, *, size: Any, axes: Any
) -> Array:
    rows, number = positions.shape[:2]
    block = [1, *images.shape[1:]]
    block[axes[0] + 1], block[axes[1] + 1] = size

    def write(step: Array, images: Array) -> Array:
        row, patch = step // np.int32(number), step % np.int32(number)
        start = [jnp.zeros((), jnp.int32)] * images.ndim
        start[0] = row
        start[axes[0] + 1], start[axes[1] + 1] = positions[row, patch].astype(jnp.int32)
        there = jax.lax.dynamic_slice(images, start, block)
        new = jnp.where(patch < counts[row].astype(jnp.int32), fills[row], there)
        return jax.lax.dynamic_update_slice(images, new, start)

    return jax.lax.fori_loop(np.int32(0), np.int32(rows * number), write, images)
