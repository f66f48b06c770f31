"""`DropoutOperator`: single pixels dropped at random."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import _noise
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig
from datarax.operators.modality.image._number import Number, number


@dataclass(frozen=True)
class DropoutOperatorConfig(ImageOperatorConfig):
    """Configuration of `DropoutOperator`.

    Args:
      rate: the probability that a pixel is dropped, from 0 to 1.
      fill: the value of dropped pixels, a number or one per channel, in the image's own unit: 0 to
        255 for uint8, 0 to 1 for floats.
      per_channel: drop the channels of a pixel independently.
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    Raises:
      TypeError: if `rate` is neither a number, nor a range, nor a distribution.
      ValueError: if its range is empty, or goes below 0 or above 1.

    >>> DropoutOperatorConfig(rate=(0, 0.1)).rate
    Uniform(low=0, high=0.1)
    """

    rate: Number = number((0.0, 0.1), low=0, high=1)
    fill: float | tuple[float, ...] = field(default=0, kw_only=True)
    per_channel: bool = field(default=False, kw_only=True)

    def random_because(self) -> str:
        return f"rate={self.rate!r}"


class DropoutOperator(ImageOperator[DropoutOperatorConfig]):
    """Drops single pixels; for rectangles there is `PatchDropoutOperator`.

    Args:
      config: how many, and the value that they get.
      rngs: streams to derive its own from.
      name: its name in messages.

    >>> import jax
    >>> from flax import nnx
    >>> op = DropoutOperator(DropoutOperatorConfig(rate=0.1), rngs=nnx.Rngs(0))
    >>> op.output_spec({"image": jax.ShapeDtypeStruct((48, 64, 3), "uint8")})["image"].dtype
    dtype('uint8')
    """

    config_class = DropoutOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return {"seed": (2,)}

    def draw(self, words: dict[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return super().draw(words, shape) | {"seed": words["seed"]}

    def transform_image(self, image: Array, rate: Any, seed: Array) -> Array:
        fill, per_channel = self.config.fill, self.config.per_channel
        return _noise.without_pixels(image, rate, seed, fill=fill, per_channel=per_channel)
