"""Leaves of a state: copies that own their memory, random keys as words, values put in place."""

from __future__ import annotations

from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np


def is_key(leaf: Any) -> TypeGuard[jax.Array]:
    """Whether a leaf is a typed random key, or an array of them."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def implementation(key: jax.Array) -> str:
    """The name of a key's implementation, such as "rbg"."""
    return str(jax.random.key_impl(key))


def words(leaf: Any) -> Any:
    """The array that stands for a leaf: uint32 words of a key, a host array for a number."""
    if is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array | np.ndarray) else np.asarray(leaf)


def owned(leaf: Any) -> Any:
    """A copy of a leaf that shares no buffer with it, of the same type and in the same place."""
    if isinstance(leaf, jax.Array):
        return leaf.copy()
    copy = np.array(leaf)
    return copy if isinstance(leaf, np.ndarray) else copy[()]


def dtype_of(value: Any) -> Any:
    """The dtype of an array or a number."""
    return value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype


def spec_of(value: Any) -> str:
    """Dtype and shape of an array or a number, for messages."""
    return f"{dtype_of(value)}{list(jnp.shape(value))}"


def put_in_place(came: Any, current: Any, *, copy: bool = True) -> Any:
    """What came, of the kind that the current leaf is and where that is.

    A host array stays on the host. A `jax.Array` goes to the sharding of the current one, and stays
    uncommitted if the current one is, so that it can still meet arrays on any devices.

    Args:
      came: an array of the shape and dtype of `words(current)`.
      current: the leaf to replace.
      copy: False if nothing else uses the buffers of `came`.
    """
    if is_key(current):
        placed = _placed(came, words(current), copy)
        return jax.random.wrap_key_data(placed, impl=jax.random.key_impl(current))
    if isinstance(current, jax.Array):
        return _placed(came, current, copy)
    host = np.array(came)
    return host if isinstance(current, np.ndarray) else host[()]


def unplaced(leaf: Any) -> Any:
    """A copy of a leaf that no single device holds fast."""
    if isinstance(leaf, jax.Array) and leaf.committed and len(leaf.sharding.device_set) == 1:
        return jax.device_put(np.array(jax.device_get(leaf)))
    return owned(leaf)


def _placed(came: Any, current: jax.Array, copy: bool) -> jax.Array:
    arrived = isinstance(came, jax.Array)
    if not current.committed:
        if arrived and not came.committed:
            return came.copy() if copy else came
        # JAX has no other way to release an array from its device.
        return jax.device_put(np.array(jax.device_get(came)))
    if arrived:
        came = came.copy() if copy else came
        same = came.committed and came.sharding == current.sharding
        return came if same else jax.device_put(came, current.sharding)
    # Copied whatever `copy` says, as JAX may keep the memory of a host array.
    host = np.array(came)
    if current.is_fully_addressable:
        return jax.device_put(host, current.sharding)
    return jax.make_array_from_callback(host.shape, current.sharding, lambda index: host[index])
