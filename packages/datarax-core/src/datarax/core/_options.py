"""Options of configs in one form, from whatever file, command line or library they come."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from operator import is_
from typing import Any, get_args

from flax import nnx

SINGLE = (str, bytes, bool, int, float, type(None))
LIST = re.compile(r"\b[lL]ist\b")
TUPLE = re.compile(r"\b[tT]uple\b")
KIND = "kind"


def resolve_annotations(kind: type[Any]) -> None:
    """Puts types in place of the names in a class's annotations.

    Parsers of command lines read annotations, and look names up in modules of their own choice.
    """
    try:
        kind.__annotations__ = inspect.get_annotations(kind, eval_str=True)
    except Exception:
        # Names that only a function or a type checker knows, of a class that is not ours.
        return


def read_first(check: Callable[..., None]) -> Callable[..., None]:
    """A `__post_init__` before which all options are brought to one form."""

    @functools.wraps(check)
    def read_and_check(config: Any, *args: Any) -> None:
        __tracebackhide__ = True
        read(config)
        check(config, *args)

    return read_and_check


def read(config: Any) -> None:
    """Brings the options of a config to one form.

    Lists, and what reads like them (OmegaConf's `ListConfig`), become tuples, unless the annotation
    says list; mappings become dicts. A dict that names one of the dataclasses in the annotation (or
    one derived from them) as its "kind", as `dataclasses.asdict` makes it, becomes that.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, SINGLE):
            continue
        plain = Reader(field.type).plain(value)
        if plain is not value:
            object.__setattr__(config, field.name, plain)


class Reader:
    """Reads the values of an option.

    Args:
      hint: its annotation.
    """

    def __init__(self, hint: Any) -> None:
        self.hint = hint
        listed, text = LIST.search(str(hint)), str(hint)
        self.sequence = list if listed else tuple
        # What cannot change may be a data set, which nobody wants in a tuple.
        self.sequences = Sequence if listed or TUPLE.search(text) else MutableSequence

    def plain(self, value: Any) -> Any:
        """The value in one form; the value itself if it has it already."""
        if isinstance(value, (*SINGLE, nnx.Pytree)):
            return value
        if isinstance(value, Mapping):
            return self._mapping(value)
        own = type(value) is tuple
        if not own and (isinstance(value, tuple) or not isinstance(value, self.sequences)):
            return value
        entries = [self.plain(entry) for entry in value]
        kind = tuple if own else self.sequence
        same = isinstance(value, kind) and all(map(is_, value, entries))
        return value if same else kind(entries)

    def _mapping(self, value: Mapping[Any, Any]) -> Any:
        entries = {name: self.plain(entry) for name, entry in value.items()}
        for kind in dataclasses_in(self.hint) if KIND in entries else ():
            if kind.__name__ == entries[KIND]:
                del entries[KIND]
                return kind(**entries)
        same = isinstance(value, dict) and all(map(is_, value.values(), entries.values()))
        return value if same else entries


def dataclasses_in(hint: Any) -> Iterator[type[Any]]:
    """The dataclasses that an annotation allows."""
    if not isinstance(hint, type):
        for inside in get_args(hint):
            yield from dataclasses_in(inside)
        return
    if dataclasses.is_dataclass(hint):
        yield hint
    for derived in () if hint.__module__ == "builtins" else hint.__subclasses__():
        yield from dataclasses_in(derived)
