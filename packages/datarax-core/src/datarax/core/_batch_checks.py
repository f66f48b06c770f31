"""What makes the fields of a `Batch` fit each other, and a line about them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from datarax.core import specs
from datarax.core._element import Element

if TYPE_CHECKING:
    from datarax.core.element_batch import Batch


def all_valid(rows: int) -> np.ndarray | jax.Array:
    """The mask of a batch without padding, which has to be traced where rows are a symbol."""
    return _all_valid(rows) if isinstance(rows, int) else jnp.ones(rows, bool)


@functools.lru_cache(256)
def _all_valid(rows: int) -> np.ndarray:
    return read_only(np.ones(rows, bool))


def read_only(array: np.ndarray) -> np.ndarray:
    """The array, which belongs to a value and must not change from now on."""
    array.flags.writeable = False
    return array


def as_mask(mask: Any) -> np.ndarray | jax.Array:
    """The mask as an array; raises a TypeError if it is not bool."""
    array = (
        mask if isinstance(mask, jax.Array) else np.asarray(specs.without_mask("valid_mask", mask))
    )
    if array.dtype != np.bool_:
        raise TypeError(f"valid_mask must be bool, got {array.dtype}; compare, as in mask != 0")
    return array


def narrowed(old: Any, new: Any) -> np.ndarray | jax.Array:
    """The new mask, which must not turn padding into records."""
    new = as_mask(new)
    if isinstance(old, Tracer) or isinstance(new, Tracer):
        return old & new
    if new.shape == old.shape and (wrong := np.asarray(new) & ~np.asarray(old)).any():
        raise ValueError(
            f"valid_mask must not turn padding into records, but rows {np.flatnonzero(wrong)} were "
            "padding; make a new batch with Batch.from_arrays"
        )
    return new


def as_uint32(name: str, value: Any) -> Any:
    """Integers from 0 to 2**32 - 1 as uint32; None stays None."""
    value = specs.without_mask(name, value)
    if value is None or getattr(value, "dtype", None) == np.uint32:
        return value
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if isinstance(array, Tracer):
        return array.astype(jnp.uint32)
    host = np.asarray(array)
    if host.size and not 0 <= host.min() <= host.max() < 2**32:
        raise ValueError(
            f"{name} must lie between 0 and 2**32 - 1, got {host.min()} to {host.max()}"
        )
    if isinstance(array, jax.Array):
        return array.astype(jnp.uint32)
    return read_only(host.astype(np.uint32))


def as_entries(metadata: Any) -> tuple[Any, ...] | None:
    """Metadata as a tuple with an entry a row; None stays None."""
    if metadata is None:
        return None
    if isinstance(metadata, np.ndarray) and metadata.ndim:
        return tuple(metadata.tolist() if metadata.ndim == 1 else metadata)
    if isinstance(metadata, str) or not isinstance(metadata, Sequence):
        raise TypeError(
            "metadata must be a sequence with one entry a row, got "
            f"{type(metadata).__name__}; use batch_metadata for what concerns the whole batch"
        )
    return tuple(metadata)


def check_lengths(batch: Batch, rows: int) -> None:
    """Raises a ValueError for the first field that does not have this many rows."""
    specs.count_rows("data", batch.data, rows)
    specs.count_rows("states", batch.states, rows)
    for name in ("valid_mask", "record_index", "view"):
        value = getattr(batch, name)
        if value is not None and jnp.shape(value) != (rows,):
            raise ValueError(f"{name} must have shape ({rows},), got {jnp.shape(value)}")
    if batch.epoch is not None and jnp.shape(batch.epoch) != ():
        raise ValueError(f"epoch must be a scalar, got shape {jnp.shape(batch.epoch)}")
    if batch.metadata is not None and len(batch.metadata) != rows:
        raise ValueError(
            f"metadata must have one entry for each of the {rows} rows, got {len(batch.metadata)}"
        )


def require_joinable(batches: Sequence[Batch]) -> None:
    """Raises a ValueError unless the batches can be one; says which one and why."""
    if not batches:
        raise ValueError("batches must hold at least one Batch, got none")
    for name in ("data", "states"):
        records = [jax.tree.map(_record_spec, getattr(batch, name)) for batch in batches]
        specs.require_same_spec(name, records, "batch")
    for name in ("record_index", "view", "metadata"):
        without = [n for n, batch in enumerate(batches) if getattr(batch, name) is None]
        if without and len(without) < len(batches):
            raise ValueError(
                f"{name} must be there in all batches or in none, but batches {without} have none; "
                f"add it to them or drop it with replace({name}=None)"
            )
    for name in ("epoch", "batch_state", "batch_metadata"):
        for number, batch in enumerate(batches):
            if not _equal(getattr(batches[0], name), getattr(batch, name)):
                raise ValueError(
                    f"{name} must be the same in all batches, but batch {number} differs from "
                    f"batch 0; make it the same first, for example with replace({name}=...)"
                )


def _record_spec(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def _equal(left: Any, right: Any) -> bool:
    left_leaves, left_structure = jax.tree.flatten(left)
    right_leaves, right_structure = jax.tree.flatten(right)
    return left_structure == right_structure and all(
        a is b or bool(np.all(a == b)) for a, b in zip(left_leaves, right_leaves, strict=True)
    )


def require_elements(elements: list[Any]) -> None:
    """Raises unless these are `Element`s, at least one."""
    if not elements:
        raise ValueError("elements must hold at least one Element, got none")
    for number, element in enumerate(elements):
        if not isinstance(element, Element):
            raise TypeError(
                f"elements[{number}] must be an Element, got {type(element).__name__}; "
                "wrap it: Element(data)"
            )


def require_mask_of(rows: int, mask: Any) -> None:
    """Raises a ValueError unless the mask is bool `(rows,)`."""
    if jnp.result_type(mask) != jnp.bool_ or jnp.shape(mask) != (rows,):
        raise ValueError(
            f"mask must be bool of shape ({rows},), got {jnp.result_type(mask)} of shape "
            f"{jnp.shape(mask)}"
        )
