"""Which record is mixed with which."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt32

ROW_BITS = 12
PADDING = np.uint32(1 << 31)


def partners(word: UInt32[Array, " rows"], valid: Bool[Array, " rows"]) -> Int32[Array, " rows"]:
    """Each valid row's partner: the next one round a random circle of all valid rows.

    Every such circle is equally likely, so a partner is uniform over the other valid rows and
    nobody is its own. Padded rows, and a valid row that is alone, are their own partners. Padding
    at the end makes no difference to the rows before it.

    Args:
      word: one word of random bits a row.
      valid: which rows take part.
    """
    rows = valid.shape[0]
    own = jnp.arange(rows, dtype=jnp.int32)
    shuffle = (word >> 1) | jnp.where(valid, jnp.uint32(0), PADDING)
    if not isinstance(rows, int):
        # A symbol, of which nothing is known: the same order, by a sort of two arrays.
        words = shuffle >> ROW_BITS << ROW_BITS
        sorted_words, order = jax.lax.sort((words, own), num_keys=2)
    elif rows <= 1 << ROW_BITS:
        # One sort of one array: the row stands in the low bits of its random word.
        sorted_words = jnp.sort((shuffle >> ROW_BITS << ROW_BITS) | own.astype(jnp.uint32))
        order = (sorted_words & ((1 << ROW_BITS) - 1)).astype(jnp.int32)
    else:
        sorted_words, order = jax.lax.sort((shuffle, own), num_keys=1)
    # Padding stands at the end; a sum of `valid` would be three kernels more.
    is_last = (own == rows - 1) | (_following(sorted_words, own) >= PADDING)
    after = jnp.where(is_last, order[0], _following(order, own))
    after = jnp.where(sorted_words >= PADDING, order, after)
    everyone = jnp.zeros_like(own).at[order]
    return everyone.set(after, unique_indices=True, mode="promise_in_bounds")


def _following(values: Array, place: Int32[Array, " rows"]) -> Array:
    return values.at[place + 1].get(mode="clip")
