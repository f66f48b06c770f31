"""Saving and restoring the state of modules with Orbax."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from os import PathLike
from typing import Any, Self
from zlib import crc32

import jax
import numpy as np

from datarax.core import _directory
from datarax.core import _sole_owner as _sole_owner
from datarax.core._parts import Checkpointable as Checkpointable
from datarax.core._parts import Part, checked_parts, set_all, state_of
from datarax.core._processes import exchange, together
from datarax.core._saved_tree import (
    Branch,
    Saved,
    at,
    described,
    find,
    leaves,
    put,
    rebuilt,
)

__all__ = ["SCHEMA_VERSION", "Checkpointable", "Checkpointer"]

SCHEMA_VERSION = 2
"""Version of the layout that `Checkpointer` writes; it reads this one and version 1."""


class Checkpointer:
    """Keeps the state of a module, or of all parts of a training run, one checkpoint a step.

    A checkpoint appears whole or not at all: a process that dies while it saves leaves the earlier
    steps as they were. To be used as a context manager, or closed with `close`.

    Where several processes make up a job (`jax.distributed`), each of them calls `save` and
    `restore`, with the same directory on a file system that all see. An array on devices of several
    processes is saved once. Of all else (arrays on the host or on a process's own devices, numbers)
    each process saves what it has, and gets that back. An error in one of them is one in all.

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
        """Ends the use; nothing is held open between two calls, so a later one is no error."""

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

        parts = checked_parts(module)
        step = together(lambda: _checked_step(step))
        self._require_new(step)
        tree = together(lambda: _described_parts(parts))
        names = None if "" in parts else tuple(parts)
        shared = sorted("/".join(path) for path, leaf in leaves(tree) if not leaf.local)
        sent = {"step": step, "parts": names, "shared": crc32(json.dumps(shared).encode())}
        _require_same(sent)

        def make_room() -> None:
            if _is_first_process():
                self._directory.mkdir(parents=True, exist_ok=True)
                _directory.clear(self._directory)

        together(make_room)
        files.write(self._directory / str(step), tree, names)
        if _is_first_process() and self._max_to_keep is not None:
            for old in self.all_steps()[: -self._max_to_keep]:
                _directory.remove(self._directory, old)

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
        """Sets a state to that of a checkpoint, entirely or, on an error, not at all.

        Of several parts none changes before all are known to fit, and if the `set_state` of one
        raises, the others are put back. Arrays go to the devices where the present ones are.

        Args:
          module: what was saved, or built like it: a module, or all parts by the same names.
          step: which checkpoint; None: the latest.
          only: paths in the state, such as `("rngs", "encoder/scale")`, or, of parts,
            `("model", "optimizer/step")`: these, with all that is below them, are restored, and
            the rest stays. Parts that no path names are not needed. None: everything.

        Raises:
          TypeError: if `step` is not an integer, `only` not a tuple, or something is nothing that
            can be saved.
          ValueError: if there is no such checkpoint, if it is damaged, if a later release wrote it,
            if it has other parts, if `only` is empty, or if the state does not fit.
          KeyError: if the checkpoint has no such path; lists those that there are.
        """
        parts = checked_parts(module)
        if only is not None and not isinstance(only, tuple):
            raise TypeError(f"only must be a tuple of paths, got {only!r}; write only=('rngs',)")
        if only == ():
            raise ValueError(
                "only must name at least one path, got (); leave it out to restore all"
            )
        step = self._existing(step)
        single = "" in parts
        if only is not None and not single:
            parts = _named_parts(parts, only)

        def states() -> dict[str, Any]:
            current = {name: state_of(part) for name, part in parts.items()}
            whole = current[""] if single else current
            tree = self._read(step, None if single else tuple(parts), whole, only)
            restored = rebuilt(tree, whole)
            return {"": restored} if single else restored

        set_all(parts, states)

    def _require_new(self, step: int) -> None:
        latest = json.loads(exchange(json.dumps(self.latest_step()))[0])
        if latest is not None and step <= latest:
            raise ValueError(
                f"step must be higher than the latest step {latest} in {self._directory}, got "
                f"{step}; go on from there, or save to another directory"
            )

    def _existing(self, step: int | None) -> int:
        """The step to restore; which are there is for the first process to see."""
        if step is not None:
            step = _checked_step(step)

        def chosen() -> int | None:
            steps = self.all_steps() if _is_first_process() else ()
            if _is_first_process() and not steps:
                raise ValueError(f"no checkpoint in {self._directory}; check the directory")
            if _is_first_process() and step is not None and step not in steps:
                raise ValueError(
                    f"no checkpoint of step {step} in {self._directory}; there are {steps}"
                )
            return max(steps, default=None) if step is None else step

        return json.loads(exchange(json.dumps(together(chosen)))[0])

    def _read(
        self, step: int, parts: tuple[str, ...] | None, present: Any, only: tuple[str, ...] | None
    ) -> Saved:
        from datarax.core import _checkpoint_files as files

        where, directory = f"step {step} in {self._directory}", self._directory / str(step)

        def current(path: tuple[str, ...]) -> Any:
            return find(present, path)

        try:
            schema = files.read_schema(directory)
            if schema is None:
                raise ValueError(f"{where} was not written by a Checkpointer")
            if schema.version not in (1, SCHEMA_VERSION):
                raise ValueError(
                    f"{where} has schema version {schema.version}, but this datarax-core reads "
                    f"versions 1 and {SCHEMA_VERSION}; install the release that wrote it or a "
                    "later one"
                )
            _require_parts(where, schema.parts, parts, only)
            tree = files.read_structure(directory, schema)
            if only is None:
                return files.read_arrays(directory, tree, current)
            return _exchanged(
                described("the present state", present),
                files.read_arrays(directory, _picked(tree, only), current),
                only,
            )
        except files.DamagedError as error:
            raise ValueError(
                f"{where} is damaged: {error}; restore another step, there are {self.all_steps()}"
            ) from error


def _is_first_process() -> bool:
    return jax.process_index() == 0


def _checked_step(step: Any) -> int:
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise TypeError(f"step must be an integer, got {type(step).__name__} {step!r}")
    if operator.index(step) < 0:
        raise ValueError(f"step must be 0 or higher, got {step}")
    return operator.index(step)


def _require_same(what: dict[str, Any]) -> None:
    """Raises unless all processes save the same."""
    received = exchange(json.dumps(what))
    if len(set(received)) > 1:
        raise ValueError(
            "all processes must save the same step, parts and shared arrays, but they save "
            + "; ".join(f"process {process} {each}" for process, each in enumerate(received))
        )


def _require_parts(
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


def _named_parts(parts: Mapping[str, Part], only: tuple[str, ...]) -> dict[str, Part]:
    for path in only:
        if path.split("/")[0] not in parts:
            raise ValueError(f"{path!r} is of no part given: {list(parts)}; give that part too")
    named = {path.split("/")[0] for path in only}
    return {name: part for name, part in parts.items() if name in named}


def _described_parts(parts: Mapping[str, Part]) -> Saved:
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


def _picked(tree: Saved, only: tuple[str, ...]) -> Saved:
    """What is at the paths, and nothing else."""
    picked: Saved = Branch("dict", {})
    for path in only:
        value = at(tree, tuple(path.split("/")))
        if value is None:
            there = sorted("/".join(each) for each, _ in leaves(tree))
            raise KeyError(f"no path {path!r} in the checkpoint; there are {there}")
        picked = put(picked, tuple(path.split("/")), value)
    return picked


def _exchanged(present: Saved, saved: Saved, only: tuple[str, ...]) -> Saved:
    """The present state with what was saved at the paths."""
    for path in only:
        value = at(saved, tuple(path.split("/")))
        if value is not None:
            present = put(present, tuple(path.split("/")), value)
    return present
