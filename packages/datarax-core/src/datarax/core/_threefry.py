"""Random bits of threefry keys, those of `jax.random`, in one kernel for any number of keys.

On the CPU `jax.random` loops over the rounds of the generator and starts some forty kernels for a
draw, which takes longer than the work on a small batch, and longer to compile.

References:
  Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3, section 3.3 (Threefry-2x32).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Integer, Key, UInt32

THREEFRY = "threefry2x32"
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)

Words = UInt32[Array, "..."]


def fold_in(
    key: Key[Array, ""], data: Integer[Array | np.ndarray, "*data"] | np.uint32
) -> Key[Array, "*data"]:
    """`jax.random.fold_in` of a key and each of the integers."""
    data = jnp.asarray(data).astype(jnp.uint32)
    if not _is_threefry(key):
        return _mapped(partial(jax.random.fold_in, key), data.ndim)(data)
    words = jnp.stack(_threefry2x32(key, jnp.zeros_like(data), data), axis=-1)
    return jax.random.wrap_key_data(words, impl=THREEFRY)


def random_words(keys: Key[Array, "*keys"], shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Random words of each key, `(*keys, *shape)`: those of a mapped `jax.random.bits`.

    No word of a threefry key depends on how many follow, nor on the other keys. They are the words
    that JAX draws with `jax_threefry_partitionable`, its default.
    """
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        keys = jax.random.wrap_key_data(keys)
    if not _is_threefry(keys):
        bits = partial(jax.random.bits, shape=shape, dtype=jnp.uint32)
        return _mapped(bits, keys.ndim)(keys)
    counter = lax.iota(jnp.uint32, math.prod(shape)).reshape((1,) * keys.ndim + (-1,))
    high, low = _threefry2x32(keys[..., None], jnp.zeros_like(counter), counter)
    # high ^ low as a reduction, because XLA computes one once: what it thinks cheap it computes
    # again in every kernel that reads it, so for every pixel of the row that a word is for.
    pair = jnp.where(lax.broadcasted_iota(jnp.uint32, (2, *high.shape), 0) == 0, high, low)
    words = lax.reduce(pair, np.uint32(0), lax.bitwise_xor, (0,))
    return words.reshape(*keys.shape, *shape)


def _is_threefry(keys: Key[Array, "*keys"]) -> bool:
    return str(jax.random.key_impl(keys)) == THREEFRY


def _threefry2x32(keys: Key[Array, "*keys"], x: Words, y: Words) -> tuple[Words, Words]:
    data = jax.random.key_data(keys)
    first, second = data[..., 0], data[..., 1]
    schedule = (first, second, first ^ second ^ PARITY)
    x, y = x + first, y + second
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x = x + y
            y = x ^ (y << np.uint32(rotation) | y >> np.uint32(32 - rotation))
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def _mapped(function: Callable[..., Array], axes: int) -> Callable[..., Array]:
    for _ in range(axes):
        function = jax.vmap(function)
    return function
