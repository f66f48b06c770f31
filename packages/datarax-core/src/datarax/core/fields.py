"""Fields of nested dicts by dotted path: `"inputs.image"` is `data["inputs"]["image"]`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

import jax


def get_field(tree: Any, path: str) -> Any:
    """Returns the field at a dotted path; a field whose own name has dots is found first.

    Raises:
      KeyError: listing the fields that there are, if it is not there.
    """
    node, rest = tree, path
    while isinstance(node, Mapping):
        if rest in node:
            return node[rest]
        head, dot, rest = rest.partition(".")
        if not dot or head not in node:
            break
        node = node[head]
    raise KeyError(f"data has no field {path!r}; there are {field_paths(tree)}")


def put_field(tree: Any, path: str, value: Any) -> dict[str, Any]:
    """Returns a copy with the field at a dotted path set; levels that are missing are made.

    Raises:
      TypeError: if a level on the way is not a dict.
    """
    if not isinstance(tree, Mapping):
        raise TypeError(
            f"field {path!r} must be written into a dict, got {type(tree).__name__}; use a dict of "
            "fields, or a target_key whose levels are dicts"
        )
    head, dot, rest = path.partition(".")
    if not dot or path in tree:
        return {**tree, path: value}
    return {**tree, head: put_field(tree.get(head, {}), rest, value)}


def field_paths(tree: Any) -> list[str]:
    """The dotted paths of all fields."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for name, value in node.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    return list(walk(tree, "")) if isinstance(tree, Mapping) else []


class DottedFields(dict[str, Any]):
    """A dict of fields that can also be read by dotted path."""

    def __missing__(self, path: str) -> Any:
        return get_field(dict(self), path)


def _children(fields: DottedFields) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    names = tuple(fields)
    return [(jax.tree_util.DictKey(name), fields[name]) for name in names], names


def _rebuilt(names: Hashable, children: Iterable[Any]) -> DottedFields:
    assert isinstance(names, tuple)
    return DottedFields(zip(names, children, strict=True))


jax.tree_util.register_pytree_with_keys(DottedFields, _children, _rebuilt)
