"""`BucketBatcher`: batches of records of similar length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from datarax.batching import _ragged
from datarax.batching._batcher import StreamBatcher
from datarax.batching._bucket_stream import BucketStream
from datarax.batching._input import Record
from datarax.batching._options import require_remainder, resolved_remainder
from datarax.batching._padding import PadValues
from datarax.batching._stream import RecordStream
from datarax.core._batch_spec import batched_spec, leaf_spec, require_batch_size, require_fields
from datarax.core.config import StructuralConfig


@dataclass(frozen=True)
class BucketBatcherConfig(StructuralConfig):
    """Configuration of `BucketBatcher`.

    Args:
      boundaries: increasing lengths. A record goes to the first bucket that is long enough, and is
        padded to its length.
      length_fields: dotted paths of the fields whose axis 0 is of unequal length. The longest of
        them decides on the bucket.
      batch_sizes: rows of each bucket's batches; None means `batch_size` for all.
      remainder: what happens to a bucket's last records, see `DefaultBatcherConfig`.
      pad_values: the number that padding holds, steps and rows, or a dict of them by dotted path.
      mask_suffix: what is added to a field's name for the name of its mask.
      cacheable, batch_stats_fn, precomputed_stats, stochastic, stream_name: see `StructuralConfig`.

    Raises:
      TypeError: for values of the wrong type.
      ValueError: for boundaries that do not increase, another number of batch sizes than of
        boundaries, or no field.

    >>> config = BucketBatcherConfig(boundaries=(8, 32), length_fields=("tokens",))
    >>> config.boundaries
    (8, 32)
    """

    boundaries: tuple[int, ...] = field(kw_only=True)
    length_fields: tuple[str, ...] = field(kw_only=True)
    batch_sizes: tuple[int, ...] | None = field(default=None, kw_only=True)
    remainder: Literal["pad", "drop", "partial"] = field(default="pad", kw_only=True)
    pad_values: PadValues = field(default=0, kw_only=True)
    mask_suffix: str = field(default="_mask", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        require_remainder(f"{name}.remainder", self.remainder)
        boundaries = tuple(require_batch_size(b, f"{name}.boundaries") for b in self.boundaries)
        if not boundaries or sorted(set(boundaries)) != list(boundaries):
            raise ValueError(f"{name}.boundaries must increase, got {self.boundaries}")
        object.__setattr__(self, "boundaries", boundaries)
        fields = _ragged.field_paths(f"{name}.length_fields", self.length_fields)
        object.__setattr__(self, "length_fields", fields)
        if self.batch_sizes is not None:
            sizes = tuple(require_batch_size(s, f"{name}.batch_sizes") for s in self.batch_sizes)
            if len(sizes) != len(boundaries):
                raise ValueError(
                    f"{name}.batch_sizes must have one entry for each of the {len(boundaries)} "
                    f"boundaries, got {len(sizes)}"
                )
            object.__setattr__(self, "batch_sizes", sizes)
        values = _ragged.frozen_numbers(f"{name}.pad_values", self.pad_values)
        object.__setattr__(self, "pad_values", values)
        if not isinstance(self.mask_suffix, str) or not self.mask_suffix or "." in self.mask_suffix:
            raise ValueError(
                f"{name}.mask_suffix must be a non-empty string without dots, "
                f"got {self.mask_suffix!r}"
            )


class PaddingCount(nnx.Variable[Any]):
    """int64 `(buckets, 4)`: batches, records, steps that are data, steps in all."""


class BucketBatcher(StreamBatcher[BucketBatcherConfig]):
    """Groups records of similar length, so that little of a batch is padding.

    There are as many shapes as boundaries, known in advance from `batch_specs`. Next to each ragged
    field stands its mask, bool `(batch, length)`: True where a step is data. Records keep their
    order within a bucket; `metadata` and `states` go with them. `get_operation_stats` counts
    records, as that of `DefaultBatcher` does.

    Args:
      config: boundaries, ragged fields and padding.
      rngs: not used; every module takes it.
      name: its name in messages.

    >>> config = BucketBatcherConfig(boundaries=(2, 4), length_fields=("t",))
    >>> records = [{"t": np.ones(n, np.int32)} for n in (1, 3, 2)]
    >>> for batch in BucketBatcher(config)(records, batch_size=2):
    ...     print(batch["t"].shape, batch["t_mask"].sum(1))
    (2, 2) [1 2]
    (2, 4) [3 0]
    """

    config_class = BucketBatcherConfig

    def __init__(
        self, config: BucketBatcherConfig, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        self._padding_count = PaddingCount(np.zeros((len(config.boundaries), 4), np.int64))

    def process(
        self,
        elements: Iterable[Record],
        *,
        batch_size: int | None = None,
        drop_remainder: bool = False,
    ) -> RecordStream:
        """Groups records by length, pulling one after the other until a batch is full.

        Args:
          elements: the records.
          batch_size: rows of each batch; None if the config has `batch_sizes`.
          drop_remainder: whether to leave out records that do not fill a bucket's last batch.

        Returns:
          An iterator over batches, in the order in which they fill up. A record longer than every
          bucket is an error after the records before it have been delivered; asked again, the
          iterator goes on behind it.

        Raises:
          TypeError: if `elements` cannot be iterated over.
          ValueError: if `batch_size` is not a positive integer, or given besides `batch_sizes`.
        """
        remainder = resolved_remainder(self.config.remainder, drop_remainder)
        return BucketStream(self, elements, self._batch_sizes(batch_size), remainder)

    def __call__(
        self,
        elements: Iterable[Record],
        *,
        batch_size: int | None = None,
        drop_remainder: bool = False,
    ) -> RecordStream:
        return self.process(elements, batch_size=batch_size, drop_remainder=drop_remainder)

    def _batch_sizes(self, batch_size: int | None) -> tuple[int, ...]:
        sizes = self.config.batch_sizes
        if sizes is None:
            return (require_batch_size(batch_size),) * len(self.config.boundaries)
        if batch_size is not None:
            raise ValueError(
                f"batch_size={batch_size!r} has no effect beside the config's batch_sizes={sizes}; "
                "leave one of them out"
            )
        return sizes

    def batch_specs(
        self, element_spec: Any, *, batch_size: int | None = None
    ) -> tuple[dict[str, Any], ...]:
        """What the batches of each bucket look like.

        Args:
          element_spec: dict of fields of one record; the length of ragged fields does not matter.
          batch_size: rows of each batch; None if the config has `batch_sizes`.

        Returns:
          One spec for each boundary.

        Raises:
          KeyError: if a ragged field is missing.
          ValueError: for a bad `batch_size`, or a field that a mask would replace.
        """
        spec = dict(require_fields("element_spec", element_spec))
        specs = []
        sizes = self._batch_sizes(batch_size)
        for boundary, size in zip(self.config.boundaries, sizes, strict=True):
            one = spec
            for path in self.config.length_fields:
                leaf = leaf_spec(path, _ragged.get_field("element_spec", one, path))
                shape = (boundary, *leaf.shape[1:])
                one = _ragged.with_field(one, path, jax.ShapeDtypeStruct(shape, leaf.dtype))
                mask = jax.ShapeDtypeStruct((boundary,), np.dtype(bool))
                one = self.with_mask("element_spec", one, path, mask)
            specs.append(batched_spec(one, size))
        return tuple(specs)

    def batch_spec(self, element_spec: Any, *, batch_size: int | None = None) -> dict[str, Any]:
        """The spec of batches if there is one bucket only; see `batch_specs`.

        Raises:
          ValueError: if there are several.
        """
        spec, *others = self.batch_specs(element_spec, batch_size=batch_size)
        if others:
            raise ValueError(
                f"batches have {1 + len(others)} shapes, one for each of the boundaries "
                f"{self.config.boundaries}; use batch_specs"
            )
        return spec

    def padding_report(self) -> dict[str, Any]:
        """How much of the batches so far was padding.

        Returns:
          `waste`, the fraction of steps that were padding, and under `buckets`, for each boundary,
          `batches`, `records` and `waste`.
        """
        counts = np.asarray(self._padding_count.get_value())
        buckets = {
            boundary: {"batches": int(row[0]), "records": int(row[1]), "waste": _waste(row)}
            for boundary, row in zip(self.config.boundaries, counts, strict=True)
        }
        return {"waste": _waste(counts.sum(0)), "buckets": buckets}

    def with_mask(self, owner: str, data: Any, path: str, mask: Any) -> Any:
        name = path + self.config.mask_suffix
        parent, _, last = name.rpartition(".")
        siblings = _ragged.get_field(owner, data, parent) if parent else data
        if last in siblings:
            raise ValueError(
                f"{owner} has a field {name!r}, the name of the mask of {path!r}; rename it or set "
                "another mask_suffix"
            )
        return _ragged.with_field(data, name, mask)

    def count_padding(self, bucket: int, records: int, used: int, steps: int) -> None:
        counts = np.array(self._padding_count.get_value())
        counts[bucket] += (1, records, used, steps)
        self._padding_count.set_value(counts)


def _waste(row: np.ndarray) -> float:
    return float(1 - row[2] / row[3]) if row[3] else 0.0
