"""Boxes and points on the canvas of a geometry."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from datarax.operators.modality.image.functional import _polygons
from datarax.operators.modality.image.functional._compiled import broadcasting
from datarax.operators.modality.image.functional._dtypes import computing
from datarax.operators.modality.image.functional._exact import product, settled
from datarax.operators.modality.image.functional._geometries import Geometry
from datarax.operators.modality.image.functional._quotients import quotient

# A rectangle that one canvas cuts has at most 8 corners, and what a second, turned one leaves 12.
OUTLINE = 12


class Points(NamedTuple):
    """Points on a canvas.

    Attributes:
      points: `(points, 2)`, floating: (y, x) in pixels, or in fractions of the canvas.
      visible: bool `(points,)`: which of them lie on the canvas.
    """

    points: Float[Array, "points 2"]
    visible: Bool[Array, " points"]


class Boxes(NamedTuple):
    """Boxes on a canvas.

    Attributes:
      boxes: `(boxes, 4)`, floating: (y0, x0, y1, x1) around what is left of each, in pixels, or in
        fractions of the canvas; of height and width 0 where nothing is left.
      visibility: `(boxes,)`, the fraction of each one's area that is left, exactly 1 for all of it.
      outline: `(boxes, 12, 2)`, the vertices (y, x) in pixels of the convex polygon that is left,
        the last one repeated.
    """

    boxes: Float[Array, "boxes 4"]
    visibility: Float[Array, " boxes"]
    outline: Float[Array, "boxes 12 2"]


Moved = TypeVar("Moved", Points, Boxes)


@broadcasting
def transform_points(
    points: Real[Array, "points 2"],
    geometry: Geometry,
    *,
    fractions_of: tuple[int, int] | None = None,
) -> Points:
    """Points of the image on the canvas of a geometry.

    Args:
      points: `(y, x)` in pixels: pixel i reaches from i to i + 1.
      geometry: `Crop`, `Window` or `Affine`.
      fractions_of: (height, width) of the image, of which the points are fractions; those that come
        back are fractions of the canvas. None for pixels.

    Returns:
      The points, in float32 at least, and which of them the canvas shows.

    Raises:
      TypeError: if fractions are no floats.
      ValueError: if the points are not `(points, 2)`.
    """
    points = _floating("points", points, 2, fractions_of)
    matrix, exists = geometry.forward()
    moved = _points_on_canvas(points, matrix.astype(points.dtype), exists, tuple(geometry.size))
    return moved if fractions_of is None else _as_fractions(moved, geometry)


@broadcasting
def transform_boxes(
    boxes: Real[Array, "boxes 4"],
    geometry: Geometry,
    outline: Float[Array, "boxes 12 2"] | None = None,
    *,
    fractions_of: tuple[int, int] | None = None,
) -> Boxes:
    """Boxes of the image on the canvas of a geometry, cut to it.

    A turned box becomes the smallest that holds what the canvas shows of the turned rectangle.
    That rectangle, or what is left of it, is the outline: given to the next call it keeps boxes
    tight over several turns.

    Args:
      boxes: `(y0, x0, y1, x1)` in pixels.
      geometry: `Crop`, `Window` or `Affine`.
      outline: the convex polygons to use in place of the rectangles, from a call before; always in
        pixels.
      fractions_of: (height, width) of the image, of which the boxes are fractions; those that come
        back are fractions of the canvas. None for pixels.

    Returns:
      The boxes, in float32 at least, with visibility and outline. A box without area has the
      visibility 0.

    Raises:
      TypeError: if fractions are no floats.
      ValueError: if the boxes are not `(boxes, 4)`, or the outline is not `(boxes, 12, 2)`.
    """
    boxes = _floating("boxes", boxes, 4, fractions_of)
    if outline is None:
        y0, x0, y1, x1 = boxes.T
        corners = [y0, x0, y0, x1, y1, x1, y1, x0]
        polygons = jnp.stack(corners, axis=1).reshape(-1, 4, 2)
    else:
        if outline.shape != (boxes.shape[0], OUTLINE, 2):
            raise ValueError(
                f"outline must be {(boxes.shape[0], OUTLINE, 2)} for {boxes.shape[0]} boxes, got "
                f"shape {outline.shape}"
            )
        polygons = outline.astype(boxes.dtype)
    matrix, exists = geometry.forward()
    left = _all_on_canvas(polygons, matrix.astype(boxes.dtype), exists, tuple(geometry.size))
    return left if fractions_of is None else _as_fractions(left, geometry)


def _as_fractions(moved: Moved, geometry: Geometry) -> Moved:
    """The same with coordinates as fractions of the canvas."""
    fractions = quotient(moved[0], _sides_of(geometry.size, moved[0]))
    return moved._replace(**{moved._fields[0]: fractions})


def _sides_of(size: tuple[int, int], coordinates: Array) -> Array:
    """Height and width for each y and x of points or boxes."""
    sides = np.resize(size, coordinates.shape[1])
    return jnp.broadcast_to(jnp.asarray(sides, coordinates.dtype), coordinates.shape)


def _floating(
    name: str, coordinates: Array, count: int, fractions_of: tuple[int, int] | None
) -> Array:
    coordinates = jnp.asarray(coordinates)
    if coordinates.ndim != 2 or coordinates.shape[1] != count:
        raise ValueError(
            f"{name} must be ({name}, {count}) of one record, got shape {coordinates.shape}"
        )
    if fractions_of is None:
        return coordinates.astype(computing(coordinates.dtype))
    if not jnp.issubdtype(coordinates.dtype, jnp.floating):
        raise TypeError(
            f"{name} that are fractions must be floats, got {coordinates.dtype}; leave "
            "fractions_of out if they are pixels"
        )
    coordinates = coordinates.astype(computing(coordinates.dtype))
    return product(settled(coordinates), _sides_of(fractions_of, coordinates))


def _mapped(points: Array, matrix: Array) -> Array:
    y, x = points[:, 0], points[:, 1]
    rows = [product(row[0], y) + product(row[1], x) + row[2] for row in matrix]
    return jnp.stack(rows, axis=1)


@partial(jax.jit, static_argnames="size")
def _points_on_canvas(points: Array, matrix: Array, exists: Array, size: tuple[int, int]) -> Points:
    moved = _mapped(points, matrix)
    sides = jnp.asarray(size, points.dtype)
    return Points(moved, exists & jnp.all((moved >= 0) & (moved < sides), axis=1))


@partial(jax.jit, static_argnames="size")
def _all_on_canvas(polygons: Array, matrix: Array, exists: Array, size: tuple[int, int]) -> Boxes:
    return jax.vmap(lambda polygon: _on_canvas(_mapped(polygon, matrix), exists, size))(polygons)


def _on_canvas(polygon: Array, exists: Array, size: tuple[int, int]) -> Boxes:
    left, some = _polygons.clipped(polygon, size)
    whole, rest = _polygons.area(polygon), _polygons.area(left)
    untouched = jnp.all((polygon >= 0) & (polygon <= jnp.asarray(size, polygon.dtype)))
    fraction = jnp.clip(quotient(rest, jnp.where(whole > 0, whole, 1)), 0, 1)
    visibility = jnp.where(untouched, 1, fraction).astype(jnp.float32)
    left = _polygons.simplified(left, OUTLINE)
    return Boxes(
        jnp.concatenate([left.min(axis=0), left.max(axis=0)]),
        jnp.where(exists & some & (whole > 0), visibility, 0),
        left,
    )
