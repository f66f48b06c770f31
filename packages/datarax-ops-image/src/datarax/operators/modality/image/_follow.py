"""Masks, boxes and keypoints that follow the geometry of their image: pure functions of a record.

Two fields say what is left of a box, so that the next geometry continues from there: the fraction
of its area, and its outline. In boxes that are padding, all three stay bit-identical.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Num

from datarax.core import _auxiliary, fields
from datarax.operators.modality.image.functional import (
    Geometry,
    transform_boxes,
    transform_points,
)
from datarax.operators.modality.image.functional._dtypes import computing

CORNERS = 12
VISIBILITY, OUTLINE = "{}_visibility", "{}_outline"

Size = tuple[int, int]


class Boxes(NamedTuple):
    """Boxes of a record, and what is left of each.

    Attributes:
      value: the boxes as they are in the record.
      visibility: the fraction of the area inside the image that is left.
      outline: the convex polygon that is left, (y, x), the last corner repeated.
    """

    value: Num[Array, "boxes 4"]
    visibility: Float32[Array, " boxes"]
    outline: Float32[Array, "boxes 12 2"]


class Points(NamedTuple):
    """Keypoints of a record, and which of them can be seen.

    Attributes:
      value: the points as they are in the record.
      visibility: whether a point is in the image, and was so before.
    """

    value: Num[Array, "points columns"]
    visibility: Bool[Array, " points"]


def resting_boxes(
    key: str, value: Array, form: str, size: Size, visibility: Any, outline: Any
) -> Boxes:
    """Boxes of an image that stays as it is.

    Args:
      key: the field, for messages.
      value: boxes of the format.
      form: one of `BOX_FORMATS`.
      size: (height, width) of the image.
      visibility: what earlier operators left of them; None: everything inside the image.
      outline: its outlines; None: the boxes inside the image.

    Raises:
      ValueError: if one has a wrong shape.
    """
    _auxiliary.check_coordinates(key, "boxes", value, form)
    corners, there = _auxiliary.canonical("boxes", jnp.asarray(value), form, size)
    inside = _inside(corners, there, size)
    some = there & jnp.all(inside[:, 2:] > inside[:, :2], axis=1)
    y0, x0, y1, x1 = inside.T
    rectangle = jnp.stack([y0, x0, y0, x1, y1, x1, y1, x0], axis=1).reshape(-1, 4, 2)
    corner = np.minimum(np.arange(CORNERS), 3)
    return Boxes(
        value,
        _left(VISIBILITY.format(key), visibility, some.astype(jnp.float32)),
        _left(OUTLINE.format(key), outline, rectangle[:, corner].astype(jnp.float32)),
    )


def moved_boxes(boxes: Boxes, form: str, size: Size, geometries: Sequence[Geometry]) -> Boxes:
    """The boxes after geometries, one after another.

    Args:
      boxes: those at rest.
      form: one of `BOX_FORMATS`.
      size: (height, width) of the image.
      geometries: what happens to the image.
    """
    corners, there = _auxiliary.canonical("boxes", jnp.asarray(boxes.value), form, size)
    now = _inside(corners, there, size)
    outline = jnp.where(there[:, None, None], boxes.outline, np.float32(0))
    visibility = boxes.visibility
    for geometry in geometries:
        now, left, outline = transform_boxes(now, geometry, outline)
        visibility = visibility * left
    value = _auxiliary.formatted("boxes", now, form, geometries[-1].size)
    return Boxes(
        _of_dtype(value, boxes.value, there),
        jnp.where(there, visibility, boxes.visibility),
        jnp.where(there[:, None, None], outline.astype(jnp.float32), boxes.outline),
    )


def resting_points(key: str, value: Array, form: str, size: Size, visibility: Any) -> Points:
    """Keypoints of an image that stays as it is.

    Args:
      key: the field, for messages.
      value: points of the format.
      form: one of `KEYPOINT_FORMATS`.
      size: (height, width) of the image.
      visibility: which of them earlier operators left; None: all those inside the image.

    Raises:
      ValueError: if one has a wrong shape.
    """
    _auxiliary.check_coordinates(key, "keypoints", value, form)
    points, there = _auxiliary.canonical("keypoints", jnp.asarray(value), form, size)
    places = points[:, :2].astype(computing(points.dtype))
    seen = there & jnp.all((places >= 0) & (places < np.array(size, np.float32)), axis=1)
    return Points(value, _left(VISIBILITY.format(key), visibility, seen))


def moved_points(points: Points, form: str, size: Size, geometries: Sequence[Geometry]) -> Points:
    """The keypoints after geometries, one after another.

    A flag in a third column is at most 1 where a point left the image.
    """
    now, there = _auxiliary.canonical("keypoints", jnp.asarray(points.value), form, size)
    places = jnp.where(there[:, None], now[:, :2].astype(computing(now.dtype)), 0)
    visibility = points.visibility
    for geometry in geometries:
        places, seen = transform_points(places, geometry)
        visibility = visibility & seen
    columns = [places]
    if now.shape[1] == 3:
        flag = now[:, 2:].astype(places.dtype)
        columns.append(jnp.where(visibility[:, None], flag, jnp.minimum(flag, 1)))
    coordinates = jnp.concatenate(columns, axis=1)
    value = _auxiliary.formatted("keypoints", coordinates, form, geometries[-1].size)
    return Points(
        _of_dtype(value, points.value, there), jnp.where(there, visibility, points.visibility)
    )


def _inside(corners: Array, there: Bool[Array, " boxes"], size: Size) -> Array:
    """Boxes cut to the image, in a dtype to compute in; zeros for padding."""
    corners = jnp.where(there[:, None], corners.astype(computing(corners.dtype)), 0)
    return jnp.clip(corners, 0, np.array([*size, *size], np.float32).astype(corners.dtype))


def _of_dtype(new: Array, old: Array, there: Array) -> Array:
    """The new coordinates in the old dtype, the nearest for integers; the old ones for padding."""
    old = jnp.asarray(old)
    if jnp.issubdtype(old.dtype, jnp.integer):
        limits = jnp.iinfo(old.dtype)
        new = jnp.clip(jnp.round(new), limits.min, limits.max)
    return jnp.where(there[:, None], new.astype(old.dtype), old)


def found(data: Any, name: str) -> Any:
    """A field that earlier operators may have left; None if they have not."""
    try:
        return fields.get_field(data, name)
    except KeyError:
        return None


def added(before: Any, after: Any, names: Sequence[str]) -> dict[str, Array]:
    """Those fields of these names that are in the later data alone."""
    values = {name: found(after, name) for name in names if found(before, name) is None}
    return {name: value for name, value in values.items() if value is not None}


def narrowed(name: str, given: Any, now: Array, there: Bool[Array, " slots"]) -> Array:
    """What is visible after earlier operators and after this one; padding keeps every bit."""
    given = _left(name, given, now)
    if given is now:
        return now
    both = given & now if given.dtype == jnp.bool_ else given * now
    return jnp.where(there, both, given)


def _left(name: str, given: Any, default: Array) -> Array:
    """What earlier operators left, or the default."""
    if given is None:
        return default
    given = jnp.asarray(given)
    if given.shape != default.shape or given.dtype != default.dtype:
        raise ValueError(
            f"field {name!r} must be {default.dtype}{list(default.shape)}, as an operator before "
            f"leaves it, got {given.dtype}{list(given.shape)}; rename it"
        )
    return given
