"""`SpectrogramMaskOperator`: SpecAugment's masks in time and frequency."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import _spectrogram
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig


@dataclass(frozen=True)
class SpectrogramMaskOperatorConfig(ImageOperatorConfig):
    """Configuration of `SpectrogramMaskOperator`, for `(time, frequency)` or with a channel axis.

    Args:
      time_masks, frequency_masks: how many masks on each axis.
      time_width, frequency_width: the widest mask; each draws its width from 0 to this.
      time_fraction: the widest time mask as a fraction of the true length.
      length_field: the field with the number of real time steps, integers `(batch,)`; None: all.
      fill: what stands in masks.
      prob, info_key and the others: see `ImageOperatorConfig`.

    >>> SpectrogramMaskOperatorConfig(length_field="frames").stochastic
    True
    """

    time_masks: int = field(default=2, kw_only=True)
    time_width: int = field(default=100, kw_only=True)
    time_fraction: float = field(default=1.0, kw_only=True)
    frequency_masks: int = field(default=2, kw_only=True)
    frequency_width: int = field(default=27, kw_only=True)
    length_field: str | None = field(default=None, kw_only=True)
    fill: float = field(default=0.0, kw_only=True)

    def check(self) -> None:
        _spectrogram.check(self)

    def random_because(self) -> str:
        return f"time_masks={self.time_masks}, frequency_masks={self.frequency_masks}"


class SpectrogramMaskOperator(ImageOperator[SpectrogramMaskOperatorConfig]):
    """Masks times inside the true length, and bands of frequency (Park et al. 2019)."""

    config_class = SpectrogramMaskOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return {"time": (self.config.time_masks, 2), "frequency": (self.config.frequency_masks, 2)}

    def draw(self, words: dict[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return words

    def completed(self, data: Any, random_params: Any) -> Any:
        return {**random_params, **_spectrogram.true_length(self.config, data)}

    def transform_image(self, image: Array, **drawn: Array) -> Array:
        return _spectrogram.mask(self.config, image, **drawn)
