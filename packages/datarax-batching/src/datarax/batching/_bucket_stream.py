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
        names = tuple(f"bucket_{boundary}" for boundary in self._config.boundaries)
        super().__init__(batcher, elements, names, remainder)
        self._sizes = dict(zip(names, sizes, strict=True))

    def _config_of_waiting(self) -> dict[str, str]:
        config = self._config
        names = ("boundaries", "length_fields", "mask_suffix", "pad_values")
        return {name: repr(getattr(config, name)) for name in names}

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
        group, size = self._groups[name], self._sizes[name]
        masks = tuple(path + self._config.mask_suffix for path in self._config.length_fields)
        batch = self._batch(name, group, size, masks)
        kept = [_ragged.get_field("batch", batch.data, mask) for mask in masks]
        bucket = list(self._sizes).index(name)
        used, steps = sum(int(mask.sum()) for mask in kept), sum(mask.size for mask in kept)
        records = min(len(group), size)
        self._batcher.count_padding(bucket, records, used, steps)
        self._batcher._count_records(records, 0)
        group.remove(0, records)
        return batch

    def _rest(self) -> list[str]:
        rest = [name for name in self._sizes if len(self._groups[name])]
        if self._remainder != "drop":
            return rest
        self._leave_out_groups(rest)
        return []
