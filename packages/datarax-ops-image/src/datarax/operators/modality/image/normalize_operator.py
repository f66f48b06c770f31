"""`NormalizeOperator`: from pixels to what a network reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig
from datarax.operators.modality.image._option_types import numbers


@dataclass(frozen=True)
class NormalizeOperatorConfig(ImageOperatorConfig):
    """Configuration of `NormalizeOperator`.

    Args:
      mean: of images from 0 to 1: a number, or one per channel.
      std: their standard deviation, positive.
      dtype: of the result: "float32", "bfloat16", "float16" or "float64".
      info_key and the others: see `ImageOperatorConfig`; `prob` must be 1.

    >>> NormalizeOperatorConfig(mean=0.5, std=0.5, dtype="bfloat16").stochastic
    False
    """

    mean: float | tuple[float, ...] = field(kw_only=True)
    std: float | tuple[float, ...] = field(kw_only=True)
    dtype: str = field(default="float32", kw_only=True)
    always: ClassVar[bool] = True

    def check(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, numbers(self.label(name), getattr(self, name)))
        if np.min(self.std) <= 0:
            raise ValueError(f"{self.label('std')} must be positive, got {self.std}")
        if not jnp.issubdtype(jnp.dtype(self.dtype), jnp.floating):
            raise TypeError(f"{self.label('dtype')} must be a floating dtype, got {self.dtype!r}")
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype).name)


class NormalizeOperator(ImageOperator[NormalizeOperatorConfig]):
    """Gives (x - mean) / std, of x from 0 to 1.

    >>> op = NormalizeOperator(NormalizeOperatorConfig(mean=(0.5, 0, 0), std=(0.5, 1, 1)))
    >>> op({"image": np.uint8([[[[255, 0, 255]]]])})["image"].tolist()
    [[[[1.0, 0.0, 1.0]]]]
    """

    config_class = NormalizeOperatorConfig

    def transform_image(self, image: Array) -> Array:
        normal = functional.normalize(
            image, jnp.array(self.config.mean), jnp.array(self.config.std)
        )
        return normal.astype(self.config.dtype)
