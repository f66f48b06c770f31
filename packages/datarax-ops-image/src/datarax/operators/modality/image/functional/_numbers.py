"""Drawn numbers as scalars of the dtype in which an image is computed."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array


def scalar(name: str, number: ArrayLike, dtype: DTypeLike) -> Array:
    """The number as a scalar of the dtype.

    Raises:
      ValueError: if it is not one number.
    """
    number = jnp.asarray(number)
    if number.ndim:
        raise ValueError(
            f"{name} must be one number, got shape {number.shape}; use jax.vmap for one number per "
            "record"
        )
    return number.astype(dtype)
