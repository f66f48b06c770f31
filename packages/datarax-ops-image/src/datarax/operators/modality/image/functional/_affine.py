"""Affine maps and rotations of an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from datarax.operators.modality.image.functional import _coordinates, _interpolate
from datarax.operators.modality.image.functional._arguments import (
    Method,
    checked_method,
    fill_value,
    sides,
)
from datarax.operators.modality.image.functional._backends import record_by_record
from datarax.operators.modality.image.functional._compiled import broadcasting
from datarax.operators.modality.image.functional._coordinates import Matrix
from datarax.operators.modality.image.functional._dtypes import checked, computing
from datarax.operators.modality.image.functional._exact import stored
from datarax.operators.modality.image.functional._fixed import HALF, Fixed, at
from datarax.operators.modality.image.functional._interpolate import Place, fetched


@broadcasting
def affine(
    image: Shaped[Array, "height width *channel"],
    matrix: ArrayLike | Sequence[Sequence[ArrayLike]],
    *,
    method: Method = "bilinear",
    fill: ArrayLike | Sequence[ArrayLike] = 0,
) -> Shaped[Array, "height width *channel"]:
    """An image whose pixels are taken from where a matrix says.

    The output pixel (i, j) shows the input at `matrix @ (i + 1/2, j + 1/2, 1)`, where the input
    pixel (k, l) has its centre at (k + 1/2, l + 1/2). A centre outside the image gets the fill, and
    within half a pixel of its border the border's pixels repeat. There is no antialiasing.

    For uint8 the result is Pillow's in more than 9,999 of 10,000 values and differs by 1 in the
    rest: coordinates have 32 bits after the point, which places between pixels are cut to 22 of;
    values are cut to integers downwards, as Pillow cuts them. "nearest" is Pillow's.

    Args:
      image: uint8 or floating.
      matrix: `(2, 3)`, from output to input `(y, x)`, in pixels; traced or not. Numbers of more
        than 8192, and shifts of more than 2 ** 24, count as these.
      method: "nearest", "bilinear", or "bicubic" (which is here the cubic with a = -1, as in
        Pillow).
      fill: a number, or one per channel, in the image's own unit.

    Returns:
      The image in its own shape and dtype; floats unclipped, with gradients in the image, the
      matrix and the fill ("nearest" has none in the matrix).

    Raises:
      ValueError: if the matrix is not `(2, 3)`, or the method is not one.
      TypeError: if the dtype is not an image's.

    References:
      "Image numerics 1"; Pillow 12.2, `Image.transform`.
    """
    image, method = checked(image), checked_method(method)
    return sampled(image, matrix_of(matrix), sides(image), method, fill_value(fill, image))


@broadcasting
def rotate(
    image: Shaped[Array, "height width *channel"],
    degrees: ArrayLike,
    *,
    method: Method = "bilinear",
    fill: ArrayLike | Sequence[ArrayLike] = 0,
) -> Shaped[Array, "height width *channel"]:
    """An image rotated about its centre, counter-clockwise, on a canvas of the same size.

    It is `affine` with the matrix of the rotation, whose cosine and sine have 31 bits after the
    point: multiples of 90 degrees only move pixels.

    Args:
      image: uint8 or floating.
      degrees: traced or not.
      method: as in `affine`.
      fill: as in `affine`.

    Returns:
      The image in its own shape and dtype; floats with gradients in the image, the angle and the
      fill.

    Raises:
      ValueError: if the degrees are not one number, or the method is not one.
      TypeError: if the dtype is not an image's.

    References:
      "Image numerics 1"; Pillow 12.2, `Image.rotate`.
    """
    image, method = checked(image), checked_method(method)
    matrix = rotation_of(degrees, sides(image))
    return sampled(image, matrix, sides(image), method, fill_value(fill, image))


def matrix_of(matrix: ArrayLike | Sequence[Sequence[ArrayLike]] | Matrix) -> Matrix:
    """The map that a `(2, 3)` of numbers describes, or one that is ready.

    Raises:
      ValueError: if it has another shape.
    """
    if isinstance(matrix, Matrix):
        return matrix
    numbers = _floating(jnp.asarray(matrix))
    if numbers.shape != (2, 3):
        raise ValueError(
            f"matrix must be (2, 3), from output to input (y, x), got shape {numbers.shape}"
        )
    return _coordinates.of_floats(numbers)


def rotation_of(degrees: ArrayLike, size: tuple[int, int]) -> Matrix:
    """The map of a rotation about the centre of a canvas.

    Raises:
      ValueError: if the degrees are not one number.
    """
    number = _floating(jnp.asarray(degrees))
    if number.ndim:
        raise ValueError(
            f"degrees must be one number, got shape {number.shape}; use jax.vmap for one per record"
        )
    return _coordinates.of_rotation(number, size)


def _floating(numbers: Array) -> Array:
    return numbers.astype(computing(numbers.dtype))


@partial(jax.jit, static_argnames=("size", "method"))
def sampled(image: Array, matrix: Matrix, size: tuple[int, int], method: str, fill: Array) -> Array:
    """The image on a canvas of a size, by a map; "nearest" takes arrays of any dtype."""
    if method == "nearest":
        one = partial(_nearest, size=size)
        if jnp.issubdtype(image.dtype, jnp.floating):
            return one(image, matrix.exact, fill)
        return record_by_record(lambda image, fill, *exact: one(image, Fixed(*exact), fill))(
            image, fill, *matrix.exact
        )
    if image.dtype == jnp.uint8:
        one = partial(_integers, size=size, taps=2 if method == "bilinear" else 4)
        return record_by_record(one)(image, fill, *matrix.exact)
    return _floats(image, matrix, size, 2 if method == "bilinear" else 4, fill)


def _nearest(image: Array, exact: Fixed, fill: Array, size: tuple[int, int]) -> Array:
    y, x, inside = _coordinates.nearest(exact, size, sides(image))
    height, width = sides(image)
    pixels = fetched(image, jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1))
    return jnp.where(_over_channels(inside, image), pixels, fill)


def _over_channels(values: Array, image: Array) -> Array:
    return values.reshape(*values.shape, *[1] * (image.ndim - 2))


def _inside(y: Fixed, x: Fixed, image: Array) -> Array:
    height, width = sides(image)
    return (y.whole >= 0) & (y.whole < height) & (x.whole >= 0) & (x.whole < width)


def _integers(
    image: Array, fill: Array, whole: Array, fraction: Array, size: tuple[int, int], taps: int
) -> Array:
    if image.ndim == 2:
        return _integers(image[..., None], fill, whole, fraction, size, taps)[..., 0]
    y, x = (_coordinates.centres(at(Fixed(whole, fraction), axis), size) for axis in (0, 1))
    inside = _inside(y, x, image)
    places = _interpolate.place(y), _interpolate.place(x)
    rows, columns = (
        _interpolate.neighbours(place, taps, side)
        for place, side in zip(places, image.shape, strict=False)
    )
    between = _interpolate.linear_integers if taps == 2 else _interpolate.cubic_integers
    groups = []
    for start in range(0, image.shape[2], 4):
        part = image[..., start : start + 4]
        words = _interpolate.words(part)
        # Written down first, so that the arithmetic is a loop without jumps in memory.
        near = lax.optimization_barrier(_fetched_all(words, rows, columns))
        channels = [
            between(
                [[_interpolate.channel(word, number) for word in line] for line in near], *places
            )
            for number in range(part.shape[2])
        ]
        groups.append(_interpolate.from_words(channels))
    values = jnp.concatenate(groups, axis=2)
    return jnp.where(inside[..., None], values, fill)


def _fetched_all(
    pixels: Array, rows: Sequence[Array], columns: Sequence[Array]
) -> list[list[Array]]:
    return [[fetched(pixels, row, column) for column in columns] for row in rows]


def _floats(image: Array, matrix: Matrix, size: tuple[int, int], taps: int, fill: Array) -> Array:
    dtype = computing(image.dtype)
    wide = image.astype(dtype)
    exact = [_coordinates.centres(at(matrix.exact, axis), size) for axis in (0, 1)]
    places = [_interpolate.place(centre) for centre in exact]
    dy, dx = (
        _over_channels(_way(place, matrix.floating[axis].astype(dtype), size), image)
        for axis, place in enumerate(places)
    )
    rows, columns = (
        _interpolate.neighbours(place, taps, side)
        for place, side in zip(places, image.shape, strict=False)
    )
    near = _fetched_all(wide, rows, columns)
    if taps == 2:
        values = _interpolate.linear_floats(near, dy, dx)
    else:
        values = _interpolate.cubic_floats(
            [_interpolate.cubic_floats(line, dx) for line in near], dy
        )
    inside = _over_channels(_inside(exact[0], exact[1], image), image)
    return stored(jnp.where(inside, values, fill.astype(dtype)), image.dtype)


def _way(place: Place, row: Array, size: tuple[int, int]) -> Array:
    """The way from a pixel's centre to the next, from 0 to 1, with the gradient of the formula."""
    way = place.fraction.astype(row.dtype) * (0.5 / int(HALF))
    return _coordinates.with_gradient(way, _coordinates.floating_centres(row, size))
