"""Which pixels patches cover, and an image without them: pure functions of one record.

A patch is a bit. Each row and each column of the image has the set of patches that reach it, and a
pixel is covered where the two sets share a bit. The cost of the pixels therefore hardly depends on
the number of patches, and everything is a comparison of two small vectors. Beyond a few hundred
patches, whose words of bits would all be unrolled, patches are summed up instead.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt32

WORD = 32
MOST_BITS = 8 * WORD


def bit_sets(
    starts: Int[Array, " patches"],
    sides: Int[Array, " patches"],
    count: Int[Array, ""] | None,
    places: Int[np.ndarray, " places"],
) -> UInt32[Array, "words places"]:
    """For each place on an axis, the set of patches that reach it.

    Args:
      starts: first coordinate of each patch.
      sides: length of each patch.
      count: how many of the patches exist, the first ones; None if all do.
      places: coordinates.

    Returns:
      Patch i is bit i % 32 of word i // 32.
    """
    starts, sides = starts.astype(jnp.int32)[:, None], sides.astype(jnp.int32)[:, None]
    reached = (places >= starts) & (places - starts < sides)
    number = np.arange(starts.shape[0], dtype=np.int32)
    if count is not None:
        reached &= (number < count)[:, None]
    bits = jnp.where(reached, np.uint32(1) << (number % WORD).astype(np.uint32)[:, None], 0)
    words = range(0, starts.shape[0], WORD)
    return jnp.stack([_summed_once(bits[i : i + WORD]) for i in words])


def _summed_once(bits: UInt32[Array, "patches places"]) -> UInt32[Array, " places"]:
    """The set at each place, which XLA computes once: by a reduction even where one patch is all.

    What it thinks cheap it computes again for each pixel that asks, and where rows are mixed
    afterwards, by way of divisions.
    """
    if bits.shape[0] > 1:
        return bits.sum(0, dtype=jnp.uint32)
    pair = jnp.where(lax.broadcasted_iota(jnp.uint32, (2, *bits.shape[1:]), 0) == 0, bits, 0)
    return lax.reduce(pair, np.uint32(0), lax.bitwise_or, (0,))


def shared(
    rows: UInt32[Array, "words ..."], columns: UInt32[Array, "words ..."]
) -> Bool[Array, "..."]:
    """Where the sets of a row and a column share a patch; both must broadcast."""
    found = rows[0] & columns[0]
    for row, column in zip(rows[1:], columns[1:], strict=True):
        found |= row & column
    return found != np.uint32(0)


@partial(jax.jit, static_argnames=("height", "width"))
def covered(
    positions: Int[Array, "patches 2"],
    sizes: Int[Array, "patches 2"],
    count: Int[Array, ""] | None,
    *,
    height: int,
    width: int,
) -> Bool[Array, "{height} {width}"]:
    """Which pixels the patches cover.

    Args:
      positions: (y, x) of each patch's top-left corner.
      sizes: (height, width) of each patch.
      count: how many of the patches exist; None if all do.
      height: the image's.
      width: the image's.
    """
    if not positions.shape[0]:
        return jnp.zeros((height, width), bool)
    if positions.shape[0] > MOST_BITS:
        return _summed(positions, sizes, count, height, width)
    rows = bit_sets(positions[:, 0], sizes[:, 0], count, np.arange(height, dtype=np.int32))
    columns = bit_sets(positions[:, 1], sizes[:, 1], count, np.arange(width, dtype=np.int32))
    return shared(rows[:, :, None], columns[:, None, :])


def _summed(
    positions: Array, sizes: Array, count: Array | None, height: int, width: int
) -> Bool[Array, "{height} {width}"]:
    """The same, by summing over both axes what begins and ends at the corners of each patch."""
    start = positions.astype(jnp.int32)
    stop = start + sizes.astype(jnp.int32)
    one = jnp.ones(positions.shape[0], jnp.int32)
    if count is not None:
        one = (np.arange(positions.shape[0], dtype=np.int32) < count).astype(jnp.int32)
    change = jnp.zeros((height + 1, width + 1), jnp.int32)
    for y, x, step in (
        (start[:, 0], start[:, 1], one),
        (start[:, 0], stop[:, 1], -one),
        (stop[:, 0], start[:, 1], -one),
        (stop[:, 0], stop[:, 1], one),
    ):
        change = change.at[y, x].add(step)
    patches = jnp.cumsum(jnp.cumsum(change, axis=0), axis=1)
    return patches[:height, :width] > np.int32(0)


@partial(jax.jit, static_argnames="axes")
def drop(
    image: Array,
    positions: Int[Array, "patches 2"],
    sizes: Int[Array, "patches 2"],
    count: Int[Array, ""] | None,
    fill: Array,
    *,
    axes: tuple[int, int],
) -> Array:
    """The image with its patches filled; all other pixels keep every bit.

    Args:
      image: any shape.
      positions: (y, x) of each patch's top-left corner.
      sizes: (height, width) of each patch.
      count: how many of the patches exist; None if all do.
      fill: a scalar, or an array of the image's rank that broadcasts to it; of its dtype.
      axes: the image's height and width axis, in this order. Patches extend over all others.

    Returns:
      Like `image`. The gradient with respect to it is 1 outside the patches and 0 inside.
    """
    if not positions.shape[0] or not image.size:
        return image
    shape, (down, across) = image.shape, axes
    if positions.shape[0] > MOST_BITS:
        hit = covered(positions, sizes, count, height=shape[down], width=shape[across])
        sides = [side if axis in axes else 1 for axis, side in enumerate(shape)]
        return _filled(hit.reshape(sides), fill, image)
    rows = bit_sets(positions[:, 0], sizes[:, 0], count, np.arange(shape[down], dtype=np.int32))
    # A set for each channel of a column, which are next to each other in memory: comparing vectors
    # as they lie vectorises, and leaves the image in its shape, so that a donated one is reused.
    after = shape[across + 1 :]
    places = np.repeat(np.arange(shape[across], dtype=np.int32), math.prod(after))
    columns = bit_sets(positions[:, 1], sizes[:, 1], count, places)
    hit = shared(
        rows.reshape(-1, *(side if axis == down else 1 for axis, side in enumerate(shape))),
        columns.reshape(-1, *(1,) * across, shape[across], *after),
    )
    return _filled(hit, fill, image)


def _filled(hit: Array, fill: Array, image: Array) -> Array:
    hit, fill = jnp.broadcast_to(hit, image.shape), jnp.broadcast_to(fill, image.shape)
    if jnp.issubdtype(image.dtype, jnp.floating):
        return _select_bits(hit, fill, image)
    return jnp.where(hit, fill, image)


@jax.custom_jvp
def _select_bits(hit: Array, fill: Array, image: Array) -> Array:
    if image.dtype.itemsize > 2:
        return jnp.where(hit, fill, image)
    # As integers, because XLA may compute in a wider float, which quiets signalling NaN.
    bits = jnp.dtype(f"uint{8 * image.dtype.itemsize}")
    words = [jax.lax.bitcast_convert_type(array, bits) for array in (fill, image)]
    return jax.lax.bitcast_convert_type(jnp.where(hit, *words), image.dtype)


@_select_bits.defjvp
def _select_bits_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    hit, fill, image = primals
    tangent = tangents[2]
    return _select_bits(hit, fill, image), jnp.where(hit, jnp.zeros((), tangent.dtype), tangent)
