"""Streams of a module, which know whether a transformation brings their new counts back."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Self

import jax
from flax import nnx
from flax.errors import TraceContextError
from flax.nnx import tracers

with jax.ensure_compile_time_eval():
    EAGER = tracers.TraceState()

# Streams that a transformation made of leaves which nobody compares with what they are afterwards.
_lost: weakref.WeakSet[nnx.RngStream] = weakref.WeakSet()


class OwnRngs(nnx.Rngs):
    """The streams of one module.

    A `jax.jit` that takes the module as an argument makes another one of its leaves, and forgets
    it. So streams made inside a trace count as lost until somebody takes the leaves again, which
    the transformations of NNX do before they call a function, to see what it changes. (With
    `graph=True` they make modules in another way.)
    """

    def set_view(self) -> None:
        """Does nothing; without it, `nnx.view` takes its name for a stream and advances it."""

    @classmethod
    def _pytree__unflatten(cls, static: Any, node_attrs: Any) -> Self:
        rngs = super()._pytree__unflatten(static, node_attrs)
        if not EAGER.is_valid():
            _lost.update(_streams_in(rngs))
        return rngs

    def _pytree__flatten(self) -> Any:
        _lost.difference_update(_streams_in(self))
        return super()._pytree__flatten()

    def _pytree__flatten_with_paths(self) -> Any:
        _lost.difference_update(_streams_in(self))
        return super()._pytree__flatten_with_paths()


def _streams_in(rngs: nnx.Rngs) -> Iterator[nnx.RngStream]:
    return (value for value in vars(rngs).values() if isinstance(value, nnx.RngStream))


def can_update(variable: nnx.Variable[Any]) -> bool:
    """Whether the Variable belongs to the trace that runs now, so that a new value will stay."""
    try:
        variable.set_raw_value(variable.get_raw_value())
    except TraceContextError:
        return False
    return True


def can_advance(stream: nnx.RngStream) -> bool:
    """Whether a new count of the stream will reach its module outside the trace that runs now."""
    return stream not in _lost and can_update(stream.count)


def lose_alike(module: nnx.Module, copy: nnx.Module) -> None:
    """Makes the streams of a module's copy unable to advance where those of the module are."""
    pairs = zip(nnx.iter_graph(module), nnx.iter_graph(copy), strict=True)
    for (_, stream), (_, other) in pairs:
        if isinstance(stream, nnx.RngStream) and not can_advance(stream):
            _lost.add(other)
