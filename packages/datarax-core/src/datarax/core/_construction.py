"""What a module was built from, so that a copy can be built the same way."""

from __future__ import annotations

import inspect
from typing import Any

from flax import nnx


class ConstructorArguments:
    """Arguments of a constructor call, with snapshots of modules and streams among them.

    All instances are equal: two modules of equal configuration share compiled functions, whatever
    objects they were built from.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args = tuple(map(snapshot, args))
        self._kwargs = {name: snapshot(value) for name, value in kwargs.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConstructorArguments)

    def __hash__(self) -> int:
        return hash(ConstructorArguments)

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


def snapshot(value: Any) -> Any:
    """The same argument, with modules and streams copied so that nobody else changes them."""
    if isinstance(value, nnx.Module | nnx.Rngs):
        return nnx.clone(value)
    if type(value) in (list, tuple) and value and all(isinstance(v, nnx.Module) for v in value):
        return type(value)(nnx.clone(module) for module in value)
    return value
