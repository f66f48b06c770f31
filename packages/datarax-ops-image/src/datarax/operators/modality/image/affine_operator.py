"""`AffineOperator`: images rotated, moved, scaled and sheared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datarax.operators.modality.image import _turned
from datarax.operators.modality.image._geometric_config import WarpOperatorConfig
from datarax.operators.modality.image._geometric_operator import GeometricOperator
from datarax.operators.modality.image._number import Number, number
from datarax.operators.modality.image.functional import Affine


@dataclass(frozen=True)
class AffineOperatorConfig(WarpOperatorConfig):
    """Configuration of `AffineOperator`.

    Args:
      degrees: how far images are rotated, counter-clockwise.
      translate_y, translate_x: how far they are moved down and to the right, as fractions of the
        height and the width.
      scale: by how much they are enlarged, above 0.
      shear_y, shear_x: angles in degrees, from -89 to 89. A pixel moves down by tan(shear_y) times
        its distance to the right of the centre, and to the right by tan(shear_x) times its distance
        below the centre.
      method: "nearest", "bilinear" or "bicubic", as in `functional.affine`.
      fill: the value where no pixel came from, a number or one per channel, in the image's own
        unit: 0 to 255 for uint8, 0 to 1 for floats.
      mask_fill, prob, learn, info_key and the others: see `GeometricOperatorConfig`.

    Raises:
      TypeError: if one is neither a number, nor a range, nor a distribution.
      ValueError: if a range is empty or reaches beyond what is allowed, or `method` is not one.

    >>> AffineOperatorConfig(scale=(0.9, 1.1)).stochastic
    True
    """

    degrees: Number = number(0)
    translate_y: Number = number(0)
    translate_x: Number = number(0)
    scale: Number = number(1, above=0)
    shear_y: Number = number(0, low=-89, high=89)
    shear_x: Number = number(0, low=-89, high=89)


class AffineOperator(GeometricOperator[AffineOperatorConfig]):
    """Shears, scales, rotates and moves images, in this order, about their centre.

    Args:
      config: how far.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = AffineOperator(AffineOperatorConfig(translate_x=0.5))
    >>> op({"image": np.uint8([[[1, 2], [3, 4]]])})["image"].tolist()
    [[[0, 1], [0, 3]]]
    """

    config_class = AffineOperatorConfig

    def geometry(self, size: tuple[int, int], **numbers: Any) -> Affine:
        return Affine(matrix=_turned.matrix(size, **numbers), size=size)
