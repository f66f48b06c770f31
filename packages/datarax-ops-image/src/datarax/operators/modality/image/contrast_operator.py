"""`ContrastOperator`: more and less contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig
from datarax.operators.modality.image._number import Number, number


@dataclass(frozen=True)
class ContrastOperatorConfig(ImageOperatorConfig):
    """Configuration of `ContrastOperator`.

    Args:
      factor: the factor, at least 0.
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    Raises:
      TypeError: if `factor` is neither a number, nor a range, nor a distribution.
      ValueError: if its range is empty or reaches beyond what is allowed.

    >>> ContrastOperatorConfig(factor=(0.6, 1.4)).factor
    Uniform(low=0.6, high=1.4)
    """

    factor: Number = number((0.6, 1.4), low=0)


class ContrastOperator(ImageOperator[ContrastOperatorConfig]):
    """Moves images away from their mean grey, or towards it: 0 is that grey, 1 the image itself.

    Args:
      config: how strongly.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = ContrastOperator(ContrastOperatorConfig(factor=0))
    >>> op({"image": np.uint8([[[[100, 150, 200]]]])})["image"].tolist()
    [[[[141, 141, 141]]]]
    """

    config_class = ContrastOperatorConfig

    def transform_image(self, image: Array, factor: Any) -> Array:
        return functional.contrast(image, factor)
