"""All records of a source as arrays, and some of them side by side."""

from __future__ import annotations

import mmap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from datarax.batching import RecycledMemory
from datarax.core.element_batch import Batch
from datarax.sources._fingerprint import hashed

# As many records, evenly spread, tell these from others of the same shapes.
_HASHED = 64


class Records:
    """All records, opaque to Flax: no part of the state, and shared by copies of the source.

    Args:
      batch: all records, every row valid. If there is a `jax.Array` among the leaves of its data
        and states, all of them are brought to the device.
    """

    def __init__(self, batch: Batch) -> None:
        leaves, self._structure = jax.tree.flatten((batch.data, batch.states))
        self.on_device = any(isinstance(leaf, jax.Array) for leaf in leaves)
        self._leaves = [jnp.asarray(leaf) for leaf in leaves] if self.on_device else leaves
        self.in_memory = not any(map(_is_in_a_file, self._leaves))
        self._memory = RecycledMemory()
        data, states = self._structure.unflatten(self._leaves)
        self.batch = batch.replace(data=data, states=states)

    def __repr__(self) -> str:
        return f"Records({self.batch!r})"

    def take(self, indices: np.ndarray) -> Batch:
        """The records with these numbers, all of which there are, in memory of their own."""
        leaves = [self._rows(leaf, indices) for leaf in self._leaves]
        data, states = self._structure.unflatten(leaves)
        # Not `from_arrays`: the records were validated as a whole.
        return Batch(
            data=data,
            states=states,
            valid_mask=np.ones(len(indices), bool),
            metadata=self._metadata(indices),
        )

    def take_indices(self, indices: np.ndarray) -> Batch:
        """A batch whose data are the numbers of its records, to be gathered later."""
        return Batch(
            data=indices,
            states={},
            valid_mask=np.ones(len(indices), bool),
            metadata=self._metadata(indices),
        )

    def digest(self) -> str:
        """A hash of records from all parts."""
        if not all(isinstance(x, np.ndarray) or x.is_fully_addressable for x in self._leaves):
            return ""
        count = len(self.batch)
        indices = np.unique(np.linspace(0, count - 1, min(count, _HASHED)).astype(np.int64))
        return hashed([np.asarray(leaf[indices]) for leaf in map(_words, self._leaves)])

    def _metadata(self, indices: np.ndarray) -> tuple[Any, ...] | None:
        metadata = self.batch.metadata
        return None if metadata is None else tuple(metadata[index] for index in indices)

    def _rows(self, leaf: np.ndarray | jax.Array, indices: np.ndarray) -> np.ndarray | jax.Array:
        if isinstance(leaf, jax.Array):
            return leaf[indices]
        out = self._memory.empty((len(indices), *leaf.shape[1:]), leaf.dtype)
        if leaf.flags.c_contiguous and leaf.flags.aligned:
            # "clip" because the default mode copies `out` once more; the indices are in range.
            return leaf.take(indices, axis=0, out=out, mode="clip")
        # `take` would copy all records of such an array first.
        out[...] = leaf[indices]
        return out


def _words(leaf: Any) -> Any:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _is_in_a_file(leaf: Any) -> bool:
    while isinstance(leaf, np.ndarray) and not isinstance(leaf, np.memmap):
        leaf = leaf.base
    return isinstance(leaf, np.memmap | mmap.mmap)
