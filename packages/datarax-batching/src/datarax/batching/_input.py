"""The input of batchers: records, as `Element`s or dicts, from lists and iterators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

from datarax.core.element_batch import Batch, Element

Record = Element | Mapping[str, Any]

# How the message ends that Python gives to a generator's StopIteration.
_RAISED = "raised StopIteration"


def elements_of_dicts(records: list[Any]) -> list[Any]:
    """The same records, those that are dicts as an `Element`."""
    return [_element(record) if isinstance(record, Mapping) else record for record in records]


def _element(record: Mapping[str, Any]) -> Element:
    return Element(record if isinstance(record, dict) else dict(record))


def require_element(record: Any, number: int) -> None:
    """Raises a TypeError if the record is neither an `Element` nor was a dict."""
    if not isinstance(record, Element):
        raise TypeError(
            f"record {number} must be an Element or a dict of fields, got "
            f"{type(record).__name__}; wrap it: Element(data)"
        )


def record_iterator(elements: Any) -> Iterator[Any]:
    """An iterator over records, whose end is not taken from what a function of the user raises.

    Raises:
      TypeError: for a single record or batch, a dict, a string, or what cannot be iterated over.
    """
    if isinstance(elements, Mapping | str | bytes | Element | Batch) or not hasattr(
        elements, "__iter__"
    ):
        raise TypeError(
            "elements must be a list or iterator of Element records or dicts, got "
            f"{type(elements).__name__}"
        )
    return guarded(iter(elements))


def guarded(iterator: Iterator[Any]) -> Iterator[Any]:
    """The iterator, where it is a `map` or `filter` one whose function may raise StopIteration.

    For a generator, Python itself makes a RuntimeError of that.
    """
    if type(iterator) is map:
        function, *arguments = iterator.__reduce__()[1]  # pyright: ignore
        return _Mapped(function, zip(*map(guarded, arguments), strict=False))
    if type(iterator) is filter:
        function, items = iterator.__reduce__()[1]  # pyright: ignore
        return _Filtered(bool if function is None else function, guarded(items))
    return iterator


class _Mapped(Iterator[Any]):
    def __init__(self, function: Callable[..., Any], arguments: Iterable[Any]) -> None:
        self._function, self._arguments = function, iter(arguments)

    def __next__(self) -> Any:
        return _called(self._function, *next(self._arguments))


class _Filtered(Iterator[Any]):
    def __init__(self, function: Callable[[Any], Any], items: Iterator[Any]) -> None:
        self._function, self._items = function, items

    def __next__(self) -> Any:
        while True:
            item = next(self._items)
            if _called(self._function, item):
                return item


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except StopIteration as error:
        raise RuntimeError(f"{function!r} {_RAISED}") from error


def each(name: str, items: Iterable[Any]) -> Iterator[Any]:
    """The items, to the end that they say they have.

    Raises:
      RuntimeError: if a function of the user raised StopIteration, or fewer came than `len(items)`.
    """
    iterator, length, number = guarded(iter(items)), length_of(items), 0
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            break
        except RuntimeError as error:
            if ended_early(error):
                raise stopped(f"what gives {name}[{number}]") from error.__cause__
            raise
        yield item
        number += 1
    if length is not None and number < length:
        raise RuntimeError(
            f"{name} ended before {name}[{number}], but its len() is {length}; whatever raises "
            "StopIteration inside it ends it early"
        )


def stopped(what: str) -> RuntimeError:
    """The error for a function of the user that raised StopIteration.

    Args:
      what: the function, and for which records.
    """
    return RuntimeError(
        f"{what} raised StopIteration, which would end the stream before its end; return a value, "
        "or raise another error"
    )


def ended_early(error: Exception) -> bool:
    """Whether Python, or `guarded`, made the error of a StopIteration."""
    return isinstance(error.__cause__, StopIteration) and str(error).endswith(_RAISED)


def length_of(elements: Any) -> int | None:
    """How many records a collection says that it has; None for iterators, which say nothing."""
    if isinstance(elements, list | tuple) or not isinstance(elements, Sized):
        # A list ends where its records end, even if it grew shorter meanwhile.
        return None
    try:
        return len(elements)
    except TypeError:
        return None
