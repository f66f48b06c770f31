"""Keys: what an operator draws from, for a call, for a record and for a batch.

An operator owns one `nnx.Rngs` with just the streams that it needs. A stream's key is the
operator's base key and its count the number of calls, so what others draw can never change it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.errors import TraceContextError
from jaxtyping import Array, Bool, Key, UInt32

from datarax.core import _recording
from datarax.core._draws import below as below
from datarax.core._draws import coin as coin
from datarax.core._draws import open_uniform as open_uniform
from datarax.core._threefry import THREEFRY as THREEFRY
from datarax.core._threefry import fold_in as fold_in
from datarax.core._threefry import random_words as random_words

DEFAULT_STREAM = "default"

_ordinal: ContextVar[int] = ContextVar("datarax_stage_ordinal", default=0)


def own_streams(owner: str, rngs: nnx.Rngs | None, names: Sequence[str]) -> nnx.Rngs:
    """Copies of the named streams (of "default" where one is missing) that only `owner` advances.

    The given `rngs` are not advanced, and the number of draws made from them has no influence.
    """
    if rngs is None:
        raise ValueError(
            f"{owner} is stochastic and draws from {list(names)}, but rngs is None; pass for "
            f"example rngs=nnx.Rngs({names[0]}=0)"
        )
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"rngs of {owner} must be nnx.Rngs, got {type(rngs).__name__} {rngs!r}")
    available = [name for name, _ in rngs.items()]
    require_streams(owner, names, available)
    owned = {}
    for name in names:
        source = rngs[name] if name in available else rngs[DEFAULT_STREAM]
        key = source.key.get_value()
        if key.ndim:
            raise ValueError(
                f"stream {name!r} of {owner} must hold one key, got shape {key.shape}; build the "
                "operator with rngs that are not split"
            )
        owned[name] = jax.random.fold_in(key, np.uint32(crc32(name.encode())))
    own = nnx.Rngs(**owned)
    for name in names:
        # On the host: a count on the device would be one more buffer in and out of every call.
        own[name].count.set_raw_value(np.uint32(0))  # pyright: ignore[reportArgumentType]
    return own


def require_streams(owner: str, names: Sequence[str], available: Sequence[str]) -> None:
    """Raises a ValueError if one of `names` is not available ("default" stands in for any)."""
    missing = [name for name in names if name not in available]
    if missing and DEFAULT_STREAM not in available:
        raise ValueError(
            f"{owner} needs the random streams {missing}, but there are {list(available)}; pass "
            f"for example rngs=nnx.Rngs({missing[0]}=0)"
        )


def can_update(variable: nnx.Variable[Any]) -> bool:
    """Whether the Variable belongs to the trace that runs now, so that a new value will stay."""
    try:
        variable.set_raw_value(variable.get_raw_value())
    except TraceContextError:
        return False
    return True


@contextmanager
def call_key(owner: str, stream: nnx.RngStream) -> Iterator[Key[Array, ""]]:
    """The key of the stream's next call; the call counts if the block does not raise."""
    count = stream.count.get_value()
    if not can_update(stream.count):
        raise ValueError(
            f"{owner} cannot advance its random stream inside a jax.jit (or grad, vmap, scan) that "
            "closes over it, so every call would draw the same numbers; use nnx.jit (nnx.grad, "
            "...) with the operator as an argument, or give the batch a record_index"
        )
    yield fold_in(stream.key.get_value(), count)
    following = count + count.dtype.type(1)
    stream.count.set_value(following)
    recorder = _recording.active()
    if recorder is not None:
        recorder.drew(stream.count, following)


@contextmanager
def stage_ordinal(ordinal: int) -> Iterator[None]:
    """Tells apart stages of a pipeline that share a base key; the first is 0, like no pipeline."""
    token = _ordinal.set(ordinal)
    try:
        yield
    finally:
        _ordinal.reset(token)


def record_keys(
    base: Key[Array, ""],
    epoch: UInt32[np.ndarray | Array, ""] | None,
    record_index: UInt32[np.ndarray | Array, "*batch"],
) -> Key[Array, "*batch"]:
    """One threefry key a record: a pure function of base key, epoch and record index.

    Threefry whatever the implementation of the base key, because random bits of an rbg key depend,
    under `vmap`, on the other keys of the batch.
    """
    words = jax.random.key_data(base)
    key = jax.random.wrap_key_data(words[:2], impl=THREEFRY)
    for word in words[2:]:
        key = fold_in(key, word)
    if _ordinal.get():
        key = fold_in(key, np.uint32(_ordinal.get()))
    key = fold_in(key, np.uint32(0) if epoch is None else epoch)
    return fold_in(key, record_index)


def first_valid_key(
    base: Key[Array, ""],
    epoch: UInt32[np.ndarray | Array, ""] | None,
    record_index: UInt32[np.ndarray | Array, " batch"],
    valid_mask: Bool[np.ndarray | Array, " batch"],
) -> Key[Array, ""]:
    """The key of the first valid row's record, for operators that draw once for a batch."""
    first = jnp.argmax(jnp.asarray(valid_mask))
    return record_keys(base, epoch, jnp.asarray(record_index)[first])
