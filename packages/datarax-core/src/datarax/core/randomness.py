"""Keys, and exact draws from them: for authors of operators, batchers and sources.

An operator owns one `nnx.Rngs` with just the streams that it needs. A stream's key is the
operator's base key and its count the number of calls, so what others draw can never change it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Bool, Key, UInt32

from datarax.core import _raw_key, _recording
from datarax.core._draws import below as below
from datarax.core._draws import coin as coin
from datarax.core._draws import open_uniform as open_uniform
from datarax.core._streams import OwnRngs as OwnRngs
from datarax.core._streams import can_advance
from datarax.core._streams import can_update as can_update
from datarax.core._threefry import THREEFRY as THREEFRY
from datarax.core._threefry import fold_in as fold_in
from datarax.core._threefry import random_words as random_words
from datarax.core._transfers import transferring

DEFAULT_STREAM = "default"

_ordinal: ContextVar[int] = ContextVar("datarax_ordinal", default=0)
_given: ContextVar[_Given | None] = ContextVar("datarax_given_key", default=None)


@dataclass
class _Given:
    """The explicit key of a call.

    Attributes:
      key: the key, not yet folded with the class of the operator that draws.
      caller: the class of the operator that is being called with it; None for a `member` that is
        about to be.
      calls: how often the caller has called operators of each class.
    """

    key: Key[Array, ""]
    caller: type[Any] | None
    calls: Counter[type[Any]] = field(default_factory=Counter)


def class_word(kind: type[Any]) -> np.uint32:
    """What keys are folded with for a class: a hash of its name, not of its module."""
    return np.uint32(crc32(kind.__name__.encode()))


@transferring
def own_streams(
    owner: str, kind: type[Any], rngs: nnx.Rngs | None, names: Sequence[str]
) -> nnx.Rngs:
    """Streams that only one module advances, from the next keys of the given ones.

    Args:
      owner: what the errors call the module.
      kind: its class, whose name the keys are folded with, so that modules of different classes
        never draw the same numbers, nor do two of one class from one `nnx.Rngs`.
      rngs: where the named streams are taken from ("default" where one is missing); each advances,
        as for every NNX layer.
      names: which streams.

    Raises:
      TypeError: if `rngs` is not an `nnx.Rngs`.
      ValueError: if `rngs` is None, lacks a stream, or is split.
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
        if source.key.get_value().ndim:
            raise ValueError(
                f"stream {name!r} of {owner} must hold one key, got shape "
                f"{source.key.get_value().shape}; build the operator with rngs that are not split"
            )
        key = jax.random.fold_in(source(), class_word(kind))
        owned[name] = jax.random.fold_in(key, np.uint32(crc32(name.encode())))
    own = OwnRngs(**owned)
    for name in names:
        # On the host: a count on the device would be one more buffer in and out of every call.
        zero: Any = np.uint32(0)
        own[name].count.set_raw_value(zero)
    return own


def require_streams(owner: str, names: Sequence[str], available: Sequence[str]) -> None:
    """Raises a ValueError if one of `names` is not available ("default" stands in for any)."""
    missing = [name for name in names if name not in available]
    if missing and DEFAULT_STREAM not in available:
        raise ValueError(
            f"{owner} needs the random streams {missing}, but there are {list(available)}; pass "
            f"for example rngs=nnx.Rngs({missing[0]}=0)"
        )


def as_key(key: Any) -> Key[Array, ""]:
    """A typed key from a typed or a raw one.

    Args:
      key: what `jax.random.key` or `jax.random.PRNGKey` returns. A raw key of two words is a
        threefry key, one of four words an rbg key (unsafe_rbg where that is JAX's default).

    Raises:
      TypeError: if it is neither.
      ValueError: if it is not one key.
    """
    return _raw_key.typed(_raw_key.checked(key))


@contextmanager
def explicit_key(kind: type[Any], key: Key[Array, ""] | None) -> Iterator[None]:
    """Lets one call of an operator draw from this typed key alone.

    Args:
      kind: the operator's class.
      key: the key. If it is None and the call comes from an operator that has one, the key is made
        from that by the class and by the number of such calls.
    """
    outer = _given.get()
    if key is None and outer is not None:
        key = outer.key
        if outer.caller is not None:
            key = _member_key(outer.caller, outer.calls[kind])
            outer.calls[kind] += 1
    token = _given.set(None if key is None else _Given(key, kind))
    try:
        yield
    finally:
        _given.reset(token)


def given_key(kind: type[Any]) -> Key[Array, ""] | None:
    """The explicit key of the call that runs, as an operator of this class draws from it."""
    given = _given.get()
    return None if given is None else fold_in(given.key, class_word(kind))


def _member_key(owner: type[Any], same_class: int) -> Key[Array, ""] | None:
    given = given_key(owner)
    return None if given is None else fold_in(given, np.uint32(1 + same_class))


@contextmanager
def member(owner: type[Any], same_class: int, same_key: int) -> Iterator[None]:
    """Lets a member of a composition draw numbers of its own.

    Args:
      owner: the composition's class.
      same_class: how many members before it have its class, by which explicit keys differ.
      same_key: its number among `ordinals`, by which equal base keys differ.
    """
    key = _member_key(owner, same_class)
    given = None if key is None else _Given(key, caller=None)
    tokens = _given.set(given), _ordinal.set(_ordinal.get() + same_key)
    try:
        yield
    finally:
        _given.reset(tokens[0])
        _ordinal.reset(tokens[1])


def is_member() -> bool:
    """Whether a composition has said what a call draws from, which no compiled call knows."""
    return _given.get() is not None or _ordinal.get() != 0


def ordinals(modules: Sequence[nnx.Module]) -> tuple[int, ...]:
    """For each module, 0 if none before it has a base key in common, else a number of its own.

    Keys of modules within modules count too. Inside a trace, as of `nnx.eval_shape`, which knows no
    values, all keys count as different.
    """
    taken: Counter[Any] = Counter()
    numbers = []
    for module in modules:
        held = Counter(
            _identity(leaf.get_raw_value())
            for _, leaf in nnx.to_flat_state(nnx.state(module))
            if isinstance(leaf, nnx.RngKey)
        )
        number = max((taken[key] for key in held), default=0)
        taken |= Counter({key: number + times for key, times in held.items()})
        numbers.append(number)
    return tuple(numbers)


def _identity(key: Any) -> Any:
    if isinstance(key, Tracer) or not isinstance(key, jax.Array):
        return id(key)
    return str(jax.random.key_impl(key)), jax.device_get(jax.random.key_data(key)).tobytes()


def told_apart(key: Key[Array, ""]) -> Key[Array, ""]:
    """The key, folded with the number of the `member` that draws from it if that is not 0."""
    return fold_in(key, np.uint32(_ordinal.get())) if _ordinal.get() else key


@contextmanager
def call_key(owner: str, stream: nnx.RngStream) -> Iterator[Key[Array, ""]]:
    """The key of the stream's next call; the call counts if the block does not raise."""
    count = stream.count.get_value()
    if not can_advance(stream):
        raise ValueError(
            f"{owner} cannot advance its random stream inside a jax.jit (or grad, vmap, scan) that "
            "closes over it or takes it as an argument, so every call would draw the same numbers; "
            "pass a key, as in op(batch, key=key), use nnx.jit (nnx.grad, ...) with the operator "
            "as an argument, or give the batch a record_index and an epoch"
        )
    yield told_apart(fold_in(stream.key.get_value(), count))
    following = count + count.dtype.type(1)
    stream.count.set_value(following)
    recorder = _recording.active()
    if recorder is not None:
        recorder.drew(stream.count, following)


def record_keys(
    base: Key[Array, ""],
    epoch: UInt32[np.ndarray | Array, ""] | None,
    record_index: UInt32[np.ndarray | Array, "*batch"],
    view: UInt32[np.ndarray | Array, "*batch"] | None = None,
) -> Key[Array, "*batch"]:
    """One threefry key a record: a pure function of base key, epoch, record and view.

    Threefry whatever the implementation of the base key, because random bits of an rbg key depend,
    under `vmap`, on the other keys of the batch.

    Args:
      base: the base key.
      epoch: the epoch; None is epoch 0.
      record_index: the numbers of the records.
      view: which copy of its record each row is; 0 gives the keys of None.
    """
    words = jax.random.key_data(base)
    key = jax.random.wrap_key_data(words[:2], impl=THREEFRY)
    for word in words[2:]:
        key = fold_in(key, word)
    key = fold_in(key, np.uint32(0) if epoch is None else epoch)
    keys = fold_in(key, record_index)
    if view is None:
        return keys
    view = jnp.asarray(view)
    first, others = jax.random.key_data(keys), jax.random.key_data(fold_in(keys, view))
    words = jnp.where((view == 0)[..., None], first, others)
    return jax.random.wrap_key_data(words, impl=THREEFRY)


def first_valid_key(
    base: Key[Array, ""],
    epoch: UInt32[np.ndarray | Array, ""] | None,
    record_index: UInt32[np.ndarray | Array, " batch"],
    view: UInt32[np.ndarray | Array, " batch"] | None,
    valid_mask: Bool[np.ndarray | Array, " batch"],
) -> Key[Array, ""]:
    """The key of the first valid row's record, for operators that draw once for a batch."""
    first = jnp.argmax(jnp.asarray(valid_mask))
    copy = None if view is None else jnp.asarray(view)[first]
    return record_keys(base, epoch, jnp.asarray(record_index)[first], copy)
