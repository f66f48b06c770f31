"""Transfers that a call makes for its caller.

Under `jax.transfer_guard("disallow")` an array goes from the host to a device only where somebody
says so. Calling an operator with arrays of the host says so, and its counts are nobody's business.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

Function = TypeVar("Function", bound=Callable[..., Any])


def guarded() -> bool:
    """Whether transfers that nobody asks for are errors now."""
    level = jax.config.jax_transfer_guard_host_to_device  # pyright: ignore[reportAttributeAccessIssue]
    return level == "disallow"


def transferring(function: Function) -> Function:
    """Lets a function move what it was called with, and what it needs, to a device."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if not guarded():
            return function(*args, **kwargs)
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return cast(Function, wrapper)
