"""What a function's code does with one of its arguments."""

from __future__ import annotations

import dis
from itertools import pairwise
from typing import Any


def reads(function: Any, name: str) -> bool:
    """Whether a Python function, or one defined in it, reads its variable of this name."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    steps = dis.get_instructions(code)
    return name in code.co_cellvars or any(name in _loaded(step) for step in steps)


def asks_for_none(function: Any, name: str) -> bool:
    """Whether a Python function compares its variable of this name with None."""
    if getattr(function, "__code__", None) is None:
        return False
    steps = list(dis.get_instructions(function))
    for step, following in pairwise(steps):
        if _loaded(step)[-1:] == (name,):
            constant = following.opname == "LOAD_CONST" and following.argval is None
            if constant or following.opname.endswith("NONE"):
                return True
    return False


def _loaded(step: dis.Instruction) -> tuple[Any, ...]:
    """Names of the variables that an instruction reads, of which it may read two."""
    if not step.opname.startswith("LOAD_"):
        return ()
    return step.argval if isinstance(step.argval, tuple) else (step.argval,)
