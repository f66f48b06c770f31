"""Which way a function of one record takes in a batch, on which backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array


def record_by_record(
    one: Callable[..., Array], elsewhere: Callable[..., Array] | None = None
) -> Callable[..., Array]:
    """A function of arrays whose `jax.vmap` on a CPU runs one record after another.

    There a record stays in the cache, and a branch that depends on it is taken alone. The result
    has no reverse-mode gradient: it is for integers.

    Args:
      one: what is computed of one record.
      elsewhere: the same by a formulation that other backends run well for all records at once;
        by default `one`.
    """

    @custom_vmap
    def function(*arrays):
        return one(*arrays)

    @function.def_vmap
    def _(size, batched, *arrays):
        arrays = [
            array if is_batched else jnp.broadcast_to(array, (size, *jnp.shape(array)))
            for array, is_batched in zip(arrays, batched, strict=True)
        ]
        result = lax.platform_dependent(
            *arrays,
            cpu=lambda *stacked: _in_turn(function, stacked),
            default=jax.vmap(elsewhere or one),
        )
        return result, True

    return function


def _in_turn(function: Callable[..., Array], stacked: Sequence[Array]) -> Array:
    """`lax.map`, whose result is made of integers where it would be floats of 16 bits.

    XLA on a CPU writes such floats by widening what is there, which here is the whole batch, for
    each record.
    """
    dtype = jax.eval_shape(function, *(array[0] for array in stacked)).dtype
    if not (jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize == 2):
        return lax.map(lambda record: function(*record), stacked)
    words = lax.map(lambda record: lax.bitcast_convert_type(function(*record), jnp.uint16), stacked)
    return lax.bitcast_convert_type(words, dtype)
