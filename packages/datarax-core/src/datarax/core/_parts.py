"""What a checkpoint is of: one module, or several under names, set all or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx

from datarax.core._processes import together
from datarax.core.state import all_cells, planned_write, read_all


@runtime_checkable
class Checkpointable(Protocol):
    """What can be saved: every `DataraxModule`, and everything else with these two methods."""

    def get_state(self) -> dict[str, Any]:
        """Returns all state: nested dicts of arrays, random keys, numbers, strings, bytes, None."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned, or raises and changes nothing."""
        ...


Part = Checkpointable | nnx.Pytree


def checked_parts(module: Any) -> dict[str, Part]:
    """The parts by name; a single module has the name "".

    Raises:
      TypeError: if one of them is nothing that can be saved.
      ValueError: if a name is empty or has a slash in it.
    """
    if isinstance(module, Mapping) and module:
        parts: dict[str, Part] = {}
        for name, part in module.items():
            if not isinstance(name, str):
                raise TypeError(f"parts must have strings as names, got {name!r}")
            if not name or "/" in name:
                raise ValueError(
                    f"the name of a part must not be empty and have no slash, got {name!r}"
                )
            parts[name] = _checked(f"part {name!r}", part)
        return parts
    return {"": _checked("module", module)}


def _checked(name: str, part: Any) -> Part:
    if isinstance(part, type) or not isinstance(part, Checkpointable | nnx.Pytree):
        raise TypeError(
            f"{name} must have get_state and set_state, got {type(part).__name__}; or pass "
            "something of Flax NNX (a module, an nnx.Optimizer), or a dict of such parts by name"
        )
    return part


def state_of(part: Part) -> Any:
    """The state of a part, which shares its arrays."""
    return part.get_state() if isinstance(part, Checkpointable) else read_all(part)


def set_all(parts: Mapping[str, Part], states: Callable[[], Mapping[str, Any]]) -> None:
    """Sets the state of all parts, in all processes, or, on an error, of none in any.

    Args:
      parts: what to set.
      states: makes the state of each part, or raises; nothing else uses its arrays.
    """
    writes: list[Callable[[], None]] = []
    before: dict[str, tuple[Any, Any]] = {}

    def prepare() -> None:
        given = states()
        own = {name: part for name, part in parts.items() if isinstance(part, Checkpointable)}
        for name, part in parts.items():
            if not isinstance(part, Checkpointable):
                with _noting(name):
                    writes.append(
                        planned_write(part, list(all_cells(part)), given[name], copy=False)
                    )
        kept = {name: part.get_state() for name, part in own.items()}
        copies = {name: _copied(state) for name, state in kept.items()}
        for name, part in own.items():
            before[name] = kept[name], copies[name]
            with _noting(name):
                part.set_state(given[name])

    try:
        together(prepare)
    except BaseException as error:
        for name, (state, copy) in before.items():
            try:
                # Its own object, unless that was written to.
                parts[name].set_state(state if _same(state, copy) else copy)  # pyright: ignore
            except Exception as another:
                error.add_note(f"part {name!r} could not be put back: {another}")
        raise
    for write in writes:
        write()


@contextmanager
def _noting(name: str) -> Iterator[None]:
    """Says in an error which part it is about."""
    try:
        yield
    except Exception as error:
        if name:
            error.add_note(f"in part {name!r}; no part was changed")
        raise


def _copied(state: Any) -> Any:
    """A state that stays as it is when arrays in the other are written to."""
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, state)


def _same(one: Any, other: Any) -> bool:
    ours, theirs = jax.tree.flatten(one), jax.tree.flatten(other)
    return ours[1] == theirs[1] and all(
        a is b
        or (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.tobytes() == b.tobytes())
        for a, b in zip(ours[0], theirs[0], strict=True)
    )
