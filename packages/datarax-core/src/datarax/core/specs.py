"""Leaves and specs: what an array of a record or batch may be, its shape and dtype, their text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

Leaf = np.ndarray | jax.Array

# Arrays of these dtypes need no look at their values.
_READY = frozenset(
    np.dtype(dtype)
    for dtype in (bool, "i1", "i2", "i4", "u1", "u2", "u4", "f2", "f4", "c8", jnp.bfloat16)
)

_WIDE = frozenset(map(np.dtype, ("i8", "u8")))

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def as_leaf(name: str, value: Any) -> Leaf:
    """Returns an array as it is and a number or list as a NumPy array.

    What NumPy can read without a copy, such as a torch tensor on the CPU, stays where it is. Arrays
    in another byte order than the machine's are converted.

    Args:
      name: what it is, for messages.
      value: a NumPy or JAX array, a number, a list of numbers, a tensor of another library.

    Raises:
      TypeError: if it is not an array of numbers of at most 64 bits (128 for complex ones).
      ValueError: if values are masked, or if a number does not fit the type to which JAX narrows
        64-bit ones: an integer out of its range, a finite number that would become infinite.
    """
    if isinstance(value, jax.Array):
        return value
    array = value if type(value) is np.ndarray else _read(name, without_mask(name, value))
    if isinstance(array, jax.Array) or array.dtype in _READY or _has_31_bits(array):
        return array
    if not _holds_numbers(array.dtype):
        raise TypeError(
            f"{name} must be an array of numbers, got {type(value).__name__} of dtype "
            f"{array.dtype}; {_remedy(array.dtype)}"
        )
    if not array.dtype.isnative:
        # JAX would take the bytes as they are once it knows the shape.
        array = array.astype(array.dtype.newbyteorder("="))
    _require_fit(name, array)
    return array


def as_leaves(name: str, tree: Any) -> Any:
    """`as_leaf` over a pytree; errors name the path of the leaf. A list of numbers is one leaf."""
    leaves, structure = jax.tree.flatten(tree)
    for position, leaf in enumerate(leaves):
        # Paths and conversions only where they are needed: operators do this in every call.
        kind = type(leaf)
        if kind is np.ndarray:
            if leaf.dtype not in _READY:
                leaves[position] = _at(name, tree, position, leaf)
        elif not _is_device_array(kind):
            if isinstance(leaf, _NUMBERS):
                return tree_map_with_path(
                    lambda path, leaf: as_leaf(name + keystr(path), leaf), tree, is_leaf=_is_numbers
                )
            leaves[position] = _at(name, tree, position, leaf)
    return structure.unflatten(leaves)


def rows_of_arrays(fields: dict[str, Any], *, seen: bool = False) -> int | None:
    """The length of axis 0 of all fields, or None unless they are arrays that need no other look.

    Much quicker than `as_leaves` and `count_rows`, which find out what is wrong.

    Args:
      fields: the arrays.
      seen: whether `as_leaf` has looked at each of them.
    """
    rows = None
    for value in fields.values():
        kind = type(value)
        if kind is np.ndarray:
            if not seen and value.dtype not in _READY and not _has_31_bits(value):
                return None
        elif not _is_device_array(kind):
            return None
        shape = value.shape
        if not shape or (rows is not None and shape[0] != rows):
            return None
        rows = shape[0]
    return rows


_NUMBERS = (bool, int, float, complex, np.generic)


def _is_numbers(node: Any) -> bool:
    """Whether it is a list of numbers, or of such lists."""
    return (
        type(node) is list
        and bool(node)
        and all(isinstance(item, _NUMBERS) or _is_numbers(item) for item in node)
    )


@cache
def _is_device_array(kind: type) -> bool:
    return issubclass(kind, jax.Array)


def _at(name: str, tree: Any, position: int, leaf: Any) -> Leaf:
    """`as_leaf` of a pytree's leaf, whose path is made only for an error."""
    try:
        return as_leaf(name, leaf)
    except (TypeError, ValueError):
        path = tree_leaves_with_path(tree)[position][0]
        as_leaf(name + keystr(path), leaf)
        raise


def without_mask(name: str, value: Any) -> Any:
    """A NumPy masked array as a plain one, and anything else as it is.

    Raises:
      ValueError: if values are masked.
    """
    if np.ma.is_masked(value):
        raise ValueError(
            f"{name} is a masked array with masked entries, and a plain array would hold whatever "
            "lies under the mask; fill them with array.filled(...), and give the mask as a field "
            "of its own"
        )
    return value.data if isinstance(value, np.ma.MaskedArray) else value


def _read(name: str, value: Any) -> Leaf:
    """The value as a NumPy array, or as a JAX one if NumPy has no such dtype or device."""
    try:
        return np.asarray(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        reason = error
    if getattr(value, "requires_grad", False):
        raise TypeError(
            f"{name} is a {type(value).__name__} that requires gradients, which do not pass from "
            "another library; give tensor.detach()"
        ) from reason
    if hasattr(value, "__dlpack__"):
        try:
            array = jnp.from_dlpack(value)
        except Exception as error:
            reason = error
        else:
            return np.asarray(array) if _is_on_cpu(array) else array
    raise TypeError(
        f"{name} must be an array of numbers, got {type(value).__name__}, which cannot be read as "
        f"one ({reason}); convert it to a NumPy array"
    ) from reason


def _is_on_cpu(array: jax.Array) -> bool:
    return all(device.platform == "cpu" for device in array.devices())


@cache
def _holds_numbers(dtype: np.dtype) -> bool:
    """Whether JAX has the dtype, or one of half its width."""
    if dtype.names is not None or dtype.kind not in "biufcV":
        return False
    if dtype.kind == "V":
        # bfloat16 and the like; not plain bytes.
        return jnp.issubdtype(dtype, np.number)
    return dtype.itemsize <= (16 if dtype.kind == "c" else 8)


def _remedy(dtype: np.dtype) -> str:
    if dtype.names is not None:
        return "make each of its parts a field of its own: {'x': array['x'], ...}"
    if dtype.kind == "V":
        return "view the bytes as numbers: array.view(np.uint8)"
    if dtype.kind in "fc":
        return "cast it with array.astype(np.float32)"
    if dtype.kind in "mM":
        return "make it a number, such as array.astype('datetime64[s]').astype(np.int32)"
    return "strings and other Python objects belong in metadata"


def _require_fit(name: str, array: np.ndarray) -> None:
    """Raises a ValueError if a value is not one any more once JAX has narrowed it."""
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if narrow == array.dtype or array.size == 0:
        return
    if array.dtype.kind in "iu":
        limits = np.iinfo(narrow)
        low, high = np.minimum.reduce(array, None), np.maximum.reduce(array, None)
        if low < limits.min or high > limits.max:
            raise ValueError(
                f"{name} has {array.dtype} values from {low} to {high}, which do not fit the "
                f"{narrow} to which JAX narrows them; bring them into its range or set "
                "jax_enable_x64"
            )
        return
    parts = (np.real(array), np.imag(array)) if array.dtype.kind == "c" else (array,)
    if not all(_stays_finite(part) for part in parts):
        raise ValueError(
            f"{name} has finite values beyond {narrow}, to which JAX narrows it; scale it or set "
            "jax_enable_x64"
        )


def _has_31_bits(array: np.ndarray) -> bool:
    """Whether these are integers of 64 bits from 0 to 2**31 - 1, as labels are, in one pass."""
    return array.dtype in _WIDE and 0 <= int(np.bitwise_or.reduce(array, None)) < 2**31


def _stays_finite(array: np.ndarray) -> bool:
    """Whether every finite float64 value is a finite float32 one."""
    limit = _FLOAT32_MAX
    if np.minimum.reduce(array, None) >= -limit and np.maximum.reduce(array, None) <= limit:
        return True
    # NaN, infinite, or beyond, where what is close enough is rounded down.
    with np.errstate(all="ignore"):
        return bool(np.array_equal(np.isfinite(array), np.isfinite(array.astype(np.float32))))


def count_rows(name: str, tree: Any, rows: int | None = None) -> int | None:
    """Returns the length of axis 0, which every leaf must share (None if there is no leaf).

    Raises:
      ValueError: if a leaf is a scalar or has another length, naming its path.
    """
    for position, leaf in enumerate(jax.tree.leaves(tree)):
        shape = jnp.shape(leaf)
        rows = shape[0] if rows is None and shape else rows
        if not shape or shape[0] != rows:
            path = keystr(tree_leaves_with_path(tree)[position][0])
            expected = "a batch axis" if rows is None else f"{rows} rows on axis 0"
            raise ValueError(f"{name}{path} must have {expected}, got shape {shape}")
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
