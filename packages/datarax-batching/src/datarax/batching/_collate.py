"""Collating: the arrays of many records into one array, a row for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import length_hint
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from datarax.batching._copying import write_rows
from datarax.batching._layout import all_of_type
from datarax.batching._memory import Memory
from datarax.batching._padding import PadValue, fill_rows, padding_rows
from datarax.core._batch_spec import canonical_dtype

# Subclasses of arrays are looked at one by one: they may be masked.
_NUMBERS = (bool, int, float, complex, np.generic)


@dataclass(frozen=True)
class Leaf:
    """A leaf that all records have.

    Args:
      path: where it is, for messages.
      spec: what it is in each record, with its canonical dtype.
      padding: what padding holds.
      memory: where batches of it are.
    """

    path: str
    spec: jax.ShapeDtypeStruct
    padding: PadValue
    memory: Memory


class UnlikeError(Exception):
    """A column is not plainly alike; which record is wrong, if any, has to be looked up."""


def collate(leaf: Leaf, column: Sequence[Any], rows: int) -> Any:
    """Copies a column into one array of `rows` rows, the rest of it padding.

    Args:
      leaf: what each of the column should be.
      column: that leaf of each record, at most `rows`.
      rows: rows of the result.

    Returns:
      A NumPy array; a JAX array if the leaves are.

    Raises:
      UnlikeError: if one is something else.
      ValueError: if the pad value does not fit.
    """
    if all_of_type(column, np.ndarray):
        return _joined(leaf, column, rows) if leaf.spec.shape else _numbers(leaf, column, rows)
    if _has_device_arrays(column):
        return _on_device(leaf, column, rows)
    kind = type(column[0])
    if leaf.spec.shape or not issubclass(kind, _NUMBERS) or not all_of_type(column, kind):
        raise UnlikeError
    return _numbers(leaf, column, rows)


def collate_checked(leaf: Leaf, column: Sequence[Any], rows: int) -> Any:
    """The same for arrays of any origin that are known to fit, one after the other."""
    if _has_device_arrays(column):
        return _on_device(leaf, column, rows)
    out = _array(leaf, rows)
    for row, array in enumerate(column):
        out[row] = array
    return _padded(leaf, out, len(column))


def _array(leaf: Leaf, rows: int) -> np.ndarray:
    return leaf.memory.empty((rows, *leaf.spec.shape), leaf.spec.dtype)


def _padded(leaf: Leaf, out: np.ndarray, count: int) -> np.ndarray:
    if count < len(out):
        fill_rows(leaf.path, out, count, leaf.padding)
    return out


def _joined(leaf: Leaf, column: Sequence[np.ndarray], rows: int) -> np.ndarray:
    count, spec, dtype = len(column), leaf.spec, column[0].dtype
    # Lengths first: a quick pass that brings what the shapes need into the cache.
    if list(map(length_hint, column)).count(spec.shape[0]) != count:
        raise UnlikeError
    if [array.shape for array in column].count(spec.shape) != count:
        raise UnlikeError
    if [array.dtype for array in column].count(dtype) != count:
        raise UnlikeError
    out = _array(leaf, rows)
    if dtype == spec.dtype:
        write_rows(out, column)
    else:
        _copy_narrowed(out[:count], np.stack(column))
    return _padded(leaf, out, count)


def _numbers(leaf: Leaf, column: Sequence[Any], rows: int) -> np.ndarray:
    try:
        values = np.array(column)
    except (OverflowError, TypeError, ValueError):
        raise UnlikeError from None
    if values.shape != (len(column),):
        raise UnlikeError
    out = _array(leaf, rows)
    _copy_narrowed(out[: len(column)], values)
    return _padded(leaf, out, len(column))


def _copy_narrowed(out: np.ndarray, values: np.ndarray) -> None:
    """Copies, and raises `UnlikeError` if the dtype is another one or a value does not fit it."""
    if values.dtype == out.dtype:
        out[...] = values
        return
    if values.dtype.kind not in "biufc" or canonical_dtype(values.dtype) != out.dtype:
        raise UnlikeError
    if values.dtype.kind in "iu" and values.itemsize > out.itemsize and values.size:
        limits = np.iinfo(out.dtype)
        if values.min() < limits.min or values.max() > limits.max:
            raise UnlikeError
    with np.errstate(over="raise"):
        try:
            out[...] = values
        except FloatingPointError:
            raise UnlikeError from None


def _has_device_arrays(column: Sequence[Any]) -> bool:
    each_kind = {type(leaf): leaf for leaf in column}
    return any(isinstance(leaf, jax.Array) for leaf in each_kind.values())


def _on_device(leaf: Leaf, column: Sequence[Any], rows: int) -> Any:
    if all(map(_is_in_host_memory, column)):
        # Aligned memory becomes a device array as it is.
        return jnp.asarray(collate(leaf, list(map(np.asarray, column)), rows))
    arrays = [jnp.asarray(array) for array in column]
    if any(a.shape != leaf.spec.shape or a.dtype != leaf.spec.dtype for a in arrays):
        raise UnlikeError
    stacked = jnp.stack(arrays)
    if len(column) < rows:
        rest = padding_rows(leaf.path, stacked, rows - len(column), leaf.padding)
        stacked = jnp.concatenate([stacked, rest])
    return stacked


def _is_in_host_memory(leaf: Any) -> bool:
    """Whether NumPy can read it without a transfer, and JAX would put it back in the same place."""
    if not isinstance(leaf, jax.Array):
        return True
    if isinstance(leaf, Tracer) or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return False
    first = jax.devices()[0]
    return first.platform == "cpu" and leaf.sharding.device_set == {first}
