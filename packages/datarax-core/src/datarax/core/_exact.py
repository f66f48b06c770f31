"""Values that compiled functions depend on, compared by type and sign as well."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

Value = TypeVar("Value")


class Exact(Generic[Value]):
    """A value that equals another only if all numbers in it have the same type and sign too.

    For Python 1, 1.0 and True are equal, and so are 0.0 and -0.0. Where they mean different things
    (a pixel or a whole side), two different options would share what was compiled or remembered
    for one of them. Use it for static arguments of `jax.jit` and keys of caches.

    Args:
      value: numbers, strings, tuples, lists, dicts, sets and dataclasses of these, nested as
        wanted. Anything else in it is compared as usual.

    >>> Exact((1, 8)) == Exact((1, 8)), Exact((1, 8)) == Exact((1.0, 8)), Exact(0.0) == Exact(-0.0)
    (True, False, False)
    """

    __slots__ = ("_key", "value")

    def __init__(self, value: Value) -> None:
        self.value = value
        self._key = numbers_in(value)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Exact)
            and self._key == other._key
            and (self.value is other.value or self.value == other.value)
        )

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Exact({self.value!r})"


def numbers_in(value: Any) -> Hashable:
    """The numbers and strings in a value, with their types; equal ones have the same signs too."""
    kind = type(value)
    if isinstance(value, bool | int | float | complex | np.generic):
        return kind, repr(value)
    if value is None or isinstance(value, str | bytes):
        return kind, value
    if isinstance(value, tuple | list):
        return kind, tuple(map(numbers_in, value))
    if isinstance(value, set | frozenset):
        return kind, frozenset(map(numbers_in, value))
    if isinstance(value, Mapping):
        return kind, tuple((numbers_in(name), numbers_in(entry)) for name, entry in value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return kind, tuple(numbers_in(getattr(value, field.name)) for field in fields)
    compares = kind.__eq__ is not object.__eq__ and kind.__hash__ is not None
    if compares and hasattr(value, "__dict__"):
        # Of a class of one's own, such as a sampler, which may call 1 and 1.0 equal.
        return kind, numbers_in(vars(value))
    return None
