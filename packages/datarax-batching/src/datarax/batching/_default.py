"""`DefaultBatcher`: batches of consecutive records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import keystr, tree_map_with_path

from datarax.batching._assemble import Assembler
from datarax.batching._batcher import StreamBatcher
from datarax.batching._input import Record
from datarax.batching._memory import RecycledMemory, ReusedMemory
from datarax.batching._options import require_remainder, resolved_remainder
from datarax.batching._padding import PadValues, frozen_pad_values
from datarax.batching._stream import ConsecutiveStream, RecordStream
from datarax.core._batch_spec import batched_spec, leaf_spec, require_batch_size, require_fields
from datarax.core.config import StructuralConfig, require_bools
from datarax.core.element_batch import Element


@dataclass(frozen=True)
class DefaultBatcherConfig(StructuralConfig):
    """Configuration of `DefaultBatcher`.

    Args:
      remainder: what happens to records that do not fill a last batch. "pad": they get rows of
        padding, which `valid_mask` marks; "drop": they are left out; "partial": a smaller batch,
        which costs a compilation more.
      pad_values: what padding holds: a number, "last" (a copy of the last record), or a dict of
        these by dotted field path, where fields that are not named get 0. Random keys take 0 or
        "last", and `states` 0, or "last" if `pad_values` is "last".
      collate_fn: called with the list of the records of a batch; returns their data, a dict of
        arrays `(len(elements), ...)` whose shapes and dtypes are the same for every batch. None
        stacks equal records.
      reuse_buffers: write every batch to the memory of the one before, which must no longer be
        needed. JAX copies such memory.
      cacheable, batch_stats_fn, precomputed_stats, stochastic, stream_name: see `StructuralConfig`.

    Raises:
      TypeError: for values of the wrong type.
      ValueError: for an unknown `remainder`, a string other than "last" as a pad value, or pad
        values without `remainder="pad"`.

    >>> DefaultBatcherConfig(remainder="drop").remainder
    'drop'
    """

    remainder: Literal["pad", "drop", "partial"] = field(default="pad", kw_only=True)
    pad_values: PadValues = field(default=0, kw_only=True)
    collate_fn: Callable[[list[Element]], Any] | None = field(default=None, kw_only=True)
    reuse_buffers: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bools(self, "reuse_buffers")
        require_remainder(f"{type(self).__name__}.remainder", self.remainder)
        if self.collate_fn is not None and not callable(self.collate_fn):
            raise TypeError(
                f"{type(self).__name__}.collate_fn must be callable, "
                f"got {type(self.collate_fn).__name__}"
            )
        values = frozen_pad_values(f"{type(self).__name__}.pad_values", self.pad_values)
        object.__setattr__(self, "pad_values", values)
        if self.remainder != "pad" and values != 0:
            raise ValueError(
                f"{type(self).__name__}.pad_values={self.pad_values!r} has no effect with "
                f"remainder={self.remainder!r}; leave it out or set remainder='pad'"
            )


class DefaultBatcher(StreamBatcher[DefaultBatcherConfig]):
    """Groups each `batch_size` consecutive records into a batch.

    Every batch looks as `batch_spec` says, the last one too (unless `remainder="partial"`), so that
    a jitted function traces once. Host records become host batches, each in memory of its own,
    which the CPU device takes without a copy; memory that nothing refers to any more is used for
    later batches. 64-bit numbers are narrowed as JAX does it; integers that do not fit are an
    error. Element states become `batch.states`; metadata goes with the records, None for padding.

    `get_operation_stats` counts records: applied are those in batches, skipped those left out.

    Args:
      config: what to do with a remainder, and what padding holds.
      rngs: not used; every module takes it.
      name: its name in messages.

    >>> import numpy as np
    >>> records = [Element({"x": np.float32(i)}) for i in range(5)]
    >>> batches = list(DefaultBatcher(DefaultBatcherConfig())(records, batch_size=3))
    >>> [batch["x"].tolist() for batch in batches]
    [[0.0, 1.0, 2.0], [3.0, 4.0, 0.0]]
    >>> batches[1].valid_mask.tolist()
    [True, True, False]
    """

    config_class = DefaultBatcherConfig

    def __init__(
        self,
        config: DefaultBatcherConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        # Kept from one epoch to the next.
        self._memory = RecycledMemory()

    def process(
        self,
        elements: Iterable[Record],
        *,
        batch_size: int,
        drop_remainder: bool = False,
    ) -> RecordStream:
        """Groups records into batches, one at a time as they are asked for.

        Args:
          elements: the records; exactly `batch_size` are pulled for a batch.
          batch_size: rows of each batch.
          drop_remainder: whether to leave out records that do not fill a last batch, whatever the
            config says.

        Returns:
          An iterator over batches. An error about a record comes when its batch would be due; asked
          again, the iterator continues without that record.

        Raises:
          TypeError: if `elements` cannot be iterated over; later, for something else than an
            `Element` and for leaves that are not numbers.
          ValueError: if `batch_size` is not a positive integer; later, for a record that differs in
            structure, shape or dtype from the first one, or an integer that does not fit.
        """
        size = require_batch_size(batch_size)
        remainder = resolved_remainder(self.config.remainder, drop_remainder)
        assembler = Assembler(
            pad_values=self.config.pad_values,
            collate_fn=self.config.collate_fn,
            memory=ReusedMemory if self.config.reuse_buffers else lambda: self._memory,
        )
        return ConsecutiveStream(self, elements, size, remainder, assembler)

    def batch_spec(self, element_spec: Any, *, batch_size: int) -> dict[str, Any]:
        if self.config.collate_fn is None:
            return super().batch_spec(element_spec, batch_size=batch_size)
        size = require_batch_size(batch_size)
        fields = require_fields("element_spec", element_spec)
        blank = tree_map_with_path(_zeros, dict(fields))
        data = self.config.collate_fn([Element(blank)] * size)
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf)[1:], leaf.dtype), data)
        return batched_spec(one, size)


def _zeros(path: Any, leaf: Any) -> Any:
    spec = leaf_spec(f"element_spec{keystr(path)}", leaf)
    is_key = jnp.issubdtype(spec.dtype, jax.dtypes.prng_key)
    return (jnp if is_key else np).zeros(spec.shape, spec.dtype)
