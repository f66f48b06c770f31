"""Resizing, and cropping with resizing: the whole image or a box of it on another grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from datarax.operators.modality.image.functional import _weights
from datarax.operators.modality.image.functional._arguments import (
    Method,
    checked_method,
    checked_size,
    integers,
    known,
)
from datarax.operators.modality.image.functional._backends import record_by_record
from datarax.operators.modality.image.functional._compiled import broadcasting
from datarax.operators.modality.image.functional._dtypes import checked, computing
from datarax.operators.modality.image.functional._exact import stored
from datarax.operators.modality.image.functional._resample import (
    dense_pass,
    floating_pass,
    going_round,
    integer_pass,
    static_pass,
    take,
)
from datarax.operators.modality.image.functional._weights import Taps

# Pillow takes the vertical pass first where an image is taller than so many times its width, and
# becomes lower.
NARROW = 100


@broadcasting
def resize(
    image: Shaped[Array, "height width *channel"],
    size: tuple[int, int],
    *,
    method: Method = "bilinear",
    antialias: bool = True,
) -> Shaped[Array, "out_height out_width *channel"]:
    """An image at another size.

    For uint8 the result is Pillow's, bit by bit: horizontally first, with weights of 22 bits, and a
    rounding to uint8 after each pass.

    Args:
      image: uint8 or floating.
      size: static `(height, width)`.
      method: "nearest", "bilinear" or "bicubic" (Keys' cubic with a = -1/2).
      antialias: whether the kernel widens by the reduction, so that every input pixel counts, as in
        Pillow. Without it the kernel keeps its two or four pixels; at the border, those outside
        have no weight. It has no effect on enlargements, nor on "nearest".

    Returns:
      The image in its own dtype; floats unclipped.

    Raises:
      ValueError: if the size or the method is not one.
      TypeError: if the size is not static, or the dtype not an image's.

    References:
      "Image numerics 1"; Pillow 12.2, `Image.resize`.
    """
    image, size, method = checked(image), checked_size(size), checked_method(method)
    lengths = image.shape[:2]
    if method == "nearest":
        places = [_weights.nearest(*pair)[pair[0]] for pair in zip(lengths, size, strict=True)]
        return _repeated(image, *places)
    dtype = _weight_dtype(image)
    vertical, horizontal = (
        _weights.of_length(length, pixels, method, antialias, dtype)
        for length, pixels in zip(lengths, size, strict=True)
    )
    vertical_first = lengths[0] > NARROW * lengths[1] and size[0] < lengths[0]
    return _resized(image, vertical, horizontal, vertical_first)


@broadcasting
def resized_crop(
    image: Shaped[Array, "height width *channel"],
    box: ArrayLike | Sequence[ArrayLike],
    size: tuple[int, int],
    *,
    method: Method = "bilinear",
    antialias: bool = True,
    flip: ArrayLike = False,
) -> Shaped[Array, "out_height out_width *channel"]:
    """A box of an image at another size, which may be mirrored on the way.

    The result is that of `resize` on the pixels in the box alone. What the pixels weigh is looked
    up in a table over all lengths that a box can have, made on the host and kept. To 224 pixels it
    takes 2 MB an axis from 500 bilinear, twice that bicubic, and four times as much for an axis
    twice as long: 260 MB and some 5 s from 4000 bicubic. Bring such images to 1000 pixels or so
    first, as with `resize`, which needs no such table.

    Args:
      image: uint8 or floating.
      box: integers `(y0, x0, y1, x1)`, half-open, at least one pixel inside the image, traced or
        not. A traced box is cut to the image.
      size: static `(height, width)`.
      method: "nearest", "bilinear" or "bicubic".
      antialias: as in `resize`.
      flip: whether the result is mirrored horizontally; a bool, traced or not.

    Returns:
      The image in its own dtype; floats unclipped.

    Raises:
      ValueError: if a known box is empty or reaches beyond the image, or the size or the method is
        not one.
      TypeError: if the box is not integers, the size not static, or the dtype not an image's.
    """
    image, size, method = checked(image), checked_size(size), checked_method(method)
    return windowed(image, box, size, method, antialias, (False, flip))


def windowed(
    image: Array,
    box: ArrayLike | Sequence[ArrayLike],
    size: tuple[int, int],
    method: str,
    antialias: bool,
    flips: tuple[ArrayLike, ArrayLike],
) -> Array:
    """`resized_crop` with vertical and horizontal flips; "nearest" takes arrays of any dtype."""
    edges = _within(box, image.shape)
    vertical, horizontal = (jnp.asarray(flip, bool) for flip in flips)
    lengths = image.shape[:2]
    if method == "nearest":
        places = [_weights.nearest(*pair) for pair in zip(lengths, size, strict=True)]
        return _repeated_window(image, edges, (vertical, horizontal), *places)
    dtype = _weight_dtype(image)
    tables = [
        _weights.of_all_lengths(length, pixels, method, antialias, dtype)
        for length, pixels in zip(lengths, size, strict=True)
    ]
    return _resampled_window(image, edges, (vertical, horizontal), *tables)


def _weight_dtype(image: Array) -> np.dtype:
    return np.dtype(np.int32 if image.dtype == jnp.uint8 else computing(image.dtype))


def _within(box: ArrayLike | Sequence[ArrayLike], shape: tuple[int, ...]) -> Array:
    """The box, refused if it is known and not in the image, else cut to it."""
    edges = integers(box, 4, "box", "(y0, x0, y1, x1)")
    sides = np.array(shape[:2], np.int32)
    told = known(box)
    if told is not None and not (
        (told[:2] >= 0).all() and (told[:2] < told[2:]).all() and (told[2:] <= sides).all()
    ):
        raise ValueError(
            f"box {tuple(told.tolist())} must have 0 <= y0 < y1 <= {shape[0]} and 0 <= x0 < x1 <= "
            f"{shape[1]} for an image of shape {shape}; cut it to the image"
        )
    start = jnp.clip(edges[:2], 0, sides - 1)
    return jnp.concatenate([start, jnp.clip(edges[2:], start + 1, sides)])


@jax.jit
def _repeated(image: Array, rows: Array, columns: Array) -> Array:
    return take(take(image, rows, 0), columns, 1)


@jax.jit
def _repeated_window(
    image: Array, edges: Array, flips: tuple[Array, Array], rows: Array, columns: Array
) -> Array:
    y0, x0, y1, x1 = edges
    places = y0 + rows[y1 - y0], x0 + columns[x1 - x0]
    return _repeated(image, *map(_mirrored, places, flips))


def _mirrored(values: Array, flip: Array) -> Array:
    """The values of the last axis, backwards where the flag is set."""
    return jnp.where(flip, values[..., ::-1], values)


@partial(jax.jit, static_argnums=3)
def _resized(image: Array, vertical: Taps, horizontal: Taps, vertical_first: bool) -> Array:
    if image.dtype != jnp.uint8:
        return _in_floats(image, vertical, horizontal)
    first, second = ((vertical, 0), (horizontal, 1))[:: 1 if vertical_first else -1]

    def passes(one_pass: Callable[..., Array]) -> Callable[..., Array]:
        return lambda image, *parts: one_pass(
            one_pass(image, Taps(*parts[:3]), first[1]), Taps(*parts[3:]), second[1]
        )

    both = record_by_record(passes(static_pass), passes(dense_pass))
    return both(image, *first[0], *second[0])


@jax.jit
def _resampled_window(
    image: Array, edges: Array, flips: tuple[Array, Array], rows: Taps, columns: Taps
) -> Array:
    y0, x0, y1, x1 = edges
    vertical = _of_part(rows, y0, y1 - y0, flips[0])
    horizontal = _of_part(columns, x0, x1 - x0, flips[1])
    if image.dtype != jnp.uint8:
        return _in_floats(image, vertical, horizontal)
    both = record_by_record(
        partial(_window_passes, integer_pass, going_round),
        partial(_window_passes, dense_pass, dense_pass),
    )
    return both(image, edges, *vertical, *horizontal)


def _of_part(table: Taps, start: Array, length: Array, flip: Array) -> Taps:
    first, weights, count = (jnp.asarray(part)[length] for part in table)
    return Taps(_mirrored(first + start, flip), _mirrored(weights, flip), count)


def _in_floats(image: Array, vertical: Taps, horizontal: Taps) -> Array:
    wide = floating_pass(image.astype(computing(image.dtype)), horizontal, 1)
    return stored(floating_pass(wide, vertical, 0), image.dtype)


def _window_passes(
    one_pass: Callable[..., Array],
    narrow_pass: Callable[..., Array],
    image: Array,
    edges: Array,
    *parts: Array,
) -> Array:
    """Both passes over a window of a uint8 image, in Pillow's order."""
    vertical, horizontal = Taps(*parts[:3]), Taps(*parts[3:])

    def usual() -> Array:
        return one_pass(one_pass(image, horizontal, 1), vertical, 0)

    def narrow() -> Array:
        start = jnp.minimum(edges[1], image.shape[1] - columns)
        part = lax.dynamic_slice_in_dim(image, start, columns, axis=1)
        moved = horizontal._replace(first=horizontal.first - start)
        return narrow_pass(narrow_pass(part, vertical, 0), moved, 1)

    # Windows of one column are the same in both orders.
    columns = min((image.shape[0] - 1) // NARROW, image.shape[1])
    lower = vertical.first.shape[0] < edges[2] - edges[0]
    if columns < 2 or vertical.first.shape[0] >= image.shape[0]:
        return usual()
    is_narrow = (edges[2] - edges[0] > NARROW * (edges[3] - edges[1])) & lower
    return lax.cond(is_narrow, narrow, usual)
