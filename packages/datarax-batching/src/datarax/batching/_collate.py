"""Columns of leaves into one array with a row for each record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from datarax.batching._padding import PadValue, fill_rows, padding_rows

Allocate = Callable[[tuple[int, ...], Any], np.ndarray]


class UnlikeError(Exception):
    """A column is not plainly alike; which record is wrong, if any, has to be looked up."""


def collate(
    path: str,
    column: Sequence[Any],
    spec: jax.ShapeDtypeStruct,
    rows: int,
    value: PadValue,
    allocate: Allocate,
) -> Any:
    """Copies a column into one fresh array of `rows` rows, the rest of it padding.

    Args:
      path: where the leaf is, for messages.
      column: that leaf of each record, at most `rows`.
      spec: what each of them is, with its canonical dtype.
      rows: rows of the result.
      value: what padding holds.
      allocate: makes an array of a shape and a dtype.

    Returns:
      A NumPy array; a JAX array if the leaves are.

    Raises:
      UnlikeError: if a leaf differs from the spec.
      ValueError: if the pad value does not fit.
    """
    kinds = set(map(type, column))
    if kinds != {np.ndarray} and _has_device_arrays(column):
        return _on_device(path, column, spec, rows, value, allocate)
    out = allocate((rows, *spec.shape), spec.dtype)
    fill = _fill_arrays if spec.shape else _fill_numbers
    fill(out[: len(column)], column, kinds)
    if len(column) < rows:
        fill_rows(path, out, len(column), value)
    return out


def collate_checked(
    path: str,
    column: Sequence[Any],
    spec: jax.ShapeDtypeStruct,
    rows: int,
    value: PadValue,
    allocate: Allocate,
) -> Any:
    """The same for arrays of any origin that are known to fit the spec, one after the other."""
    if _has_device_arrays(column):
        return _on_device(path, column, spec, rows, value, allocate)
    out = allocate((rows, *spec.shape), spec.dtype)
    for row, leaf in enumerate(column):
        out[row] = leaf
    if len(column) < rows:
        fill_rows(path, out, len(column), value)
    return out


def _has_device_arrays(column: Sequence[Any]) -> bool:
    each_kind = {type(leaf): leaf for leaf in column}
    return any(isinstance(leaf, jax.Array) for leaf in each_kind.values())


def _fill_arrays(out: np.ndarray, column: Sequence[Any], kinds: set[type]) -> None:
    # Joined along axis 0, which is cheaper than stacking: no view with a new axis for each record.
    # `concatenate` itself checks the number of axes and all but the first.
    length = out.shape[1]
    if kinds != {np.ndarray} or set(map(len, column)) != {length}:
        raise UnlikeError
    flat = out.reshape(-1, *out.shape[2:])
    try:
        if column[0].dtype == out.dtype:
            np.concatenate(column, out=flat, casting="no")
            return
        joined = np.concatenate(column, dtype=column[0].dtype, casting="no")
    except (TypeError, ValueError):
        raise UnlikeError from None
    _copy_narrowed(flat, joined)


def _fill_numbers(out: np.ndarray, column: Sequence[Any], kinds: set[type]) -> None:
    if len(kinds) != 1:
        raise UnlikeError
    if kinds == {np.ndarray} and set(map(np.ndim, column)) != {0}:
        raise UnlikeError
    try:
        joined = np.array(column)
    except (OverflowError, TypeError, ValueError):
        raise UnlikeError from None
    if joined.shape != out.shape:
        raise UnlikeError
    _copy_narrowed(out, joined)


def _copy_narrowed(out: np.ndarray, values: np.ndarray) -> None:
    """Copies, and raises `UnlikeError` if the dtype is another one or a value does not fit it."""
    if jax.dtypes.canonicalize_dtype(values.dtype.newbyteorder("=")) != out.dtype:
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


def _on_device(
    path: str,
    column: Sequence[Any],
    spec: jax.ShapeDtypeStruct,
    rows: int,
    value: PadValue,
    allocate: Allocate,
) -> Any:
    if all(map(_is_in_host_memory, column)):
        # Aligned memory becomes a device array as it is.
        arrays = [np.asarray(leaf) for leaf in column]
        return jnp.asarray(collate(path, arrays, spec, rows, value, allocate))
    arrays = [jnp.asarray(leaf) for leaf in column]
    if any(leaf.shape != spec.shape or leaf.dtype != spec.dtype for leaf in arrays):
        raise UnlikeError
    stacked = jnp.stack(arrays)
    if len(column) < rows:
        rest = padding_rows(path, stacked, rows - len(column), value)
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
