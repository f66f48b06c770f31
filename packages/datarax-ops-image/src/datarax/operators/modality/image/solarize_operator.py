"""`SolarizeOperator`: negatives of what is light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig
from datarax.operators.modality.image._number import Number, number


@dataclass(frozen=True)
class SolarizeOperatorConfig(ImageOperatorConfig):
    """Configuration of `SolarizeOperator`.

    Args:
      threshold: values from here on are inverted, in the image's own unit: up to 256 for uint8, to
        1 for floats. None: the middle, 128 or 0.5.
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    Raises:
      TypeError: if `threshold` is neither a number, nor a range, nor a distribution, nor None.
      ValueError: if its range is empty or goes below 0.

    >>> SolarizeOperatorConfig(threshold=(64, 192)).threshold
    Uniform(low=64, high=192)
    """

    threshold: Number | None = number(None, low=0, high=256)


class SolarizeOperator(ImageOperator[SolarizeOperatorConfig]):
    """Inverts what is as light as a threshold, or lighter.

    >>> import numpy as np
    >>> op = SolarizeOperator(SolarizeOperatorConfig())
    >>> op({"image": np.uint8([[[127, 128, 255]]])})["image"].tolist()
    [[[127, 127, 0]]]
    """

    config_class = SolarizeOperatorConfig

    def transform_image(self, image: Array, threshold: Any) -> Array:
        is_float = jnp.issubdtype(image.dtype, jnp.floating)
        if threshold is None:
            threshold = 128 / 255 if is_float else 128
        elif is_float and self.config.most("threshold") > 1:
            raise ValueError(
                f"threshold={self.config.threshold!r} of {self._label()} is above 1, the largest "
                f"value of images of {image.dtype}; divide it by 255, or give uint8 images"
            )
        return functional.solarize(image, threshold)
