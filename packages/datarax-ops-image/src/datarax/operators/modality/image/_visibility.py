"""How much of a box or point the patches leave to see: pure functions of one record."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


@jax.jit
def of_boxes(
    corners: Array, covered: Bool[Array, "height width"], there: Bool[Array, " boxes"]
) -> Float[Array, " boxes"]:
    """The fraction of each box's area inside the image that is not covered.

    Args:
      corners: (y0, x0, y1, x1) of each box, in pixels: pixel i reaches from i to i + 1.
      covered: which pixels patches cover.
      there: which boxes are not padding.

    Returns:
      float32, exactly 1 where nothing is covered, 0 for padding and for boxes outside the image.
    """
    y0, x0, y1, x1 = (corners[:, i].astype(jnp.float32) for i in range(4))
    rows = _overlap(y0, y1, covered.shape[0])
    columns = _overlap(x0, x1, covered.shape[1])
    seen = jnp.where(covered, np.float32(0), np.float32(1))
    area = jnp.einsum("bh,hw,bw->b", rows, seen, columns, precision="highest")
    whole = rows.sum(1) * columns.sum(1)
    some = there & (whole > 0)
    fraction = jnp.clip(area / jnp.where(some, whole, 1), 0, 1)
    # The two sums of an untouched box may differ in their last bits.
    full = area >= whole * np.float32(1 - 2**-20)
    return jnp.where(some, jnp.where(full, 1, fraction), 0)


def _overlap(start: Array, stop: Array, length: int) -> Array:
    """How much of each pixel of an axis lies between start and stop."""
    edge = jnp.arange(length, dtype=jnp.float32)
    reach = jnp.minimum(edge + 1, stop[:, None]) - jnp.maximum(edge, start[:, None])
    return jnp.clip(reach, 0, 1)


@jax.jit
def of_points(
    points: Array, covered: Bool[Array, "height width"], there: Bool[Array, " points"]
) -> Bool[Array, " points"]:
    """Which points lie in the image on a pixel that is not covered.

    Args:
      points: (y, x) in the first two columns, in pixels: pixel i reaches from i to i + 1.
      covered: which pixels patches cover.
      there: which points are not padding.
    """
    inside, hidden = _inside_and_hidden(points, covered)
    return there & inside & ~hidden


@jax.jit
def with_flags(points: Array, covered: Bool[Array, "height width"]) -> Array:
    """Points (y, x, flag), whose flag is at most 1 where they lie on a covered pixel."""
    _, hidden = _inside_and_hidden(points, covered)
    flag = points[:, 2]
    lowered = jnp.where(hidden, jnp.minimum(flag, jnp.ones((), flag.dtype)), flag)
    return jnp.concatenate([points[:, :2], lowered[:, None]], axis=1)


def _inside_and_hidden(points: Array, covered: Array) -> tuple[Array, Array]:
    places = jnp.floor(points[:, :2].astype(jnp.float32))
    sides = np.array(covered.shape, np.float32)
    inside = jnp.all((places >= 0) & (places < sides), axis=1)
    y, x = (jnp.where(inside, places[:, i], 0).astype(jnp.int32) for i in range(2))
    return inside, inside & covered[y, x]


@jax.jit
def shrunk(corners: Array, covered: Bool[Array, "height width"]) -> Array:
    """Boxes cut to the pixels that are left of them.

    Args:
      corners: (y0, x0, y1, x1) of each box, in pixels.
      covered: which pixels patches cover.

    Returns:
      The boxes in their own dtype: unchanged where no patch touches them, of height and width 0
      where nothing is left.
    """
    y0, x0, y1, x1 = (corners[:, i].astype(jnp.float32) for i in range(4))
    rows = _overlap(y0, y1, covered.shape[0]) > 0
    columns = _overlap(x0, x1, covered.shape[1]) > 0
    inside = rows[:, :, None] & columns[:, None, :]
    left = inside & ~covered
    touched = jnp.any(inside & covered, axis=(1, 2))
    some = jnp.any(left, axis=(1, 2))
    first_row, last_row = _extent(jnp.any(left, axis=2))
    first_column, last_column = _extent(jnp.any(left, axis=1))
    top, bottom = corners[:, 0], corners[:, 2]
    start, stop = corners[:, 1], corners[:, 3]
    kind = corners.dtype
    cut = jnp.stack(
        [
            jnp.maximum(top, first_row.astype(kind)),
            jnp.maximum(start, first_column.astype(kind)),
            jnp.minimum(bottom, last_row.astype(kind)),
            jnp.minimum(stop, last_column.astype(kind)),
        ],
        axis=1,
    )
    nothing = jnp.stack([top, start, top, start], axis=1)
    return jnp.where(touched[:, None], jnp.where(some[:, None], cut, nothing), corners)


def _extent(there: Bool[Array, "boxes length"]) -> tuple[Array, Array]:
    """First coordinate that is there, and the one after the last."""
    length = there.shape[1]
    return jnp.argmax(there, axis=1), length - jnp.argmax(there[:, ::-1], axis=1)
