"""`PosterizeOperator`: fewer shades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig
from datarax.operators.modality.image._number import Number, number


@dataclass(frozen=True)
class PosterizeOperatorConfig(ImageOperatorConfig):
    """Configuration of `PosterizeOperator`.

    Args:
      bits: how many of the 8 bits are left, an integer from 0 to 8.
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    Raises:
      TypeError: if `bits` is neither a number, nor a range, nor a distribution.
      ValueError: if its range is empty or reaches beyond what is allowed.

    >>> PosterizeOperatorConfig(bits=(4, 8)).bits
    Uniform(low=4, high=8)
    """

    bits: Number = number((4, 8), low=0, high=8, integer=True)


class PosterizeOperator(ImageOperator[PosterizeOperatorConfig]):
    """Keeps the upper bits of each value.

    Args:
      config: how strongly.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = PosterizeOperator(PosterizeOperatorConfig(bits=2))
    >>> op({"image": np.uint8([[[100, 150, 200]]])})["image"].tolist()
    [[[64, 128, 192]]]
    """

    config_class = PosterizeOperatorConfig

    def transform_image(self, image: Array, bits: Any) -> Array:
        return functional.posterize(image, bits)
