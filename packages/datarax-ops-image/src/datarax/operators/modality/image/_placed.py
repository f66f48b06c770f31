"""An image resized to any size and put onto a canvas: a geometry whose scale is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt32

from datarax.core.randomness import below
from datarax.operators.modality.image import _option_types as types
from datarax.operators.modality.image.functional._arguments import fill_value
from datarax.operators.modality.image.functional._backends import record_by_record
from datarax.operators.modality.image.functional._dtypes import computing
from datarax.operators.modality.image.functional._exact import product, settled, stored
from datarax.operators.modality.image.functional._quotients import quotient
from datarax.operators.modality.image.functional._resample import (
    floating_pass,
    going_round,
    take,
)
from datarax.operators.modality.image.functional._weights import BITS, RADIUS, Taps

if TYPE_CHECKING:
    from datarax.operators.modality.image.scale_jitter_operator import ScaleJitterOperatorConfig

STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Placed:
    """The whole image at a size of each record's own, of which a canvas shows a part.

    Attributes:
      scaled: integers (height, width) of the resized image.
      origin: integers (y, x): the pixel of the resized image in the canvas's first corner; negative
        where there is a margin.
      size: static (height, width) of the canvas.
      image_size: static (height, width) of the image.
      reduction: static, by how much the image is made smaller at most.
    """

    scaled: Int32[Array, "2"]
    origin: Int32[Array, "2"]
    size: tuple[int, int] = field(metadata=STATIC)
    image_size: tuple[int, int] = field(metadata=STATIC)
    reduction: float = field(metadata=STATIC)

    def image(self, image: Array, *, method: str = "bilinear", fill: Any = 0) -> Array:
        """The image on the canvas, with an antialiased method, and the fill around it."""
        if method == "nearest":
            return self.mask(image, fill)
        is_integer = image.dtype == jnp.uint8
        taps = [self._taps(axis, image.shape[axis], method, is_integer) for axis in (1, 0)]
        if is_integer:
            pixels = record_by_record(_integers)(image, *taps[0], *taps[1])
        else:
            wide = floating_pass(image.astype(computing(image.dtype)), taps[0], 1)
            pixels = stored(floating_pass(wide, taps[1], 0), image.dtype)
        return self._filled(pixels, fill)

    def mask(self, mask: Array, fill: Any = 0) -> Array:
        """A mask `(height, width, ...)` of any dtype on the canvas: the nearest pixels."""
        for axis in (0, 1):
            place, _ = self._places(axis)
            doubled = (2 * place + 1) * mask.shape[axis] // (2 * self.scaled[axis])
            mask = take(mask, doubled, axis)
        return self._filled(mask, fill)

    def forward(self) -> tuple[Float[Array, "2 3"], Array]:
        """The map from input to canvas coordinates, and that there is one."""
        y, x = (
            quotient(self.scaled[axis].astype(jnp.float32), np.float32(length))
            for axis, length in enumerate(self.image_size)
        )
        zero, start = jnp.float32(0), -self.origin.astype(jnp.float32)
        rows = [[y, zero, start[0]], [zero, x, start[1]]]
        return jnp.stack([jnp.stack(row) for row in rows]), jnp.asarray(True)

    def _places(self, axis: int) -> tuple[Int32[Array, " canvas"], Bool[Array, " canvas"]]:
        """The pixels of the resized image that the canvas shows, and which of them exist."""
        place = jnp.arange(self.size[axis], dtype=jnp.int32) + self.origin[axis]
        return place, (place >= 0) & (place < self.scaled[axis])

    def _taps(self, axis: int, length: int, method: str, is_integer: bool) -> Taps:
        radius, one = RADIUS[method], np.float32(1)
        place, _ = self._places(axis)
        scale = settled(np.float32(length) / self.scaled[axis].astype(jnp.float32))
        widened = jnp.maximum(scale, one)
        centre = product(place.astype(jnp.float32) + np.float32(0.5), scale)
        support = product(widened, np.float32(radius))
        first = jnp.floor(centre - support + np.float32(0.5)).astype(jnp.int32)
        stop = jnp.floor(centre + support + np.float32(0.5)).astype(jnp.int32)
        first, stop = jnp.clip(first, 0, length - 1), jnp.minimum(stop, length)
        most = min(ceil(2 * radius * max(self.reduction, 1.0)) + 1, length)
        kernel = _triangle if method == "bilinear" else _cubic
        narrow = settled(one / widened)
        weights = []
        for tap in range(most):
            position = first + tap
            away = jnp.abs(position.astype(jnp.float32) + np.float32(0.5) - centre)
            weights.append(jnp.where(position < stop, kernel(product(away, narrow)), 0))
        total = weights[0]
        for weight in weights[1:]:
            total = total + weight
        stacked = product(jnp.stack(weights), settled(one / jnp.where(total == 0, one, total)))
        if is_integer:
            stacked = jnp.round(stacked * np.float32(2**BITS)).astype(jnp.int32)
        return Taps(first, stacked, jnp.int32(most))

    def _filled(self, pixels: Array, fill: Any) -> Array:
        (_, rows), (_, columns) = self._places(0), self._places(1)
        inside = rows[:, None] & columns[None, :]
        inside = inside.reshape(inside.shape + (1,) * (pixels.ndim - 2))
        return jnp.where(inside, pixels, fill_value(fill, pixels))


def _integers(image: Array, *parts: Array) -> Array:
    return going_round(going_round(image, Taps(*parts[:3]), 1), Taps(*parts[3:]), 0)


def _triangle(x: Array) -> Array:
    return jnp.maximum(1 - x, 0)


def _cubic(x: Array) -> Array:
    """Keys' cubic with a = -1/2."""
    square = product(x, x)
    cube = product(square, x)
    near = product(cube, np.float32(1.5)) - product(square, np.float32(2.5)) + 1
    far = (
        product(square, np.float32(2.5))
        - product(cube, np.float32(0.5))
        - product(x, np.float32(4))
    ) + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


def check(config: ScaleJitterOperatorConfig) -> None:
    """Checks the options of a scale jitter."""
    object.__setattr__(config, "fill", types.numbers(config.label("fill"), config.fill))
    if not config.antialias:
        raise ValueError(f"{config.label('antialias')} must be True, which it always is here")
    if config.learn:
        raise ValueError(f"{config.label('learn')} must be empty: sizes are whole pixels")


def jittered(
    config: ScaleJitterOperatorConfig, size: tuple[int, int], scale: Any, place: UInt32[Array, "2"]
) -> Placed:
    """An image on the canvas of a config, enlarged after it fits.

    Args:
      config: canvas and scale.
      size: (height, width) of the image.
      scale: the enlargement.
      place: words for where the canvas lies on a larger image.
    """
    canvas = config.canvas(size)
    fitting = min(wanted / side for wanted, side in zip(canvas, size, strict=True))
    sides = np.array(size, np.float32)
    # The size of the fitted image is rounded once, the enlargement once more.
    grown = product(jnp.asarray(scale, jnp.float32), np.float32(fitting) * sides)
    scaled = jnp.maximum(jnp.floor(grown).astype(jnp.int32), 1)
    free = jnp.maximum(scaled - np.array(canvas, np.int32), 0)
    least = fitting * config.least("scale") * (1 - 1e-6)
    reduction = max(side / max(1, floor(side * least)) for side in size)
    return Placed(
        scaled=scaled,
        origin=below(place, free + 1),
        size=canvas,
        image_size=size,
        reduction=reduction,
    )
