"""`NoiseOperator`: normal noise on every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import _noise
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig
from datarax.operators.modality.image._number import Number, number


@dataclass(frozen=True)
class NoiseOperatorConfig(ImageOperatorConfig):
    """Configuration of `NoiseOperator`.

    Args:
      std: standard deviation of the noise, from 0 to 1, as a fraction of the image's range: 255
        for uint8, 1 for floats.
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    Raises:
      TypeError: if `std` is neither a number, nor a range, nor a distribution.
      ValueError: if its range is empty, or goes below 0 or above 1.

    >>> NoiseOperatorConfig(std=(0, 0.2)).std
    Uniform(low=0, high=0.2)
    """

    std: Number = number((0.0, 0.1), low=0, high=1)

    def random_because(self) -> str:
        return f"std={self.std!r}"


class NoiseOperator(ImageOperator[NoiseOperatorConfig]):
    """Adds normal noise to every value of an image; uint8 ones are rounded and cut to 0 to 255.

    Args:
      config: how much.
      rngs: streams to derive its own from.
      name: its name in messages.

    >>> import jax
    >>> from flax import nnx
    >>> op = NoiseOperator(NoiseOperatorConfig(std=0.1), rngs=nnx.Rngs(0))
    >>> op.output_spec({"image": jax.ShapeDtypeStruct((48, 64, 3), "uint8")})["image"].dtype
    dtype('uint8')
    """

    config_class = NoiseOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return {"seed": (2,)}

    def draw(self, words: dict[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return super().draw(words, shape) | {"seed": words["seed"]}

    def transform_image(self, image: Array, std: Any, seed: Array) -> Array:
        return _noise.with_noise(image, std, seed)
