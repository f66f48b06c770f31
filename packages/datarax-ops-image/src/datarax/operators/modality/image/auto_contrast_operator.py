"""`AutoContrastOperator`: the full range of shades."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig


@dataclass(frozen=True)
class AutoContrastOperatorConfig(ImageOperatorConfig):
    """Configuration of `AutoContrastOperator`.

    Args:
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    >>> AutoContrastOperatorConfig(prob=0.5).stochastic
    True
    """


class AutoContrastOperator(ImageOperator[AutoContrastOperatorConfig]):
    """Stretches each channel so that its darkest value becomes black and its lightest white.

    Args:
      config: the probability that a record is changed.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = AutoContrastOperator(AutoContrastOperatorConfig())
    >>> op({"image": np.uint8([[[100, 150, 200]]])})["image"].tolist()
    [[[0, 127, 255]]]
    """

    config_class = AutoContrastOperatorConfig

    def transform_image(self, image: Array) -> Array:
        return functional.auto_contrast(image)
