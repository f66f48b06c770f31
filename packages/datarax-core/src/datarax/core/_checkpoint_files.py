"""The files of one checkpoint, written and read with Orbax.

In the directory of a step are three items: `schema`, JSON that says what this is; `structure`, for
each process a description of its state and the arrays that are its alone; `state`, all other
arrays, by path. Version 1 had no `structure`: there, `state` is nested as the state was.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any
from zlib import crc32

import jax
import numpy as np
from orbax import checkpoint

from datarax.core._saved_tree import (
    Leaf,
    Path,
    Saved,
    as_json,
    checksum,
    described,
    from_json,
    leaves,
    with_values,
)

SCHEMA, STRUCTURE, STATE = "schema", "structure", "state"
# Its classes take fields that a type checker does not see, for a decorator hides their dataclass.
orbax_args: Any = checkpoint.args


@dataclass(frozen=True)
class Schema:
    """What a checkpoint is.

    Args:
      version: of the layout.
      processes: how many wrote it.
      parts: the names of its parts; None if it is the state of a single module.
    """

    version: int
    processes: int = 1
    parts: tuple[str, ...] | None = None


class ProcessHandler(checkpoint.CheckpointHandler):
    """Writes and reads what is one process's alone, beside that of the others."""

    def save(self, directory: Any, args: ProcessSave) -> None:
        # The first process made it, but a shared file system may show it later to this one.
        directory.mkdir(parents=True, exist_ok=True)
        name = f"process_{jax.process_index()}"
        tree = as_json(args.tree)
        content = {"checksum": _text_checksum(tree), "tree": tree}
        (directory / f"{name}.json").write_text(json.dumps(content))
        (directory / f"{name}.npz").write_bytes(_packed(_local(args.tree)))

    def restore(self, directory: Any, args: ProcessRestore) -> Saved:
        name = f"process_{args.process}"
        content = json.loads((directory / f"{name}.json").read_text())
        if content["checksum"] != _text_checksum(content["tree"]):
            raise ValueError(f"{name}.json has other text than was saved")
        tree = from_json(content["tree"])
        arrays = _unpacked((directory / f"{name}.npz").read_bytes(), _local(tree))
        return with_values(tree, lambda path, leaf: arrays.get(path, leaf.value))


@checkpoint.args.register_with_handler(ProcessHandler, for_save=True)
@dataclass
class ProcessSave(checkpoint.args.CheckpointArgs):
    """The state of this process."""

    tree: Saved


@checkpoint.args.register_with_handler(ProcessHandler, for_restore=True)
@dataclass
class ProcessRestore(checkpoint.args.CheckpointArgs):
    """Of which process the state is wanted."""

    process: int


def write(directory: Any, schema: Schema, tree: Saved) -> None:
    """Writes a checkpoint; all processes must call this.

    Args:
      directory: of the step; it appears when everything is in it.
      schema: what it is.
      tree: the state of this process, with arrays as leaves.
    """
    items: dict[str, Any] = {
        SCHEMA: orbax_args.JsonSave(asdict(schema)),
        STRUCTURE: ProcessSave(tree),
    }
    handlers: dict[str, Any] = {
        SCHEMA: checkpoint.JsonCheckpointHandler(),
        STRUCTURE: ProcessHandler(),
    }
    arrays = _nested(
        {
            path: leaf.value
            for path, leaf in leaves(tree)
            if leaf.kind in ("array", "key") and not leaf.local
        }
    )
    if arrays:
        items[STATE] = orbax_args.StandardSave(arrays)
        handlers[STATE] = checkpoint.StandardCheckpointHandler()
    with checkpoint.Checkpointer(checkpoint.CompositeCheckpointHandler(**handlers)) as writer:
        writer.save(directory, args=checkpoint.args.Composite(**items))


def read_schema(directory: Any, known: int) -> Schema | None:
    """What the checkpoint is, beyond its version if that is the known one; None if nothing says."""
    if not (directory / SCHEMA).is_dir():
        return None
    with _item(SCHEMA):
        found = json.loads((directory / SCHEMA / "metadata").read_text())
        if found["version"] != known:
            return Schema(found["version"])
        parts = found["parts"]
        return Schema(
            found["version"], found["processes"], parts if parts is None else tuple(parts)
        )


def read_structure(directory: Any, schema: Schema, only: tuple[str, ...] | None) -> Saved:
    """The state that this process is to get, but for the arrays that `read_arrays` brings.

    Args:
      directory: of the step.
      schema: what is there.
      only: the paths that are wanted; None: all.

    Raises:
      DamagedError: if a file is missing or wrong.
      ValueError: if another number of processes saved it, each with a state of its own.
    """
    if schema.version == 1:
        return _first_version(directory)
    if schema.processes == jax.process_count():
        return _of_process(directory, jax.process_index())
    first, *others = (_of_process(directory, each) for each in range(schema.processes))
    different = {"/".join(path) for other in others for path in _differences(first, other)}
    if only is not None:
        different = {path for path in different if f"{path}/".startswith(_within(only))}
    if different:
        raise ValueError(
            f"each of {schema.processes} processes saved a state of its own, but there are "
            f"{jax.process_count()} now; restore with as many, or with only= what is the same. "
            f"Different are: {', '.join(sorted(different))}"
        )
    return first


def read_arrays(directory: Any, tree: Saved, current: Callable[[Path], Any]) -> Saved:
    """Reads the arrays that a state lacks.

    Args:
      directory: of the step.
      tree: what `read_structure` gave, or the part of it that is wanted.
      current: gives what is at a path in the present state; where that is an array of the same
        shape and dtype on several devices, the saved one is read to there, else to the host.

    Raises:
      DamagedError: if a file is missing or wrong.
    """
    targets = {
        path: _target(leaf.value, current(path))
        for path, leaf in leaves(tree)
        if isinstance(leaf.value, jax.ShapeDtypeStruct)
    }
    if not targets:
        return tree
    restore_args = {
        path: checkpoint.RestoreArgs(restore_type=np.ndarray)
        if isinstance(target, np.ndarray)
        else checkpoint.ArrayRestoreArgs(sharding=target.sharding)
        for path, target in targets.items()
    }
    wanted = orbax_args.PyTreeRestore(
        _nested(targets), restore_args=_nested(restore_args), partial_restore=True
    )
    with _item(STATE):
        state = checkpoint.PyTreeCheckpointHandler().restore(directory / STATE, args=wanted)
        arrays = {path: _at(state, path) for path in targets}
        for path, leaf in leaves(tree):
            read = checksum(arrays[path]) if path in arrays else None
            if None not in (read, leaf.checksum) and read != leaf.checksum:
                raise ValueError(f"{'/'.join(path)} has other bits than were saved")
    return with_values(tree, lambda path, leaf: arrays.get(path, leaf.value))


class DamagedError(Exception):
    """A checkpoint that cannot be read, and what of it."""


@contextmanager
def _item(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedError(f"its {name} cannot be read ({reason})") from error


def _text_checksum(tree: Any) -> int:
    return crc32(json.dumps(tree).encode())


def _of_process(directory: Any, process: int) -> Saved:
    with _item(f"{STRUCTURE} of process {process}"):
        return ProcessHandler().restore(directory / STRUCTURE, ProcessRestore(process))


def _first_version(directory: Any) -> Saved:
    handler = checkpoint.StandardCheckpointHandler()
    with _item(STATE):
        target = jax.tree.map(
            lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),
            handler.metadata(directory / STATE).tree,
        )
        wanted = orbax_args.StandardRestore(target)
        return described("the checkpoint", handler.restore(directory / STATE, args=wanted))


def _local(tree: Saved) -> dict[Path, Any]:
    return {path: leaf.value for path, leaf in leaves(tree) if leaf.local}


def _packed(arrays: Mapping[Path, Any]) -> bytes:
    # As bytes, because NumPy's files do not know bfloat16.
    content = [np.frombuffer(np.asarray(each).tobytes(), np.uint8) for each in arrays.values()]
    file = io.BytesIO()
    np.savez(file, *content)
    return file.getvalue()


def _unpacked(content: bytes, specs: Mapping[Path, Any]) -> dict[Path, np.ndarray]:
    with np.load(io.BytesIO(content)) as file:
        return {
            path: file[f"arr_{number}"].view(spec.dtype).reshape(spec.shape)
            for number, (path, spec) in enumerate(specs.items())
        }


def _within(only: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{path}/" for path in only)


def _differences(one: Saved, other: Saved) -> Iterator[Path]:
    """Paths of leaves that only one of two states has, or that are not the same in both."""
    ours, theirs = dict(leaves(one)), dict(leaves(other))
    for path in ours.keys() | theirs.keys():
        pair = ours.get(path), theirs.get(path)
        if _content(pair[0]) != _content(pair[1]):
            yield path


def _content(leaf: Leaf | None) -> Any:
    if leaf is None or not isinstance(leaf.value, np.ndarray):
        return leaf
    value = (leaf.value.shape, str(leaf.value.dtype), leaf.value.tobytes())
    return replace(leaf, value=value)


def _target(spec: Any, current: Any) -> Any:
    if (
        isinstance(current, jax.Array)
        and current.committed
        and len(current.sharding.device_set) > 1
        and (current.shape, current.dtype) == (spec.shape, spec.dtype)
    ):
        return jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=current.sharding)
    return np.broadcast_to(np.zeros((), spec.dtype), spec.shape)


def _nested(values: Mapping[Path, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*parents, last), value in values.items():
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def _at(tree: Any, path: Path) -> Any:
    for name in path:
        tree = tree[name]
    return tree
