"""`ResizeOperator`: images at another size."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array

from datarax.operators.modality.image import functional
from datarax.operators.modality.image._geometric_config import SizedOperatorConfig
from datarax.operators.modality.image._geometric_operator import GeometricOperator
from datarax.operators.modality.image.functional import Window


@dataclass(frozen=True)
class ResizeOperatorConfig(SizedOperatorConfig):
    """Configuration of `ResizeOperator`.

    Args:
      size: (height, width) of the result; or one number for the shorter side: the ratio of the
        sides then stays.
      method: "nearest", "bilinear" or "bicubic".
      antialias: whether every pixel counts where images become smaller, as in `functional.resize`.
      mask_fill, info_key and the others: see `GeometricOperatorConfig`; `prob` must be 1.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a size below 1, or an unknown `method`.

    >>> ResizeOperatorConfig(size=256).canvas((480, 640))
    (256, 341)
    """

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        height, width = (max(1, self.size * side // min(size)) for side in size)
        return height, width


class ResizeOperator(GeometricOperator[ResizeOperatorConfig]):
    """Resizes images; uint8 ones with Pillow's numbers.

    Args:
      config: to which size.
      rngs: streams to derive its own from, not used: nothing is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = ResizeOperator(ResizeOperatorConfig(size=4))
    >>> op({"image": np.zeros((2, 8, 16, 3), np.uint8)})["image"].shape
    (2, 4, 8, 3)
    """

    config_class = ResizeOperatorConfig

    def geometry(self, size: tuple[int, int]) -> Window:
        box = (0, 0, *size)
        return Window(box=box, size=self.config.canvas(size), antialias=self.config.antialias)

    def move(self, image: Array, geometry: Window) -> Array:
        method, antialias = self.config.method, self.config.antialias
        return functional.resize(image, geometry.size, method=method, antialias=antialias)
