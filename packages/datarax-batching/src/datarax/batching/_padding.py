"""Padding: rows that fill up a batch and are not records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from datarax.batching._memory import aligned_empty
from datarax.batching._transfers import transferring
from datarax.core._batch_spec import require_batch_size
from datarax.core.element_batch import Batch

PadValue = int | float | complex | Literal["last"]
PadValues = PadValue | Mapping[str, PadValue] | tuple[tuple[str, PadValue], ...]


def frozen_pad_values(name: str, values: Any) -> PadValue | tuple[tuple[str, PadValue], ...]:
    """A pad value as it is; pad values by field as a sorted tuple of pairs, which can be hashed.

    Raises:
      TypeError: for anything else.
      ValueError: for a string other than "last".
    """
    if isinstance(values, Mapping):
        values = tuple(values.items())
    if not isinstance(values, tuple):
        return _checked_value(name, values)
    pairs = []
    for pair in values:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"{name} must map field names to pad values, got {pair!r}")
        pairs.append((pair[0], _checked_value(f"{name}[{pair[0]!r}]", pair[1])))
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


def _checked_value(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if value != "last":
            raise ValueError(
                f"{name} must be a number or 'last' (repeat the last record), got {value!r}"
            )
        return value
    if not isinstance(value, complex | int | float | np.generic):
        raise TypeError(
            f"{name} must be a number or 'last' (repeat the last record), or a dict of these by "
            f"field, got {type(value).__name__} {value!r}"
        )
    return value


def values_by_leaf(tree: Any, values: Any) -> list[PadValue]:
    """The pad value of each leaf: that of the longest dotted path at or above it, or 0.

    Raises:
      KeyError: for a path that is not there, listing those that are.
    """
    if not isinstance(values, tuple):
        return [values] * len(jax.tree.leaves(tree))
    given = dict(values)
    paths = [keystr(path, simple=True, separator=".") for path, _ in tree_leaves_with_path(tree)]
    for name in given:
        if not any(path == name or path.startswith(f"{name}.") for path in paths):
            raise KeyError(f"pad_values names the field {name!r}, but there are {paths}")
    return [at_or_above(path, given, 0) for path in paths]


def at_or_above(path: str, given: Mapping[str, Any], default: Any) -> Any:
    """The value given for a dotted path, or for the nearest path above it."""
    steps = path.split(".")
    above = [".".join(steps[:depth]) for depth in range(len(steps), 0, -1)]
    return next((given[name] for name in above if name in given), default)


def pad_value(name: str, value: PadValue, dtype: Any) -> np.ndarray:
    """The value as a scalar of this dtype.

    Raises:
      ValueError: if the dtype cannot hold it.
    """
    with np.errstate(all="ignore"):
        wide = np.asarray(value)
        scalar = wide.astype(dtype)
        same = scalar == wide if dtype.kind in "biu" else np.isfinite(scalar) == np.isfinite(wide)
    if not same or (wide.dtype.kind == "c" and np.dtype(dtype).kind != "c"):
        raise ValueError(
            f"pad_values of {name} must fit its dtype {dtype}, got {value!r}; give a value that "
            "does, or 'last'"
        )
    return scalar


def require_pad_value(name: str, value: PadValue, dtype: Any) -> None:
    """Raises a ValueError if padding of this dtype cannot hold the value."""
    if value == "last":
        return
    if not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        pad_value(name, value, dtype)
    elif value != 0:
        raise ValueError(
            f"pad_values of {name}, random keys, must be 0 (keys of zeros) or 'last', got {value!r}"
        )


def fill_rows(name: str, out: np.ndarray, rows: int, value: PadValue) -> None:
    """Writes padding to the rows of a host array from number `rows` on."""
    if value == "last":
        out[rows:] = out[rows - 1]
    else:
        out[rows:] = pad_value(name, value, out.dtype)


def padding_rows(name: str, leaf: jax.Array, rows: int, value: PadValue) -> jax.Array:
    """`rows` rows of padding for a device array `(batch, ...)` or an array of keys."""
    shape = (rows, *leaf.shape[1:])
    if value == "last":
        return jnp.broadcast_to(leaf[-1:], shape)
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.full(shape, pad_value(name, value, leaf.dtype))
    require_pad_value(name, value, leaf.dtype)
    return jnp.zeros(shape, leaf.dtype)


@transferring
def pad_batch(batch: Batch, batch_size: int, *, pad_values: PadValues = 0) -> Batch:
    """Fills a batch up to `batch_size` rows with padding.

    Args:
      batch: at most `batch_size` rows, on the host or on a device.
      batch_size: rows of the result.
      pad_values: what padding holds: a number, `"last"` (a copy of the last row), or a dict of
        these by dotted field path, where fields that are not named get 0. `states` get 0, or a copy
        of the last row if `pad_values` is `"last"`.

    Returns:
      A batch whose first rows are those of `batch` and whose other rows are invalid, with
      `record_index` and `view` 0 and metadata None. Host arrays stay on the host, in fresh memory.
      A batch that is full already is returned as it is.

    Raises:
      KeyError: if `pad_values` names a field that is not there.
      TypeError: if `batch` is not a `Batch`.
      ValueError: if the batch is too large, a pad value does not fit its field, or there is no last
        row to repeat.

    >>> batch = pad_batch(Batch.from_arrays({"x": np.float32([1, 2])}), 4, pad_values=-1)
    >>> batch["x"].tolist(), batch.valid_mask.tolist()
    ([1.0, 2.0, -1.0, -1.0], [True, True, False, False])
    """
    if not isinstance(batch, Batch):
        raise TypeError(f"batch must be a Batch, got {type(batch).__name__}")
    size, rows = require_batch_size(batch_size), batch.batch_size
    if rows > size:
        raise ValueError(f"batch_size must be at least the {rows} rows of the batch, got {size}")
    values = frozen_pad_values("pad_values", pad_values)
    by_leaf = values_by_leaf(batch.data, values)
    if rows == size:
        return batch
    if rows == 0 and (values == "last" or "last" in by_leaf):
        raise ValueError("pad_values 'last' repeats the last row, but the batch has none; give 0")
    state_value: PadValue = "last" if values == "last" else 0
    states: list[PadValue] = [state_value] * len(jax.tree.leaves(batch.states))
    metadata = batch.metadata
    # Not `batch.replace`, which keeps the number of rows.
    return Batch.from_arrays(
        _padded("data", batch.data, size, by_leaf),
        states=_padded("states", batch.states, size, states),
        valid_mask=_padded("valid_mask", batch.valid_mask, size, [0]),
        record_index=_padded("record_index", batch.record_index, size, [0]),
        view=_padded("view", batch.view, size, [0]),
        epoch=batch.epoch,
        batch_state=batch.batch_state,
        metadata=None if metadata is None else (*metadata, *[None] * (size - rows)),
        batch_metadata=batch.batch_metadata,
    )


def _padded(name: str, tree: Any, size: int, values: Sequence[PadValue]) -> Any:
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    padded = []
    for (path, leaf), value in zip(leaves, values, strict=False):
        where, rows = name + keystr(path), leaf.shape[0]
        if isinstance(leaf, jax.Array):
            rest = padding_rows(where, leaf, size - rows, value)
            padded.append(jnp.concatenate([leaf, rest]))
            continue
        out = aligned_empty((size, *leaf.shape[1:]), leaf.dtype)
        out[:rows] = leaf
        fill_rows(where, out, rows, value)
        padded.append(out)
    return jax.tree.unflatten(structure, padded)
