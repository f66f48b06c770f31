"""`ResizedCropOperator`: a random part of an image, at one size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Array

from datarax.operators.modality.image import _crop_laws
from datarax.operators.modality.image._geometric_config import PartOperatorConfig
from datarax.operators.modality.image._geometric_operator import GeometricOperator
from datarax.operators.modality.image.functional import Window


@dataclass(frozen=True)
class ResizedCropOperatorConfig(PartOperatorConfig):
    """Configuration of `ResizedCropOperator`.

    Args:
      sampling: whose law to draw from: "torchvision" (area and logarithm of the ratio uniform, ten
        tries) or "inception" (TensorFlow's: ratio uniform, then the height).
      flip: the probability that the part is also mirrored, which costs nothing here.
      scale: (min, max) of the part's area as a fraction of the image's.
      ratio: (min, max) of the part's width / height.
      size: (height, width) of the result; one number stands for both.
      method: "nearest", "bilinear" or "bicubic".
      antialias: whether every pixel counts where images become smaller, as in `functional.resize`.
      mask_fill, info_key and the others: see `GeometricOperatorConfig`; `prob` must be 1.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a size below 1, a range that is empty or out of bounds, a `flip` that is no
        probability, or an unknown `sampling` or `method`.

    >>> ResizedCropOperatorConfig(size=224, method="bicubic").scale
    (0.08, 1.0)
    """

    sampling: Literal["torchvision", "inception"] = field(default="torchvision", kw_only=True)
    flip: float = field(default=0.0, kw_only=True)

    def check(self) -> None:
        super().check()
        _crop_laws.check(self)


class ResizedCropOperator(GeometricOperator[ResizedCropOperatorConfig]):
    """Shows a random part of each image, in evaluation mode the largest one in the middle.

    Args:
      config: how large the part is, and the result.
      rngs: streams to derive its own from.
      name: its name in messages.

    References:
      Szegedy et al., "Going deeper with convolutions", 2015, https://arxiv.org/abs/1409.4842,
      section 6

    >>> import jax
    >>> from flax import nnx
    >>> op = ResizedCropOperator(ResizedCropOperatorConfig(size=32), rngs=nnx.Rngs(0))
    >>> op.output_spec({"image": jax.ShapeDtypeStruct((48, 64, 3), "uint8")})["image"].shape
    (32, 32, 3)
    """

    config_class = ResizedCropOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return {"box": (_crop_laws.TRIES, 4), "flip": ()}

    def draw(self, words: dict[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return _crop_laws.drawn(self.config, words["box"], words["flip"], shape)

    def at_rest(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"box": _crop_laws.at_rest(self.config, shape), "flip": False}

    def geometry(self, size: tuple[int, int], box: Array, flip: Array) -> Window:
        canvas, antialias = self.config.canvas(size), self.config.antialias
        return Window(box=tuple(box), size=canvas, flip_horizontal=flip, antialias=antialias)
