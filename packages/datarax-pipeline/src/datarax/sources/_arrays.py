"""`ArraySource`: sources that hold all of their records as arrays."""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int, PyTree, UInt32

from datarax.batching import record_spec
from datarax.core.element_batch import Batch, Element
from datarax.sources._records import Records
from datarax.sources._source import MAX_RECORDS, DataSourceModule, SourceConfigT


class ArraySource(DataSourceModule[SourceConfigT]):
    """Serves records from arrays: gathered on the host, or on the device if they are there.

    Args:
      config: whether to shuffle, and from which seed.
      records: the records as one batch, all rows valid.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: its name in messages.
    """

    def __init__(
        self,
        config: SourceConfigT,
        records: Batch,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        if len(records) > MAX_RECORDS:
            raise ValueError(f"a source holds at most {MAX_RECORDS} records, got {len(records)}")
        self._records = Records(records)
        self.in_memory = self._records.in_memory

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
        return self._records.take(indices)

    def fingerprint(self) -> dict[str, str]:
        return {**super().fingerprint(), "content": self._records.digest()}

    def device_records(self) -> Batch | None:
        return self._records.batch if self._records.on_device else None

    def index_batch(self, indices: UInt32[np.ndarray, " batch"]) -> Batch:
        return self._records.take_indices(indices)
