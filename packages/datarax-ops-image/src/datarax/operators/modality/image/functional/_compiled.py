"""Compiling a public function without hiding its signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import jax

Function = TypeVar("Function", bound=Callable)


def compiled(*static: str) -> Callable[[Function], Function]:
    """`jax.jit` as a decorator, after which type checkers still know the signature.

    Args:
      *static: names of arguments that are Python values.
    """
    return lambda function: cast(Function, jax.jit(function, static_argnames=static))
