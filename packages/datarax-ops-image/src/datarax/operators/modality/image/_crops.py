"""Crops that keep their pixels: their options, and where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt32

from datarax.core.randomness import below
from datarax.operators.modality.image import _option_types as types
from datarax.operators.modality.image._geometric_config import checked_size
from datarax.operators.modality.image.functional import Crop
from datarax.operators.modality.image.functional._geometries import PadMode as PadMode
from datarax.operators.modality.image.functional._moves import PAD_MODES

if TYPE_CHECKING:
    from datarax.operators.modality.image.crop_operator import CropOperatorConfig

POSITIONS = ("random", "center")
Position = Literal["random", "center"]


def check(config: CropOperatorConfig) -> None:
    """Checks the options of a crop that keeps its pixels."""
    extent(config)
    margin(config)
    object.__setattr__(config, "fill", types.numbers(config.label("fill"), config.fill))
    for name, known in (("mode", PAD_MODES), ("position", POSITIONS)):
        if getattr(config, name) not in known:
            raise ValueError(
                f"{config.label(name)} must be one of {known}, got {getattr(config, name)!r}"
            )
    if config.mode != "constant" and config.fill != 0:
        raise ValueError(
            f"{config.label('fill')}={config.fill!r} has no effect with mode={config.mode!r}; "
            "leave one of them out"
        )


def extent(config: CropOperatorConfig) -> tuple[int, int]:
    """(height, width) of the crop."""
    size = checked_size(config.label("size"), config.size)
    return size if isinstance(size, tuple) else (size, size)


def margin(config: CropOperatorConfig) -> tuple[int, int, int, int]:
    """The padding as (top, left, bottom, right)."""
    label, padding = config.label("padding"), config.padding
    values = padding if isinstance(padding, tuple | list) else (padding,)
    if len(values) not in (1, 2, 4):
        raise ValueError(
            f"{label} must be a number, (vertical, horizontal) or (top, left, bottom, right), got "
            f"{padding!r}"
        )
    values = tuple(types.integer(label, value) for value in values)
    if min(values) < 0:
        raise ValueError(f"{label} must be at least 0, got {padding!r}")
    top, left, bottom, right = values * (4 // len(values))
    return top, left, bottom, right


def _room(config: CropOperatorConfig, size: tuple[int, int]) -> tuple[int, int]:
    """How far a crop can move in an image with its padding, down and to the right.

    Raises:
      ValueError: if it does not fit.
    """
    top, left, bottom, right = margin(config)
    height, width = extent(config)
    whole = size[0] + top + bottom, size[1] + left + right
    free = whole[0] - height, whole[1] - width
    if min(free) < 0:
        raise ValueError(
            f"size {config.size} does not fit field {config.field_key!r} of (height, width) {size} "
            f"with padding {config.padding}; use at most {whole}, or more padding"
        )
    return free


def centre(config: CropOperatorConfig, size: tuple[int, ...]) -> tuple[int, int]:
    """The origin of a crop in the middle, counted from the image's; halves to the even number."""
    down, across = (round(free / 2) for free in _room(config, (size[0], size[1])))
    top, left, _, _ = margin(config)
    return down - top, across - left


def origins(
    config: CropOperatorConfig, words: UInt32[Array, "rows 2"], size: tuple[int, ...]
) -> Int32[Array, "rows 2"]:
    """The first pixels of crops, counted from the image's, every place equally likely."""
    if config.position == "center":
        return jnp.broadcast_to(jnp.array(centre(config, size), jnp.int32), words.shape)
    free = np.array(_room(config, (size[0], size[1])), np.int32)
    padding = np.array(margin(config)[:2], np.int32)
    return below(words, jnp.broadcast_to(free + 1, words.shape)) - padding


def crop(config: CropOperatorConfig, size: tuple[int, int], origin: Any) -> Crop:
    """The crop at an origin; None is the middle."""
    return Crop(
        origin=centre(config, size) if origin is None else tuple(origin),
        size=extent(config),
        margin=margin(config),
        margin_mode=config.mode,
    )
