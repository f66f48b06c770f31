"""`SpectrogramMaskOperator`: SpecAugment's masks in time and frequency."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import _spectrogram
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig


@dataclass(frozen=True)
class SpectrogramMaskOperatorConfig(ImageOperatorConfig):
    """Configuration of `SpectrogramMaskOperator`.

    Args:
      time_masks, frequency_masks: how many masks there are on each axis.
      time_width, frequency_width: how wide a mask can be, in time steps and in frequencies. Each
        mask draws its width from 0 to this, all equally likely.
      time_fraction: a further limit of the width of time masks, as a fraction from 0 to 1 of the
        number of real time steps.
      length_field: the field with the number of real time steps, integers `(batch,)`; time masks
        lie inside of these. None: all time steps are real.
      fill: the value inside masks.
      field_key: the spectrogram, `(time, frequency)` or `(time, frequency, channel)`.
      prob, info_key and the others: see `ImageOperatorConfig`.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a negative number, or a fraction above 1.

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
    """Fills bands of time and of frequency in spectrograms, as SpecAugment does.

    Args:
      config: how many bands, and how wide.
      rngs: streams to derive its own from.
      name: its name in messages.

    Raises:
      KeyError: if there is no field `length_field`, when it is called.
      ValueError: if `frequency_width` is more than the frequencies there are, when it is called.

    References:
      Park et al., "SpecAugment: A simple data augmentation method for automatic speech
      recognition", 2019, https://arxiv.org/abs/1904.08779, section 2

    >>> import jax
    >>> from flax import nnx
    >>> op = SpectrogramMaskOperator(SpectrogramMaskOperatorConfig(), rngs=nnx.Rngs(0))
    >>> op.output_spec({"image": jax.ShapeDtypeStruct((100, 80), "float32")})["image"].shape
    (100, 80)
    """

    config_class = SpectrogramMaskOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return {"time": (self.config.time_masks, 2), "frequency": (self.config.frequency_masks, 2)}

    def draw(self, words: dict[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return words

    def completed(self, data: Any, random_params: Any) -> Any:
        return {**random_params, **_spectrogram.true_length(self.config, data)}

    def transform_image(self, image: Array, **drawn: Array) -> Array:
        return _spectrogram.mask(self.config, image, **drawn)
