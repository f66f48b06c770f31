"""Statistics as values: host copies that nothing can change, comparable and hashable by content."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from datarax.core.specs import as_leaf


def frozen_statistics(name: str, statistics: object) -> dict[str, Any]:
    """Copies a dict of statistics, with leaves that are read-only NumPy arrays or `jax.Array`s.

    Args:
      name: what the errors call it.
      statistics: a dict, nested as wanted, of numbers, arrays and lists of numbers.

    Raises:
      TypeError: if it is not a dict, or a leaf is not numeric (the path is named).
      ValueError: if a number does not fit, see `as_leaf`.
    """
    if not isinstance(statistics, Mapping):
        raise TypeError(
            f"{name} must be a dict of numbers and arrays, got {type(statistics).__name__}; "
            'pass for example {"mean": 0.5}'
        )

    def freeze(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array):
            return leaf
        where = name + jax.tree_util.keystr(path)
        try:
            array = np.array(as_leaf(where, leaf))
        except TypeError as error:
            raise TypeError(
                f"{where} must be a number or an array, got {type(leaf).__name__} {leaf!r}"
            ) from error
        array.flags.writeable = False
        return array

    plain = jax.tree.map(lambda leaf: leaf, dict(statistics), is_leaf=_lists_numbers)
    return jax.tree_util.tree_map_with_path(freeze, plain, is_leaf=_lists_numbers)


def _lists_numbers(node: Any) -> bool:
    """Whether it is a list of numbers, as files have in place of arrays."""
    return isinstance(node, list | tuple) and all(
        isinstance(entry, int | float) or _lists_numbers(entry) for entry in node
    )


class FrozenStatistics(dict[str, Any]):
    """The statistics of a config: a dict that refuses changes and can be compared and hashed."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("precomputed_stats cannot change; give a new config a new dict")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse  # pyright: ignore

    def _content(self) -> Hashable:
        leaves, structure = jax.tree.flatten(dict(self))
        arrays = [np.asarray(leaf) for leaf in leaves]
        return structure, tuple((a.shape, str(a.dtype), a.tobytes()) for a in arrays)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._content() == FrozenStatistics(other)._content()

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(self._content())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)
