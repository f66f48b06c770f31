"""Work on single records before they are batched: functions and objects like Grain's transforms."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt32

from datarax.core.operator import OperatorModule
from datarax.sources._ends import stopped

Kind = Literal["record", "random", "numbered"]

# The methods of Grain's transforms, and what they are given beside the record.
_METHODS: tuple[tuple[str, Kind], ...] = (
    ("random_map", "random"),
    ("map_with_index", "numbered"),
    ("map", "record"),
)


def record_generator(
    words: UInt32[np.ndarray, "4"], epoch: int, record: int, number: int
) -> np.random.Generator:
    """The random numbers of one transform for one record: the same for any worker and batch.

    Args:
      words: the key of all transforms.
      epoch: from 0.
      record: the record's number in its source.
      number: which transform.
    """
    key: Any = np.asarray(words, "<u4").view("<u8")
    # A counter's lowest word counts what is drawn; no two streams meet within 2^64 draws.
    counter = np.array([0, number, record, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@dataclass(frozen=True)
class Transform:
    """One of a pipeline's transforms.

    Args:
      number: its place among them.
      function: what to call.
      kind: what it is called with: the record; the record and random numbers; or the number of the
        record and the record.
    """

    number: int
    function: Callable[..., Any]
    kind: Kind

    def __call__(self, record: Any, words: Any, epoch: int, index: int) -> Any:
        """The record after this transform.

        Args:
          record: what the source or the transform before gave.
          words: uint32 `(4,)`, the key of all transforms.
          epoch: from 0.
          index: the record's number in its source.

        Raises:
          TypeError: if the result is None.
          RuntimeError: for StopIteration.
        """
        arguments: tuple[Any, ...] = (record,)
        if self.kind == "random":
            arguments = (record, record_generator(words, epoch, index, self.number))
        elif self.kind == "numbered":
            arguments = (index, record)
        what = f"transforms[{self.number}] {_name_of(self.function)}, for record {index},"
        try:
            new = self.function(*arguments)
        except StopIteration as error:
            raise stopped(what) from error
        except Exception as error:
            error.add_note(f"in {what[:-1]}")
            raise
        if new is None:
            raise TypeError(f"{what} returned None; return the record")
        return new


def checked_transforms(transforms: Any) -> tuple[Transform, ...]:
    """The transforms with what each is to be called with.

    Args:
      transforms: functions of a record, functions of a record and an `np.random.Generator`, and
        objects with a method `map`, `random_map` or `map_with_index`.

    Raises:
      TypeError: for anything else.
    """
    if not isinstance(transforms, list | tuple):
        raise TypeError(
            f"transforms must be a list or tuple, got {type(transforms).__name__}; write "
            "transforms=[function]"
        )
    return tuple(_checked(number, given) for number, given in enumerate(transforms))


def _checked(number: int, given: Any) -> Transform:
    if isinstance(given, OperatorModule):
        raise TypeError(
            f"transforms[{number}] is the operator {given._label()}, which works on batches; put "
            "it into stages=[...]"
        )
    if not isinstance(given, type):
        for method, kind in _METHODS:
            if callable(getattr(given, method, None)):
                return Transform(number, getattr(given, method), kind)
        if callable(given):
            return Transform(number, given, "random" if _takes_two(given) else "record")
    came = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
    raise TypeError(
        f"transforms[{number}] must be a function of a record, or of a record and a random "
        f"generator, or have a method map, random_map or map_with_index, got {came}"
    )


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether the function must be given two arguments by position."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [
        parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    return len(needed) == 2


def _name_of(function: Any) -> str:
    owner = getattr(function, "__self__", None)
    return (
        getattr(function, "__name__", type(function).__name__)
        if owner is None
        else (type(owner).__name__)
    )
