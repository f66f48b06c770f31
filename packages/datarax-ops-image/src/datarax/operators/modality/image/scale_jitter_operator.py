"""`ScaleJitterOperator`: images smaller and larger, on one canvas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import _placed
from datarax.operators.modality.image._geometric_config import Fill, SizedOperatorConfig
from datarax.operators.modality.image._geometric_operator import GeometricOperator
from datarax.operators.modality.image._number import Number, number


@dataclass(frozen=True)
class ScaleJitterOperatorConfig(SizedOperatorConfig):
    """Configuration of `ScaleJitterOperator`.

    Args:
      size: (height, width) of the canvas; one number stands for both.
      scale: how much images are enlarged after they fit the canvas; the smallest sets the cost.
      fill: the value of the canvas beside a smaller image, a number or one per channel.
      method, mask_fill and the others: see `SizedOperatorConfig`.

    >>> ScaleJitterOperatorConfig(size=1024).scale
    Uniform(low=0.1, high=2)
    """

    scale: Number = number((0.1, 2), above=0)
    fill: Fill = field(default=0, kw_only=True)
    image_options = ("method", "fill")

    def check(self) -> None:
        super().check()
        _placed.check(self)

    def random_because(self) -> str:
        return f"scale={self.scale!r}"


class ScaleJitterOperator(GeometricOperator[ScaleJitterOperatorConfig]):
    """Puts images on a canvas: smaller ones into its first corner, a random part of larger ones.

    In evaluation mode images fit the canvas.
    """

    config_class = ScaleJitterOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return {"place": (2,)}

    def draw(self, words: dict[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return super().draw(words, shape) | {"place": words["place"]}

    def at_rest(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"scale": 1, "place": 0}

    def geometry(self, size: tuple[int, int], scale: Any, place: Array) -> _placed.Placed:
        return _placed.jittered(self.config, size, scale, place)
