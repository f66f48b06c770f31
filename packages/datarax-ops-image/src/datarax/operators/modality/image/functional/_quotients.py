"""Divisions that are rounded once, however they are compiled."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array


def quotient(a: Array, b: ArrayLike) -> Array:
    """`a / b`, of the shape and dtype of `a`.

    Compilers replace a division by a number that they know, or that is the same for many, by a
    product with its rounded reciprocal: 49 / 49 is below 1 then. They do not see that both sides
    of this selection are the same.
    """
    a, divisor = jnp.asarray(a), jnp.broadcast_to(jnp.asarray(b, a.dtype), a.shape)
    unknown, same = lax.optimization_barrier((a, divisor))
    return a / jnp.where(unknown > np.zeros((), a.dtype), divisor, same)
