"""Waiting records as nested dicts of arrays, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from datarax.core.element_batch import Element

# Marks the words of a random key; the rest of the name is its implementation.
_KEY = "random key: "


def json_array(value: Any) -> np.ndarray:
    """JSON text as uint8.

    Raises:
      TypeError: if JSON has no text for the value.
    """
    return np.frombuffer(json.dumps(value).encode(), np.uint8).copy()


def _json_value(array: Any) -> Any:
    return json.loads(np.asarray(array, np.uint8).tobytes().decode())


def encoded_records(elements: Sequence[Element], numbers: Sequence[int]) -> dict[str, Any]:
    """Records with their numbers.

    Raises:
      TypeError: for records that cannot be saved.
    """
    records = {}
    for position, (element, number) in enumerate(zip(elements, numbers, strict=True)):
        record = {"data": _encoded(f"data of record {number}", element.data)}
        if jax.tree.leaves(element.state):
            record["state"] = _encoded(f"state of record {number}", element.state)
        if element.metadata is not None:
            try:
                record["metadata"] = json_array(element.metadata)
            except TypeError:
                raise TypeError(
                    f"metadata of record {number}, which waits for a batch, cannot be saved as "
                    f"JSON: {type(element.metadata).__name__}; use strings, numbers and "
                    "lists"
                ) from None
        records[str(position)] = record
    return {"numbers": np.asarray(numbers, np.int64), "records": records}


def _encoded(name: str, tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _encoded(f"{name}[{key!r}]", child) for key, child in tree.items()}
    if not jax.tree_util.all_leaves([tree]):
        raise TypeError(
            f"{name}, which waits for a batch, can be saved if it is made of nested dicts, got "
            f"{type(tree).__name__}"
        )
    if isinstance(tree, jax.Array) and jnp.issubdtype(tree.dtype, jax.dtypes.prng_key):
        return {_KEY + str(jax.random.key_impl(tree)): np.asarray(jax.random.key_data(tree))}
    return tree if isinstance(tree, jax.Array) else np.array(tree)


def _decoded(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    names = list(tree)
    if len(names) == 1 and isinstance(names[0], str) and names[0].startswith(_KEY):
        return jax.random.wrap_key_data(jnp.asarray(tree[names[0]]), impl=names[0][len(_KEY) :])
    return {name: _decoded(child) for name, child in tree.items()}


def checked(
    state: Any, names: tuple[str, ...], mark_count: int
) -> tuple[int, list[str], list[int], dict[str, tuple[list[Element], list[int]]]]:
    """What a stream with these groups saved: records pulled, groups due, marks, waiting records.

    Raises:
      TypeError: if the state is no dict.
      ValueError: if it is not of such a stream.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state must be a dict as get_state() returns it, got {type(state).__name__}"
        )
    required, known = {"pulled", "progress"}, {"pulled", "progress", "groups"}
    if not required <= state.keys() <= known:
        raise ValueError(f"state must have the entries {sorted(known)}, got {sorted(state)}")
    progress, groups = _json_value(state["progress"]), state.get("groups", {})
    due, marks = progress["due"], progress["marks"]
    unknown = sorted({*due, *groups} - set(names))
    if unknown or len(marks) != mark_count:
        raise ValueError(
            f"state is of another batcher: it has records in {unknown}, but there are "
            f"{list(names)}; use the config and batch size that it was saved with"
        )
    return int(state["pulled"]), due, marks, {name: _records(name, groups[name]) for name in groups}


def _records(name: str, group: Mapping[str, Any]) -> tuple[list[Element], list[int]]:
    numbers, records = np.asarray(group["numbers"]).tolist(), group["records"]
    if sorted(records, key=int) != [str(position) for position in range(len(numbers))]:
        raise ValueError(f"state has {len(records)} records in {name!r}, expected {len(numbers)}")
    elements = []
    for position in range(len(numbers)):
        record = records[str(position)]
        metadata = record.get("metadata")
        elements.append(
            Element(
                _decoded(record["data"]),
                _decoded(record.get("state", {})),
                None if metadata is None else _json_value(metadata),
            )
        )
    return elements, numbers
