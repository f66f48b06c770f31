"""Transfers that a call makes for its caller, under `jax.transfer_guard("disallow")` too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

Function = TypeVar("Function", bound=Callable[..., Any])


def transferring(function: Function) -> Function:
    """Lets a function move what it was called with, and what it needs, to a device."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        level = jax.config.jax_transfer_guard_host_to_device  # pyright: ignore[reportAttributeAccessIssue]
        if level != "disallow":
            return function(*args, **kwargs)
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return cast(Function, wrapper)
