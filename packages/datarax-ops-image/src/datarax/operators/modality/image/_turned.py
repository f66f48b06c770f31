"""The matrix of a turn, a shift, an enlargement and a shear about the centre of an image."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from datarax.operators.modality.image.functional import _fixed
from datarax.operators.modality.image.functional._coordinates import with_gradient
from datarax.operators.modality.image.functional._exact import product, settled
from datarax.operators.modality.image.functional._quotients import quotient
from datarax.operators.modality.image.functional._turns import cosine_and_sine


def matrix(
    size: tuple[int, int],
    degrees: Any,
    translate_y: Any,
    translate_x: Any,
    scale: Any,
    shear_y: Any,
    shear_x: Any,
) -> Float[Array, "2 3"]:
    """From output to input, (y, x), in pixels.

    Args:
      size: (height, width) of the image and of the canvas.
      degrees: of the turn, counter-clockwise.
      translate_y: the shift down, as a fraction of the height.
      translate_x: the shift to the right, as a fraction of the width.
      scale: the enlargement.
      shear_y: degrees by which horizontal lines lean down.
      shear_x: degrees by which vertical lines lean to the right, downwards.
    """
    cosine, sine = _cosine_and_sine(degrees)
    down, right = _tangent(shear_y), _tangent(shear_x)
    # The shear undone, times the turn undone, both of a point (y, x).
    whole = product(jnp.asarray(scale, jnp.float32), 1 - product(down, right))
    rows = [
        [cosine + product(down, sine), sine - product(down, cosine)],
        [-sine - product(right, cosine), cosine - product(right, sine)],
    ]
    turn = [[quotient(entry, whole) for entry in row] for row in rows]
    middle = [np.float32(side / 2) for side in size]
    moved = [
        product(jnp.asarray(share, jnp.float32), np.float32(side)) + half
        for share, side, half in zip((translate_y, translate_x), size, middle, strict=True)
    ]
    full = [
        [*row, half - (product(row[0], moved[0]) + product(row[1], moved[1]))]
        for row, half in zip(turn, middle, strict=True)
    ]
    return jnp.stack([jnp.stack(row) for row in full])


def _cosine_and_sine(degrees: Any) -> tuple[Array, Array]:
    """float32, the same on every backend, with the gradients of the formula."""
    degrees = jnp.asarray(degrees, jnp.float32)
    radians = degrees * np.float32(np.pi / 180)
    exact = (_fixed.to_float(part, jnp.float32) for part in cosine_and_sine(degrees))
    cosine, sine = exact
    return with_gradient(cosine, jnp.cos(radians)), with_gradient(sine, jnp.sin(radians))


def _tangent(degrees: Any) -> Array:
    cosine, sine = _cosine_and_sine(degrees)
    return settled(sine / cosine)
