"""Saving and restoring the state of modules with Orbax."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import jax
import numpy as np

from datarax.core import _sole_owner as _sole_owner

if TYPE_CHECKING:
    from orbax.checkpoint import CheckpointManager


SCHEMA_VERSION = 1
"""Version of the layout that `Checkpointer` writes, and the only one that it reads."""

_STATE, _SCHEMA = "state", "schema"


@runtime_checkable
class Checkpointable(Protocol):
    """What can be saved: every `DataraxModule`, and everything else with these two methods."""

    def get_state(self) -> dict[str, Any]:
        """Returns all state as nested dicts of arrays."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned, or raises and changes nothing."""
        ...


class Checkpointer:
    """Keeps the state of a module in a directory, one checkpoint a step.

    A checkpoint appears whole or not at all: a process that dies while it saves leaves the earlier
    steps as they were. To be used as a context manager, or closed with `close`.

    Args:
      directory: where the checkpoints are, or will be; the first `save` makes it.
      max_to_keep: how many checkpoints to keep, at least 1: a save removes those of the lowest
        steps. None: all.

    Raises:
      ValueError: if `max_to_keep` is less than 1.

    >>> import tempfile
    >>> class Counter:
    ...     count = np.uint32(3)
    ...
    ...     def get_state(self):
    ...         return {"count": self.count}
    ...
    ...     def set_state(self, state):
    ...         self.count = state["count"]
    >>> with tempfile.TemporaryDirectory() as directory, Checkpointer(directory) as checkpointer:
    ...     checkpointer.save(1, Counter())
    ...     checkpointer.latest_step()
    1
    """

    def __init__(self, directory: str | Path, max_to_keep: int | None = None) -> None:
        if max_to_keep is not None and max_to_keep < 1:
            raise ValueError(
                f"max_to_keep must be at least 1, or None to keep all, got {max_to_keep}"
            )
        self._directory = Path(directory).absolute()
        self._max_to_keep = max_to_keep
        self._open: CheckpointManager | None = None
        self._writes = False

    def __repr__(self) -> str:
        return f"Checkpointer({str(self._directory)!r}, max_to_keep={self._max_to_keep})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases what Orbax holds; a later call opens it again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def save(self, step: int, module: Checkpointable) -> None:
        """Writes a module's state; when this returns, the checkpoint is complete on disk.

        Args:
          step: from 0, higher than the steps saved before.
          module: anything with `get_state`.

        Raises:
          TypeError: if `step` is not an integer, or the module lacks `get_state` and `set_state`.
          ValueError: if `step` is negative or not higher than the latest, or if Orbax cannot save
            the state: it has no arrays, an array has no elements, or two paths are the same when
            written with dots.
        """
        from orbax.checkpoint import args

        step = _checked_step(step)
        _require_checkpointable(module)
        latest = self.latest_step()
        if latest is not None and step <= latest:
            raise ValueError(
                f"step must be higher than the latest step {latest} in {self._directory}, got "
                f"{step}; go on from there, or save to another directory"
            )
        state = module.get_state()
        _require_savable(type(module).__name__, state)
        items = args.Composite(
            state=args.StandardSave(state),  # pyright: ignore[reportCallIssue]
            schema=args.JsonSave({"version": SCHEMA_VERSION}),  # pyright: ignore[reportCallIssue]
        )
        self._manager(write=True).save(step, args=items)

    def all_steps(self) -> tuple[int, ...]:
        """The steps of all complete checkpoints, ascending; also what another process saved."""
        if not self._directory.is_dir():
            return ()
        manager = self._manager()
        manager.reload()
        return tuple(sorted(manager.all_steps()))

    def latest_step(self) -> int | None:
        """The highest step of a complete checkpoint, or None if there is none."""
        return max(self.all_steps(), default=None)

    def restore(
        self,
        module: Checkpointable,
        step: int | None = None,
        only: tuple[str, ...] | None = None,
    ) -> None:
        """Sets a module's state to that of a checkpoint, entirely or, on an error, not at all.

        Args:
          module: built like the one that was saved; `set_state` compares all of it.
          step: which checkpoint; None: the latest.
          only: paths in the state, such as `("rngs", "encoder/scale")`: these, with all that is
            below them, are restored, and the rest of the module stays. None: everything.

        Raises:
          TypeError: if `step` is not an integer, `only` not a tuple, or the module lacks
            `get_state` and `set_state`.
          ValueError: if there is no such checkpoint, if a later release wrote it, if `only` is
            empty, or if the state does not fit the module.
          KeyError: if the checkpoint has no such path; lists those that there are.
        """
        _require_checkpointable(module)
        if only is not None and not isinstance(only, tuple):
            raise TypeError(f"only must be a tuple of paths, got {only!r}; write only=('rngs',)")
        if only == ():
            raise ValueError(
                "only must name at least one path, got (); leave it out to restore all"
            )
        state = self._read(self._existing(step))
        if only is not None:
            saved, state = state, module.get_state()
            for path in only:
                state = _with(state, path.split("/"), _at(saved, path))
        module.set_state(state)

    def _existing(self, step: int | None) -> int:
        steps = self.all_steps()
        if not steps:
            raise ValueError(f"no checkpoint in {self._directory}; check the directory")
        if step is None:
            return steps[-1]
        if _checked_step(step) not in steps:
            raise ValueError(
                f"no checkpoint of step {step} in {self._directory}; there are {steps}"
            )
        return operator.index(step)

    def _read(self, step: int) -> dict[str, Any]:
        from orbax.checkpoint import args

        manager = self._manager()
        if not (self._directory / str(step) / _SCHEMA).is_dir():
            raise ValueError(f"step {step} in {self._directory} was not written by a Checkpointer")
        schema = manager.restore(step, args=args.Composite(schema=args.JsonRestore()))[_SCHEMA]
        if schema != {"version": SCHEMA_VERSION}:
            raise ValueError(
                f"step {step} in {self._directory} has schema {schema}, but this datarax-core "
                f"reads version {SCHEMA_VERSION}; install the release that wrote it or a later one"
            )
        # To host arrays, whatever devices it was saved from; the module knows where they belong.
        target = jax.tree.map(
            lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),
            manager.item_metadata(step)[_STATE].tree,
        )
        items = args.Composite(state=args.StandardRestore(target))  # pyright: ignore[reportCallIssue]
        return manager.restore(step, args=items)[_STATE]

    def _manager(self, write: bool = False) -> CheckpointManager:
        if self._open is not None and write and not self._writes:
            self.close()
        if self._open is None:
            # Half a second of imports, for those alone who save or restore.
            from orbax import checkpoint

            # Opening for writing removes what a killed save left behind, so a process that only
            # reads must not: it would remove what another one is saving.
            self._writes = write
            self._open = checkpoint.CheckpointManager(
                self._directory,
                options=checkpoint.CheckpointManagerOptions(
                    max_to_keep=self._max_to_keep,
                    enable_async_checkpointing=False,
                    cleanup_tmp_directories=write,
                ),
                item_handlers={
                    _STATE: checkpoint.StandardCheckpointHandler(),
                    _SCHEMA: checkpoint.JsonCheckpointHandler(),
                },
            )
        return self._open


def _checked_step(step: Any) -> int:
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise TypeError(f"step must be an integer, got {type(step).__name__} {step!r}")
    if operator.index(step) < 0:
        raise ValueError(f"step must be 0 or higher, got {step}")
    return operator.index(step)


def _require_checkpointable(module: Any) -> None:
    if not isinstance(module, Checkpointable):
        raise TypeError(f"module must have get_state and set_state, got {type(module).__name__}")


def _require_savable(name: str, state: Any) -> None:
    leaves = list(_leaves(state))
    if not leaves:
        raise ValueError(f"the state of {name} has no arrays, so there is nothing to save")
    empty = ["/".join(path) for path, leaf in leaves if np.size(leaf) == 0]
    if empty:
        raise ValueError(f"state of {name}: arrays without elements cannot be saved: {empty}")
    # Orbax stores an array under its path joined with dots, and of two equal ones only one.
    stored: dict[str, str] = {}
    for path, _ in leaves:
        text, joined = "/".join(path), ".".join(path)
        if joined in stored:
            raise ValueError(
                f"state of {name}: {stored[joined]!r} and {text!r} cannot both be saved, because "
                "Orbax writes / as a dot; rename one"
            )
        stored[joined] = text


def _leaves(state: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(state, Mapping):
        for name, child in state.items():
            yield from _leaves(child, (*path, name))
    else:
        yield path, state


def _at(state: Any, path: str) -> Any:
    node = state
    for name in path.split("/"):
        if not isinstance(node, Mapping) or name not in node:
            there = ["/".join(each) for each, _ in _leaves(state)]
            raise KeyError(f"no path {path!r} in the checkpoint; there are {there}")
        node = node[name]
    return node


def _with(state: Any, path: list[str], value: Any) -> Any:
    """A copy of nested dicts with another value at a path."""
    if not path:
        return value
    name, *rest = path
    state = state if isinstance(state, Mapping) else {}
    return {**state, name: _with(state.get(name, {}), rest, value)}
