"""The directory that checkpoints are in: which steps are there, and how they go."""

from __future__ import annotations

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Orbax takes a directory of such a name for an unfinished checkpoint, whatever follows.
_UNFINISHED = ".orbax-checkpoint-tmp"
# Where a name appears with its first file, Orbax says with another one that it is complete.
_COMMITTED = "commit_success.txt"


def opened(directory: str | os.PathLike[str]) -> Any:
    """The absolute path, or that in Google Cloud Storage.

    Raises:
      ValueError: if it is a URL that cannot be written to.
    """
    text = os.fspath(directory)
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text):
        return _remote(text, scheme[1].lower())
    return Path(text).absolute()


def _remote(text: str, scheme: str) -> Any:
    if not text.startswith("gs://"):
        raise ValueError(
            f"directory {text!r} cannot hold checkpoints; use a local directory, of which you copy "
            "finished steps, or gs://bucket/path as a string (a Path takes a slash from it)"
        )
    if find_spec("gcsfs") is None and find_spec("tensorflow") is None:
        raise ValueError(
            f"directory {text!r} needs gcsfs to list what is in it; pip install "
            "'datarax-core[gcs]', or use a local directory"
        )
    from etils import epath

    return epath.Path(text)


def _is_remote(directory: Any) -> bool:
    return not isinstance(directory, Path)


def steps(directory: Any) -> tuple[int, ...]:
    """The steps of all complete checkpoints that this process sees, ascending."""
    if not directory.is_dir():
        return ()
    found = [entry for entry in directory.iterdir() if re.fullmatch("0|[1-9][0-9]*", entry.name)]
    complete = [
        entry
        for entry in found
        if entry.is_dir() and (not _is_remote(directory) or (entry / _COMMITTED).exists())
    ]
    return tuple(sorted(int(entry.name) for entry in complete))


def remove(directory: Any, step: int) -> None:
    """Removes a checkpoint, which is no longer listed before its first file is gone."""
    path = directory / str(step)
    if _is_remote(directory):
        (path / _COMMITTED).unlink()
        path.rmtree()
        return
    unlisted = path.with_name(f"{step}{_UNFINISHED}-removed")
    path.rename(unlisted)
    shutil.rmtree(unlisted)


def clear(directory: Any) -> None:
    """Removes what killed saves and removals left behind."""
    if not directory.is_dir():
        return
    for entry in directory.iterdir():
        if _UNFINISHED in entry.name:
            shutil.rmtree(entry) if isinstance(entry, Path) else entry.rmtree()
