"""Convex polygons of a fixed number of vertices: cut to a canvas, measured, simplified.

A polygon with fewer vertices than it has room for repeats its last one. All is arithmetic whose
every step is rounded, so that a polygon is the same alone and in any batch.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from datarax.operators.modality.image.functional._exact import product

Polygon = Float[Array, "vertices 2"]


def clipped(polygon: Polygon, size: tuple[int, int]) -> tuple[Polygon, Array]:
    """What of a polygon lies on a canvas.

    Args:
      polygon: convex, `(vertices, 2)` in `(y, x)`.
      size: `(height, width)` of the canvas.

    Returns:
      The part with four vertices more, and whether there is any. Where there is none, all vertices
      are the point of the canvas nearest to the first.
    """
    sides = jnp.asarray(size, polygon.dtype)
    nearest = jnp.clip(polygon[0], 0, sides)
    some = jnp.asarray(True)
    for axis in (0, 1):
        for bound, sign in ((0, 1), (size[axis], -1)):
            polygon, here = _halved(polygon, axis, bound, sign)
            some &= here
    return jnp.where(some, polygon, nearest), some


def _halved(polygon: Polygon, axis: int, bound: int, sign: int) -> tuple[Polygon, Array]:
    """The part on one side of a line along an axis, with one vertex more, and whether there is any.

    References:
      Sutherland and Hodgman, "Reentrant polygon clipping", 1974.
    """
    count = polygon.shape[0]
    following = jnp.roll(polygon, -1, axis=0)
    inside = sign * (polygon[:, axis] - bound) >= 0
    crossing = inside != jnp.roll(inside, -1)
    reach = following[:, axis] - polygon[:, axis]
    part = (bound - polygon[:, axis]) / jnp.where(crossing, reach, 1)
    other = polygon[:, 1 - axis]
    met = other + product(part, following[:, 1 - axis] - other)
    edge = jnp.full_like(met, bound)
    crossings = jnp.stack([edge, met] if axis == 0 else [met, edge], axis=1)
    # Each vertex, then the crossing on the edge that starts at it.
    candidates = jnp.stack([polygon, crossings], axis=1).reshape(2 * count, 2)
    taken = jnp.stack([inside, crossing], axis=1).reshape(2 * count)
    rank = jnp.cumsum(taken) - 1
    wanted = jnp.minimum(jnp.arange(count + 1), rank[-1])
    source = jnp.argmax(taken & (rank == wanted[:, None]), axis=1)
    return candidates[source], jnp.any(inside)


def area(polygon: Polygon) -> Array:
    """The area of a polygon of either orientation."""
    return jnp.abs(_in_order(_corners(polygon - polygon[0]))) / 2


def _corners(polygon: Polygon) -> Array:
    """The cross products of each vertex with the next."""
    following = jnp.roll(polygon, -1, axis=0)
    return product(polygon[:, 0], following[:, 1]) - product(polygon[:, 1], following[:, 0])


def _in_order(values: Array) -> Array:
    """A sum whose order no compiler chooses: by halves."""
    while values.shape[0] > 1:
        half = (values.shape[0] + 1) // 2
        rest = jnp.pad(values[half:], (0, 2 * half - values.shape[0]))
        values = values[:half] + rest
    return values[0]


def simplified(polygon: Polygon, count: int) -> Polygon:
    """The polygon with room for so many vertices, those left out that enclose the least area."""
    while polygon.shape[0] > count:
        before, following = jnp.roll(polygon, 1, axis=0), jnp.roll(polygon, -1, axis=0)
        arrive, leave = polygon - before, following - polygon
        lost = product(arrive[:, 0], leave[:, 1]) - product(arrive[:, 1], leave[:, 0])
        least = jnp.argmin(jnp.abs(lost))
        kept = jnp.arange(polygon.shape[0] - 1)
        polygon = polygon[jnp.where(kept < least, kept, kept + 1)]
    missing = count - polygon.shape[0]
    return jnp.concatenate([polygon, jnp.repeat(polygon[-1:], missing, axis=0)])
