"""How the pixels of a canvas map to those of an image: one value, from which all else follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from datarax.operators.modality.image.functional import _affine
from datarax.operators.modality.image.functional._arguments import Method, fill_value
from datarax.operators.modality.image.functional._coordinates import Matrix
from datarax.operators.modality.image.functional._exact import product
from datarax.operators.modality.image.functional._moves import flipped, padded, part
from datarax.operators.modality.image.functional._quotients import quotient
from datarax.operators.modality.image.functional._resize import windowed

STATIC = {"static": True}
Numbers: TypeAlias = Array | np.ndarray | Sequence[ArrayLike]
PadMode = Literal["constant", "edge", "reflect", "symmetric"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of the image, or of the image with a margin, pixel by pixel; it may be mirrored.

    >>> import jax.numpy as jnp
    >>> Crop(origin=(1, -1), size=(2, 3), margin=(0, 1, 0, 0)).mask(
    ...     jnp.arange(12).reshape(3, 4) + 1
    ... )
    Array([[ 0,  5,  6],
           [ 0,  9, 10]], dtype=int32)

    Attributes:
      origin: integers `(y, x)` of the first pixel, counted from the image's; None is (0, 0).
      size: static `(height, width)` of the canvas.
      flip_vertical: whether the canvas is then turned upside down.
      flip_horizontal: whether the canvas is then mirrored.
      margin: static `(top, left, bottom, right)`: how far the part may reach beyond the image.
      margin_mode: what is there, as in `pad`.
    """

    origin: Numbers | None = None
    size: tuple[int, int] = field(metadata=STATIC)
    flip_vertical: ArrayLike = False
    flip_horizontal: ArrayLike = False
    margin: tuple[int, int, int, int] = field(metadata=STATIC, default=(0, 0, 0, 0))
    margin_mode: PadMode = field(metadata=STATIC, default="constant")

    def image(
        self, image: Array, *, method: Method = "bilinear", fill: ArrayLike | Sequence = 0
    ) -> Array:
        """The image on the canvas; the method has nothing to do."""
        return self._moved(image, fill)

    def mask(self, mask: Array, fill: ArrayLike = 0) -> Array:
        """A mask or map `(height, width, ...)` of any dtype on the canvas."""
        return self._moved(mask, fill)

    def forward(self) -> tuple[Float[Array, "2 3"], Array]:
        """The map from input to canvas coordinates, and that there is one."""
        y, x = (0, 0) if self.origin is None else self.origin
        return _axis_aligned(
            (y, x, y + self.size[0], x + self.size[1]),
            tuple(self.size),
            (self.flip_vertical, self.flip_horizontal),
        ), jnp.asarray(True)

    def _moved(self, pixels: Array, fill: ArrayLike | Sequence) -> Array:
        if any(self.margin):
            pixels = padded(pixels, self.margin, self.margin_mode, fill_value(fill, pixels))
        if self.origin is not None or pixels.shape[:2] != tuple(self.size):
            y, x = (0, 0) if self.origin is None else self.origin
            origin = jnp.stack([jnp.asarray(y + self.margin[0]), jnp.asarray(x + self.margin[1])])
            pixels = part(pixels, origin, self.size)
        return flipped(pixels, self.flip_vertical, self.flip_horizontal)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Window:
    """A box of the image, resized to a canvas; it may be mirrored.

    >>> import jax.numpy as jnp
    >>> Window(box=(0, 1, 1, 3), size=(2, 4)).mask(jnp.arange(6).reshape(2, 3))
    Array([[1, 1, 2, 2],
           [1, 1, 2, 2]], dtype=int32)

    Attributes:
      box: `(y0, x0, y1, x1)` in pixels of the image: integers inside it.
      size: static `(height, width)` of the canvas.
      flip_vertical: whether the canvas is then turned upside down.
      flip_horizontal: whether the canvas is then mirrored.
      antialias: static, as in `resize`.
    """

    box: Numbers
    size: tuple[int, int] = field(metadata=STATIC)
    flip_vertical: ArrayLike = False
    flip_horizontal: ArrayLike = False
    antialias: bool = field(metadata=STATIC, default=True)

    def image(
        self, image: Array, *, method: Method = "bilinear", fill: ArrayLike | Sequence = 0
    ) -> Array:
        """The image on the canvas, which it fills."""
        return self._resized(image, method)

    def mask(self, mask: Array, fill: ArrayLike = 0) -> Array:
        """A mask or map `(height, width, ...)` of any dtype on the canvas."""
        return self._resized(mask, "nearest")

    def forward(self) -> tuple[Float[Array, "2 3"], Array]:
        """The map from input to canvas coordinates, and whether there is one."""
        flips = self.flip_vertical, self.flip_horizontal
        return _axis_aligned(tuple(self.box), tuple(self.size), flips), jnp.asarray(True)

    def _resized(self, pixels: Array, method: str) -> Array:
        flips = self.flip_vertical, self.flip_horizontal
        return windowed(pixels, self.box, self.size, method, self.antialias, flips)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Affine:
    """Any affine map: rotated, sheared, scaled, moved.

    >>> import jax.numpy as jnp
    >>> Affine.rotation(90, (2, 2)).mask(jnp.array([[1, 2], [3, 4]]))
    Array([[2, 4],
           [1, 3]], dtype=int32)

    Attributes:
      matrix: `(2, 3)` from canvas to input `(y, x)`, as in `affine`.
      size: static `(height, width)` of the canvas.
    """

    matrix: ArrayLike | Sequence[Sequence[ArrayLike]] | Matrix
    size: tuple[int, int] = field(metadata=STATIC)

    @staticmethod
    def rotation(degrees: ArrayLike, size: tuple[int, int]) -> Affine:
        """A counter-clockwise rotation about the centre, as in `rotate`."""
        return Affine(matrix=_affine.rotation_of(degrees, size), size=size)

    def image(
        self, image: Array, *, method: Method = "bilinear", fill: ArrayLike | Sequence = 0
    ) -> Array:
        """The image on the canvas, the fill where there is no image."""
        matrix = _affine.matrix_of(self.matrix)
        return _affine.sampled(image, matrix, tuple(self.size), method, fill_value(fill, image))

    def mask(self, mask: Array, fill: ArrayLike = 0) -> Array:
        """A mask or map `(height, width, ...)` of any dtype on the canvas."""
        return self.image(mask, method="nearest", fill=fill)

    def forward(self) -> tuple[Float[Array, "2 3"], Array]:
        """The map from input to canvas coordinates, and whether there is one."""
        return _inverse(_affine.matrix_of(self.matrix).floating)


Geometry: TypeAlias = Crop | Window | Affine


@jax.jit
def _inverse(matrix: Float[Array, "2 3"]) -> tuple[Float[Array, "2 3"], Array]:
    (a, b, y), (c, d, x) = matrix
    determinant = product(a, d) - product(b, c)
    exists = determinant != 0
    adjugate = jnp.stack([jnp.stack([d, -b]), jnp.stack([-c, a])])
    inverse = quotient(adjugate, jnp.where(exists, determinant, 1))
    shift = -(product(inverse[:, 0], y) + product(inverse[:, 1], x))
    return jnp.concatenate([inverse, shift[:, None]], axis=1), exists


@partial(jax.jit, static_argnames="size")
def _axis_aligned(
    box: tuple[ArrayLike, ...], size: tuple[int, int], flips: tuple[ArrayLike, ArrayLike]
) -> Float[Array, "2 3"]:
    """The map from the input to a canvas that shows a box."""
    rows = []
    for axis, flip in enumerate(flips):
        start, stop = (jnp.asarray(edge, jnp.float32) for edge in (box[axis], box[2 + axis]))
        scale = quotient(jnp.float32(size[axis]), stop - start)
        shift = -product(start, scale)
        flip = jnp.asarray(flip, bool)
        scale = jnp.where(flip, -scale, scale)
        shift = jnp.where(flip, size[axis] - shift, shift)
        rows.append([0.0, scale, shift] if axis else [scale, 0.0, shift])
    return jnp.stack([jnp.stack([jnp.asarray(part) for part in row]) for row in rows])
