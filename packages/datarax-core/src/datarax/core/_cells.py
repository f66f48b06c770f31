"""The places of a module that hold values: its Variables, and arrays without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
from flax import nnx

from datarax.core._leaves import implementation, is_key, put_in_place

Path = tuple[str, ...]


class Cell(NamedTuple):
    """A place in a module that holds a value."""

    path: Path
    value: Any
    set: Callable[[Any], None]
    statistics: bool = False


def plain_cells(module: nnx.Pytree) -> Iterator[Cell]:
    """The arrays that a module holds without a Variable and that could be replaced."""
    for path, leaf in nnx.to_flat_state(nnx.state(module)):
        if isinstance(leaf, nnx.Variable):
            continue
        *parents, last = path
        holder = reduce(_entry, parents, module)
        if isinstance(holder, list | MutableMapping | nnx.List):
            yield Cell(tuple(map(str, path)), leaf, partial(holder.__setitem__, last))
        elif isinstance(holder, nnx.Pytree):
            yield Cell(tuple(map(str, path)), leaf, partial(setattr, holder, str(last)))


def leaves_of(cell: Cell) -> Iterator[tuple[Path, Any]]:
    """The leaves of a cell's value, each with its path in the state."""
    for subpath, leaf in jax.tree_util.tree_leaves_with_path(cell.value):
        path = cell.path + tuple(_key_name(entry) for entry in subpath)
        yield path + ((implementation(leaf),) if is_key(leaf) else ()), leaf


def rebuilt(current: Any, values: list[tuple[Any, Any]], copy: bool) -> Any:
    leaves = [put_in_place(came, leaf, copy=copy) for came, leaf in values]
    return jax.tree.unflatten(jax.tree.structure(current), leaves)


def _entry(node: Any, name: Any) -> Any:
    """What is at a step of a path; None in containers that JAX alone knows how to open."""
    if isinstance(node, Mapping) or (
        isinstance(name, int) and isinstance(node, list | tuple | nnx.List)
    ):
        return node[name]
    return getattr(node, name, None) if isinstance(name, str) else None


def _key_name(entry: Any) -> str:
    return jax.tree_util.keystr((entry,), simple=True)
