"""Uniform numbers from random bits, one 32-bit word each."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, UInt32


def open_uniform(word: UInt32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Uniform in the open interval (0, 1): the middles of 2**23 equal parts."""
    return ((word >> 9).astype(jnp.float32) + jnp.float32(0.5)) * jnp.float32(2**-23)


def coin(word: UInt32[Array, "*shape"], probability: Float32[Array, ""]) -> Array:
    """True with this probability, to 24 binary places; always for 1 and never for 0."""
    return (word >> 8).astype(jnp.float32) < probability * jnp.float32(2**24)


def below(
    word: UInt32[Array, "*shape"], count: Int32[Array, "*shape"] | UInt32[Array, "*shape"]
) -> Int32[Array, "*shape"]:
    """Uniform among 0, 1, ..., count - 1, for counts from 1 to 2**31.

    The upper half of the 64-bit product of word and count, from 16-bit halves.
    """
    n = count.astype(jnp.uint32)
    high, low, n_high, n_low = word >> 16, word & 0xFFFF, n >> 16, n & 0xFFFF
    middle = high * n_low + ((low * n_low) >> 16)
    carry = (low * n_high + (middle & 0xFFFF)) >> 16
    return (high * n_high + (middle >> 16) + carry).astype(jnp.int32)
