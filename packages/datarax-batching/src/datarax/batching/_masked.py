"""Reductions that padding cannot reach."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_map_with_path
from jaxtyping import Array, Bool, Float, Int, Num, PyTree, Shaped

from datarax.batching._padding import pad_value
from datarax.batching._transfers import transferring
from datarax.core.specs import as_leaf

AnyArray = np.ndarray | jax.Array
Values = Num[AnyArray, "batch ..."] | Bool[AnyArray, "batch ..."]
Mask = Bool[AnyArray, "batch ..."]

_MOST_VALUES = 2**31 - 1


@transferring
def masked_sum_count(values: Values, mask: Mask) -> tuple[Num[Array, ""], Int[Array, ""]]:
    """The sum of the values where the mask holds, and how many there are.

    Sums and counts of parts add up: over batches, and over devices with `jax.lax.psum`. Values
    outside the mask influence neither the result nor its gradient, NaN and infinities included;
    where a function before this one has an infinite derivative in padding, clean its input with
    `fill_padding`.

    Args:
      values: numbers `(batch, ...)`; bool counts as 0 and 1.
      mask: bool `(batch,)`, or of the shape of the first axes of `values`.

    Returns:
      The sum, a scalar that cannot wrap around: of bool int32, an exact count; of all other numbers
      float32, as `jnp.mean` adds them up (float64 of 64-bit ones under x64), which is exact for
      integers up to 2**24. The count of values, int32.

    Raises:
      TypeError: if the mask is not bool, or values are not numbers.
      ValueError: if the shape of the mask is not that of the leading axes of `values`, if a host
        array has values that do not fit the type to which JAX narrows it, or for 2**31 values or
        more, whose count would not fit.

    >>> total, count = masked_sum_count(
    ...     jnp.float32([1, 2, jnp.nan]), jnp.array([True, True, False])
    ... )
    >>> total.item(), count.item()
    (3.0, 2)
    """
    values, kept = _kept("values", values, mask)
    if values.size > _MOST_VALUES:
        raise ValueError(
            f"values has {values.size} numbers, whose count does not fit int32; reduce parts of it"
        )
    return _sum(values, kept), jnp.sum(jnp.broadcast_to(kept, values.shape), dtype=jnp.int32)


@transferring
def masked_mean(values: Values, mask: Mask) -> Float[Array, ""]:
    """The mean of the values where the mask holds, or 0 where it holds nowhere.

    Args:
      values: numbers `(batch, ...)`; bool counts as 0 and 1.
      mask: bool `(batch,)`, or of the shape of the first axes of `values`.

    Returns:
      A scalar, float32 (float64 of 64-bit values under x64): with a full mask what `jnp.mean` gives
      of at least float32. See `masked_sum_count` for gradients.

    Raises:
      TypeError: if the mask is not bool, or values are not numbers.
      ValueError: if the shape of the mask is not that of the leading axes of `values`, or if a host
        array has values that do not fit the type to which JAX narrows it.

    >>> masked_mean(jnp.float32([1, 2, jnp.nan]), jnp.array([True, True, False])).item()
    1.5
    """
    values, kept = _kept("values", values, mask)
    total = _sum(values, kept)
    if not jnp.issubdtype(total.dtype, jnp.inexact):
        total = total.astype(jnp.float32)
    # As a float, and without what the mask does not tell apart, lest it wrap.
    each = math.prod(values.shape[axis] for axis, size in enumerate(kept.shape) if size == 1)
    count = jnp.maximum(jnp.sum(kept, dtype=jnp.int32), 1).astype(total.dtype)
    return total / (count * float(max(each, 1)))


@transferring
def masked_accuracy(
    logits: Float[AnyArray, "batch ... classes"],
    labels: Shaped[AnyArray, "batch ..."],
    mask: Mask,
) -> Float[Array, ""]:
    """The fraction of valid predictions that are right, or 0 where none is valid.

    Args:
      logits: scores `(batch, ..., classes)`; the first largest one is the prediction.
      labels: class numbers `(batch, ...)`, or weights of classes like `logits` (one-hot, soft), of
        which the first largest one counts.
      mask: bool `(batch,)`, or of the shape of the first axes of `logits`.

    Returns:
      A float32 scalar.

    Raises:
      TypeError: if the mask is not bool, or class numbers are not integers.
      ValueError: if shapes do not fit.

    >>> logits = jnp.float32([[2, 1], [0, 3], [9, 0]])
    >>> masked_accuracy(logits, jnp.array([0, 0, 1]), jnp.array([True, True, False])).item()
    0.5
    """
    logits, labels = jnp.asarray(as_leaf("logits", logits)), jnp.asarray(as_leaf("labels", labels))
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
    # Unsigned, so that a class that does not exist, such as -1, becomes none that does.
    wide = jnp.uint32 if labels.dtype.itemsize <= 4 else jnp.uint64
    return masked_mean(predicted.astype(wide) == labels.astype(wide), mask)


@transferring
def fill_padding(tree: PyTree, mask: Bool[AnyArray, "batch"], value: float = 0) -> PyTree:
    """Replaces the values in padding.

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
      ValueError: if the shape of the mask is not that of the leading axes of a leaf, or its dtype
        cannot hold the value.

    >>> fill_padding({"x": jnp.float32([1, jnp.nan])}, jnp.array([True, False]))["x"].tolist()
    [1.0, 0.0]
    """

    def fill(path: Any, leaf: Any) -> jax.Array:
        name = "tree" + keystr(path)
        leaf, kept = _kept(name, leaf, mask)
        wanted = value if isinstance(value, jax.Array) else pad_value(name, value, leaf.dtype)
        return jnp.where(kept, leaf, jnp.asarray(wanted, leaf.dtype))

    return tree_map_with_path(fill, tree)


def _kept(name: str, values: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
    """The values as an array, and the mask with as many axes."""
    values = jnp.asarray(as_leaf(name, values))
    mask = as_leaf("mask", mask)
    if mask.dtype != np.bool_:
        raise TypeError(f"mask must be bool, got {mask.dtype}; pass batch.valid_mask")
    shape = mask.shape
    if not shape or values.shape[: len(shape)] != shape:
        raise ValueError(
            f"mask must have the shape of the leading axes of {name}, {values.shape}, got {shape}"
        )
    return values, jnp.reshape(mask, shape + (1,) * (values.ndim - len(shape)))


def _sum(values: jax.Array, kept: jax.Array) -> jax.Array:
    """The sum where the mask holds, of bool as an integer and else as a float."""
    wide = _accumulator(values.dtype)
    return jnp.sum(jnp.where(kept, values.astype(wide), jnp.zeros((), wide)), dtype=wide)


def _accumulator(dtype: Any) -> Any:
    if dtype == np.bool_:
        return jnp.int32
    if jnp.issubdtype(dtype, jnp.inexact):
        return dtype if dtype.itemsize >= 4 else jnp.float32
    return jnp.float32 if dtype.itemsize <= 4 else jnp.float64
