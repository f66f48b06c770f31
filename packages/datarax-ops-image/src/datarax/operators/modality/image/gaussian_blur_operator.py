"""`GaussianBlurOperator`: blurred images."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig
from datarax.operators.modality.image._number import Number, number


@dataclass(frozen=True)
class GaussianBlurOperatorConfig(ImageOperatorConfig):
    """Configuration of `GaussianBlurOperator`.

    Args:
      sigma: the standard deviation of the blur in pixels, above 0. The largest one that can be
        drawn decides the cost.
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    Raises:
      TypeError: if `sigma` is neither a number, nor a range, nor a distribution.
      ValueError: if its range is empty, or has no end.

    >>> GaussianBlurOperatorConfig(sigma=(0.5, 1)).sigma
    Uniform(low=0.5, high=1)
    """

    sigma: Number = number((0.1, 2.0), above=0)

    def check(self) -> None:
        if isinf(self.most("sigma")):
            raise ValueError(f"{self.label('sigma')} must have an end, got {self.sigma!r}")
        if "sigma" in self.learn:
            raise ValueError(f"{self.label('learn')} must not name 'sigma', which has no end then")


class GaussianBlurOperator(ImageOperator[GaussianBlurOperatorConfig]):
    """Blurs images with a true Gaussian, of a width of each record's own.

    Args:
      config: how widely.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = GaussianBlurOperator(GaussianBlurOperatorConfig(sigma=1))
    >>> round(float(op({"image": np.eye(3, dtype=np.float32)[None]})["image"][0, 0, 0]), 3)
    0.414
    """

    config_class = GaussianBlurOperatorConfig

    def transform_image(self, image: Array, sigma: Any) -> Array:
        return functional.gaussian_blur(image, sigma, max_sigma=self.config.most("sigma"))
