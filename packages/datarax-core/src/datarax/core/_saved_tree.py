"""A state as a tree that can be written: named branches, arrays, and values that JSON holds.

`described` takes a state apart and `rebuilt` puts it together again, into the containers that the
present state has. Between the two, a tree knows of no container: branches have names, so that parts
of it can be picked and exchanged by path.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np

from datarax.core._leaves import implementation, is_key, words

Path = tuple[str, ...]


@dataclass(frozen=True)
class Branch:
    """A container: "dict", "list", "tuple", or the name of another type that is a pytree."""

    kind: str
    children: Mapping[str, Saved]


@dataclass(frozen=True)
class Leaf:
    """A value: an "array", the words of a "key", or what JSON can hold, a "value" or "bytes".

    `local` marks an array that is this process's alone, one of several. In a description that was
    read, an array is a `jax.ShapeDtypeStruct`, and `checksum` that of its bytes, if one process had
    them all.
    """

    kind: str
    value: Any
    implementation: str | None = None
    local: bool = False
    checksum: int | None = None


Saved = Branch | Leaf


def described(owner: str, state: Any, path: Path = ()) -> Saved:
    """Takes a state apart.

    Args:
      owner: what the errors call what it belongs to.
      state: arrays, typed random keys, numbers, strings, bytes and None, in dicts, lists, tuples
        and other pytrees.
      path: where in the state of the owner this is.

    Raises:
      TypeError: if a leaf is of another type, or the name of an entry no string.
    """
    if isinstance(state, Mapping):
        wrong = [name for name in state if not isinstance(name, str)]
        if wrong:
            raise TypeError(
                f"state of {owner}: names must be strings, got {wrong[0]!r} at "
                f"{'/'.join(path)!r}; use str({wrong[0]!r})"
            )
        children = {name: described(owner, child, (*path, name)) for name, child in state.items()}
        return Branch("dict", children)
    if state is not None and not jax.tree_util.all_leaves([state]):
        children = {
            name: described(owner, child, (*path, name)) for name, child in _children(state)
        }
        return Branch(type(state).__name__, children)
    if isinstance(state, bool | int | float | str | None) and not isinstance(state, np.generic):
        return Leaf("value", state)
    if isinstance(state, bytes) and not isinstance(state, np.generic):
        return Leaf("bytes", b64encode(state).decode())
    array = words(state)
    if isinstance(state, np.ma.MaskedArray) or not _storable(array.dtype):
        raise TypeError(
            f"state of {owner}: {'/'.join(path)!r} is a {type(state).__name__} of dtype "
            f"{array.dtype}, which cannot be saved; use arrays of numbers, str, bytes or None"
        )
    there = isinstance(array, jax.Array) and not array.is_fully_addressable
    local = jax.process_count() > 1 and not there
    if is_key(state):
        return Leaf("key", array, implementation(state), local)
    return Leaf("array", array, local=local)


def _storable(dtype: np.dtype) -> bool:
    # TensorStore has no extended precision.
    return (jnp.issubdtype(dtype, np.number) or dtype == np.bool_) and dtype.char not in "gG"


def _children(container: Any) -> list[tuple[str, Any]]:
    """The entries of a pytree's top level, by name."""
    entries = jax.tree_util.tree_leaves_with_path(
        container, is_leaf=lambda node: node is not container
    )
    return [(jax.tree_util.keystr(path, simple=True), child) for path, child in entries]


def rebuilt(tree: Saved, current: Any) -> Any:
    """Puts a state together again.

    Args:
      tree: with arrays as leaves.
      current: a state that has containers of the types that are wanted; where it lacks one that is
        neither dict, list nor tuple, a dict stands for it.
    """
    if isinstance(tree, Leaf):
        if tree.kind == "key":
            # A host array becomes one that is committed to no device.
            placed = jax.device_put(tree.value) if _on_host(tree.value) else tree.value
            return jax.random.wrap_key_data(placed, impl=tree.implementation)
        return b64decode(tree.value) if tree.kind == "bytes" else tree.value
    there = {} if _is_leaf(current) else dict(_named(current))
    children = {name: rebuilt(child, there.get(name)) for name, child in tree.children.items()}
    if tree.kind == "dict":
        return children
    if tree.kind == type(current).__name__ and list(there) == list(children):
        structure = jax.tree.structure(current, is_leaf=lambda node: node is not current)
        return structure.unflatten(children.values())
    if tree.kind in ("list", "tuple"):
        return (list if tree.kind == "list" else tuple)(children.values())
    return children


def _on_host(array: Any) -> bool:
    return not isinstance(array, jax.Array)


def _is_leaf(node: Any) -> bool:
    return node is None or jax.tree_util.all_leaves([node])


def _named(container: Any) -> Any:
    return container.items() if isinstance(container, Mapping) else _children(container)


def leaves(tree: Saved, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """All leaves of a tree with their paths."""
    if isinstance(tree, Leaf):
        yield path, tree
    else:
        for name, child in tree.children.items():
            yield from leaves(child, (*path, name))


def with_values(tree: Saved, value: Callable[[Path, Leaf], Any], path: Path = ()) -> Saved:
    """The tree with other values in its leaves."""
    if isinstance(tree, Leaf):
        return replace(tree, value=value(path, tree))
    children = {
        name: with_values(child, value, (*path, name)) for name, child in tree.children.items()
    }
    return Branch(tree.kind, children)


def at(tree: Saved, path: Path) -> Saved | None:
    """What is at a path, or None."""
    for name in path:
        if isinstance(tree, Leaf) or name not in tree.children:
            return None
        tree = tree.children[name]
    return tree


def find(state: Any, path: Path) -> Any:
    """The array at a path of a state, words of a key; None if there is no leaf."""
    for name in path:
        state = None if _is_leaf(state) else dict(_named(state)).get(name)
    return words(state) if state is not None and _is_leaf(state) else None


def put(tree: Saved, path: Path, value: Saved) -> Saved:
    """The tree with something else at a path."""
    if not path:
        return value
    name, *rest = path
    kind, children = ("dict", {}) if isinstance(tree, Leaf) else (tree.kind, tree.children)
    below = put(children.get(name, Branch("dict", {})), tuple(rest), value)
    return Branch(kind, {**children, name: below})


def picked(tree: Saved, only: tuple[str, ...]) -> Saved:
    """What is at the paths, and nothing else."""
    picked: Saved = Branch("dict", {})
    for path in only:
        value = at(tree, tuple(path.split("/")))
        if value is None:
            there = sorted("/".join(each) for each, _ in leaves(tree))
            raise KeyError(f"no path {path!r} in the checkpoint; there are {there}")
        picked = put(picked, tuple(path.split("/")), value)
    return picked


def exchanged(present: Saved, saved: Saved, only: tuple[str, ...]) -> Saved:
    """The present state with what was saved at the paths."""
    for path in only:
        value = at(saved, tuple(path.split("/")))
        if value is not None:
            present = put(present, tuple(path.split("/")), value)
    return present


def as_json(tree: Saved) -> Any:
    """The description of a tree: its containers and values, dtype and shape of its arrays."""
    if isinstance(tree, Branch):
        return [tree.kind, {name: as_json(child) for name, child in tree.children.items()}]
    if tree.kind in ("value", "bytes"):
        return {"kind": tree.kind, "value": tree.value}
    return {
        "kind": tree.kind,
        "dtype": str(tree.value.dtype),
        "shape": list(tree.value.shape),
        "implementation": tree.implementation,
        "local": tree.local,
        "checksum": checksum(tree.value),
    }


def from_json(description: Any) -> Saved:
    """What `as_json` described."""
    if isinstance(description, list):
        kind, children = description
        return Branch(kind, {name: from_json(child) for name, child in children.items()})
    kind = description["kind"]
    if kind in ("value", "bytes"):
        return Leaf(kind, description["value"])
    spec = jax.ShapeDtypeStruct(tuple(description["shape"]), jnp.dtype(description["dtype"]))
    implementation, local = description["implementation"], description["local"]
    return Leaf(kind, spec, implementation, local, description["checksum"])


def checksum(array: Any) -> int | None:
    """CRC-32 of the bytes of an array in C order; None if this process has not all of them."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return None
    return crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
