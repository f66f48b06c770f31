"""`RotationOperator`: rotated images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datarax.operators.modality.image._geometric_config import WarpOperatorConfig
from datarax.operators.modality.image._geometric_operator import GeometricOperator
from datarax.operators.modality.image._number import Number, number
from datarax.operators.modality.image.functional import Affine


@dataclass(frozen=True)
class RotationOperatorConfig(WarpOperatorConfig):
    """Configuration of `RotationOperator`.

    Args:
      degrees: how far images are rotated, counter-clockwise.
      method: "nearest", "bilinear" or "bicubic", as in `functional.affine`.
      fill: the value where no pixel came from, a number or one per channel, in the image's own
        unit: 0 to 255 for uint8, 0 to 1 for floats.
      mask_fill, prob, learn, info_key and the others: see `GeometricOperatorConfig`.

    Raises:
      TypeError: if `degrees` is neither a number, nor a range, nor a distribution.
      ValueError: if its range is empty, or `method` is not one.

    >>> RotationOperatorConfig(degrees=(-10, 10)).degrees
    Uniform(low=-10, high=10)
    """

    degrees: Number = number((-30, 30))


class RotationOperator(GeometricOperator[RotationOperatorConfig]):
    """Turns images about their centre, on a canvas of the same size.

    Args:
      config: how far.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = RotationOperator(RotationOperatorConfig(degrees=90))
    >>> op({"image": np.uint8([[[1, 2], [3, 4]]])})["image"].tolist()
    [[[2, 4], [1, 3]]]
    """

    config_class = RotationOperatorConfig

    def geometry(self, size: tuple[int, int], degrees: Any) -> Affine:
        return Affine.rotation(degrees, size)
