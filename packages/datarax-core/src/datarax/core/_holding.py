"""Which compiled calls may outlive their operators: those that keep next to no memory alive."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from datarax.core._construction import ConstructorArguments

LITTLE = 4096
_NOTHING = (bool, int, float, complex, str, bytes, np.generic, np.dtype, type)


def holds_little(value: Any) -> bool:
    """Whether an attribute of an operator keeps no more than a few kilobytes alive.

    A function may close over a table of any size, and an object of an unknown class may have one.
    """
    if value is None or isinstance(value, (*_NOTHING, types.BuiltinFunctionType)):
        return True
    if isinstance(value, types.FunctionType):
        return value.__closure__ is None and not value.__defaults__ and not value.__kwdefaults__
    if isinstance(value, nnx.Variable):
        return holds_little(value.get_raw_value())
    if isinstance(value, np.ndarray | jax.Array):
        return value.size <= LITTLE // 4
    return _all_hold_little(_parts(value))


def _parts(value: Any) -> Iterable[Any] | None:
    """What the value consists of; None if that is not known."""
    if isinstance(value, nnx.Pytree):
        return [part for _, part in nnx.iter_graph(value) if not isinstance(part, nnx.Pytree)]
    if isinstance(value, ConstructorArguments):
        return value.contents()
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, tuple | list | set | frozenset):
        return value
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [] if type(value).__module__.startswith("flax.") else None


def _all_hold_little(parts: Iterable[Any] | None) -> bool:
    return parts is not None and all(map(holds_little, parts))
