"""What counts as an image, and in which dtype it is computed."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

ALLOWED = "uint8, bfloat16, float16, float32 or float64"


def checked(image: Array) -> Array:
    """The image as a JAX array.

    Raises:
      TypeError: if its dtype is not one of images.
      ValueError: if it is not `(height, width, channel)` or `(height, width)`, or has no pixel.
    """
    image = jnp.asarray(image)
    if image.ndim not in (2, 3):
        raise ValueError(
            f"image must be (height, width, channel) or (height, width), got shape {image.shape}; "
            "use jax.vmap for a batch"
        )
    if image.dtype != jnp.uint8 and not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(
            f"image must be {ALLOWED}, got {image.dtype}; convert it with `astype`, in the range "
            "0 to 255 for uint8 and 0 to 1 for floats"
        )
    if not image.size:
        raise ValueError(f"image must have at least one pixel and channel, got shape {image.shape}")
    return image


def computing(dtype: DTypeLike) -> jnp.dtype:
    """The dtype in which images of a floating dtype are computed: float32 at least."""
    return jnp.dtype(jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32)
