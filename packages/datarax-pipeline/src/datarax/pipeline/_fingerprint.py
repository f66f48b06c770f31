"""Texts that tell operators apart, the same in every process and on every host."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType, MethodType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax.core.operator import OperatorModule
from datarax.core.state import Statistics, variables

# How deep a text follows what functions close over.
_DEEPEST = 8
# More than so many stages or transforms have one text each, up to a number, and then one together.
_DETAILED, _NAMED, _LONGEST = 12, 24, 24
_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def digest(text: str | bytes) -> str:
    """A short hash."""
    return hashlib.blake2b(
        text.encode() if isinstance(text, str) else text, digest_size=6
    ).hexdigest()


def of_operator(operator: OperatorModule[Any]) -> dict[str, str]:
    """What tells an operator from others: class, options, code of its functions, Variables.

    What functions do is told by their bytecode, which only the same Python understands.
    """
    found = [
        (path, _spec(variable))
        for path, variable in variables(operator)
        if not isinstance(variable, Statistics)
    ]
    return {
        "kind": type(operator).__name__,
        "options": digest(_text(operator, code=False)),
        "code": f"{_PYTHON}:{digest(_text(operator, code=True))}",
        "variables": digest(repr(found)),
    }


def of_function(function: Any) -> dict[str, str]:
    """What tells a function, or an object's method, from others."""
    owner = getattr(function, "__self__", function)
    kind = getattr(owner, "__qualname__", type(owner).__qualname__)
    return {"kind": kind, "code": f"{_PYTHON}:{digest(_text(function, code=True))}"}


def listed(entries: Sequence[dict[str, str]], like: Any = None) -> dict[str, Any]:
    """Entries of operators or functions by number, in at most 1.5 kB however many there are.

    Args:
      entries: what `of_operator` or `of_function` gave.
      like: a saved list, perhaps of others, whose form to take; None: the form for so many entries.
    """
    detailed = len(entries) <= _DETAILED
    if isinstance(like, Mapping):
        detailed = not any(isinstance(entry, str) for entry in like.values())
    if detailed:
        return {str(number): dict(entry) for number, entry in enumerate(entries)}
    first, rest = entries[:_NAMED], entries[_NAMED:]
    texts = {str(n): _text_of([e], e["kind"][:_LONGEST]) for n, e in enumerate(first)}
    return texts | ({f"{_NAMED} and later": _text_of(rest, f"{len(rest)} more")} if rest else {})


def _text_of(entries: Sequence[dict[str, str]], name: str) -> str:
    """A name, a hash of the entries without their code, and one of their code."""
    code = digest(" ".join(entry["code"] for entry in entries))
    what = digest(repr([[entry[n] for n in sorted(entry) if n != "code"] for entry in entries]))
    return f"{name} {what[:8]} {_PYTHON}:{code[:8]}"


def alike(saved: str, present: str) -> bool:
    """Whether two texts are equal, as far as this Python can tell: code of another one may be."""
    what, _, code = saved.rpartition(" ")
    of_another = ":" in code and code.partition(":")[0] != _PYTHON
    return saved == present or (of_another and what == present.rpartition(" ")[0])


def _spec(variable: nnx.Variable[Any]) -> str:
    leaves, structure = jax.tree.flatten(variable.get_raw_value())
    return f"{structure} {[(str(jnp.result_type(leaf)), jnp.shape(leaf)) for leaf in leaves]}"


def _text(value: Any, *, code: bool, depth: int = 0) -> str:
    return " ".join(_words(value, code, depth))


def _words(value: Any, code: bool, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    inner = functools.partial(_words, code=code, depth=depth + 1)
    yield type(value).__name__
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.dtype):
        yield repr(value)
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        yield from _array(value)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield from (*inner(key), *inner(value[key]))
    elif isinstance(value, tuple | list | nnx.List):
        for entry in value:
            yield from inner(entry)
    elif isinstance(value, set | frozenset):
        yield from sorted(" ".join(inner(entry)) for entry in value)
    elif isinstance(value, functools.partial):
        yield from inner((value.func, value.args, value.keywords))
    elif isinstance(value, MethodType):
        yield from (*inner(value.__func__), *inner(value.__self__))
    elif isinstance(value, FunctionType):
        yield value.__qualname__
        if code:
            cells = [_contents(cell) for cell in value.__closure__ or ()]
            yield from (*_code(value.__code__), *inner((value.__defaults__, cells)))
    elif isinstance(value, nnx.Module):
        for name, entry in sorted(vars(value).items()):
            if name not in ("rngs", "name", "_constructor") and not name.startswith("_pytree__"):
                yield from (name, *(() if isinstance(entry, nnx.Variable) else inner(entry)))
    elif isinstance(value, type):
        yield value.__qualname__
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from (field.name, *inner(getattr(value, field.name)))
    elif callable(value):
        yield getattr(value, "__qualname__", "")


def _array(value: Any) -> Iterator[str]:
    yield f"{value.dtype} {value.shape}"
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if not isinstance(value, jax.Array) or value.is_fully_addressable:
        yield digest(np.asarray(value).tobytes())


def _code(code: CodeType) -> Iterator[str]:
    yield from (code.co_code.hex(), *code.co_names, *code.co_varnames)
    for constant in code.co_consts:
        yield from _code(constant) if isinstance(constant, CodeType) else (repr(constant),)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        # Not assigned yet.
        return None
