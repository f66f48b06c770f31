"""Where the centres of output pixels lie in the input, given a matrix."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from datarax.operators.modality.image.functional import _fixed
from datarax.operators.modality.image.functional._fixed import Fixed
from datarax.operators.modality.image.functional._turns import cosine_and_sine

LARGEST_SHIFT = 2**24


class Matrix(NamedTuple):
    """A map `(y, x) -> (y, x)` of pixel coordinates from output to input.

    Attributes:
      exact: `(2, 3)` of fixed-point numbers, from which pixels are computed.
      floating: the same `(2, 3)` in floating point, through which gradients flow.
    """

    exact: Fixed
    floating: Float[Array, "2 3"]


@jax.jit
def of_floats(matrix: Float[Array, "2 3"]) -> Matrix:
    """The map that the numbers describe."""
    turn, shift = matrix[:, :2], matrix[:, 2:]
    parts = _fixed.of_float(turn), _fixed.of_float(shift, LARGEST_SHIFT)
    exact = Fixed(*(jnp.concatenate(pair, axis=1) for pair in zip(*parts, strict=True)))
    return Matrix(exact, matrix)


@partial(jax.jit, static_argnames="size")
def of_rotation(degrees: Float[Array, ""], size: tuple[int, int]) -> Matrix:
    """The map of a counter-clockwise rotation about the centre."""
    height, width = (jnp.int32(side) for side in size)
    cosine, sine = cosine_and_sine(degrees)
    minus, add, times = _fixed.negative, _fixed.add, _fixed.times
    zero = jnp.uint32(0)
    shifts = [
        add(Fixed(height, zero), minus(add(times(cosine, height), times(sine, width)))),
        add(add(Fixed(width, zero), times(sine, height)), minus(times(cosine, width))),
    ]
    y_shift, x_shift = (_fixed.halved(shift) for shift in shifts)
    rows = [cosine, sine, y_shift, minus(sine), cosine, x_shift]
    exact = Fixed(*(part.reshape(2, 3) for part in _fixed.stacked(rows)))
    value = _fixed.to_float(exact, degrees.dtype)
    return Matrix(exact, with_gradient(value, _floating_rotation(degrees, size)))


def _floating_rotation(degrees: Array, size: tuple[int, int]) -> Float[Array, "2 3"]:
    radians = degrees * (np.pi / 180)
    cosine, sine = jnp.cos(radians), jnp.sin(radians)
    y, x = (side / 2 for side in size)
    rows = [cosine, sine, y - cosine * y - sine * x, -sine, cosine, x + sine * y - cosine * x]
    return jnp.stack(rows).reshape(2, 3)


def centres(row: Fixed, size: tuple[int, int]) -> Fixed:
    """One coordinate of the centre of every output pixel, `(height, width)`."""
    y, x = (2 * jnp.arange(side, dtype=jnp.int32) + 1 for side in size)
    shift = _fixed.times(_fixed.at(row, 2), jnp.int32(2))
    down = _fixed.add(_fixed.times(_fixed.at(row, 0), y), shift)
    across = _fixed.times(_fixed.at(row, 1), x)
    doubled = _fixed.add(_fixed.at(down, slice(None), None), _fixed.at(across, None))
    return _fixed.halved(doubled)


def floating_centres(row: Float[Array, "3"], size: tuple[int, int]) -> Array:
    """The same in floating point."""
    y, x = (jnp.arange(side, dtype=row.dtype) + 0.5 for side in size)
    return (row[0] * y + row[2])[:, None] + row[1] * x


def with_gradient(value: Array, formula: Array) -> Array:
    """The value, with the derivative of the formula."""
    return _first_of(value, formula)


_first_of: Any = jax.custom_jvp(lambda value, formula: value)
_first_of.defjvp(lambda primals, tangents: (primals[0], tangents[1]))


def nearest(
    exact: Fixed, size: tuple[int, int], sides: tuple[int, int]
) -> tuple[Int32[Array, "height width"], Int32[Array, "height width"], Bool[Array, "height width"]]:
    """The row and column of the input pixel that each output pixel repeats, and whether there is.

    As in Pillow the matrix is rounded to 16 bits after the point if it turns or shears, unless
    that would not hold its numbers.
    """
    whole = [centres(_fixed.at(exact, axis), size).whole for axis in (0, 1)]
    coarse = [_coarse_centres(_fixed.at(exact, axis), size) for axis in (0, 1)]
    corners = jnp.stack([axis[:: size[0] - 1 or 1, :: size[1] - 1 or 1] for axis in whole])
    turns = (exact.whole != 0) | (exact.fraction != 0)
    is_coarse = (turns[0, 1] | turns[1, 0]) & jnp.all(jnp.abs(corners) < 2**15 - 1)
    y, x = (jnp.where(is_coarse, a, b) for a, b in zip(coarse, whole, strict=True))
    inside = (y >= 0) & (y < sides[0]) & (x >= 0) & (x < sides[1])
    return y, x, inside


def _coarse_centres(row: Fixed, size: tuple[int, int]) -> Int32[Array, "height width"]:
    y, x = (jnp.arange(side, dtype=jnp.int32) for side in size)
    halves = _fixed.halved(_fixed.add(_fixed.at(row, 0), _fixed.at(row, 1)))
    start = _fixed.sixteen_bits(_fixed.add(_fixed.at(row, 2), halves))
    down, across = (_fixed.sixteen_bits(_fixed.at(row, axis)) for axis in (0, 1))
    return ((start + down * y)[:, None] + across * x) >> 16
