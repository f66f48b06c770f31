"""The state of a module as a nested dict of arrays, and the strict way back.

For authors of batchers, sources and iterators; operators have `get_state` and `set_state`. What
changes is held in Variables, and this is what stands in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from datarax.core._cells import Cell, Path, leaves_of, plain_cells, rebuilt
from datarax.core._leaves import dtype_of, owned, spec_of, unplaced, words
from datarax.core._statistics_values import frozen_statistics

__all__ = [
    "Statistics",
    "own_buffers",
    "read_state",
    "transfer_state",
    "variables",
    "write_state",
]


class Statistics(nnx.Variable[dict[str, Any]]):
    """Statistics of a module: a dict, nested as you like, of numbers and arrays.

    The one Variable whose structure a checkpoint may change: `write_state` takes what it finds
    there, since a module has no statistics before they are computed.

    >>> Statistics({"mean": 0.5}).get_value()
    {'mean': 0.5}
    """


def variables(module: nnx.Pytree) -> Iterator[tuple[Path, nnx.Variable[Any]]]:
    """Every Variable of a module once, even if two paths lead to it.

    Arrays that a module holds without a Variable are constants to it, such as the records of a
    source that keeps them in memory.

    Args:
      module: anything of Flax NNX.

    Yields:
      The names on the way to the Variable, and the Variable.

    >>> [path for path, _ in variables(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))]
    [('bias',), ('kernel',)]
    """
    for path, leaf in nnx.to_flat_state(nnx.state(module)):
        if isinstance(leaf, nnx.Variable):
            yield tuple(map(str, path)), leaf


def read_state(module: nnx.Pytree) -> dict[str, Any]:
    """Copies all Variables of a module.

    Args:
      module: anything of Flax NNX: a module, an `nnx.Optimizer`, an `nnx.Metric`, `nnx.Rngs`.

    Returns:
      Nested dicts of arrays, under the names of the attributes. A typed random key is stored as
      `{implementation: uint32 words}`, an entry of a list or tuple under its number as text.
      Arrays on the host stay there. No buffer is shared with the module: a step that donates the
      one leaves the other whole.

    >>> state = read_state(nnx.Rngs(noise=1))
    >>> state["noise"]["key"]["threefry2x32"].tolist(), state["noise"]["count"].item()
    ([0, 1], 0)
    """
    return _read(_variable_cells(module), owned)


def write_state(module: nnx.Pytree, state: Mapping[str, Any]) -> None:
    """Sets all Variables of a module from what `read_state` gave, or raises and changes nothing.

    Values go to where the present ones are: to the host, to their devices, or, uncommitted, to none
    in particular. They are copied.

    Args:
      module: built like the one that was read.
      state: nested dicts of arrays, on the host or on any devices.

    Raises:
      TypeError: if `state` is not a dict.
      ValueError: if structure, shapes, dtypes or key implementations differ, listing every
        difference by its path.

    >>> linear, other = (nnx.Linear(2, 3, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    >>> write_state(other, read_state(linear))
    >>> bool((other.kernel == linear.kernel).all())
    True
    """
    planned_write(module, list(_variable_cells(module)), state)()


def read_all(module: nnx.Pytree) -> dict[str, Any]:
    """What `read_state` gives and the arrays without a Variable, none of it copied."""
    return _read(all_cells(module), lambda leaf: leaf)


def planned_write(
    module: nnx.Pytree, cells: list[Cell], state: Mapping[str, Any], *, copy: bool = True
) -> Callable[[], None]:
    """Does all of `write_state` that can fail.

    Args:
      module: what the errors name.
      cells: its places to write to.
      state: as for `write_state`.
      copy: False if nothing else uses the buffers of `state`.

    Returns:
      What writes the values.

    Raises:
      TypeError: as `write_state`.
      ValueError: as `write_state`.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state must be a dict as get_state() returns it, got {type(state).__name__}"
        )
    given = dict(_flat(state))
    differences: list[str] = []
    updates: list[tuple[Cell, Any]] = []
    for cell in cells:
        if cell.statistics:
            given = {p: leaf for p, leaf in given.items() if p[: len(cell.path)] != cell.path}
            value = jax.tree.map(unplaced, _subtree(state, cell.path))
            updates.append((cell, frozen_statistics(_text(cell.path), value)))
            continue
        values = []
        for path, leaf in leaves_of(cell):
            expected = words(leaf)
            if path not in given:
                differences.append(f"{_text(path)}: expected {spec_of(expected)}, got nothing")
                continue
            came = given.pop(path)
            if jnp.shape(came) != expected.shape or dtype_of(came) != expected.dtype:
                differences.append(
                    f"{_text(path)}: expected {spec_of(expected)}, got {spec_of(came)}"
                )
                continue
            values.append((came, leaf))
        updates.append((cell, values))
    differences += [
        f"{_text(path)}: not expected, got {spec_of(leaf)}" for path, leaf in given.items()
    ]
    if differences:
        listed = "\n  ".join(sorted(differences))
        raise ValueError(
            f"state does not fit {type(module).__name__}; build the module from the config and "
            f"streams that it was saved with. Differences:\n  {listed}"
        )
    planned = [
        (cell, value if cell.statistics else rebuilt(cell.value, value, copy))
        for cell, value in updates
    ]

    def write() -> None:
        for cell, value in planned:
            cell.set(value)

    return write


def transfer_state(
    source: nnx.Pytree, target: nnx.Pytree, keep: Callable[[nnx.Variable[Any]], bool]
) -> None:
    """Copies the values of those Variables that both modules have and that `keep` picks.

    Args:
      source: where the values come from; it stays as it is and shares no buffer with the copies.
      target: where they go to; Variables that it alone has keep their values.
      keep: says of a Variable of the source whether its value is wanted.

    Raises:
      ValueError: if shapes or dtypes differ, naming the path.

    >>> linear, other = (nnx.Linear(2, 3, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    >>> transfer_state(linear, other, keep=lambda variable: isinstance(variable, nnx.Param))
    >>> bool((other.kernel == linear.kernel).all())
    True
    """
    old = dict(variables(source))
    for path, variable in variables(target):
        if path not in old or not keep(old[path]):
            continue
        value = jax.tree.map(owned, old[path].get_raw_value())
        if not isinstance(variable, Statistics):
            came, expected = jax.eval_shape(lambda x: x, value), variable.get_raw_value()
            expected = jax.eval_shape(lambda x: x, expected)
            if came != expected:
                raise ValueError(
                    f"{_text(path)} of {type(source).__name__} does not fit the copy's config: "
                    f"expected {expected}, got {came}; build a new module instead"
                )
        variable.set_raw_value(value)


def own_buffers(module: nnx.Pytree) -> None:
    """Replaces the arrays on devices by copies, which no step that donates others can delete.

    Args:
      module: such as `nnx.clone` gives, which shares all arrays with the original.

    >>> linear = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    >>> clone = nnx.clone(linear)
    >>> own_buffers(clone)
    >>> clone.kernel.get_raw_value() is linear.kernel.get_raw_value()
    False
    """
    for cell in all_cells(module):
        if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(cell.value)):
            cell.set(jax.tree.map(_own_buffer, cell.value))


def _own_buffer(leaf: Any) -> Any:
    return owned(leaf) if isinstance(leaf, jax.Array) else leaf


def _read(cells: Iterator[Cell], kept: Callable[[Any], Any]) -> dict[str, Any]:
    flat: dict[Path, Any] = {}
    for cell in cells:
        if cell.statistics:
            flat[cell.path] = jax.tree.map(lambda leaf: kept(words(leaf)), cell.value)
        else:
            flat.update({path: kept(words(leaf)) for path, leaf in leaves_of(cell)})
    return _nested(flat)


def _variable_cells(module: nnx.Pytree) -> Iterator[Cell]:
    for path, variable in variables(module):
        statistics = isinstance(variable, Statistics)
        yield Cell(path, variable.get_raw_value(), variable.set_raw_value, statistics)


def all_cells(module: nnx.Pytree) -> Iterator[Cell]:
    """The Variables of a module and the arrays that it holds without one and could replace."""
    yield from _variable_cells(module)
    yield from plain_cells(module)


def _flat(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(tree, Mapping):
        for name, child in tree.items():
            yield from _flat(child, (*path, str(name)))
    elif tree is not None:
        yield path, tree


def _nested(flat: Mapping[Path, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*parents, last), leaf in flat.items():
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


def _subtree(tree: Any, path: Path) -> Any:
    for name in path:
        tree = tree.get(name, {}) if isinstance(tree, Mapping) else {}
    return tree


def _text(path: Path) -> str:
    return "/".join(path)
