"""The rules of batch specs, which `BatcherModule` and `datarax.batching` share."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_map_with_path

from datarax.core.element_batch import RESERVED_FIELD
from datarax.core.specs import as_leaf


def require_batch_size(batch_size: Any, name: str = "batch_size") -> int:
    """Returns the number as an `int`.

    Raises:
      ValueError: if it is not a positive integer.
    """
    try:
        size = 0 if isinstance(batch_size, bool) else index(batch_size)
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(f"{name} must be a positive integer, got {batch_size!r}")
    return size


def canonical_dtype(dtype: Any) -> Any:
    """The dtype that JAX computes with: 64-bit types narrowed unless `jax_enable_x64` is set."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return dtype
    return jax.dtypes.canonicalize_dtype(np.dtype(dtype).newbyteorder("="))


def leaf_spec(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
    """The spec of an array, a number or another spec, with its canonical dtype.

    Raises:
      TypeError: for anything else; `name` says which.
      ValueError: for an integer that does not fit its canonical dtype.
    """
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        leaf = as_leaf(name, leaf)
    return jax.ShapeDtypeStruct(leaf.shape, canonical_dtype(leaf.dtype))


def require_fields(name: str, tree: Any) -> Mapping[str, Any]:
    """Returns the tree if it is a dict of at least one leaf that leaves the mask's name free.

    Raises:
      TypeError: if it is not a dict.
      ValueError: if it has no leaf or a field called `valid_mask`.
    """
    if not isinstance(tree, Mapping):
        raise TypeError(
            f"{name} must be a dict of fields, got {type(tree).__name__}; name the data, for "
            "example {'image': ...}"
        )
    if RESERVED_FIELD in tree:
        raise ValueError(
            f"{name} must not have a field {RESERVED_FIELD!r}, the name under which batches have "
            "their mask; rename the field"
        )
    if not jax.tree.leaves(tree):
        raise ValueError(f"{name} must have at least one leaf, got {tree!r}")
    return tree


def batched_spec(element_spec: Any, batch_size: int) -> dict[str, Any]:
    """`BatcherModule.batch_spec`: `(batch_size,)` before every shape, and a `valid_mask`."""
    size = require_batch_size(batch_size)
    fields = require_fields("element_spec", element_spec)

    def batched(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        one = leaf_spec(f"element_spec{keystr(path)}", leaf)
        return jax.ShapeDtypeStruct((size, *one.shape), one.dtype)

    spec = tree_map_with_path(batched, dict(fields))
    return {**spec, RESERVED_FIELD: jax.ShapeDtypeStruct((size,), np.dtype(bool))}
