"""Which way a function of one record takes in a batch, on which backend."""

from __future__ import annotations

from collections.abc import Callable

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
            cpu=lambda *stacked: lax.map(lambda record: function(*record), stacked),
            default=jax.vmap(elsewhere or one),
        )
        return result, True

    return function
