"""Functions inside a Grain data set, whose StopIteration Grain takes for the end of its data."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from traceback import walk_tb
from types import TracebackType
from typing import Any

import grain

from datarax.sources._ends import stopped

# Where Grain keeps what a data set reads from, and the functions that it calls.
_PARENTS = ("_parents", "_datasets")
_FUNCTIONS = ("_map_fn", "_filter_fn")


def with_told_ends(dataset: Any) -> Any:
    """A data set in which StopIteration of a function is a RuntimeError, in any process.

    Args:
      dataset: a `grain.IterDataset` or `grain.MapDataset`, which stays as it is.
    """
    if isinstance(dataset, _Records):
        return dataset
    if isinstance(dataset, grain.MapDataset):
        return _Records(dataset)
    changes = {name: _told(getattr(dataset, name, ())) for name in _PARENTS}
    changes |= {name: _Function.of(getattr(dataset, name, None)) for name in _FUNCTIONS}
    changes = {name: new for name, new in changes.items() if new}
    if not changes:
        return dataset
    new = copy.copy(dataset)
    vars(new).update(changes)
    return new


def _told(datasets: Any) -> Any:
    if isinstance(datasets, Sequence) and not isinstance(datasets, grain.MapDataset):
        return tuple(map(with_told_ends, datasets))
    return with_told_ends(datasets)


def raised_by(traceback: TracebackType | None) -> str | None:
    """Which function that Grain called raised; None where an iterator has come to its end.

    Unknown, and thus None, where it was in another process: Grain brings no frames from there.
    """
    frames = [frame for frame, _ in walk_tb(traceback)]
    of_grain = [frame.f_globals.get("__name__", "").startswith("grain.") for frame in frames]
    if not any(of_grain):
        return None
    called = frames[len(frames) - of_grain[::-1].index(True) :]
    if not called or called[0].f_code.co_name == "__next__":
        return None
    return called[0].f_code.co_qualname


def stopped_by(name: str | None) -> RuntimeError:
    """The error for StopIteration of a function with this name, if it is known."""
    return stopped(f"{name or 'a function'} in the grain.IterDataset")


class _Records(grain.MapDataset):
    """Records by number, none of which ends the data."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        try:
            record = self._parent[index]
        except StopIteration as error:
            raise stopped_by(raised_by(error.__traceback__)) from error
        is_dataset = isinstance(record, grain.IterDataset | grain.MapDataset)
        return with_told_ends(record) if is_dataset else record


class _Function:
    """A function that Grain calls for each record."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        functools.update_wrapper(self, function, updated=())

    @classmethod
    def of(cls, function: Any) -> Any:
        return function if function is None or isinstance(function, cls) else cls(function)

    def __call__(self, *args: Any) -> Any:
        try:
            return self._function(*args)
        except StopIteration as error:
            name = getattr(self._function, "__qualname__", type(self._function).__qualname__)
            raise stopped_by(name) from error
