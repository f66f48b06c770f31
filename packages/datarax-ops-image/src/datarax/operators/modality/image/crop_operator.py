"""`CropOperator`: a part of an image, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Array

from datarax.operators.modality.image import _crops
from datarax.operators.modality.image._geometric_config import Fill, GeometricOperatorConfig, Size
from datarax.operators.modality.image._geometric_operator import GeometricOperator
from datarax.operators.modality.image.functional import Crop


@dataclass(frozen=True)
class CropOperatorConfig(GeometricOperatorConfig):
    """Configuration of `CropOperator`.

    Args:
      size: (height, width) of the crop; one number stands for both.
      position: "random", all places equally likely, or "center".
      padding: pixels around the image: one number, two (vertical, horizontal) or four from the top.
      mode: what they are: "constant", "edge", "reflect" or "symmetric".
      fill: the constant, a number or one per channel.
      mask_fill, info_key and the others: see `GeometricOperatorConfig`; `prob` must be 1.
    """

    size: Size = field(kw_only=True)
    position: _crops.Position = field(default="random", kw_only=True)
    padding: int | tuple[int, ...] = field(default=0, kw_only=True)
    mode: _crops.PadMode = field(default="constant", kw_only=True)
    fill: Fill = field(default=0, kw_only=True)
    always: ClassVar[bool] = True
    image_options = ("fill",)

    def check(self) -> None:
        super().check()
        _crops.check(self)

    def random_because(self) -> str:
        return "position='random'" if self.position == "random" else ""


class CropOperator(GeometricOperator[CropOperatorConfig]):
    """Crops images; in evaluation mode in the middle."""

    config_class = CropOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return {"origin": (2,)}

    def draw(self, words: dict[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return {"origin": _crops.origins(self.config, words["origin"], shape)}

    def at_rest(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"origin": _crops.centre(self.config, shape)}

    def geometry(self, size: tuple[int, int], origin: Any = None) -> Crop:
        return _crops.crop(self.config, size, origin)
