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
    """Boxes `(boxes, 4)` of the format as (y0, x0, y1, x1), in their own dtype."""
    if box_format == "yxyx":
        return boxes
    x, y, right, bottom = (boxes[..., i] for i in range(4))
    if box_format == "xywh":
        right, bottom = x + right, y + bottom
    return jnp.stack([y, x, bottom, right], axis=-1)


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
    """Raises a ValueError unless the last axis of boxes or keypoints has the right length."""
    last, shape = (
        ((4,), "(boxes, 4)") if kind == "boxes" else ((2, 3), "(points, 2) or (points, 3)")
    )
    if jnp.ndim(value) != 2 or jnp.shape(value)[-1] not in last:
        raise ValueError(f"{kind} field {key!r} must be {shape}, got shape {jnp.shape(value)}")


def transform_coordinates(
    kind: Kind, value: Array, text_format: str, transform: Callable[[Array], Array]
) -> Array:
    """Applies `transform` to boxes as (y0, x0, y1, x1) or keypoints as (y, x); padding stays."""
    if kind == "boxes":
        canonical, there = box_corners(value, text_format), is_box
        back = formatted_boxes
    else:
        canonical, there = swap_keypoints(value, text_format), is_keypoint
        back = swap_keypoints
    new = transform(canonical)
    if new is canonical:
        return value
    new = back(new, text_format)
    if new.shape != value.shape or new.dtype != value.dtype:
        return new
    return jnp.where(there(canonical)[:, None], new, value)


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
