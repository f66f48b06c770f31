"""What policies make of random words: operations, directions, and the layers that are left out."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, UInt32

from datarax.core.randomness import below, coin
from datarax.operators.modality.image._policy import NONE


def numbers(words: UInt32[Array, "*shape"], count: int) -> Int32[Array, "*shape"]:
    """Numbers from 0 to `count` - 1, all equally likely."""
    return below(words, jnp.full(words.shape, count, jnp.int32))


def either_way(
    words: UInt32[Array, "*shape"], magnitude: Float32[Array, "*shape"]
) -> Float32[Array, "*shape"]:
    """The magnitudes, each of them below 0 as often as above."""
    return jnp.where(words < jnp.uint32(2**31), magnitude, 0 - magnitude)


def kept(
    words: UInt32[Array, "rows ..."], operation: Int32[Array, "rows layers"], probability: Any
) -> Int32[Array, "rows layers"]:
    """The operations, and `NONE` in place of those that a probability leaves out.

    Args:
      words: `(rows, layers)`, or `(rows, 1)` to leave out all layers of a record together.
      operation: the operations.
      probability: a scalar, or one for each layer.
    """
    return jnp.where(coin(words, jnp.asarray(probability)), operation, NONE)
