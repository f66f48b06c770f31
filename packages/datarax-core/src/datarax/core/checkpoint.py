"""Saving and restoring the state of modules with Orbax."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from os import PathLike
from typing import Any, Self
from zlib import crc32

import jax

from datarax.core import _directory
from datarax.core import _sole_owner as _sole_owner
from datarax.core._parts import Checkpointable as Checkpointable
from datarax.core._parts import (
    Part,
    checked_parts,
    described_parts,
    require_parts,
    set_all,
    state_of,
    wanted,
)
from datarax.core._processes import exchange, from_first, is_first, together
from datarax.core._saved_tree import Saved, described, exchanged, find, leaves, picked, rebuilt

__all__ = ["SCHEMA_VERSION", "Checkpointable", "Checkpointer"]

SCHEMA_VERSION = 2
"""Version of the layout that `Checkpointer` writes; it reads this one and version 1."""


class Checkpointer:
    """Keeps the state of a module, or of all parts of a training run, one checkpoint a step.

    A checkpoint is complete or not there: a process that dies while it saves leaves the earlier
    steps as they were. Use it as a context manager, or close it with `close`.

    Where several processes make up a job (`jax.distributed`), each of them calls `save` and
    `restore`, with the same directory on a file system that all see. An array on devices of several
    processes is saved once. Of all else (arrays on the host or on a process's own devices, numbers)
    each process saves what it has, and gets that back. An error in one of them is an error in all.

    Args:
      directory: where the checkpoints are, or will be; the first `save` makes it. A local one, or
        "gs://…", which needs gcsfs.
      max_to_keep: how many checkpoints to keep, at least 1: a save removes those of the lowest
        steps. None: all.

    Raises:
      ValueError: if `max_to_keep` is less than 1, or `directory` a URL that cannot be written to.

    >>> import tempfile
    >>> from flax import nnx
    >>> class Counter:
    ...     count = 3
    ...
    ...     def get_state(self):
    ...         return {"count": self.count}
    ...
    ...     def set_state(self, state):
    ...         self.count = state["count"]
    >>> model, counter = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), Counter()
    >>> with tempfile.TemporaryDirectory() as directory, Checkpointer(directory) as checkpointer:
    ...     checkpointer.save(1, {"model": model, "counter": counter})
    ...     counter.count = 4
    ...     checkpointer.restore({"model": model, "counter": counter})
    >>> counter.count
    3
    """

    def __init__(self, directory: str | PathLike[str], max_to_keep: int | None = None) -> None:
        if max_to_keep is not None and max_to_keep < 1:
            raise ValueError(
                f"max_to_keep must be at least 1, or None to keep all, got {max_to_keep}"
            )
        self._directory = _directory.opened(directory)
        self._max_to_keep = max_to_keep

    def __repr__(self) -> str:
        return f"Checkpointer({str(self._directory)!r}, max_to_keep={self._max_to_keep})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the use. Nothing is open between two calls, so calling it again is not an error."""

    def save(self, step: int, module: Part | Mapping[str, Part]) -> None:
        """Writes a state; when this returns, the checkpoint is complete on disk.

        Args:
          step: from 0, higher than the steps saved before.
          module: anything with `get_state` and `set_state`, anything of Flax NNX (a model, an
            `nnx.Optimizer`, an `nnx.Metric`), or a dict of such parts by name, saved together.

        Raises:
          TypeError: if `step` is not an integer, something can not be saved, or a state has leaves
            that are neither arrays of numbers nor numbers, strings, bytes or None.
          ValueError: if `step` is negative or not higher than the latest, or if Orbax cannot save
            the state: it is empty, an array has no elements, or two paths are the same when
            written with dots.
        """
        from datarax.core import _checkpoint_files as files

        parts, step = together(lambda: (checked_parts(module), _checked_step(step)))
        self._require_new(step)
        tree = together(lambda: described_parts(parts))
        names = None if "" in parts else tuple(parts)
        shared = sorted("/".join(path) for path, leaf in leaves(tree) if not leaf.local)
        _require_same("parts", names)
        _require_same("arrays on devices of several processes", shared)
        together(self._make_room)
        schema = files.Schema(SCHEMA_VERSION, jax.process_count(), names)
        files.write(self._directory / str(step), schema, tree)
        together(self._remove_old)

    def all_steps(self) -> tuple[int, ...]:
        """The steps of all complete checkpoints, ascending; also what another process saved."""
        return _directory.steps(self._directory)

    def latest_step(self) -> int | None:
        """The highest step of a complete checkpoint, or None if there is none."""
        return max(self.all_steps(), default=None)

    def restore(
        self,
        module: Part | Mapping[str, Part],
        step: int | None = None,
        only: tuple[str, ...] | None = None,
    ) -> None:
        """Sets a state to that of a checkpoint, completely or, on an error, not at all.

        Of several parts none changes before all are known to fit, and if the `set_state` of one
        raises, the others are put back. Arrays go to the devices where the present ones are.

        Args:
          module: what was saved, or built like it: a module, or all parts by the same names.
          step: which checkpoint; None: the latest.
          only: paths in the state, such as `("rngs", "encoder/scale")`, or, of parts,
            `("model", "optimizer/step")`: these, with all that is below them, are restored, and
            the rest stays. Parts that no path names are not needed. None: everything.

        Raises:
          TypeError: if `step` is not an integer, `only` not a tuple, or something cannot be
            saved.
          ValueError: if there is no such checkpoint, if it is damaged, if a later release wrote it,
            if it has other parts, if `only` is empty, or if the state does not fit.
          KeyError: if the checkpoint has no such path; lists those that there are.
        """
        parts = together(lambda: wanted(checked_parts(module), only))
        step = self._existing(step)
        single = "" in parts

        def states() -> dict[str, Any]:
            current = {name: state_of(part) for name, part in parts.items()}
            whole = current[""] if single else current
            tree = self._read(step, None if single else tuple(parts), whole, only)
            restored = rebuilt(tree, whole)
            return {"": restored} if single else restored

        set_all(parts, states)

    def _require_new(self, step: int) -> None:
        _require_same("step", step)
        latest = from_first(self.latest_step())
        if latest is not None and step <= latest:
            raise ValueError(
                f"step must be higher than the latest step {latest} in {self._directory}, got "
                f"{step}; go on from there, or save to another directory"
            )

    def _make_room(self) -> None:
        if is_first():
            self._directory.mkdir(parents=True, exist_ok=True)
            _directory.clear(self._directory)

    def _remove_old(self) -> None:
        if is_first() and self._max_to_keep is not None:
            for step in self.all_steps()[: -self._max_to_keep]:
                _directory.remove(self._directory, step)

    def _existing(self, step: int | None) -> int:
        """The step to restore; which are there is for the first process to see."""

        def chosen() -> int | None:
            wanted = None if step is None else _checked_step(step)
            if not is_first():
                return None
            steps = self.all_steps()
            if not steps:
                raise ValueError(f"no checkpoint in {self._directory}; check the directory")
            if wanted is not None and wanted not in steps:
                raise ValueError(
                    f"no checkpoint of step {step} in {self._directory}; there are {steps}"
                )
            return steps[-1] if wanted is None else wanted

        return from_first(together(chosen))

    def _read(
        self, step: int, parts: tuple[str, ...] | None, present: Any, only: tuple[str, ...] | None
    ) -> Saved:
        from datarax.core import _checkpoint_files as files

        where, directory = f"step {step} in {self._directory}", self._directory / str(step)

        def current(path: tuple[str, ...]) -> Any:
            return find(present, path)

        try:
            schema = files.read_schema(directory, SCHEMA_VERSION)
            if schema is None:
                raise ValueError(
                    f"{where} was not written by a Checkpointer, or is damaged: it has no schema"
                )
            if schema.version not in (1, SCHEMA_VERSION):
                raise ValueError(
                    f"{where} has schema version {schema.version}, but this datarax-core reads "
                    f"versions 1 and {SCHEMA_VERSION}; install the release that wrote it or a "
                    "later one"
                )
            require_parts(where, schema.parts, parts, only)
            tree = files.read_structure(directory, schema, only)
            if only is None:
                return files.read_arrays(directory, tree, current)
            return exchanged(
                described("the present state", present),
                files.read_arrays(directory, picked(tree, only), current),
                only,
            )
        except files.DamagedError as error:
            others = [each for each in self.all_steps() if each != step]
            raise ValueError(
                f"{where} is damaged: {error}; the other steps there are {others}"
            ) from error


def _checked_step(step: Any) -> int:
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise TypeError(f"step must be an integer, got {type(step).__name__} {step!r}")
    if operator.index(step) < 0:
        raise ValueError(f"step must be 0 or higher, got {step}")
    return operator.index(step)


def _require_same(what: str, value: Any) -> None:
    """Raises unless all processes have the same."""
    sent = json.dumps(value)
    received = exchange(f"{crc32(sent.encode()):08x} {sent}")
    if len({each[:8] for each in received}) > 1:
        listed = "; ".join(f"process {n}: {each[9:]}" for n, each in enumerate(received))
        raise ValueError(f"all processes must save the same {what}, got {listed}")
