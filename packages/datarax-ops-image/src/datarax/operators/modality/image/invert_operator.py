"""`InvertOperator`: negatives."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig


@dataclass(frozen=True)
class InvertOperatorConfig(ImageOperatorConfig):
    """Configuration of `InvertOperator`.

    Args:
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    >>> InvertOperatorConfig(prob=0.5).stochastic
    True
    """


class InvertOperator(ImageOperator[InvertOperatorConfig]):
    """Turns light into dark: 255 - x, or 1 - x for floats.

    Args:
      config: the probability that a record is changed.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = InvertOperator(InvertOperatorConfig())
    >>> op({"image": np.uint8([[[100, 150, 200]]])})["image"].tolist()
    [[[155, 105, 55]]]
    """

    config_class = InvertOperatorConfig

    def transform_image(self, image: Array) -> Array:
        return functional.invert(image)
