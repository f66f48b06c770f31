"""Masks on spectrograms: pure functions of one record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt32

from datarax.core._modality_config import require_number
from datarax.core.config import require_names
from datarax.core.fields import get_field
from datarax.core.randomness import below
from datarax.operators.modality.image import _option_types as types
from datarax.operators.modality.image.functional._arguments import fill_value

if TYPE_CHECKING:
    from datarax.operators.modality.image.spectrogram_mask_operator import (
        SpectrogramMaskOperatorConfig,
    )


def check(config: SpectrogramMaskOperatorConfig) -> None:
    """Raises if an option of the config is wrong."""
    for name in ("time_masks", "time_width", "frequency_masks", "frequency_width"):
        if types.integer(config.label(name), getattr(config, name)) < 0:
            raise ValueError(
                f"{config.label(name)} must be at least 0, got {getattr(config, name)}"
            )
    types.fraction(config.label("time_fraction"), config.time_fraction)
    require_number(config.label("fill"), config.fill)
    require_names(config, "length_field", optional=True)


def true_length(config: SpectrogramMaskOperatorConfig, data: Any) -> dict[str, Int32[Array, ""]]:
    """How many time steps of a record are real, if a field says so.

    Raises:
      KeyError: if there is no such field.
      TypeError: if it is not an integer.
      ValueError: if it is not a scalar.
    """
    key = config.length_field
    if key is None:
        return {}
    value = get_field(data, key)
    if jnp.ndim(value) != 0:
        raise ValueError(
            f"length_field {key!r} must have one number a record, got shape {jnp.shape(value)}"
        )
    if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
        raise TypeError(f"length_field {key!r} must be integers, got {jnp.result_type(value)}")
    # Of 32 bits, to which a longer one than any spectrogram is cut.
    return {"length": jnp.clip(jnp.asarray(value), 0, 2**31 - 1).astype(jnp.int32)}


def mask(
    config: SpectrogramMaskOperatorConfig,
    image: Array,
    *,
    time: UInt32[Array, "masks 2"],
    frequency: UInt32[Array, "masks 2"],
    length: Int32[Array, ""] | None = None,
) -> Array:
    """The spectrogram with its masks filled; all else keeps every bit.

    Args:
      config: how wide the masks can be.
      image: `(time, frequency)` or `(time, frequency, channel)`.
      time: two words for each time mask, for its width and its start.
      frequency: likewise for frequency masks.
      length: how many time steps are real; None if all are.

    Raises:
      ValueError: if frequency masks can be wider than there are frequencies.
    """
    steps, bands = image.shape[:2]
    if config.frequency_width > bands:
        raise ValueError(
            f"frequency_width {config.frequency_width} is more than the {bands} frequencies of "
            f"field {config.field_key!r} of shape {image.shape}, which must be (time, frequency)"
        )
    real = jnp.int32(steps) if length is None else jnp.minimum(length, steps)
    share = jnp.floor(real.astype(jnp.float32) * np.float32(config.time_fraction))
    widest = jnp.minimum(share.astype(jnp.int32), config.time_width)
    hit = _hit(time, steps, real, widest)[:, None]
    hit |= _hit(frequency, bands, jnp.int32(bands), jnp.int32(config.frequency_width))[None, :]
    return jnp.where(
        hit.reshape(hit.shape + (1,) * (image.ndim - 2)),
        fill_value(config.fill, image),
        image,
    )


def _hit(
    words: UInt32[Array, "masks 2"], places: int, real: Int32[Array, ""], widest: Int32[Array, ""]
) -> Bool[Array, " places"]:
    """Which places of an axis are masked: widths from 0, and starts, are equally likely."""
    width = below(words[:, 0], jnp.broadcast_to(widest + 1, words.shape[:1]))
    start = below(words[:, 1], real - width + 1)
    place = np.arange(places, dtype=np.int32)[:, None]
    return jnp.any((place >= start) & (place < start + width), axis=1)
