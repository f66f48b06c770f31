"""Masks, boxes and keypoints that follow the geometry of a field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

Kind = Literal["mask", "boxes", "keypoints"]

BOX_FORMATS = ("xyxy", "yxyx", "xywh")
KEYPOINT_FORMATS = ("xy", "yx")


def box_corners(boxes: Array, box_format: str) -> Array:
    """Boxes `(boxes, 4)` of the format as (y0, x0, y1, x1).

    In their own dtype, or int32 for narrower integers, so that no corner wraps: a corner beyond the
    largest int32 or uint32 is that number.
    """
    boxes = _with_room(boxes)
    if box_format == "yxyx":
        return boxes
    x, y, right, bottom = (boxes[..., i] for i in range(4))
    if box_format == "xywh":
        right, bottom = _end(x, right), _end(y, bottom)
    return jnp.stack([y, x, bottom, right], axis=-1)


def _with_room(coordinates: Array) -> Array:
    narrow = jnp.issubdtype(coordinates.dtype, jnp.integer) and coordinates.dtype.itemsize < 4
    return coordinates.astype(jnp.int32) if narrow else coordinates


def _end(start: Array, length: Array) -> Array:
    end = start + length
    if not jnp.issubdtype(end.dtype, jnp.integer):
        return end
    wrapped = (length > jnp.zeros((), length.dtype)) & (end < start)
    return jnp.where(wrapped, jnp.asarray(jnp.iinfo(end.dtype).max, end.dtype), end)


def formatted_boxes(corners: Array, box_format: str) -> Array:
    """Boxes given as (y0, x0, y1, x1) in the format."""
    if box_format == "yxyx":
        return corners
    y, x, bottom, right = (corners[..., i] for i in range(4))
    if box_format == "xywh":
        right, bottom = right - x, bottom - y
    return jnp.stack([x, y, right, bottom], axis=-1)


def swap_keypoints(keypoints: Array, keypoint_format: str) -> Array:
    """Keypoints `(points, 2 or more)` of the format with (y, x) first, or the other way round."""
    if keypoint_format == "yx":
        return keypoints
    return jnp.concatenate([keypoints[..., 1::-1], keypoints[..., 2:]], axis=-1)


def is_box(corners: Array) -> Bool[Array, " boxes"]:
    """Which slots hold a box; those without a positive area (or with NaN) are padding."""
    return (corners[..., 2] > corners[..., 0]) & (corners[..., 3] > corners[..., 1])


def is_keypoint(keypoints: Array) -> Bool[Array, " points"]:
    """Which slots hold a point; those with a negative or NaN coordinate, or flag 0, are padding."""
    there = jnp.all(keypoints[..., :2] >= jnp.zeros((), keypoints.dtype), axis=-1)
    if keypoints.shape[-1] > 2:
        there &= keypoints[..., 2] > jnp.zeros((), keypoints.dtype)
    return there


def check_coordinates(key: str, kind: Kind, value: Any) -> None:
    """Raises unless boxes or keypoints are numbers, as many of each as there must be.

    Raises:
      TypeError: if they are neither integers nor floating.
      ValueError: if they have another rank, or another length of the last axis.
    """
    last, shape = (
        ((4,), "(boxes, 4)") if kind == "boxes" else ((2, 3), "(points, 2) or (points, 3)")
    )
    if jnp.ndim(value) != 2 or jnp.shape(value)[-1] not in last:
        raise ValueError(f"{kind} field {key!r} must be {shape}, got shape {jnp.shape(value)}")
    dtype = jnp.result_type(value)
    if not (jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)):
        raise TypeError(
            f"{kind} field {key!r} must be integers or floating, got {dtype}; cast it first"
        )


def canonical(kind: Kind, value: Array, text_format: str) -> tuple[Array, Array]:
    """Boxes as (y0, x0, y1, x1) or keypoints as (y, x), and which slots are not padding."""
    if kind == "boxes":
        corners = box_corners(value, text_format)
        return corners, is_box(corners)
    points = swap_keypoints(_with_room(value), text_format)
    return points, is_keypoint(points)


def transform_coordinates(
    kind: Kind, value: Array, text_format: str, transform: Callable[[Array], Array]
) -> Array:
    """Applies `transform` to boxes as (y0, x0, y1, x1) or keypoints as (y, x).

    Padding, and what the transformation leaves as it is, keeps every bit.
    """
    old, there = canonical(kind, value, text_format)
    new = transform(old)
    if new is old:
        return value
    out = (formatted_boxes if kind == "boxes" else swap_keypoints)(new, text_format)
    if new.shape != old.shape or new.dtype != old.dtype:
        return out
    if out.dtype != value.dtype:
        limits = jnp.iinfo(value.dtype)
        out = jnp.clip(out, limits.min, limits.max).astype(value.dtype)
    # Corner and size do not always give the size back: (x + w) - x is rounded.
    out = _unless_equal(jnp.all(new == old, axis=-1, keepdims=True), value, out)
    return jnp.where(there[:, None], out, value)


@jax.custom_jvp
def _unless_equal(equal: Array, old: Array, new: Array) -> Array:
    return jnp.where(equal, old, new)


@_unless_equal.defjvp
def _unless_equal_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # What happens to be equal depends on the parameters of the transformation all the same.
    return _unless_equal(*primals), tangents[2]


def require_preserved(key: str, old: Any, new: Any) -> None:
    """Raises if a transformed auxiliary field differs in structure, shape or dtype."""
    if jax.tree.structure(old) != jax.tree.structure(new):
        raise ValueError(
            f"auxiliary field {key!r} must keep its structure {jax.tree.structure(old)}, got "
            f"{jax.tree.structure(new)}; set preserve_auxiliary=False if that is meant"
        )
    for before, after in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        if jnp.shape(before) != jnp.shape(after):
            raise ValueError(
                f"auxiliary field {key!r} must keep its shape {jnp.shape(before)}, got "
                f"{jnp.shape(after)}; set preserve_auxiliary=False if that is meant"
            )
        if jnp.result_type(before) != jnp.result_type(after):
            raise TypeError(
                f"auxiliary field {key!r} must keep its dtype {jnp.result_type(before)}, got "
                f"{jnp.result_type(after)}; set preserve_auxiliary=False if that is meant"
            )
