"""`Element`, one record, and how a dataclass becomes a pytree that leaves metadata on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import jax

from datarax.core._summary import summary


@dataclass(frozen=True, eq=False, repr=False, slots=True, weakref_slot=True)
class Element:
    """One record.

    Passes through every JAX transformation; `metadata` stays on the host and is None on the other
    side of one. A subclass with more fields is a frozen dataclass too.

    Args:
      data: pytree of arrays, usually a dict of fields, without a batch axis.
      state: pytree of arrays that travels with the record.
      metadata: any Python object.

    >>> import numpy as np
    >>> element = Element({"image": np.zeros((2, 2))}, metadata="cat.png")
    >>> element.update_data({"label": np.int32(3)}).data.keys()
    dict_keys(['image', 'label'])
    """

    data: Any
    state: Any = field(default_factory=dict)
    metadata: Any = None

    def __repr__(self) -> str:
        return summary(self, ("data", "state"))

    def replace(self, **fields: Any) -> Self:
        """Returns a copy with other values for the named fields."""
        return dataclasses.replace(self, **fields)

    def update_data(self, updates: Mapping[str, Any]) -> Self:
        """Returns a copy whose `data` has these fields added or replaced."""
        return self.replace(data=_merged("data", self.data, updates))

    def update_state(self, updates: Mapping[str, Any]) -> Self:
        """Returns a copy whose `state` has these fields added or replaced."""
        return self.replace(state=_merged("state", self.state, updates))


def _refuse(self: Element, name: str, value: Any = None) -> None:
    # What a frozen dataclass does is broken if it has slots, for names that are no fields.
    raise dataclasses.FrozenInstanceError(
        f"cannot change {name!r} of an Element, which is immutable; use replace(...)"
    )


Element.__setattr__ = Element.__delattr__ = _refuse


def _merged(name: str, old: Any, updates: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(old, Mapping):
        raise TypeError(
            f"{name} must be a dict to be updated field by field, got {type(old).__name__}; "
            f"use replace({name}=...)"
        )
    return {**old, **updates}


def register(kind: type[Any], *, host_only: tuple[str, ...]) -> None:
    """Makes a dataclass a pytree without its host-only fields, which then take their defaults."""
    arrays = [field.name for field in dataclasses.fields(kind) if field.name not in host_only]
    try:
        jax.tree_util.register_dataclass(kind, arrays, (), drop_fields=host_only)
    except ValueError:
        # JAX 0.8.1 unpacks drop_fields once too often and takes a name for a set of letters.
        jax.tree_util.register_dataclass(kind, arrays, (), drop_fields=[host_only])  # pyright: ignore


register(Element, host_only=("metadata",))
