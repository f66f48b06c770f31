"""`GrayscaleOperator`: images without colour."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig


@dataclass(frozen=True)
class GrayscaleOperatorConfig(ImageOperatorConfig):
    """Configuration of `GrayscaleOperator`.

    Args:
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    >>> GrayscaleOperatorConfig(prob=0.5).stochastic
    True
    """


class GrayscaleOperator(ImageOperator[GrayscaleOperatorConfig]):
    """Puts the grey of a pixel, its luma, into each of its channels.

    Args:
      config: the probability that a record is changed.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = GrayscaleOperator(GrayscaleOperatorConfig())
    >>> op({"image": np.uint8([[[[100, 150, 200]]]])})["image"].tolist()
    [[[[141, 141, 141]]]]
    """

    config_class = GrayscaleOperatorConfig

    def transform_image(self, image: Array) -> Array:
        return functional.grayscale(image)
