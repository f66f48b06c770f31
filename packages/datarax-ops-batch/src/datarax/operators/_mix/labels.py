"""Labels: class numbers to one-hot rows, and label smoothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

# How far from 1 the sum of a row of probabilities may be, bfloat16 ones included.
SUM_TOLERANCE = 0.02


def one_hot(
    labels: Int[Array, " batch"], num_classes: int, valid: Bool[Array, " batch"]
) -> Float[Array, "batch classes"]:
    """Rows of float32; NaN in valid rows whose class does not exist, so that the loss shows it."""
    if labels.dtype.itemsize < 4:
        # Narrow integers cannot count to num_classes.
        labels = labels.astype(jnp.int32)
    rows = labels[:, None] == jnp.arange(num_classes, dtype=labels.dtype)
    exists = (labels >= 0) & (labels < num_classes)
    return jnp.where((exists | ~valid)[:, None], rows.astype(jnp.float32), jnp.nan)


def smooth(
    labels: Float[Array, "batch classes"],
    epsilon: float,
    rows: Bool[Array, " batch"],
    multi_hot: bool,
) -> Float[Array, "batch classes"]:
    """(1 − ε) y + ε / K in the given rows; NaN where a row is no distribution, unless multi-hot."""
    smoothed = labels * (1 - epsilon) + epsilon / labels.shape[1]
    if not multi_hot:
        is_distribution = jnp.abs(labels.sum(1, keepdims=True) - 1) <= SUM_TOLERANCE
        smoothed = jnp.where(is_distribution, smoothed, jnp.nan)
    return jnp.where(rows[:, None], smoothed, labels)


def can_be_read(*arrays: Any) -> bool:
    """Whether the values are there and reading them does not wait for an accelerator."""
    return all(
        isinstance(array, np.ndarray)
        or (
            isinstance(array, jax.Array)
            and not isinstance(array, Tracer)
            and array.is_fully_addressable
            and all(device.platform == "cpu" for device in array.devices())
        )
        for array in arrays
    )


def check_classes(name: str, labels: Any, valid: Any, num_classes: int) -> None:
    """Raises a ValueError if a valid row's class number does not exist."""
    classes = np.asarray(labels)[np.asarray(valid)]
    if classes.size and not 0 <= classes.min() <= classes.max() < num_classes:
        raise ValueError(
            f"{name} must hold class numbers from 0 to {num_classes - 1}, got {classes.min()} to "
            f"{classes.max()}; raise num_classes or renumber the classes"
        )


def check_distributions(name: str, labels: Any, valid: Any) -> None:
    """Raises a ValueError if a valid row does not sum to 1."""
    sums = np.asarray(labels)[np.asarray(valid)].astype(np.float32).sum(1)
    wrong = sums[np.abs(sums - 1) > SUM_TOLERANCE]
    if wrong.size:
        raise ValueError(
            f"{name} must hold rows that sum to 1 for label_smoothing, got a sum of {wrong[0]}; "
            "leave label_smoothing out, or set smooth_multi_hot=True to smooth multi-hot labels"
        )
