"""How arguments that several functions share are read, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array

Method = Literal["nearest", "bilinear", "bicubic"]

METHODS: tuple[Method, ...] = ("nearest", "bilinear", "bicubic")


def checked_size(size: Sequence[int], name: str = "size") -> tuple[int, int]:
    """A `(height, width)` of Python integers.

    Raises:
      TypeError: if it is not two integers that are known while tracing.
      ValueError: if one is less than 1.
    """
    if (
        isinstance(size, Tracer)
        or np.shape(size) != (2,)
        or np.asarray(size).dtype.kind not in "iu"
    ):
        raise TypeError(
            f"{name} must be two integers (height, width) that are known when the function is "
            f"traced, got {size!r}"
        )
    height, width = (int(side) for side in size)
    if height < 1 or width < 1:
        raise ValueError(f"{name} must be at least (1, 1), got {(height, width)}")
    return height, width


def checked_method(method: str, name: str = "method") -> Method:
    """One of the methods of interpolation; errors call the argument by its name.

    Raises:
      ValueError: if there is no such method.
    """
    for known_method in METHODS:
        if method == known_method:
            return known_method
    raise ValueError(f"{name} must be one of {', '.join(METHODS)}, got {method!r}")


def sides(pixels: Array) -> tuple[int, int]:
    """Height and width."""
    return pixels.shape[0], pixels.shape[1]


def known(value: Any) -> np.ndarray | None:
    """The value of an argument as a NumPy array, or None if a part of it is traced."""
    is_traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
    return None if is_traced else np.asarray(value)


def integers(value: ArrayLike | Sequence[ArrayLike], count: int, name: str, form: str) -> Array:
    """`count` integers as int32.

    Raises:
      TypeError: if they are not integers.
      ValueError: if there are more or fewer.
    """
    parts = [jnp.asarray(part) for part in value] if isinstance(value, (tuple, list)) else value
    array = jnp.stack(parts) if isinstance(parts, list) else jnp.asarray(parts)
    if array.shape != (count,):
        raise ValueError(f"{name} must be {form}, got shape {array.shape}")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers {form}, got {array.dtype}; round them first")
    return array.astype(jnp.int32)


def fill_value(fill: ArrayLike | Sequence[ArrayLike], image: Array) -> Array:
    """What is written where no pixel is, in the image's dtype: a scalar or a value per channel.

    Numbers for uint8 are rounded and cut to 0 to 255.

    Raises:
      ValueError: if it is neither a scalar nor has a value per channel.
    """
    value = (
        jnp.stack([jnp.asarray(part, jnp.float32) for part in fill])
        if isinstance(fill, (tuple, list))
        else jnp.asarray(fill)
    )
    channels = image.shape[2:]
    if value.shape not in ((), channels):
        raise ValueError(
            f"fill must be a number or have one for each of the channels of an image of shape "
            f"{image.shape}, got shape {value.shape}"
        )
    if image.dtype == jnp.uint8 and jnp.issubdtype(value.dtype, jnp.floating):
        value = jnp.clip(jnp.round(value), 0, 255)
    elif image.dtype == jnp.uint8 and value.dtype != jnp.uint8:
        value = jnp.clip(value, 0, 255)
    return value.astype(image.dtype)
