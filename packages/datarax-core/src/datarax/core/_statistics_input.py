"""What the statistics accept: numeric fields with a batch axis, and the mask beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from datarax.core import specs
from datarax.core._moments import Moments, is_moments
from datarax.core.element_batch import RESERVED_FIELD, Batch, Element


def data_and_mask(data: Any, mask: Any) -> tuple[Any, Any]:
    """The fields of a batch, and the rows that are valid by its own mask and by the one given."""
    if isinstance(data, Element):
        raise TypeError("data must be a batch, got an Element; use Batch.from_elements([element])")
    own = None
    if isinstance(data, Batch):
        data, own = data.data, data.valid_mask
    elif isinstance(data, Mapping) and RESERVED_FIELD in data:
        own = data[RESERVED_FIELD]
        data = {name: value for name, value in data.items() if name != RESERVED_FIELD}
    if isinstance(mask, list | tuple):
        mask = np.asarray(mask)
    given = [each for each in (own, mask) if each is not None]
    for each in given:
        if each.dtype != np.bool_:
            raise TypeError(f"valid_mask must be bool, got {each.dtype}; compare or cast it first")
        if len(each.shape) != 1 or each.shape != given[0].shape:
            raise ValueError(f"valid_mask must have shape (batch,), got {each.shape}")
    return data, given[0] & given[1] if len(given) == 2 else (given or [None])[0]


def field_name(path: Any) -> str:
    """The dotted path of a field; "data" if the data are a single array."""
    return keystr(path, simple=True, separator=".") or "data"


def field_names(tree: Any) -> list[str]:
    return [field_name(path) for path, _ in tree_leaves_with_path(tree, is_leaf=is_moments)]


def shape_and_dtype(name: str, leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of an array or spec of real numbers with a batch axis; bool becomes uint8."""
    leaf = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else specs.as_leaf(name, leaf)
    if not leaf.shape:
        raise ValueError(f"{name} must have a batch axis, got a scalar; add one with [None]")
    if leaf.dtype == np.bool_:
        return leaf.shape, np.dtype(np.uint8)
    if not any(jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.integer, jnp.floating)):
        raise TypeError(f"{name} must be real numbers or bools, got {leaf.dtype}")
    return leaf.shape, leaf.dtype


def reduced_axes(name: str, shape: tuple[int, ...], axes: Any) -> tuple[int, ...]:
    """The axes to reduce, sorted and counted from the front; all for None."""
    if axes is None:
        return tuple(range(len(shape)))
    positive = tuple(sorted(axis + len(shape) if axis < 0 else axis for axis in axes))
    legal = set(positive) <= set(range(len(shape))) and len(set(positive)) == len(positive)
    if not legal or 0 not in positive:
        raise ValueError(
            f"axes of {name} must be different axes of its shape {shape}, the batch axis 0 among "
            f"them, got {tuple(axes)}; give axes for each field in a dict"
        )
    return positive


def matching(name: str, moments: Moments, values: Any, mask: Any) -> Any:
    """The values as an array, if they suit the statistics and the mask."""
    values = specs.as_leaf(name, values)
    shape, dtype = shape_and_dtype(name, values)
    kept = tuple(size for axis, size in enumerate(shape) if axis not in moments.axes)
    expected = jnp.shape(moments.minimum)
    if len(shape) != len(moments.axes) + len(expected) or kept != expected:
        raise ValueError(
            f"{name} must have {len(moments.axes) + len(expected)} axes, of which those other than "
            f"{moments.axes} have sizes {expected}, got shape {shape}"
        )
    if mask is not None and mask.shape[0] != shape[0]:
        raise ValueError(f"valid_mask must have the {shape[0]} rows of {name}, got {mask.shape[0]}")
    if _narrow(dtype) != _narrow(moments.minimum.dtype):
        raise TypeError(
            f"{name} must be {moments.minimum.dtype}, for which the statistics were created, got "
            f"{dtype}; cast it, or create statistics for it"
        )
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def signature(statistics: Any) -> str:
    """Fields, axes, kept sizes and dtypes in one line."""
    return ", ".join(
        f"{field_name(path)}: {_narrow(each.minimum.dtype)}{list(jnp.shape(each.minimum))} "
        f"over axes {each.axes}"
        for path, each in tree_leaves_with_path(statistics.moments, is_leaf=is_moments)
    )


def _narrow(dtype: Any) -> Any:
    # Host arrays may have 64 bits where device arrays have 32; both are the same field.
    return jax.dtypes.canonicalize_dtype(dtype)
