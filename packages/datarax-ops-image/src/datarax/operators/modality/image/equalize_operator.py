"""`EqualizeOperator`: evenly spread shades."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig


@dataclass(frozen=True)
class EqualizeOperatorConfig(ImageOperatorConfig):
    """Configuration of `EqualizeOperator`.

    Args:
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    >>> EqualizeOperatorConfig(prob=0.5).stochastic
    True
    """


class EqualizeOperator(ImageOperator[EqualizeOperatorConfig]):
    """Spreads the shades of each channel so that all are about equally frequent.

    Args:
      config: the probability that a record is changed.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = EqualizeOperator(EqualizeOperatorConfig())
    >>> image = np.arange(512, dtype=np.uint8).reshape(1, 16, 32) % 16
    >>> int(op({"image": image})["image"].max())
    255
    """

    config_class = EqualizeOperatorConfig

    def transform_image(self, image: Array) -> Array:
        return functional.equalize(image)
