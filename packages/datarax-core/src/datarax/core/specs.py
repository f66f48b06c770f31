"""Leaves and specs: what an array of a record or batch may be, its shape and dtype, their text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

Leaf = np.ndarray | jax.Array


def as_leaf(name: str, value: Any) -> Leaf:
    """Returns an array as it is and a number or list as a NumPy array.

    Raises:
      TypeError: if it is not an array of numbers; `name` says which.
      ValueError: if an integer does not fit the type to which JAX narrows 64-bit integers.
    """
    if isinstance(value, jax.Array):
        return value
    array = np.asarray(value)
    # bfloat16 and the like are of kind V, as are structured types, which have names.
    if array.dtype.kind not in "biufcV" or array.dtype.names is not None:
        raise TypeError(
            f"{name} must be an array of numbers, got {type(value).__name__} of dtype "
            f"{array.dtype}; strings and other Python objects belong in metadata"
        )
    _refuse_wrapping(name, array)
    return array


def as_leaves(name: str, tree: Any) -> Any:
    """`as_leaf` over a pytree; errors name the path of the leaf."""
    return tree_map_with_path(lambda path, leaf: as_leaf(name + keystr(path), leaf), tree)


def _refuse_wrapping(name: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8 or array.size == 0:
        return
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    limits = np.iinfo(narrow)
    low, high = array.min(), array.max()
    if low < limits.min or high > limits.max:
        raise ValueError(
            f"{name} has {array.dtype} values from {low} to {high}, which do not fit the {narrow} "
            "to which JAX narrows them; bring them into its range or set jax_enable_x64"
        )


def count_rows(name: str, tree: Any, rows: int | None = None) -> int | None:
    """Returns the length of axis 0, which every leaf must share (None if there is no leaf).

    Raises:
      ValueError: if a leaf is a scalar or has another length, naming its path.
    """
    for path, leaf in tree_leaves_with_path(tree):
        shape = jnp.shape(leaf)
        rows = shape[0] if rows is None and shape else rows
        if not shape or shape[0] != rows:
            expected = "a batch axis" if rows is None else f"{rows} rows on axis 0"
            raise ValueError(f"{name}{keystr(path)} must have {expected}, got shape {shape}")
    return rows


def spec(tree: Any) -> Any:
    """Shapes and dtypes of a pytree's leaves, as `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def spec_text(tree: Any) -> str:
    """One line with the path, dtype and shape of every leaf."""

    def text(leaf: Any) -> str:
        return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"

    if hasattr(tree, "dtype"):
        return text(tree)
    lines = [
        f"{keystr(path, simple=True, separator='.')}: {text(leaf)}"
        for path, leaf in tree_leaves_with_path(tree)
    ]
    return "{" + ", ".join(lines) + "}"


def require_same_spec(name: str, trees: Sequence[Any], kind: str) -> None:
    """Raises a ValueError for the first tree that differs from tree 0 in structure, shape or dtype.

    Args:
      name: what the trees are part of, such as "data".
      trees: pytrees of arrays.
      kind: what one of them is called, such as "record".
    """
    first, structure = jax.tree.flatten(trees[0])
    for number, tree in enumerate(trees[1:], start=1):
        leaves, other = jax.tree.flatten(tree)
        if other != structure:
            raise ValueError(
                f"{name} of {kind} {number} differs in structure from {kind} 0: expected "
                f"{spec_text(trees[0])}, got {spec_text(tree)}; give all of them the same fields"
            )
        for index, (leaf, expected) in enumerate(zip(leaves, first, strict=True)):
            if leaf.shape != expected.shape or leaf.dtype != expected.dtype:
                path = tree_leaves_with_path(tree)[index][0]
                raise ValueError(
                    f"{name}{keystr(path)} of {kind} {number} must be {spec_text(expected)} like "
                    f"{kind} 0, got {spec_text(leaf)}; resize, cast or bucket it first"
                )
