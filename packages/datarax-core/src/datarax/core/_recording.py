"""What a compiled call leaves to the host: advancing counters whose step is known when tracing.

A counter on the device would be one more buffer in and out of every call, which costs more than a
small batch takes to compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Recorder:
    """Notes taken while one call is traced; Variables are known by their identity.

    Attributes:
      valid_mask: the mask of the batch that came in.
      draws: for a stream's count, how often it advanced and the value that it has now.
      counted: for an operation count, how often all rows of `valid_mask` were counted as applied.
    """

    valid_mask: Any
    draws: dict[int, tuple[int, Any]] = field(default_factory=dict)
    counted: dict[int, int] = field(default_factory=dict)

    def drew(self, count: object, value: Any) -> None:
        """Notes that a stream advanced, so that its count has this value."""
        times, _ = self.draws.get(id(count), (0, None))
        self.draws[id(count)] = (times + 1, value)

    def counted_all(self, count: object) -> None:
        """Notes that all valid rows were counted as applied."""
        self.counted[id(count)] = self.counted.get(id(count), 0) + 1


_active: ContextVar[Recorder | None] = ContextVar("datarax_recorder", default=None)


def active() -> Recorder | None:
    """The recorder of the call that is being traced, if there is one."""
    return _active.get()


@contextmanager
def recording(valid_mask: Any) -> Iterator[Recorder]:
    """Makes a new recorder the active one."""
    recorder = Recorder(valid_mask)
    token = _active.set(recorder)
    try:
        yield recorder
    finally:
        _active.reset(token)
