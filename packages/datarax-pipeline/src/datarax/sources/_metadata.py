"""What of a record no array holds: names, texts and other objects, carried as metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.tree_util import DictKey, keystr, tree_leaves_with_path, tree_map_with_path

from datarax.core.element_batch import Element
from datarax.core.specs import as_leaf

# Of NumPy's kinds of dtypes: bytes, objects, strings, times.
_NO_NUMBERS = "SOUTmM"

_NUMBERS = (bool, int, float, complex, np.generic)

_ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__dlpack__")


def with_metadata(record: Any, fields: tuple[str, ...], what: str) -> Element:
    """The record as an `Element`, with the named fields moved from its data to its metadata.

    A list of numbers, as Hugging Face data sets have them, becomes an array.

    Args:
      record: an `Element`, or just its data.
      fields: names of fields; metadata that the record has already must then be a dict.
      what: which record it is, for messages.

    Raises:
      KeyError: if the record lacks a field, listing those it has.
      TypeError: if its data are no dict, or its metadata neither a dict nor None.
    """
    element = _with_arrays(record if isinstance(record, Element) else Element(record), what)
    if not fields:
        return element
    data, metadata = element.data, element.metadata
    if not isinstance(data, Mapping) or not isinstance(metadata, Mapping | None):
        raise TypeError(
            f"metadata_fields={fields} needs records that are dicts, with metadata that is a dict "
            f"or None, but {what} has {type(data).__name__} with {type(metadata).__name__}"
        )
    missing = [name for name in fields if name not in data]
    if missing:
        raise KeyError(f"metadata_fields names {missing}, but {what} has the fields {sorted(data)}")
    moved = {**(metadata or {}), **{name: data[name] for name in fields}}
    kept = {name: value for name, value in data.items() if name not in fields}
    return element.replace(data=kept, metadata=moved)


def _with_arrays(element: Element, what: str) -> Element:
    data = element.data
    # Most records hold arrays and numbers alone, and there are many.
    if isinstance(data, Mapping) and not any(
        isinstance(value, list | tuple | Mapping) for value in data.values()
    ):
        return element

    def read(path: Any, node: Any) -> Any:
        return as_leaf(f"data{keystr(path)} of {what}", node) if _is_numbers(node) else node

    return element.replace(data=tree_map_with_path(read, data, is_leaf=_is_numbers))


def _is_numbers(node: Any) -> bool:
    """Whether it is a list of numbers, or of such lists."""
    if type(node) is not list or not node:
        return False
    return all(isinstance(entry, _NUMBERS) or _is_numbers(entry) for entry in node)


def require_numbers(data: Any, what: str) -> None:
    """Raises a TypeError that names the first leaf that is a text or another object, if any.

    Args:
      data: the data of a record, or columns of many.
      what: what it belongs to, for messages.
    """
    for path, leaf in tree_leaves_with_path(data, is_leaf=_is_empty):
        if isinstance(leaf, np.ndarray | np.generic | jax.Array):
            is_object = leaf.dtype.kind in _NO_NUMBERS
        else:
            is_object = not isinstance(leaf, int | float | complex) and not any(
                hasattr(leaf, protocol) for protocol in _ARRAY_PROTOCOLS
            )
        if is_object:
            names = tuple(step for step in path if isinstance(step, DictKey))
            field = names[0].key if names else "..."
            raise TypeError(
                f"data{keystr(names)} must be an array of numbers, but in {what} it is "
                f"{type(leaf).__name__} {_short(leaf)}; metadata_fields=({field!r},) carries it as "
                "metadata"
            )


def _is_empty(node: Any) -> bool:
    return node is None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
