"""What a module was built from, so that a copy can be built the same way."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Hashable, Mapping
from typing import Any

from flax import nnx

from datarax.core._exact import numbers_in

LONGEST_OPTION = 60


class ConstructorArguments:
    """Arguments of a constructor call, with snapshots of modules and streams among them.

    Two are equal if the numbers and strings in them are, types and signs included: modules of equal
    configuration share compiled functions, whatever objects they were built from.
    """

    # No __dict__, in which numbers would be looked for.
    __slots__ = ("_args", "_found", "_kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args = tuple(map(snapshot, args))
        self._kwargs = {name: snapshot(value) for name, value in kwargs.items()}
        self._found: Hashable = None

    @property
    def _numbers(self) -> Hashable:
        # Not before it is asked for: a source can be built from a million records.
        if self._found is None:
            self._found = numbers_in((self._args, self._kwargs))
        return self._found

    def contents(self) -> list[Any]:
        """All arguments."""
        return [*self._args, *self._kwargs.values()]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConstructorArguments) and self._numbers == other._numbers

    def __hash__(self) -> int:
        return hash(self._numbers)

    def __repr__(self) -> str:
        return "ConstructorArguments()"

    def rebuilt(self, kind: type[Any], **replacements: Any) -> Any:
        """Calls the constructor again, with the named arguments replaced (None keeps one)."""
        signature = inspect.signature(kind.__init__)
        args = map(snapshot, self._args)
        kwargs = {name: snapshot(value) for name, value in self._kwargs.items()}
        arguments = signature.bind(None, *args, **kwargs)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        for name, value in replacements.items():
            if value is None:
                continue
            if name not in signature.parameters and not takes_any:
                raise TypeError(
                    f"{kind.__name__} takes no {name}, so copy cannot replace it; override copy"
                )
            arguments.arguments[name] = value
        return kind(*arguments.args[1:], **arguments.kwargs)


class ConstructorSignature:
    """What `inspect.signature` and `help` show of a module's class: its constructor's arguments.

    Flax's metaclass hides them behind `(*args, **kwargs)`. An instance has the signature of its
    `__call__`.
    """

    def __get__(self, instance: object, owner: type[Any]) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        signature = inspect.signature(owner.__init__)
        parameters = list(signature.parameters.values())[1:]
        return signature.replace(
            parameters=[
                parameter.replace(annotation=owner.config_class.__name__)
                if parameter.name == "config"
                else parameter
                for parameter in parameters
            ],
            return_annotation=signature.empty,
        )


def description(module: Any) -> str:
    """One line: the module's class, what of its config differs from the defaults, and its name."""
    config = getattr(module, "config", None)
    if config is None:
        # Shown by an error while it is being made.
        return f"{type(module).__name__}()"
    parts = different_options(config)
    if module.name is not None:
        parts.append(f"name={module.name!r}")
    return f"{type(module).__name__}({', '.join(parts)})"


def different_options(config: Any) -> list[str]:
    """The options of a config that differ from the defaults, as they are written."""
    return [
        f"{field.name}={short(getattr(config, field.name))}"
        for field in dataclasses.fields(config)
        if differs(config, field)
    ]


def differs(config: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether an option of a config is not the default."""
    default = field.metadata.get("default", field.default)
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    value = getattr(config, field.name)
    return default is dataclasses.MISSING or repr(value) != repr(default)


def short(value: Any) -> str:
    """The value of an option in one line of at most 60 characters."""
    text = getattr(value, "__name__", None) if callable(value) else None
    text = " ".join((text or repr(value)).split())
    return text if len(text) <= LONGEST_OPTION else text[: LONGEST_OPTION - 3] + "..."


def snapshot(value: Any) -> Any:
    """The same argument, with modules and streams copied so that nobody else changes them."""
    if isinstance(value, nnx.Module | nnx.Rngs):
        return nnx.clone(value)
    if type(value) in (list, tuple) and any(isinstance(v, nnx.Module) for v in value):
        return type(value)(map(snapshot, value))
    if isinstance(value, Mapping) and any(isinstance(v, nnx.Module) for v in value.values()):
        return {name: snapshot(entry) for name, entry in value.items()}
    return value
