"""Colour jitter: pure functions of one record."""

from __future__ import annotations

from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, UInt32

from datarax.core.randomness import below
from datarax.operators.modality.image import functional
from datarax.operators.modality.image._distributions import Uniform

if TYPE_CHECKING:
    from datarax.operators.modality.image.color_jitter_operator import ColorJitterOperatorConfig

NAMES = ("brightness", "contrast", "saturation", "hue")
HUE = NAMES.index("hue")
ORDERS = np.array(list(permutations(range(len(NAMES)))), np.int32)


def set_ranges(config: ColorJitterOperatorConfig) -> None:
    """Puts the range that a number x stands for in its place."""
    for name in NAMES:
        reach = getattr(config, name)
        if isinstance(reach, int | float) and reach:
            if reach < 0:
                raise ValueError(f"{config.label(name)} must be at least 0, got {reach}")
            low, high = (-reach, reach) if name == "hue" else (max(0, 1 - reach), 1 + reach)
            object.__setattr__(config, name, Uniform(low, high))
    if not config.distributions():
        raise ValueError(
            f"{type(config).__name__} changes nothing, because all of {', '.join(NAMES)} are 0; "
            "give one of them"
        )


def orders(words: UInt32[Array, " rows"]) -> Int32[Array, "rows 4"]:
    """For each record, the places in `NAMES` in the order in which they are applied."""
    return jnp.asarray(ORDERS)[below(words, jnp.full(words.shape, len(ORDERS), jnp.int32))]


def jitter(image: Array, order: Int32[Array, "4"], **amounts: Float32[Array, ""]) -> Array:
    """Applies functions to an image one after another.

    Args:
      image: the image.
      order: places in `NAMES`, first the one that is applied first.
      **amounts: the factor, or the shift of hue, of each function that is wanted.

    Returns:
      Like `image`.
    """

    def step(name: str, image: Array) -> Array:
        return getattr(functional, name)(image, amounts[name]) if name in amounts else image

    blends = [partial(step, name) for name in NAMES[:HUE]]
    # A place beyond the three blends leaves the image as it is.
    blends.append(partial(step, "none"))
    place = np.arange(HUE, dtype=np.int32)
    before = place < jnp.argmax(order == HUE)
    turns = jnp.where(before, order[:HUE], order[1:])
    first, last = jnp.where(before, turns, HUE), jnp.where(before, HUE, turns)
    plan = jnp.concatenate([first, jnp.array([HUE], jnp.int32), last])

    def one(turn: Array, image: Array) -> Array:
        # Hue costs most, so it is no branch of a choice that differs between records, of which all
        # branches are computed.
        return lax.cond(
            turn == HUE,
            lambda image: step("hue", image),
            lambda image: lax.switch(plan[turn], blends, image),
            image,
        )

    return lax.fori_loop(0, len(plan), one, image)
