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
      shear_y, shear_x: degrees by which columns lean down and rows lean to the right.
      method, fill, mask_fill, prob, learn, info_key and the others: see `WarpOperatorConfig`.

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

    >>> import numpy as np
    >>> op = AffineOperator(AffineOperatorConfig(translate_x=0.5))
    >>> op({"image": np.uint8([[[1, 2], [3, 4]]])})["image"].tolist()
    [[[0, 1], [0, 3]]]
    """

    config_class = AffineOperatorConfig

    def geometry(self, size: tuple[int, int], **numbers: Any) -> Affine:
        return Affine(matrix=_turned.matrix(size, **numbers), size=size)
