"""`FlipOperator`: mirrored images."""

from __future__ import annotations

from dataclasses import dataclass, field

from datarax.core.config import require_bools
from datarax.operators.modality.image._geometric_operator import (
    GeometricOperator,
    GeometricOperatorConfig,
)
from datarax.operators.modality.image.functional import Crop


@dataclass(frozen=True)
class FlipOperatorConfig(GeometricOperatorConfig):
    """Configuration of `FlipOperator`.

    Args:
      horizontal: left becomes right.
      vertical: top becomes bottom.
      prob: the probability that a record is flipped; the start value of `op.prob`.
      info_key and the others: see `GeometricOperatorConfig`.

    Raises:
      ValueError: if neither direction is chosen.

    >>> FlipOperatorConfig().prob
    0.5
    """

    horizontal: bool = field(default=True, kw_only=True)
    vertical: bool = field(default=False, kw_only=True)
    prob: float = field(default=0.5, kw_only=True)

    def check(self) -> None:
        require_bools(self, "horizontal", "vertical")
        if not (self.horizontal or self.vertical):
            raise ValueError(f"{type(self).__name__} flips nothing; set horizontal or vertical")


class FlipOperator(GeometricOperator[FlipOperatorConfig]):
    """Mirrors images, and masks, boxes and keypoints with them.

    Args:
      config: in which directions, and how often.
      rngs: streams to derive its own from; needed if anything is random.
      name: its name in messages.

    >>> import numpy as np
    >>> op = FlipOperator(FlipOperatorConfig(prob=1))
    >>> op({"image": np.uint8([[[1, 2], [3, 4]]])})["image"].tolist()
    [[[2, 1], [4, 3]]]
    """

    config_class = FlipOperatorConfig

    def geometry(self, size: tuple[int, int]) -> Crop:
        vertical, horizontal = self.config.vertical, self.config.horizontal
        return Crop(size=size, flip_vertical=vertical, flip_horizontal=horizontal)
