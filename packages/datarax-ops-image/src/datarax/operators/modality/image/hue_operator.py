"""`HueOperator`: turned hues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig
from datarax.operators.modality.image._number import Number, number


@dataclass(frozen=True)
class HueOperatorConfig(ImageOperatorConfig):
    """Configuration of `HueOperator`.

    Args:
      shift: how far, in turns of the circle of hues, from -0.5 to 0.5.
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    Raises:
      TypeError: if `shift` is neither a number, nor a range, nor a distribution.
      ValueError: if its range is empty or reaches beyond what is allowed.

    >>> HueOperatorConfig(shift=(-0.1, 0.1)).shift
    Uniform(low=-0.1, high=0.1)
    """

    shift: Number = number((-0.1, 0.1), low=-0.5, high=0.5)


class HueOperator(ImageOperator[HueOperatorConfig]):
    """Turns the hue of colours.

    Args:
      config: how strongly.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = HueOperator(HueOperatorConfig(shift=0.5))
    >>> op({"image": np.uint8([[[[100, 150, 200]]]])})["image"].tolist()
    [[[[200, 145, 100]]]]
    """

    config_class = HueOperatorConfig

    def transform_image(self, image: Array, shift: Any) -> Array:
        return functional.hue(image, shift)
