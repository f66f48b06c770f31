"""The keys that the members of a composition draw a record's numbers from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from datarax.core import randomness
from datarax.core.element_batch import Batch


def all_keys(bases: PyTree, batch: Batch) -> list[Key[Array, " batch"]]:
    """For each base key, the keys of the records, as if its operator were called alone.

    Without a `record_index` they are made from the keys of this call and the numbers of the rows.
    All are made at once, since every kernel that draws takes long to compile.
    """
    epoch, index, view = batch.epoch, batch.record_index, batch.view
    if index is None:
        epoch, index, view = None, jnp.arange(batch.batch_size, dtype=jnp.uint32), None
    leaves, out = jax.tree.leaves(bases), {}
    for kind in dict.fromkeys(leaf.dtype for leaf in leaves):
        alike = [at for at, leaf in enumerate(leaves) if leaf.dtype == kind]
        stacked = jnp.stack([leaves[at] for at in alike])
        keys = jax.vmap(lambda base: randomness.record_keys(base, epoch, index, view))(stacked)
        out |= {at: keys[row] for row, at in enumerate(alike)}
    return [out[at] for at in range(len(leaves))]


def row_keys(key: Key[Array, ""], rows: int) -> Key[Array, " batch"]:
    """A key for each row of a batch."""
    return randomness.record_keys(key, None, jnp.arange(rows, dtype=jnp.uint32))
