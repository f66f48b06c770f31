"""Records in the bucket of their length."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import numpy as np

from datarax.batching import _ragged
from datarax.batching._sorting import SortingStream
from datarax.core.element_batch import Batch, Element

if TYPE_CHECKING:
    from datarax.batching._bucket import BucketBatcher


class BucketStream(SortingStream):
    """Batches of records of similar length."""

    def __init__(
        self, batcher: BucketBatcher, elements: Any, sizes: tuple[int, ...], remainder: str
    ) -> None:
        self._batcher, self._config = batcher, batcher.config
        self._sizes = {
            f"bucket_{b}": s for b, s in zip(self._config.boundaries, sizes, strict=True)
        }
        super().__init__(batcher, elements, tuple(self._sizes), remainder)

    def _accept(self, element: Element, number: int) -> list[str]:
        config, owner = self._config, f"data of record {number}"
        arrays = {
            path: _ragged.sequence(owner, element.data, path) for path in config.length_fields
        }
        longest = max(arrays, key=lambda path: len(arrays[path]))
        bucket = bisect_left(config.boundaries, len(arrays[longest]))
        if bucket == len(config.boundaries):
            raise ValueError(
                f"{longest!r} of record {number} has length {len(arrays[longest])}, more than the "
                f"last of the boundaries {config.boundaries}; add a boundary or cut the record"
            )
        boundary, data = config.boundaries[bucket], element.data
        for path, array in arrays.items():
            value = _ragged.step_value(path, path, config.pad_values, array.dtype)
            data = _ragged.with_field(data, path, _ragged.padded(array, boundary, value))
            mask = np.arange(boundary) < len(array)
            data = self._batcher.with_mask(owner, data, path, mask)
        name = f"bucket_{boundary}"
        self._groups[name].add(element.replace(data=data), number)
        return [name] if len(self._groups[name]) == self._sizes[name] else []

    def _deliver(self, name: str) -> Batch:
        group = self._groups[name]
        masks = tuple(path + self._config.mask_suffix for path in self._config.length_fields)
        batch = self._batch(name, group, self._sizes[name], masks)
        kept = [_ragged.get_field("batch", batch.data, mask) for mask in masks]
        bucket = list(self._sizes).index(name)
        used, steps = sum(int(mask.sum()) for mask in kept), sum(mask.size for mask in kept)
        self._batcher.count_padding(bucket, len(group), used, steps)
        self._count(len(group), 0)
        group.clear()
        return batch

    def _rest(self) -> list[str]:
        rest = [name for name in self._sizes if len(self._groups[name])]
        if self._remainder != "drop":
            return rest
        self._leave_out(rest)
        return []
