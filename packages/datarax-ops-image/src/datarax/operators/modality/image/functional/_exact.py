"""Floating-point arithmetic that gives the same bits however it is compiled."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def product(a: Array, b: Array) -> Array:
    """`a * b`, rounded before it goes on: never contracted with a sum that follows."""
    value = a * b
    info = jnp.finfo(value.dtype)
    return lax.reduce_precision(value, exponent_bits=info.nexp, mantissa_bits=info.nmant)
