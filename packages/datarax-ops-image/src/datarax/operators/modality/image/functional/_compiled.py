"""What every public function is decorated with, without hiding its signature."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

Function = TypeVar("Function", bound=Callable)


def compiled(*static: str) -> Callable[[Function], Function]:
    """`jax.jit` as a decorator, after which type checkers still know the signature.

    Args:
      *static: names of arguments that are Python values.
    """

    def decorated(function: Function) -> Function:
        return cast(Function, jax.jit(broadcasting(function), static_argnames=static))

    return decorated


def broadcasting(function: Function) -> Function:
    """Lets a function broadcast where a caller forbids that to its own arithmetic."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return cast(Function, wrapper)
