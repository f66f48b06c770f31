"""Floating-point arithmetic that gives the same bits however it is compiled."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array


def settled(value: Array) -> Array:
    """The floating-point value as it is, which no compiler merges with what follows.

    A selection stands between two operations: it keeps a product from being contracted with a sum,
    and constants from being moved together. `lax.reduce_precision` to the same precision does not:
    LLVM sees nothing in it and contracts.
    """
    return jnp.where(jnp.isnan(value), np.asarray(np.nan, value.dtype), value)


def product(a: Array, b: Array) -> Array:
    """`a * b`, rounded before it goes on: never contracted with a sum that follows."""
    return settled(a * b)


def stored(value: Array, dtype: DTypeLike) -> Array:
    """The value rounded to the dtype of an image, which a function that follows reads as rounded.

    XLA may leave out a conversion there and back; it cannot leave out this rounding.
    """
    dtype = jnp.dtype(dtype)
    if dtype == value.dtype:
        return settled(value)
    info = jnp.finfo(dtype)
    rounded = lax.reduce_precision(value, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    if dtype == jnp.float16:
        # `reduce_precision` has no subnormal numbers, of which float16 uses many.
        quantum = np.asarray(2.0**24, value.dtype)
        fixed = lax.round(value * quantum, lax.RoundingMethod.TO_NEAREST_EVEN) / quantum
        rounded = jnp.where(jnp.abs(value) < np.asarray(info.tiny, value.dtype), fixed, rounded)
    return rounded.astype(dtype)
