"""Functions that move pixels and compute none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from datarax.operators.modality.image.functional._arguments import (
    checked_size,
    fill_value,
    integers,
    known,
)
from datarax.operators.modality.image.functional._compiled import broadcasting
from datarax.operators.modality.image.functional._dtypes import checked

PAD_MODES = ("constant", "edge", "reflect", "symmetric")


@broadcasting
def crop(
    image: Shaped[Array, "height width *channel"],
    origin: ArrayLike | Sequence[ArrayLike],
    size: tuple[int, int],
) -> Shaped[Array, "out_height out_width *channel"]:
    """The part of an image that starts at a pixel.

    Args:
      image: uint8 or floating.
      origin: integers `(y, x)` of the first pixel, traced or not. Traced ones that leave no room
        for the crop are moved to the nearest that do.
      size: static `(height, width)` of the part.

    Returns:
      `(*size, channel)` or `size`, in the image's dtype.

    Raises:
      ValueError: if the crop does not fit the image, or a known origin does not.
    """
    image, size = checked(image), checked_size(size)
    room = image.shape[0] - size[0], image.shape[1] - size[1]
    if min(room) < 0:
        raise ValueError(
            f"size {size} does not fit an image of shape {image.shape}; use at most "
            f"{image.shape[:2]}, or pad the image first"
        )
    start = integers(origin, 2, "origin", "(y, x)")
    told = known(origin)
    if told is not None and not all(0 <= told[axis] <= room[axis] for axis in (0, 1)):
        raise ValueError(
            f"origin {tuple(told.tolist())} of a crop of {size} must lie in (0, 0) to {room} for "
            f"an image of shape {image.shape}"
        )
    return part(image, start, size)


def part(pixels: Array, origin: Array, size: tuple[int, int]) -> Array:
    """The pixels of any dtype and rank from an origin on."""
    starts = (origin[0], origin[1], *[jnp.zeros((), origin.dtype)] * (pixels.ndim - 2))
    return lax.dynamic_slice(pixels, starts, (*size, *pixels.shape[2:]))


@broadcasting
def pad(
    image: Shaped[Array, "height width *channel"],
    padding: int | Sequence[int],
    *,
    mode: Literal["constant", "edge", "reflect", "symmetric"] = "constant",
    fill: ArrayLike | Sequence[ArrayLike] = 0,
) -> Shaped[Array, "out_height out_width *channel"]:
    """An image with a border.

    Args:
      image: uint8 or floating.
      padding: static widths of the border in pixels: one for all sides, `(vertical, horizontal)`,
        or `(top, left, bottom, right)`.
      mode: what the border is made of: "constant" is `fill`, "edge" repeats the outermost pixel,
        "reflect" mirrors the image without and "symmetric" with it.
      fill: a number, or one per channel, in the image's own unit.

    Returns:
      `(top + height + bottom, left + width + right)`, with the image's channels and dtype.

    Raises:
      ValueError: if the padding is negative, a mode does not exist, or a reflection is wider than
        the image.
      TypeError: if the padding is not integers.
    """
    image = checked(image)
    return padded(image, _sides(padding), mode, fill_value(fill, image))


def padded(pixels: Array, sides: tuple[int, int, int, int], mode: str, fill: Array) -> Array:
    """The pixels of any dtype and rank with a border."""
    if mode not in PAD_MODES:
        raise ValueError(f"mode must be one of {', '.join(PAD_MODES)}, got {mode!r}")
    top, left, bottom, right = sides
    widths = ((top, bottom), (left, right), *[(0, 0)] * (pixels.ndim - 2))
    if mode != "constant":
        _check_mirror(mode, widths, pixels.shape)
        return jnp.pad(pixels, widths, mode=mode)
    if not fill.ndim:
        return lax.pad(pixels, fill, [(*width, 0) for width in widths])
    height, width, *channels = pixels.shape
    canvas = jnp.broadcast_to(fill, (height + top + bottom, width + left + right, *channels))
    return lax.dynamic_update_slice(canvas, pixels, (top, left, *[0] * len(channels)))


def _sides(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    sides = tuple(padding) if isinstance(padding, Sequence) else (padding,)
    if any(not isinstance(side, int) for side in sides):
        raise TypeError(f"padding must be integers, in pixels, got {padding!r}")
    if len(sides) not in (1, 2, 4) or min(sides) < 0:
        raise ValueError(
            "padding must be a width, (vertical, horizontal) or (top, left, bottom, right), none "
            f"negative, got {padding!r}"
        )
    top, left, bottom, right = sides * (4 // len(sides))
    return top, left, bottom, right


def _check_mirror(mode: str, widths: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> None:
    for width, length in zip(widths, shape, strict=True):
        most = {"reflect": length - 1, "symmetric": length}.get(mode)
        if most is not None and max(width) > most:
            raise ValueError(
                f"padding {width} of a side with mode {mode!r} must be at most {most} for an image "
                f"of shape {shape}; use mode 'edge' or 'constant'"
            )


@broadcasting
def flip(
    image: Shaped[Array, "height width *channel"],
    *,
    vertical: ArrayLike = False,
    horizontal: ArrayLike = False,
) -> Shaped[Array, "height width *channel"]:
    """An image upside down, mirrored, or both.

    Args:
      image: uint8 or floating.
      vertical: whether the last line comes first; a bool, traced or not.
      horizontal: whether the last column comes first; a bool, traced or not.
    """
    return flipped(checked(image), vertical, horizontal)


def flipped(pixels: Array, vertical: ArrayLike, horizontal: ArrayLike) -> Array:
    """The pixels of any dtype and rank, mirrored."""
    for axis, flag in enumerate((vertical, horizontal)):
        if isinstance(flag, bool):
            pixels = jnp.flip(pixels, axis) if flag else pixels
        else:
            pixels = jnp.where(jnp.asarray(flag, bool), jnp.flip(pixels, axis), pixels)
    return pixels
