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
      padding: how many pixels are put around the image before it is cropped: one number,
        (vertical, horizontal), or (top, left, bottom, right).
      mode: what these pixels are: "constant", "edge", "reflect" or "symmetric", as in
        `functional.pad`.
      fill: the constant, a number or one per channel, in the image's own unit: 0 to 255 for uint8,
        0 to 1 for floats.
      mask_fill, info_key and the others: see `GeometricOperatorConfig`; `prob` must be 1.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a size below 1, a negative padding, an unknown `mode` or `position`, or
        a `fill` that the mode does not use.

    >>> CropOperatorConfig(size=32, padding=4).stochastic
    True
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
    """Crops images; in evaluation mode in the middle.

    Args:
      config: how large the crop is, and where it lies.
      rngs: streams to derive its own from; needed if the position is random.
      name: its name in messages.

    >>> import jax
    >>> from flax import nnx
    >>> op = CropOperator(CropOperatorConfig(size=(24, 32)), rngs=nnx.Rngs(0))
    >>> op.output_spec({"image": jax.ShapeDtypeStruct((48, 64, 3), "uint8")})["image"].shape
    (24, 32, 3)
    """

    config_class = CropOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return {"origin": (2,)}

    def draw(self, words: dict[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return {"origin": _crops.origins(self.config, words["origin"], shape)}

    def at_rest(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"origin": _crops.centre(self.config, shape)}

    def geometry(self, size: tuple[int, int], origin: Any = None) -> Crop:
        return _crops.crop(self.config, size, origin)
