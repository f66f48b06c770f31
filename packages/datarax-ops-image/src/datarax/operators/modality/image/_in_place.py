"""Patches written one after another into the image's own buffer.

Where the caller gives the images away, only the patches' pixels are touched. Under `vmap` one loop
goes over all patches of all records, because a mapped update would become a scatter.
"""

from __future__ import annotations

import math
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
    return _drop(image, positions, count, fill, size, axes)


@partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _drop(
    image: Array, positions: Array, count: Array | None, fill: Array, size: Any, axes: Any
) -> Array:
    @custom_vmap
    def one(*arrays: Array) -> Array:
        return _write(*(array[None] for array in arrays), size=size, axes=axes)[0]

    @one.def_vmap
    def _(rows: int, batched: list[bool], *arrays: Array) -> tuple[Array, bool]:
        full = [
            array if mapped else jnp.broadcast_to(array, (rows, *array.shape))
            for array, mapped in zip(arrays, batched, strict=True)
        ]
        if not batched[1]:
            full[1] = arrays[1][None]
        return _write(*full, size=size, axes=axes), True

    return one(image, fill, positions, *(() if count is None else (count,)))


@_drop.defjvp
def _(size: Any, axes: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    image, positions, count, fill = primals
    tangent, zero = tangents[0], jnp.zeros((), tangents[0].dtype)
    sizes = np.broadcast_to(np.array(size, np.int32), positions.shape)
    slope = _patches.drop(tangent, positions, sizes, count, zero, axes=axes)
    return _drop(image, positions, count, fill, size, axes), slope


def _write(
    images: Array,
    fills: Array,
    positions: Array,
    counts: Array | None = None,
    *,
    size: Any,
    axes: Any,
) -> Array:
    rows, number = positions.shape[:2]
    shape, (down, across) = images.shape, (axes[0] + 1, axes[1] + 1)
    # Channels beside their column: a row of a patch is then one piece of memory.
    after = math.prod(shape[across + 1 :])
    flat = images.reshape(*shape[:across], shape[across] * after)
    filled = [fills.shape[0], *shape[1:]]
    filled[down], filled[across] = size
    blocks = jnp.broadcast_to(
        fills.reshape(-1, *fills.shape[1:] or (1,) * (len(shape) - 1)), filled
    )
    block = (1, *filled[1:across], size[1] * after)
    blocks = blocks.reshape(-1, *block[1:])

    def write(step: Array, flat: Array) -> Array:
        row, patch = step // np.int32(number), step % np.int32(number)
        start = [jnp.zeros((), jnp.int32)] * flat.ndim
        y, x = positions[row, patch].astype(jnp.int32)
        start[0], start[down], start[across] = row, y, x * np.int32(after)
        new = blocks[row][None] if blocks.shape[0] > 1 else blocks
        if counts is not None:
            there = jax.lax.dynamic_slice(flat, start, block)
            new = jnp.where(patch < counts[row].astype(jnp.int32), new, there)
        return jax.lax.dynamic_update_slice(flat, new, start)

    out = jax.lax.fori_loop(np.int32(0), np.int32(rows * number), write, flat)
    return out.reshape(shape)
