"""Which fields of a batch are images, and what a person sees of their first records."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Num, UInt8

CHANNELS = (1, 3, 4)
LONGEST_SIDE = 128
SHORTEST_SIDE = 4


def readable(leaf: Any) -> bool:
    """Whether the host can look at the values: they are there, and all of them here."""
    if isinstance(leaf, Tracer):
        return False
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return False
    if isinstance(leaf, jax.Array):
        return not leaf.is_deleted() and (leaf.is_fully_addressable or leaf.is_fully_replicated)
    return isinstance(leaf, np.ndarray)


def channel_axis(leaf: Any) -> int | None:
    """Where images `(batch, ...)` have their channels, 0 for masks `(batch, height, width)`.

    None if a leaf is not an image.
    """
    shape, dtype = leaf.shape, leaf.dtype
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool)):
        return None
    if len(shape) == 4:
        for axis in (3, 1):
            sides = [size for place, size in enumerate(shape) if place not in (0, axis)]
            if shape[axis] in CHANNELS and min(sides) >= SHORTEST_SIDE:
                return axis
    if len(shape) == 3 and min(shape[1:]) >= SHORTEST_SIDE and dtype.kind in "biu":
        return 0
    return None


def thumbnails(
    images: Num[np.ndarray, "rows ..."], axis: int
) -> tuple[UInt8[np.ndarray, "rows height width channel"], tuple[float, float] | None]:
    """Small pictures of images, and the range of values that black to white stand for.

    Bytes are shown as they are, and so are floats from 0 to 1; of other images and of masks the
    lowest value is black and the highest white.

    Args:
      images: as `channel_axis` understands them.
      axis: what it said.

    Returns:
      Pictures of at most 128 x 128 pixels, and the range if it is the images' own.
    """
    images = np.expand_dims(images, 3) if axis == 0 else np.moveaxis(images, axis, 3)
    step = -(-max(images.shape[1:3]) // LONGEST_SIDE)
    images = images[:, ::step, ::step]
    if images.dtype == np.uint8 and axis:
        return images, None
    values = images.astype(np.float32)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    shown = None
    if axis == 0 or low < 0 or high > 1 or images.dtype.kind in "iu":
        shown = (low, high)
        values = (values - low) / (high - low if high > low else 1.0)
    levels = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0).clip(0.0, 1.0) * 255
    return np.rint(levels).astype(np.uint8), shown


def caption(name: str, value: Any) -> str | None:
    """What stands under a picture of a record: its number or class, or the heaviest of its classes.

    Args:
      name: of the field.
      value: the record's part of it.
    """
    value = np.asarray(value)
    if value.size == 1 and value.ndim <= 1:
        number = value.reshape(()).item()
        return f"{name} {number:.3g}" if isinstance(number, float) else f"{name} {number}"
    if value.ndim != 1 or not value.size or value.dtype.kind in "biu":
        return None
    weights = value.astype(np.float32)
    if weights.min() < 0 or not np.isclose(weights.sum(), 1.0, atol=1e-2):
        return None
    heaviest = np.argsort(-weights, kind="stable")[:2]
    parts = [f"{label}: {weights[label]:.2f}" for label in heaviest if weights[label] >= 0.005]
    return f"{name} {', '.join(parts)}"
