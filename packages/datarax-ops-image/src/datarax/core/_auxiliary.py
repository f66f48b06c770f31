"""Masks, boxes and keypoints that follow the geometry of a field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool

Kind = Literal["mask", "boxes", "keypoints"]

# In pixels, and with "rel_" in fractions of the image's height and width.
RELATIVE = "rel_"
BOX_FORMATS = ("xyxy", "yxyx", "xywh", "rel_xyxy", "rel_yxyx", "rel_xywh")
KEYPOINT_FORMATS = ("xy", "yx", "rel_xy", "rel_yx")
Size = tuple[int, int]


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


def check_coordinates(key: str, kind: Kind, value: Any, text_format: str) -> None:
    """Raises unless boxes or keypoints are numbers, as many of each as there must be.

    Raises:
      TypeError: if they are neither integers nor floating, or integers that shall be fractions.
      ValueError: if they have another rank, or another length of the last axis.
    """
    last, shape = (
        ((4,), "(boxes, 4)") if kind == "boxes" else ((2, 3), "(points, 2) or (points, 3)")
    )
    if jnp.ndim(value) != 2 or jnp.shape(value)[-1] not in last:
        raise ValueError(f"{kind} field {key!r} must be {shape}, got shape {jnp.shape(value)}")
    dtype, (relative, form) = jnp.result_type(value), split_format(text_format)
    if not (jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)):
        raise TypeError(
            f"{kind} field {key!r} must be integers or floating, got {dtype}; cast it first"
        )
    if relative and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{kind} field {key!r} in the format {text_format!r} must be floats, fractions of the "
            f"image, got {dtype}; pixels have the format {form!r}"
        )


def looks_relative(kind: Kind, value: Any, text_format: str, valid: Any) -> bool:
    """Whether coordinates that a format says are pixels all lie between 0 and 1.

    Args:
      kind: "boxes" or "keypoints".
      value: those of a batch, `(batch, slots, columns)`.
      text_format: their format.
      valid: bool `(batch,)`, which rows are records.

    Returns:
      False too where they cannot be read, are fractions by their format, or are all padding.
    """
    if split_format(text_format)[0] or not (can_be_read(value) and can_be_read(valid)):
        return False
    slots = np.asarray(value)
    if slots.ndim != 3 or not jnp.issubdtype(slots.dtype, jnp.floating):
        return False
    count = 4 if kind == "boxes" else 2
    numbers = slots[np.asarray(valid)].reshape(-1, slots.shape[-1]).astype(np.float32)
    if numbers.shape[1] < count:
        return False
    there = (numbers[:, :count] >= 0).all(axis=1)
    if kind == "boxes":
        start = 0 if text_format == "xywh" else numbers[:, :2]
        there &= (numbers[:, 2:4] > start).all(axis=1)
    elif numbers.shape[1] == 3:
        there &= numbers[:, 2] > 0
    return bool(there.any() and (numbers[there, :count] <= 1).all())


def can_be_read(value: Any) -> bool:
    """Whether the values are there and reading them does not wait for an accelerator."""
    if isinstance(value, np.ndarray):
        return True
    return (
        isinstance(value, jax.Array)
        and not isinstance(value, Tracer)
        and value.is_fully_addressable
        and all(device.platform == "cpu" for device in value.devices())
    )


def canonical(kind: Kind, value: Array, text_format: str, size: Size | None) -> tuple[Array, Array]:
    """Boxes as (y0, x0, y1, x1) or keypoints as (y, x) in pixels, and which slots are not padding.

    Args:
      kind: "boxes" or "keypoints".
      value: in the format.
      text_format: one of `BOX_FORMATS` or `KEYPOINT_FORMATS`.
      size: (height, width) of the image, needed for fractions only.

    Returns:
      In the dtype of the value, but at least int32, and at least float32 for fractions.
    """
    relative, form = split_format(text_format)
    if relative:
        value = value if value.dtype == jnp.float64 else value.astype(jnp.float32)
    if kind == "boxes":
        corners = box_corners(value, form)
        corners = corners * _sides(kind, corners, size) if relative else corners
        return corners, is_box(corners)
    points = swap_keypoints(_with_room(value), form)
    points = points * _sides(kind, points, size) if relative else points
    return points, is_keypoint(points)


def formatted(kind: Kind, coordinates: Array, text_format: str, size: Size | None) -> Array:
    """What `canonical` makes, in the format of an image of this size."""
    relative, form = split_format(text_format)
    if relative:
        coordinates = coordinates / _sides(kind, coordinates, size)
    if kind == "boxes":
        return formatted_boxes(coordinates, form)
    return swap_keypoints(coordinates, form)


def split_format(text_format: str) -> tuple[bool, str]:
    """Whether coordinates are fractions, and the format of the same in pixels."""
    form = text_format.removeprefix(RELATIVE)
    return form != text_format, form


def _sides(kind: Kind, coordinates: Array, size: Size | None) -> Array:
    """What fractions are multiplied by to become pixels, and a flag by 1.

    Compilers would divide by these numbers with a rounded reciprocal, and multiply by them and
    another number at once. They do not see that both sides of the selection are the same.
    """
    assert size is not None
    sides = [*size, *size] if kind == "boxes" else [*size, 1][: coordinates.shape[-1]]
    numbers = jnp.broadcast_to(jnp.asarray(sides, coordinates.dtype), coordinates.shape)
    positive = coordinates > jnp.zeros((), coordinates.dtype)
    return jnp.where(positive, numbers, jax.lax.optimization_barrier(numbers))


def transform_coordinates(
    kind: Kind,
    value: Array,
    text_format: str,
    transform: Callable[[Array], Array],
    sizes: tuple[Size, Size] | None,
) -> Array:
    """Applies `transform` to boxes as (y0, x0, y1, x1) or keypoints as (y, x).

    Padding, and what the transformation leaves as it is, keeps every bit. The sizes of the image
    before and after it are needed for fractions only.
    """
    before, after = sizes or (None, None)
    old, there = canonical(kind, value, text_format, before)
    new = transform(old)
    relative, kept = split_format(text_format)[0], before == after
    if new is old and kept:
        return value
    out = formatted(kind, new, text_format, after)
    if new.shape != old.shape or new.dtype != old.dtype:
        return out
    if out.dtype != value.dtype and not relative:
        limits = jnp.iinfo(value.dtype)
        out = jnp.clip(out, limits.min, limits.max)
    out = out.astype(value.dtype)
    if kept:
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
