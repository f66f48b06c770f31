"""`IoUCropOperator`: a random part of an image that overlaps with one of its boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import _crop_laws
from datarax.operators.modality.image._distributions import Choice
from datarax.operators.modality.image._geometric_config import PartOperatorConfig, Range
from datarax.operators.modality.image._geometric_operator import GeometricOperator
from datarax.operators.modality.image._number import Number, number
from datarax.operators.modality.image.functional import Window


@dataclass(frozen=True)
class IoUCropOperatorConfig(PartOperatorConfig):
    """Configuration of `IoUCropOperator`, which needs `box_fields`.

    Args:
      min_iou: how large the intersection over union of the part with one of the boxes must be; only
        boxes whose middle lies in the part count. 1 takes the whole image.
      candidates: how many parts are tried; if none will do, the whole image is taken.
      scale: (min, max) of the part's height, and of its width, as fractions of the image's.
      ratio: (min, max) of the part's width / height.
      size: (height, width) of the result; one number stands for both.
      method: "nearest", "bilinear" or "bicubic".
      antialias: whether every pixel counts where images become smaller, as in `functional.resize`.
      mask_fill, info_key and the others: see `GeometricOperatorConfig`; `prob` must be 1.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a range that is empty or out of bounds, `candidates` below 1, or without
        `box_fields`.

    >>> config = IoUCropOperatorConfig(size=300, auxiliary_fields=["boxes"], box_fields=("boxes",))
    >>> config.min_iou.support
    (0, 1)
    """

    min_iou: Number = number(Choice((0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)), low=0, high=1)
    candidates: int = field(default=50, kw_only=True)
    scale: Range = field(default=(0.3, 1.0), kw_only=True)
    ratio: Range = field(default=(0.5, 2.0), kw_only=True)

    def check(self) -> None:
        super().check()
        _crop_laws.check_candidates(self)


class IoUCropOperator(GeometricOperator[IoUCropOperatorConfig]):
    """Shows a random part that overlaps with a box, as SSD does; in evaluation mode the whole.

    Args:
      config: how large the part is, and how much it must overlap.
      rngs: streams to derive its own from.
      name: its name in messages.

    References:
      Liu et al., "SSD: Single shot multibox detector", 2016, https://arxiv.org/abs/1512.02325,
      section 2.2

    >>> import jax
    >>> from flax import nnx
    >>> config = IoUCropOperatorConfig(size=300, auxiliary_fields=["boxes"], box_fields=("boxes",))
    >>> op = IoUCropOperator(config, rngs=nnx.Rngs(0))
    >>> image = jax.ShapeDtypeStruct((48, 64, 3), "uint8")
    >>> boxes = jax.ShapeDtypeStruct((5, 4), "float32")
    >>> sorted(op.output_spec({"image": image, "boxes": boxes}))
    ['boxes', 'boxes_outline', 'boxes_visibility', 'image']
    """

    config_class = IoUCropOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return {"candidates": (self.config.candidates, 4)}

    def draw(self, words: dict[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return super().draw(words, shape) | _crop_laws.tried(words["candidates"])

    def at_rest(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"whole": True, "candidates": 0, "min_iou": 1}

    def completed(self, data: Any, random_params: Any) -> Any:
        return random_params | _crop_laws.overlapping(self, data, self.numbers(random_params))

    def geometry(self, size: tuple[int, int], box: Array, **drawn: Array) -> Window:
        return Window(box=tuple(box), size=self.config.canvas(size))
