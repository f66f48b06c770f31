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
      float32, 0 for padding and for boxes outside the image.
    """
    y0, x0, y1, x1 = (corners[:, i].astype(jnp.float32) for i in range(4))
    rows = _overlap(y0, y1, covered.shape[0])
    columns = _overlap(x0, x1, covered.shape[1])
    seen = jnp.where(covered, np.float32(0), np.float32(1))
    area = jnp.einsum("bh,hw,bw->b", rows, seen, columns, precision="highest")
    whole = rows.sum(1) * columns.sum(1)
    some = there & (whole > 0)
    return jnp.where(some, jnp.clip(area / jnp.where(some, whole, 1), 0, 1), 0)


def _overlap(start: Array, stop: Array, length: int) -> Array:
    """How much of each pixel of an axis lies between start and stop."""
    edge = jnp.arange(length, dtype=jnp.float32)
    reach = jnp.minimum(edge + 1, stop[:, None]) - jnp.maximum(edge, start[:, None])
    return jnp.clip(reach, 0, 1)


@jax.jit
def of_points(points: Array, covered: Bool[Array, "height width"]) -> Bool[Array, " points"]:
    """Which points lie in the image on a pixel that is not covered.

    Args:
      points: (y, x) in the first two columns, in pixels: pixel i reaches from i to i + 1.
      covered: which pixels patches cover.
    """
    places = jnp.floor(points[:, :2].astype(jnp.float32))
    sides = np.float32(covered.shape)
    inside = jnp.all((places >= 0) & (places < sides), axis=1)
    y, x = (jnp.where(inside, places[:, i], 0).astype(jnp.int32) for i in range(2))
    return inside & ~covered[y, x]
