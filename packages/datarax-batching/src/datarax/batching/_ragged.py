"""Fields of unequal length: finding them, and padding them to one length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from datarax.batching._padding import (
    PadValue,
    at_or_above,
    frozen_pad_values,
    pad_value,
    values_by_leaf,
)
from datarax.core._batch_spec import canonical_dtype
from datarax.core.specs import as_leaf


def frozen_numbers(name: str, values: Any) -> Any:
    """`frozen_pad_values` without "last", which steps of a sequence could not mean.

    Raises:
      TypeError: for anything but numbers, or a dict of them by field.
      ValueError: for "last".
    """
    frozen = frozen_pad_values(name, values)
    if frozen == "last" or (isinstance(frozen, tuple) and "last" in dict(frozen).values()):
        raise ValueError(f"{name} must be numbers, got 'last'")
    return frozen


def field_paths(name: str, value: Any) -> tuple[str, ...]:
    """Returns dotted paths as a tuple.

    Raises:
      TypeError: if they are not strings.
      ValueError: if there is none, or one twice.
    """
    if isinstance(value, str) or not all(isinstance(path, str) for path in value):
        raise TypeError(f"{name} must be a tuple of field names, got {value!r}")
    paths = tuple(value)
    if not paths or len(set(paths)) < len(paths):
        raise ValueError(f"{name} must name at least one field, and none twice, got {paths}")
    return paths


def get_field(owner: str, tree: Any, path: str) -> Any:
    """The field at a dotted path.

    Raises:
      KeyError: if there is none, listing those that there are.
    """
    node = tree
    for name in path.split("."):
        if not isinstance(node, Mapping) or name not in node:
            there = [keystr(p, simple=True, separator=".") for p, _ in tree_leaves_with_path(tree)]
            raise KeyError(f"{owner} has no field {path!r}; there are {there}")
        node = node[name]
    return node


def with_field(tree: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted path, whose parents exist."""
    first, _, rest = path.partition(".")
    return {**tree, first: with_field(tree[first], rest, value) if rest else value}


def sequence(owner: str, tree: Any, path: str) -> np.ndarray:
    """The field at a dotted path as a host array, with the dtype that batches have.

    Raises:
      KeyError: if there is none.
      TypeError: if it is not an array of numbers.
      ValueError: if it has no axis, or an integer does not fit.
    """
    field = as_leaf(f"{path!r} of {owner}", get_field(owner, tree, path))
    if not field.shape:
        raise ValueError(f"{path!r} of {owner} must have a length on axis 0, got a scalar")
    return np.asarray(field).astype(canonical_dtype(field.dtype), copy=False)


def padded(array: np.ndarray, length: int, value: np.ndarray | np.generic) -> np.ndarray:
    """The array with axis 0 filled up to a length."""
    out = np.full((length, *array.shape[1:]), value, array.dtype)
    out[: len(array)] = array
    return out


def step_value(name: str, path: str, values: Any, dtype: Any) -> np.ndarray:
    """What padding of the field at this path holds, as a scalar of its dtype.

    Raises:
      ValueError: if the dtype cannot hold it.
    """
    if not isinstance(values, tuple):
        return pad_value(name, values, dtype)
    return pad_value(name, at_or_above(path, dict(values), 0), dtype)


def row_values(data: Any, values: Any, masks: tuple[str, ...]) -> tuple[tuple[str, PadValue], ...]:
    """Pad values for rows of this data: those given, and 0 for masks and random keys.

    Raises:
      KeyError: for a field that is not there.
    """
    by_leaf = values_by_leaf(data, values)
    chosen = {}
    for (path, leaf), value in zip(tree_leaves_with_path(data), by_leaf, strict=True):
        name = keystr(path, simple=True, separator=".")
        is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        chosen[name] = 0 if name in masks or is_key else value
    return tuple(sorted(chosen.items()))
