"""Reductions that padding cannot reach."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, PyTree, Shaped


def masked_sum_count(
    values: Num[Array, "batch ..."] | Bool[Array, "batch ..."], mask: Bool[Array, "batch ..."]
) -> tuple[Num[Array, ""], Num[Array, ""]]:
    """The sum of the values where the mask holds, and how many there are.

    Sums and counts of parts add up: over batches, and over devices with `jax.lax.psum`. Values
    outside the mask influence neither the result nor its gradient, NaN and infinities included;
    where a function before this one has an infinite derivative in padding, clean its input with
    `fill_padding`.

    Args:
      values: numbers `(batch, ...)`; bool counts as 0 and 1.
      mask: bool `(batch,)`, or of as many leading axes of `values` as it has axes.

    Returns:
      The sum, a scalar: float32 of floats (float64 of float64); of integers and bool int32
      (uint32 of unsigned ones), which is exact while it fits. The count of values, int32.

    Raises:
      TypeError: if the mask is not bool.
      ValueError: if the shape of the mask is not that of the leading axes of `values`.

    >>> total, count = masked_sum_count(
    ...     jnp.float32([1, 2, jnp.nan]), jnp.array([True, True, False])
    ... )
    >>> total.item(), count.item()
    (3.0, 2)
    """
    values, kept = _kept(values, mask)
    wide = _accumulator(values.dtype)
    total = jnp.sum(jnp.where(kept, values.astype(wide), jnp.zeros((), wide)), dtype=wide)
    return total, jnp.sum(jnp.broadcast_to(kept, values.shape), dtype=jnp.int32)


def masked_mean(
    values: Num[Array, "batch ..."] | Bool[Array, "batch ..."], mask: Bool[Array, "batch ..."]
) -> Float[Array, ""]:
    """The mean of the values where the mask holds, or 0 where it holds nowhere.

    Args:
      values: numbers `(batch, ...)`; bool counts as 0 and 1.
      mask: bool `(batch,)`, or of as many leading axes of `values` as it has axes.

    Returns:
      A scalar, float32 (float64 of float64). See `masked_sum_count` for gradients.

    Raises:
      TypeError: if the mask is not bool.
      ValueError: if the shape of the mask is not that of the leading axes of `values`.

    >>> masked_mean(jnp.float32([1, 2, jnp.nan]), jnp.array([True, True, False])).item()
    1.5
    """
    total, count = masked_sum_count(values, mask)
    if not jnp.issubdtype(total.dtype, jnp.inexact):
        total = total.astype(jnp.float32)
    return total / jnp.maximum(count, 1).astype(total.dtype)


def masked_accuracy(
    logits: Float[Array, "batch ... classes"],
    labels: Shaped[Array, "batch ..."],
    mask: Bool[Array, "batch ..."],
) -> Float[Array, ""]:
    """The fraction of valid predictions that are right, or 0 where none is valid.

    Args:
      logits: scores `(batch, ..., classes)`; the first largest one is the prediction.
      labels: class numbers `(batch, ...)`, or weights of classes like `logits` (one-hot, soft), of
        which the first largest one counts.
      mask: bool `(batch,)`, or of as many leading axes as it has axes.

    Returns:
      A float32 scalar.

    Raises:
      TypeError: if the mask is not bool, or class numbers are not integers.
      ValueError: if shapes do not fit.

    >>> logits = jnp.float32([[2, 1], [0, 3], [9, 0]])
    >>> masked_accuracy(logits, jnp.array([0, 0, 1]), jnp.array([True, True, False])).item()
    0.5
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if logits.ndim > 1 and labels.shape == logits.shape:
        labels = jnp.argmax(labels, axis=-1)
    elif logits.ndim < 2 or labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels must have shape {logits.shape[:-1]} (class numbers) or {logits.shape} "
            f"(weights of classes) for logits of shape {logits.shape}, got {labels.shape}"
        )
    elif not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers to be class numbers, got {labels.dtype}")
    predicted = jnp.argmax(logits, axis=-1)
    return masked_mean(predicted == labels.astype(predicted.dtype), mask)


def fill_padding(tree: PyTree, mask: Bool[Array, "batch"], value: float = 0) -> PyTree:
    """Replaces what stands in padding.

    A loss whose derivative is infinite or NaN in padding has NaN gradients even when its value is
    masked, because 0 times NaN is NaN. Filling the padding before the loss removes the cause.

    Args:
      tree: pytree of arrays `(batch, ...)`.
      mask: bool `(batch,)`.
      value: the number that padding gets.

    Returns:
      The same with `value` where the mask is False.

    Raises:
      TypeError: if the mask is not bool.
      ValueError: if the shape of the mask is not that of the leading axes of a leaf.

    >>> fill_padding({"x": jnp.float32([1, jnp.nan])}, jnp.array([True, False]))["x"].tolist()
    [1.0, 0.0]
    """

    def fill(leaf: Any) -> jax.Array:
        leaf, kept = _kept(leaf, mask)
        return jnp.where(kept, leaf, jnp.asarray(value, leaf.dtype))

    return jax.tree.map(fill, tree)


def _kept(values: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
    """The values as an array, and the mask with as many axes."""
    values = jnp.asarray(values)
    if jnp.result_type(mask) != jnp.bool_:
        raise TypeError(f"mask must be bool, got {jnp.result_type(mask)}; pass batch.valid_mask")
    shape = np.shape(mask)
    if not shape or values.shape[: len(shape)] != shape:
        raise ValueError(
            f"mask must have the shape of the leading axes of values, {values.shape}, got {shape}"
        )
    return values, jnp.reshape(mask, shape + (1,) * (values.ndim - len(shape)))


def _accumulator(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, jnp.inexact):
        return dtype if dtype.itemsize >= 4 else jnp.float32
    wide = jnp.uint32 if jnp.issubdtype(dtype, jnp.unsignedinteger) else jnp.int32
    return dtype if dtype.itemsize > 4 else wide
