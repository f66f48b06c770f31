"""Waiting records as nested dicts of arrays, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from datarax.core.element_batch import Element

# Marks the words of a random key; the rest of the name is its implementation.
_KEY = "random key: "

# The errors for which a record is refused.
_ERRORS: dict[str, type[Exception]] = {
    "KeyError": KeyError,
    "TypeError": TypeError,
    "ValueError": ValueError,
}


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


def encoded_error(error: Exception | None) -> list[str] | None:
    """The kind and the message of an error about a record."""
    kind = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), None)
    return None if kind is None else [kind, str(error.args[0]) if error and error.args else ""]


def _decoded_error(saved: list[str] | None) -> Exception | None:
    return None if saved is None else _ERRORS[saved[0]](saved[1])


@dataclass(frozen=True)
class Saved:
    """What a stream saved.

    Args:
      pulled: how many records it had pulled.
      due: groups whose records make smaller batches.
      marks: record numbers that it had to remember.
      groups: records that waited, and their numbers.
      error: what a record was refused for, if it was still to be raised.
    """

    pulled: int
    due: list[str]
    marks: list[int]
    groups: dict[str, tuple[list[Element], list[int]]]
    error: Exception | None


def checked(
    state: Any, may_wait_in: Callable[[str], bool], mark_count: int, config: Mapping[str, str]
) -> Saved:
    """What a stream like this one saved.

    Args:
      state: what `get_state` returned.
      may_wait_in: whether this kind of stream has such a group.
      mark_count: how many marks it has.
      config: what must not have changed of the batcher's config.

    Raises:
      TypeError: if the state is not a dict.
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
    # Version 0.1 saved no config.
    saved = progress.get("config", config)
    changed = [f"{name}={saved.get(name)}" for name in config if saved.get(name) != config[name]]
    unknown = sorted(name for name in {*due, *groups} if not may_wait_in(name))
    if changed or unknown or saved.keys() != config.keys() or len(marks) != mark_count:
        what = f"it has records in {unknown}"
        if changed and not unknown:
            what = f"it was saved with {', '.join(changed)}"
        raise ValueError(
            f"state is of another batcher: {what}; use the config that it was saved with (only the "
            "batch size and the remainder may change)"
        )
    records = {name: _records(name, groups[name]) for name in groups}
    error = _decoded_error(progress.get("error"))
    return Saved(int(state["pulled"]), due, marks, records, error)


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
