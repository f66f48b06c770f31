"""Boxes: their sides, their place, and how much of the image they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, UInt32

from datarax.core.randomness import below


def sides_of_ratio(
    lam: Float32[Array, "*shape"], sizes: Sequence[int]
) -> list[Int32[Array, "*shape"]]:
    """Sides of a box that is 1 − λ of the image and has its proportions, rounded to pixels."""
    scale = (1 - lam) ** (1 / len(sizes)) if len(sizes) != 2 else jnp.sqrt(1 - lam)
    return [share(scale, size) for size in sizes]


def share(fraction: Float32[Array, "*shape"], count: int) -> Int32[Array, "*shape"]:
    """A fraction of so many pixels, rounded to whole ones."""
    if count < 2**24:
        return jnp.round(count * fraction).astype(jnp.int32)
    # Not every such number is a float32, and the nearest one may be too large.
    part = jnp.minimum(jnp.round(count * fraction), np.nextafter(np.float32(count), np.float32(0)))
    return jnp.where(fraction < 1, jnp.minimum(part.astype(jnp.int32), count), count)


def sides_between(
    words: Sequence[UInt32[Array, "*shape"]], sizes: Sequence[int], minmax: tuple[float, float]
) -> list[Int32[Array, "*shape"]]:
    """Sides that are each uniform between two fractions of the image's, ends included."""
    sides = []
    for word, size in zip(words, sizes, strict=True):
        low, high = (round(fraction * size) for fraction in minmax)
        sides.append(low + below(word, jnp.uint32(high - low + 1)))
    return sides


def place_inside(
    word: UInt32[Array, "*s"], side: Int32[Array, "*s"], size: int
) -> tuple[Array, Array]:
    """Start and stop on one axis: wholly inside, every start equally likely."""
    start = below(word, (size - side).astype(jnp.uint32) + 1)
    return start, start + side


def place_clipped(
    word: UInt32[Array, "*s"], side: Int32[Array, "*s"], size: int
) -> tuple[Array, Array]:
    """Start and stop on one axis: centre uniform over the pixels, clipped to the axis."""
    start = below(word, jnp.uint32(size)) - side // 2
    return jnp.maximum(start, 0), jnp.minimum(start, size - side) + side


PLACEMENTS = {"inside": place_inside, "clipped": place_clipped}


def make_box(
    words: Sequence[UInt32[Array, "*shape"]],
    sides: Sequence[Int32[Array, "*shape"]],
    sizes: Sequence[int],
    placement: str,
) -> Int32[Array, "*shape bounds"]:
    """A box as starts, then stops on each axis, half-open: (y0, x0, y1, x1) of an image."""
    place = PLACEMENTS[placement]
    spans = [place(*args) for args in zip(words, sides, sizes, strict=True)]
    return jnp.stack([start for start, _ in spans] + [stop for _, stop in spans], axis=-1)


def clipped_box(
    box: Int32[Array, "*shape bounds"], sizes: Sequence[int]
) -> Int32[Array, "*shape bounds"]:
    """The part of a box that is in the image: none, at its start, where it stops before."""
    dims = len(sizes)
    limits = jnp.broadcast_to(jnp.int32(sizes), box[..., :dims].shape)
    start, stop = (jnp.clip(part, 0, limits) for part in (box[..., :dims], box[..., dims:]))
    return jnp.concatenate([start, jnp.maximum(start, stop)], axis=-1)


def box_area(box: Int32[Array, "*shape bounds"]) -> Int32[Array, "*shape"]:
    """How many pixels lie in the box."""
    dims = box.shape[-1] // 2
    return jnp.prod(box[..., dims:] - box[..., :dims], axis=-1, dtype=jnp.int32)


def exact_fraction(
    part: Int32[Array, "*shape"], sizes: Sequence[int], dtype: Any = jnp.float32
) -> Float[Array, "*shape"]:
    """The quotient of a number of pixels and those of the whole image.

    Correctly rounded for images of less than 2**24 pixels, or in float64.
    """
    part = part.astype(dtype)
    # A divisor that is the same for all would become a multiplication by its rounded reciprocal.
    return part / jnp.maximum(part, jnp.asarray(math.prod(sizes), dtype))
