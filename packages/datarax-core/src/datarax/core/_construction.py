"""What a module was built from, so that a copy can be built the same way."""

from __future__ import annotations

import inspect
from typing import Any

import jax
from flax import nnx


class ConstructorArguments:
    """Arguments of a constructor call, with snapshots of modules and streams among them.

    All instances are equal: two modules of equal configuration share compiled functions, whatever
    objects they were built from.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args, self._kwargs = snapshot((args, kwargs))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConstructorArguments)

    def __hash__(self) -> int:
        return hash(ConstructorArguments)

    def __repr__(self) -> str:
        return "ConstructorArguments()"

    def rebuilt(self, kind: type[Any], **replacements: Any) -> Any:
        """Calls the constructor again, with the named arguments replaced (None keeps one)."""
        signature = inspect.signature(kind.__init__)
        arguments = signature.bind(None, *self._args, **self._kwargs)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        args, kwargs = snapshot((arguments.args[1:], arguments.kwargs))
        rebound = signature.bind(None, *args, **kwargs)
        for name, value in replacements.items():
            if value is None:
                continue
            if name not in signature.parameters and not takes_any:
                raise TypeError(
                    f"{kind.__name__} takes no {name}, so copy cannot replace it; override copy"
                )
            rebound.arguments[name] = value
        return kind(*rebound.args[1:], **rebound.kwargs)


def snapshot(tree: Any) -> Any:
    """The same arguments, with modules and streams copied so that nobody else changes them."""
    return jax.tree.map(
        lambda leaf: nnx.clone(leaf) if isinstance(leaf, nnx.Module | nnx.Rngs) else leaf,
        tree,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Module | nnx.Rngs),
    )
