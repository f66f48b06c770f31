"""`ColorJitterOperator`: brightness, contrast, saturation and hue, in an order of each record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array

from datarax.operators.modality.image import _jitter
from datarax.operators.modality.image._image_operator import ImageOperator, ImageOperatorConfig
from datarax.operators.modality.image._number import Number, number


@dataclass(frozen=True)
class ColorJitterOperatorConfig(ImageOperatorConfig):
    """Configuration of `ColorJitterOperator`, with the arguments of torchvision's.

    Args:
      brightness: a number x for factors from max(0, 1 - x) to 1 + x, or (low, high) of the factors;
        0 leaves the brightness as it is.
      contrast, saturation: the same for these.
      hue: a number x, at most 0.5, for shifts from -x to x, or (low, high) of the shifts, in turns
        of the circle of hues; 0 leaves the hue as it is.
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    Raises:
      TypeError: if one is neither a number, nor a range, nor a distribution.
      ValueError: if one is out of range, or all are 0.

    >>> ColorJitterOperatorConfig(brightness=0.4, hue=0.1).brightness
    Uniform(low=0.6, high=1.4)
    """

    brightness: Number = number(0, low=0)
    contrast: Number = number(0, low=0)
    saturation: Number = number(0, low=0)
    hue: Number = number(0, low=-0.5, high=0.5)

    def check(self) -> None:
        _jitter.set_ranges(self)


class ColorJitterOperator(ImageOperator[ColorJitterOperatorConfig]):
    """Changes brightness, contrast, saturation and hue, in an order drawn for each record.

    Args:
      config: how strongly.
      rngs: streams to derive its own from.
      name: its name in messages.

    >>> from flax import nnx
    >>> config = ColorJitterOperatorConfig(brightness=0.4, saturation=0.4)
    >>> op = ColorJitterOperator(config, rngs=nnx.Rngs(0))
    >>> sorted(op.config.distributions())
    ['brightness', 'saturation']
    """

    config_class = ColorJitterOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return {"order": ()}

    def draw(self, words: dict[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return super().draw(words, shape) | {"order": _jitter.orders(words["order"])}

    def transform_image(self, image: Array, order: Array, **amounts: Any) -> Array:
        wanted = {name: amounts[name] for name in self.config.distributions()}
        return _jitter.jitter(image, order, **wanted)
