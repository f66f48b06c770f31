"""What a field of a modality must look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

KINDS = {"bool": jnp.bool_, "integer": jnp.integer, "float": jnp.floating}


@dataclass(frozen=True)
class FieldDomain:
    """The rule for a modality's fields, and the words in which errors state it.

    Args:
      name: what a field of the modality is called, such as "image".
      layouts: the axes of a record's field by name, one tuple for each layout that is allowed. With
        none, every rank is.
      kinds: the allowed kinds of dtype, of "bool", "integer" and "float".

    >>> FieldDomain("waveform", layouts=(("time",), ("time", "channel"))).layout_text
    '(time) or (time, channel)'
    """

    name: str = "field"
    layouts: tuple[tuple[str, ...], ...] = ()
    kinds: tuple[str, ...] = ("bool", "integer", "float")

    @property
    def layout_text(self) -> str:
        """The layouts in words."""
        return " or ".join(f"({', '.join(layout)})" for layout in self.layouts)

    def check(self, key: str, value: Any) -> None:
        """Checks one record's field.

        Args:
          key: the field's path, for messages.
          value: array or `jax.ShapeDtypeStruct`.

        Raises:
          TypeError: if the dtype is not of the domain.
          ValueError: if the rank is not.
        """
        if not hasattr(value, "dtype"):
            raise TypeError(
                f"field {key!r} must be an array to be used as {self.name}, got "
                f"{type(value).__name__}"
            )
        if not any(jnp.issubdtype(value.dtype, KINDS[kind]) for kind in self.kinds):
            raise TypeError(
                f"field {key!r} must have a dtype of kind {' or '.join(self.kinds)} to be used as "
                f"{self.name}, got {value.dtype}; cast it first"
            )
        if self.layouts and len(value.shape) not in {len(layout) for layout in self.layouts}:
            raise ValueError(
                f"field {key!r} of a record must be {self.layout_text} to be used as {self.name}, "
                f"got shape {tuple(value.shape)}"
            )
