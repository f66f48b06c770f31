"""What a checkpoint is of: one module, or several under names, set all or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx

from datarax.core._processes import together
from datarax.core._saved_tree import Branch, Saved, described, leaves
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
    # Flax has modules that are mappings too.
    if isinstance(module, Mapping) and module and not isinstance(module, Part):
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
    if isinstance(part, type) or not isinstance(part, Part):
        raise TypeError(
            f"{name} must have get_state and set_state, got {type(part).__name__}; or pass "
            "something of Flax NNX (a module, an nnx.Optimizer), or a dict of such parts by name"
        )
    return part


def wanted(parts: dict[str, Part], only: tuple[str, ...] | None) -> dict[str, Part]:
    """The parts that the paths name, or all."""
    if only is not None and not isinstance(only, tuple):
        raise TypeError(f"only must be a tuple of paths, got {only!r}; write only=('rngs',)")
    if only == ():
        raise ValueError("only must name at least one path, got (); leave it out to restore all")
    if only is None or "" in parts:
        return parts
    named = {path.split("/")[0]: path for path in only}
    for name, path in named.items():
        if name not in parts:
            raise ValueError(f"{path!r} is of no part given: {list(parts)}; give that part too")
    return {name: part for name, part in parts.items() if name in named}


def require_parts(
    where: str,
    saved: tuple[str, ...] | None,
    given: tuple[str, ...] | None,
    only: tuple[str, ...] | None,
) -> None:
    if saved is None and given is not None:
        raise ValueError(
            f"{where} is of a single module, not of parts; restore that module alone, without a "
            f"dict around it (given were {list(given)})"
        )
    if saved is not None and given is None:
        raise ValueError(
            f"{where} has the parts {list(saved)}; restore a dict of these, or some of them with "
            "only=('model',)"
        )
    if only is None and set(saved or ()) != set(given or ()):
        missing, extra = set(saved or ()) - set(given or ()), set(given or ()) - set(saved or ())
        raise ValueError(
            f"{where} has the parts {list(saved or ())}, but got {list(given or ())}: missing "
            f"{sorted(missing)}, not in the checkpoint {sorted(extra)}; name those that you want "
            "with only="
        )


def state_of(part: Part) -> Any:
    """The state of a part, which shares its arrays."""
    return part.get_state() if isinstance(part, Checkpointable) else read_all(part)


def described_parts(parts: Mapping[str, Part]) -> Saved:
    trees = {
        name: described(repr(name) if name else type(part).__name__, state_of(part))
        for name, part in parts.items()
    }
    owner, tree = (
        (type(parts[""]).__name__, trees[""])
        if "" in parts
        else (f"the parts {list(parts)}", Branch("dict", trees))
    )
    _require_savable(owner, tree)
    return tree


def _require_savable(owner: str, tree: Saved) -> None:
    found = list(leaves(tree))
    if not found:
        raise ValueError(f"the state of {owner} has no arrays, so there is nothing to save")
    empty = ["/".join(path) for path, leaf in found if np.size(leaf.value) == 0]
    if empty:
        raise ValueError(f"state of {owner}: arrays without elements cannot be saved: {empty}")
    # Orbax stores an array under its path joined with dots, and of two equal ones only one.
    stored: dict[str, str] = {}
    for path, _ in found:
        text, joined = "/".join(path), ".".join(path)
        if joined in stored:
            raise ValueError(
                f"state of {owner}: {stored[joined]!r} and {text!r} cannot both be saved, because "
                "Orbax writes / as a dot; rename one"
            )
        stored[joined] = text


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
