"""What a source holds that is no part of its state."""

from __future__ import annotations

from typing import Any


class Opaque:
    """A value that Flax does not look into: shared by copies, in no checkpoint.

    Args:
      value: any object.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Opaque({self.value!r})"
