"""`ArraySource`: sources that hold all of their records as arrays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Int, PyTree

from datarax.batching import record_spec
from datarax.core.element_batch import Batch, Element
from datarax.sources._config import SourceConfig
from datarax.sources._source import MAX_RECORDS, DataSourceModule

# Memory that begins at a multiple of this goes to JAX's CPU device without a copy.
ALIGNMENT = 64


class Records:
    """All records, opaque to Flax: no part of the state, and shared by copies of the source."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.on_device = any(isinstance(leaf, jax.Array) for leaf in _leaves(batch))
        if self.on_device:
            data, states = jax.tree.map(jnp.asarray, (batch.data, batch.states))
            self.batch = batch.replace(data=data, states=states)

    def __repr__(self) -> str:
        return f"Records({self.batch!r})"


class ArraySource(DataSourceModule):
    """Serves records from arrays: gathered on the host, or on the device if they are there.

    Args:
      config: whether to shuffle, and from which seed.
      records: the records as one batch, all rows valid.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: what to call it in messages.
    """

    def __init__(
        self,
        config: SourceConfig,
        records: Batch,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        if len(records) > MAX_RECORDS:
            raise ValueError(f"a source holds at most {MAX_RECORDS} records, got {len(records)}")
        self._records = Records(records)

    def __len__(self) -> int:
        return len(self._records.batch)

    def __getitem__(self, index: int) -> Element:
        return self._records.batch.element(index)

    def element_spec(self) -> PyTree[jax.ShapeDtypeStruct]:
        data = self._records.batch.data
        return record_spec(
            Element(
                jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), data)
            )
        )

    def gather(self, indices: Int[np.ndarray, " batch"]) -> Batch:
        """Reads records, side by side.

        Args:
          indices: which records, from 0; in any order, repetitions allowed.

        Returns:
          A batch of these records in this order, in fresh memory, without `record_index`.

        Raises:
          IndexError: if there is no such record.
        """
        indices = np.asarray(indices)
        length = len(self)
        if indices.size and not (indices.min() >= 0 and indices.max() < length):
            raise IndexError(f"indices must be from 0 to {length - 1}, got {indices.tolist()}")
        return self._taken(indices)

    def batches(self, epoch: int, start: int, batch_size: int) -> Iterator[Batch]:
        for indices in self._indices(epoch, start, batch_size):
            yield dataclasses.replace(self._taken(indices), record_index=indices)

    def device_records(self) -> Batch | None:
        return self._records.batch if self._records.on_device else None

    def index_batches(self, epoch: int, start: int, batch_size: int) -> Iterator[Batch]:
        for indices in self._indices(epoch, start, batch_size):
            yield Batch(
                data=indices,
                states={},
                valid_mask=np.ones(len(indices), bool),
                record_index=indices,
                metadata=self._metadata(indices),
            )

    def _indices(self, epoch: int, start: int, batch_size: int) -> Iterator[np.ndarray]:
        order = self.order(epoch)
        for first in range(start, len(order), batch_size):
            yield order[first : first + batch_size]

    def _taken(self, indices: np.ndarray) -> Batch:
        # Not `from_arrays`: the records were validated as a whole.
        records = self._records.batch
        return Batch(
            data=jax.tree.map(lambda leaf: _rows(leaf, indices), records.data),
            states=jax.tree.map(lambda leaf: _rows(leaf, indices), records.states),
            valid_mask=np.ones(len(indices), bool),
            metadata=self._metadata(indices),
        )

    def _metadata(self, indices: np.ndarray) -> tuple[Any, ...] | None:
        metadata = self._records.batch.metadata
        return None if metadata is None else tuple(metadata[index] for index in indices)


def _leaves(batch: Batch) -> list[Any]:
    return jax.tree.leaves((batch.data, batch.states))


def _rows(leaf: np.ndarray | jax.Array, indices: np.ndarray) -> np.ndarray | jax.Array:
    if isinstance(leaf, jax.Array):
        return leaf[indices]
    out = _aligned((len(indices), *leaf.shape[1:]), leaf.dtype)
    # "clip" because the default mode copies `out` once more; the indices are in range.
    return np.take(leaf, indices, axis=0, out=out, mode="clip")


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
