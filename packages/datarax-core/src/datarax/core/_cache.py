"""Remembered results of deterministic operators, keyed by the identity of immutable arrays."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np


def is_immutable(leaf: Any) -> bool:
    """Whether the object can never hold another value: device arrays and read-only host arrays."""
    if isinstance(leaf, np.ndarray):
        return not leaf.flags.writeable and leaf.base is None
    return isinstance(leaf, jax.Array | np.generic | bool | int | float)


class IdentityCache:
    """Holds the results for the last few inputs, for as long as these very arrays live.

    An entry is found only for the same `jax.Array`s (or read-only NumPy arrays that own their
    memory), which cannot change. It holds them
    weakly and goes when one of them goes, so an address that is used again never matches. Module
    values (parameters, statistics) are compared by identity too.
    """

    def __init__(self, capacity: int = 8) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Hashable, tuple[list[Any], list[Any], Any]] = OrderedDict()

    def get(self, structure: Hashable, arrays: Sequence[Any], values: Sequence[Any]) -> Any:
        """Returns the result for these arrays and module values, or None."""
        entry = self._entries.get((structure, tuple(map(id, arrays))))
        if entry is None:
            return None
        references, held, result = entry
        found = [reference() for reference in references] + held
        wanted = [*arrays, *values]
        if len(found) == len(wanted) and all(a is b for a, b in zip(found, wanted, strict=True)):
            return result
        return None

    def put(
        self, structure: Hashable, arrays: Sequence[Any], values: Sequence[Any], result: Any
    ) -> None:
        """Remembers a result, unless one of the arrays or values could change in place."""
        if not all(is_immutable(leaf) for leaf in (*arrays, *values)):
            return
        key = (structure, tuple(map(id, arrays)))
        entries = self._entries
        references = [weakref.ref(array, lambda _: entries.pop(key, None)) for array in arrays]
        entries[key] = (references, list(values), result)
        entries.move_to_end(key)
        while len(entries) > self._capacity:
            entries.popitem(last=False)

    def clear(self) -> None:
        """Forgets all results."""
        self._entries.clear()
