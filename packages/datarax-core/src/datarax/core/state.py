"""The state of a module as a nested dict of arrays, and the strict way back.

For authors of batchers, sources and iterators; operators have `get_state` and `set_state`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax.core._statistics_values import frozen_statistics

Path = tuple[str, ...]


class Statistics(nnx.Variable[dict[str, Any]]):
    """Statistics of a module; the one Variable whose structure a checkpoint may change."""


def variables(module: nnx.Module) -> Iterator[tuple[Path, nnx.Variable[Any]]]:
    """Every Variable of the module once, with its path; arrays held as such are constants."""
    for path, leaf in nnx.to_flat_state(nnx.state(module)):
        if isinstance(leaf, nnx.Variable):
            yield tuple(map(str, path)), leaf


def read_state(module: nnx.Module) -> dict[str, Any]:
    """Copies all Variables into nested dicts of arrays, keys as `{implementation: words}`."""
    state: dict[str, Any] = {}
    for path, variable in variables(module):
        *parents, last = path
        node = state
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = jax.tree.map(_encoded, variable.get_raw_value())
    return state


def write_state(module: nnx.Module, state: Mapping[str, Any]) -> None:
    """Sets all Variables from what `read_state` gave, or raises and changes nothing.

    Raises:
      TypeError: if `state` is no dict.
      ValueError: if structure, shapes, dtypes or key implementations differ, listing every
        difference.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state must be a dict as get_state() returns it, got {type(state).__name__}"
        )
    given = dict(_flat(state))
    differences: list[str] = []
    updates: list[Callable[[], None]] = []

    def plan(variable: nnx.Variable[Any], value: Any) -> None:
        updates.append(lambda: variable.set_raw_value(value))

    for path, variable in variables(module):
        if isinstance(variable, Statistics):
            below = {p: given.pop(p) for p in list(given) if p[: len(path)] == path}
            value = _nested({p[len(path) :]: leaf for p, leaf in below.items()})
            plan(variable, frozen_statistics(_text(path), value))
            continue
        leaves, structure = jax.tree_util.tree_flatten_with_path(variable.get_raw_value())
        values = []
        for subpath, leaf in leaves:
            at = path + tuple(_key_name(entry) for entry in subpath)
            if _is_key(leaf):
                at += (_implementation(leaf),)
            if at not in given:
                differences.append(
                    f"{_text(at)}: expected {_spec(_encoded_data(leaf))}, got nothing"
                )
                continue
            came, expected = given.pop(at), _encoded_data(leaf)
            if jnp.shape(came) != expected.shape or _dtype(came) != expected.dtype:
                differences.append(f"{_text(at)}: expected {_spec(expected)}, got {_spec(came)}")
                continue
            values.append(_decoded(came, leaf))
        if len(values) == len(leaves):
            plan(variable, jax.tree.unflatten(structure, values))
    differences += [
        f"{_text(path)}: not expected, got {_spec(leaf)}" for path, leaf in given.items()
    ]
    if differences:
        listed = "\n  ".join(sorted(differences))
        raise ValueError(
            f"state does not fit {type(module).__name__}; build the module from the config and "
            f"streams that it was saved with. Differences:\n  {listed}"
        )
    for update in updates:
        update()


def transfer_state(
    source: nnx.Module, target: nnx.Module, keep: Callable[[nnx.Variable[Any]], bool]
) -> None:
    """Copies the values of those Variables that both modules have and that `keep` picks.

    Raises:
      ValueError: if shapes or dtypes differ, naming the path.
    """
    old = dict(variables(source))
    for path, variable in variables(target):
        if path not in old or not keep(old[path]):
            continue
        value = jax.tree.map(_decoded_copy, old[path].get_raw_value())
        if not isinstance(variable, Statistics):
            came, expected = jax.eval_shape(lambda x: x, value), variable.get_raw_value()
            expected = jax.eval_shape(lambda x: x, expected)
            if came != expected:
                raise ValueError(
                    f"{_text(path)} of {type(source).__name__} does not fit the copy's config: "
                    f"expected {expected}, got {came}; build a new module instead"
                )
        variable.set_raw_value(value)


def _decoded_copy(leaf: Any) -> Any:
    return np.array(leaf)[()] if isinstance(leaf, np.generic) else leaf


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _implementation(key: jax.Array) -> str:
    return str(jax.random.key_impl(key))


def _encoded_data(leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array) else np.array(leaf)


def _encoded(leaf: Any) -> Any:
    data = _encoded_data(leaf)
    return {_implementation(leaf): data} if _is_key(leaf) else data


def _decoded(came: Any, current: Any) -> Any:
    """The value that came, on the host or the devices where the current one is."""
    if _is_key(current):
        return jax.random.wrap_key_data(jnp.asarray(came), impl=jax.random.key_impl(current))
    if isinstance(current, jax.Array):
        if len(current.sharding.device_set) == 1:
            return jnp.asarray(came)
        return jax.device_put(came, current.sharding)
    host = np.array(came)
    return host if isinstance(current, np.ndarray) else host[()]


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


def _key_name(entry: Any) -> str:
    return jax.tree_util.keystr((entry,), simple=True)


def _text(path: Path) -> str:
    return "/".join(path)


def _dtype(value: Any) -> Any:
    return value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype


def _spec(value: Any) -> str:
    return f"{_dtype(value)}{list(jnp.shape(value))}"
