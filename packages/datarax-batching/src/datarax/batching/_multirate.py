"""`MultiRateBatcher`: windows of a stream whose fields are sampled at different rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

from datarax.batching import _ragged
from datarax.batching._batcher import StreamBatcher
from datarax.batching._input import Record
from datarax.batching._options import require_remainder, resolved_remainder
from datarax.batching._padding import PadValues, at_or_above
from datarax.batching._stream import RecordStream
from datarax.batching._windows import WindowStream, mask_name, sample_shape
from datarax.core._batch_spec import batched_spec, leaf_spec, require_batch_size, require_fields
from datarax.core.config import StructuralConfig


@dataclass(frozen=True)
class MultiRateBatcherConfig(StructuralConfig):
    """Configuration of `MultiRateBatcher`.

    Args:
      steps: records of a window.
      rates: values of each field in one record, by dotted path, as a dict or pairs. A field of
        rate 1 is one sample `(...)`, a field of rate r > 1 has shape `(r, ...)`. Fields that are
        not named have rate 1.
      hop: records from the start of a window to the start of the next; None means `steps`.
      remainder: what happens to a last window that the stream does not fill and to windows that do
        not fill a last batch, see `DefaultBatcherConfig`. "partial" keeps the window, padded, in a
        smaller batch.
      pad_values: the number that padding holds, or a dict of them by dotted path.
      cacheable, batch_stats_fn, precomputed_stats, stochastic, stream_name: see `StructuralConfig`.

    Raises:
      TypeError: for values of the wrong type.
      ValueError: for numbers that are not positive integers, or an unknown `remainder`.

    >>> MultiRateBatcherConfig(steps=8, rates={"audio": 4}).rates
    (('audio', 4),)
    """

    steps: int = field(kw_only=True)
    rates: Mapping[str, int] | tuple[tuple[str, int], ...] = field(kw_only=True)
    hop: int | None = field(default=None, kw_only=True)
    remainder: Literal["pad", "drop", "partial"] = field(default="pad", kw_only=True)
    pad_values: PadValues = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        require_remainder(f"{name}.remainder", self.remainder)
        steps = require_batch_size(self.steps, f"{name}.steps")
        object.__setattr__(self, "steps", steps)
        hop = steps if self.hop is None else require_batch_size(self.hop, f"{name}.hop")
        object.__setattr__(self, "hop", hop)
        rates = dict(self.rates)
        _ragged.field_paths(f"{name}.rates", tuple(rates))
        checked = {
            path: require_batch_size(rate, f"{name}.rates[{path!r}]")
            for path, rate in rates.items()
        }
        object.__setattr__(self, "rates", tuple(sorted(checked.items())))
        values = _ragged.frozen_numbers(f"{name}.pad_values", self.pad_values)
        object.__setattr__(self, "pad_values", values)


class MultiRateBatcher(StreamBatcher[MultiRateBatcherConfig]):
    """Cuts a stream of records into windows in which fields of all rates cover the same time.

    Each record is one step. A window of `steps` records has `(steps * rate, ...)` samples of a
    field, so that sample `i` of a field of rate `r` belongs to step `i // r`. A mask for each rate,
    `rate_<r>_mask`, bool `(batch, steps * r)`, is False after the end of the stream. States become
    `(batch, steps, ...)`; a window's metadata is the tuple of its records'. Windows are put
    together on the host.

    `get_operation_stats` counts windows: applied are those in batches, skipped those left out, and
    records that were refused.

    Args:
      config: window, rates and padding.
      rngs: not used; every module takes it.
      name: its name in messages.

    >>> config = MultiRateBatcherConfig(steps=2, rates={"audio": 3})
    >>> records = [{"video": i, "audio": np.arange(3 * i, 3 * i + 3)} for i in range(3)]
    >>> (batch,) = MultiRateBatcher(config)(records, batch_size=2)
    >>> batch["video"].tolist(), batch["audio"].tolist()
    ([[0, 1], [2, 0]], [[0, 1, 2, 3, 4, 5], [6, 7, 8, 0, 0, 0]])
    >>> batch["rate_3_mask"][1].tolist()
    [True, True, True, False, False, False]
    """

    config_class = MultiRateBatcherConfig

    def process(
        self, elements: Iterable[Record], *, batch_size: int, drop_remainder: bool = False
    ) -> RecordStream:
        """Cuts windows, pulling one record after the other until a batch of them is full.

        Args:
          elements: the records, one for each step, in the order of time.
          batch_size: windows of each batch.
          drop_remainder: whether to leave out a window that the stream does not fill, and windows
            that do not fill a last batch.

        Returns:
          An iterator over batches. A record that is not like the first one is an error; asked
          again, the iterator begins a new window behind it: no window contains a gap.

        Raises:
          TypeError: if `elements` cannot be iterated over.
          ValueError: if `batch_size` is not a positive integer.
        """
        size = require_batch_size(batch_size)
        remainder = resolved_remainder(self.config.remainder, drop_remainder)
        return WindowStream(self, elements, size, remainder)

    def batch_spec(self, element_spec: Any, *, batch_size: int) -> dict[str, Any]:
        fields = dict(require_fields("element_spec", element_spec))
        rates = self._rates("element_spec", fields)

        def window(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
            name = keystr(path, simple=True, separator=".")
            one = leaf_spec(f"element_spec{keystr(path)}", leaf)
            sample = sample_shape(f"element_spec{keystr(path)}", one.shape, rates[name])
            return jax.ShapeDtypeStruct((self.config.steps * rates[name], *sample), one.dtype)

        masks = {
            mask_name(rate): jax.ShapeDtypeStruct((self.config.steps * rate,), np.dtype(bool))
            for rate in set(rates.values())
        }
        return batched_spec({**tree_map_with_path(window, fields), **masks}, batch_size)

    def _rates(self, owner: str, fields: Mapping[str, Any]) -> dict[str, int]:
        """The rate of every leaf, by dotted path."""
        named = dict(self.config.rates)
        for path in named:
            _ragged.get_field(owner, fields, path)
        paths = [keystr(p, simple=True, separator=".") for p, _ in tree_leaves_with_path(fields)]
        found = {path: at_or_above(path, named, 1) for path in paths}
        for rate in set(found.values()):
            if mask_name(rate) in fields:
                raise ValueError(
                    f"{owner} must not have a field {mask_name(rate)!r}, the name of the mask of "
                    f"rate {rate}; rename it"
                )
        return found
