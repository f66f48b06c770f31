"""`PackingBatcher`: several short sequences in one row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from datarax.batching import _ragged
from datarax.batching._batcher import StreamBatcher
from datarax.batching._input import Record
from datarax.batching._options import require_remainder, resolved_remainder
from datarax.batching._pack_stream import POSITIONS, SEGMENT_IDS, PackingStream, require_free
from datarax.batching._padding import PadValues
from datarax.batching._stream import RecordStream
from datarax.core._batch_spec import batched_spec, leaf_spec, require_batch_size, require_fields
from datarax.core.config import StructuralConfig


@dataclass(frozen=True)
class PackingBatcherConfig(StructuralConfig):
    """Configuration of `PackingBatcher`.

    Args:
      row_length: steps of a row.
      remainder: what happens to a last batch with empty rows, see `DefaultBatcherConfig`.
      pad_values: the number that padding holds, or a dict of them by dotted path.
      cacheable, batch_stats_fn, precomputed_stats, stochastic, stream_name: see `StructuralConfig`.

    Raises:
      TypeError: for values of the wrong type.
      ValueError: for a `row_length` that is not a positive integer, or an unknown `remainder`.

    >>> PackingBatcherConfig(row_length=128).row_length
    128
    """

    row_length: int = field(kw_only=True)
    remainder: Literal["pad", "drop", "partial"] = field(default="pad", kw_only=True)
    pad_values: PadValues = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        length = require_batch_size(self.row_length, f"{name}.row_length")
        object.__setattr__(self, "row_length", length)
        require_remainder(f"{name}.remainder", self.remainder)
        values = _ragged.frozen_numbers(f"{name}.pad_values", self.pad_values)
        object.__setattr__(self, "pad_values", values)


class PackingCount(nnx.Variable[Any]):
    """int64 `(3,)`: sequences, steps that are data, steps in all."""


class PackingBatcher(StreamBatcher[PackingBatcherConfig]):
    """Packs sequences into rows of one length: each into the first row where it fits.

    All fields of a record are sequences of its length, `(length, ...)`. A batch has for each of
    them a leaf `(batch, row_length, ...)`, and says which step is whose: `segment_ids`, int32
    `(batch, row_length)`, counts a row's sequences from 1 and is 0 in padding; `positions`, of the
    same shape, counts the steps of each sequence from 0. An attention mask is
    `segment_ids[:, :, None] == segment_ids[:, None, :]`. A row's metadata is the tuple of its
    sequences'. A sequence without a step is left out, and counts as such. `get_operation_stats`
    counts records, as that of `DefaultBatcher` does.

    Args:
      config: length of rows and padding.
      rngs: not used; every module takes it.
      name: its name in messages.

    >>> records = [{"t": np.full(n, n)} for n in (3, 2, 1)]
    >>> (batch,) = PackingBatcher(PackingBatcherConfig(row_length=4))(records, batch_size=2)
    >>> batch["t"].tolist(), batch["segment_ids"].tolist()
    ([[3, 3, 3, 1], [2, 2, 0, 0]], [[1, 1, 1, 2], [1, 1, 0, 0]])
    """

    config_class = PackingBatcherConfig

    def __init__(
        self, config: PackingBatcherConfig, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        self._packing_count = PackingCount(np.zeros(3, np.int64))

    def process(
        self, elements: Iterable[Record], *, batch_size: int, drop_remainder: bool = False
    ) -> RecordStream:
        """Packs sequences, pulling one after the other until one fits in no row of the batch.

        Args:
          elements: the records.
          batch_size: rows of each batch.
          drop_remainder: whether to leave out a last batch with empty rows.

        Returns:
          An iterator over batches. A sequence longer than a row is an error after the sequences
          before it have been delivered; asked again, the iterator continues after it.

        Raises:
          TypeError: if `elements` cannot be iterated over.
          ValueError: if `batch_size` is not a positive integer.
        """
        size = require_batch_size(batch_size)
        remainder = resolved_remainder(self.config.remainder, drop_remainder)
        return PackingStream(self, elements, size, remainder)

    def batch_spec(self, element_spec: Any, *, batch_size: int) -> dict[str, Any]:
        fields = dict(require_fields("element_spec", element_spec))
        require_free(fields, "element_spec")
        length = self.config.row_length

        def row(leaf: Any) -> jax.ShapeDtypeStruct:
            one = leaf_spec("element_spec", leaf)
            return jax.ShapeDtypeStruct((length, *one.shape[1:]), one.dtype)

        numbers = jax.ShapeDtypeStruct((length,), np.int32)
        spec = {**jax.tree.map(row, fields), SEGMENT_IDS: numbers, POSITIONS: numbers}
        return batched_spec(spec, batch_size)

    def packing_report(self) -> dict[str, Any]:
        """How full the batches so far were.

        Returns:
          `sequences`, the number of them, and `efficiency`, the fraction of steps that were data.
        """
        sequences, used, steps = np.asarray(self._packing_count.get_value()).tolist()
        return {"sequences": sequences, "efficiency": used / steps if steps else 0.0}

    def count_packing(self, sequences: int, used: int, steps: int) -> None:
        counts = np.asarray(self._packing_count.get_value())
        self._packing_count.set_value(counts + np.array([sequences, used, steps], np.int64))
