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
      scale: how large the image becomes: at 1 it just fits into the canvas, with its own ratio of
        width to height; at 2 it has twice these sides. The smallest scale sets the cost.
      fill: the value of the canvas beside a smaller image, a number or one per channel, in the
        image's own unit: 0 to 255 for uint8, 0 to 1 for floats.
      method: "nearest", "bilinear" or "bicubic".
      antialias: whether every pixel counts where images become smaller, as in `functional.resize`.
      mask_fill, info_key and the others: see `GeometricOperatorConfig`; `prob` must be 1.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a size below 1, a `scale` that is empty or not positive, or an unknown
        `method`.

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
    """Puts images on a canvas: smaller ones into its top left corner, a random part of larger ones.

    In evaluation mode images just fit into the canvas.

    Args:
      config: how large images become, and the canvas.
      rngs: streams to derive its own from; needed if the scale is random.
      name: its name in messages.

    References:
      Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance
      segmentation", 2021, https://arxiv.org/abs/2012.07177, section 3 (large scale jittering)

    >>> import jax
    >>> from flax import nnx
    >>> op = ScaleJitterOperator(ScaleJitterOperatorConfig(size=80), rngs=nnx.Rngs(0))
    >>> op.output_spec({"image": jax.ShapeDtypeStruct((48, 64, 3), "uint8")})["image"].shape
    (80, 80, 3)
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
