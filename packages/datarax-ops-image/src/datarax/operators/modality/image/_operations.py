"""Operations of policies: a function, and which number a magnitude means to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from datarax.operators.modality.image.functional._affine import rotation_of
from datarax.operators.modality.image.functional._coordinates import Matrix
from datarax.operators.modality.image.functional._exact import product
from datarax.operators.modality.image.functional._levels import of_levels

Size = tuple[int, int]
Range = tuple[float, float, float, bool, int]

WHOLE = (None, "truncate", "round")
NO_RANGE: Range = (0.0, 0.0, 0.0, False, 0)


@dataclass(frozen=True)
class Operation:
    """One line of a policy's table: a function of one image, and the range of its number.

    Args:
      function: takes one image `(height, width, channel)` or `(height, width)`, and the number if
        there is one; returns an image of the same shape and dtype. Of `functional`, or your own.
      first: the number at magnitude 0; None: the function takes the image alone.
      last: the number at the largest magnitude. Between the two it grows in proportion.
      signed: whether the way from `first` is gone backwards as often as forwards.
      whole: "truncate" cuts the way from `first` to a whole number, "round" rounds it.
      levels: whether the number counts levels of 0 to 255, of which images of floats get the 255th
        part.

    Raises:
      ValueError: if only one of `first` and `last` is given, or if `whole` is none of the two.

    >>> from datarax.operators.modality.image import functional
    >>> Operation(functional.brightness, 1.0, 1.9, signed=True).number(jnp.float32(-0.5)).item()
    0.550000011920929
    """

    function: Callable[..., Any]
    first: float | None = None
    last: float | None = None
    signed: bool = False
    whole: Literal["truncate", "round"] | None = None
    levels: bool = False
    kind: str = field(default="Operation", init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.first is None) != (self.last is None):
            raise ValueError(
                f"Operation needs first and last, or neither, got {self.first} and {self.last}"
            )
        if self.whole not in WHOLE:
            raise ValueError(
                f"Operation.whole must be None, 'truncate' or 'round', got {self.whole!r}"
            )

    def range(self, largest: float = 1.0) -> Range:
        """What `number_in` reads, where magnitudes go up to the largest."""
        if self.first is None or self.last is None:
            return NO_RANGE
        reach = (self.last - self.first) / largest
        mantissa, exponent = math.frexp(reach)
        near = math.ldexp(round(mantissa * 2**12), exponent - 12)
        return self.first, near, reach - near, self.signed, WHOLE.index(self.whole)

    def number(self, magnitude: Float[Array, ""], largest: float = 1.0) -> Float[Array, ""]:
        """The number of a magnitude.

        Args:
          magnitude: from 0 to the largest, or below 0 for the other direction.
          largest: the magnitude at which the number is `last`.

        Returns:
          float32; 0 if the function takes none.
        """
        return number_in(jnp.asarray(self.range(largest), jnp.float32), magnitude)

    def __call__(self, image: Array, number: Float[Array, ""]) -> Array:
        """The image after the function."""
        if self.first is None:
            return self.function(image)
        if self.levels and image.dtype != jnp.uint8:
            number = of_levels(number)
        return self.function(image, number)


def number_in(range_: Float[Array, "5"], magnitude: Float[Array, ""]) -> Float[Array, ""]:
    """The number of a magnitude in the range of an operation.

    The step of a magnitude is in two parts, of which the first has 12 bits. So whole magnitudes
    give the float32 that is nearest to the exact number, also where the way cancels most of it.
    """
    first, near, rest, signed, whole = range_
    magnitude = jnp.where(signed > 0, magnitude, jnp.abs(magnitude))
    near, rest = product(magnitude, near), product(magnitude, rest)
    way = near + rest
    way = jnp.where(whole == WHOLE.index("round"), jnp.round(way), jnp.trunc(way))
    return jnp.where(whole > 0, first + way, (first + near) + rest)


@dataclass(frozen=True)
class Warp(Operation):
    """An operation that moves pixels: its function takes the image's size and gives a matrix.

    The matrix is `(2, 3)`, from output to input (y, x) with pixel centres at halves, as
    `functional.affine` takes it. Masks, boxes and keypoints follow.

    >>> def flipped(size, number):
    ...     return jnp.float32([[1, 0, 0], [0, -1, size[1]]])
    >>> Warp(flipped).function((4, 8), 0).tolist()
    [[1.0, 0.0, 0.0], [0.0, -1.0, 8.0]]
    """

    kind: str = field(default="Warp", init=False, repr=False)


if TYPE_CHECKING:
    Entry = str | Operation
else:
    # Parsers of command lines take a dataclass in a union for options of its own.
    Entry = Annotated[str, Operation]


def identity(image: Array) -> Array:
    """The image as it is."""
    return image


def rotate(size: Size, degrees: Float[Array, ""]) -> Matrix:
    """Turns the image about its centre, counter-clockwise."""
    return rotation_of(degrees, size)


def _matrix(y: tuple[Any, Any, Any], x: tuple[Any, Any, Any]) -> Float[Array, "2 3"]:
    """The matrix of two rows, some of whose numbers may be traced."""
    return jnp.stack([jnp.float32(number) for number in (*y, *x)]).reshape(2, 3)


def shear_x(size: Size, factor: Float[Array, ""]) -> Float[Array, "2 3"]:
    """Moves each row of pixels to the left by its y times the factor."""
    return _matrix((1, 0, 0), (factor, 1, 0))


def shear_y(size: Size, factor: Float[Array, ""]) -> Float[Array, "2 3"]:
    """Moves each column of pixels up by its x times the factor."""
    return _matrix((1, factor, 0), (0, 1, 0))


def translate_x(size: Size, pixels: Float[Array, ""]) -> Float[Array, "2 3"]:
    """Moves the image to the left."""
    return _matrix((1, 0, 0), (0, 1, pixels))


def translate_y(size: Size, pixels: Float[Array, ""]) -> Float[Array, "2 3"]:
    """Moves the image up."""
    return _matrix((1, 0, pixels), (0, 1, 0))


def translate_x_rel(size: Size, part: Float[Array, ""]) -> Float[Array, "2 3"]:
    """Moves the image to the left by a part of its width."""
    return translate_x(size, part * jnp.float32(size[1]))


def translate_y_rel(size: Size, part: Float[Array, ""]) -> Float[Array, "2 3"]:
    """Moves the image up by a part of its height."""
    return translate_y(size, part * jnp.float32(size[0]))


def translate_x_whole(size: Size, part: Float[Array, ""]) -> Float[Array, "2 3"]:
    """Moves the image to the left by the whole pixels in a part of its width."""
    return translate_x(size, jnp.trunc(part * jnp.float32(size[1])))


def translate_y_whole(size: Size, part: Float[Array, ""]) -> Float[Array, "2 3"]:
    """Moves the image up by the whole pixels in a part of its height."""
    return translate_y(size, jnp.trunc(part * jnp.float32(size[0])))
