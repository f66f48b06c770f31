"""`PipelineStats`: how much an iterator has delivered, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from datarax.batching import BucketBatcher, PackingBatcher
from datarax.core.element_batch import Batch


@dataclass(frozen=True)
class PipelineStats:
    """What an iterator has delivered, and how long its consumer waited for it.

    Attributes:
      batches: how many were delivered.
      records: valid rows of these batches that this host read.
      seconds: from when the first batch was asked for to when the last one came.
      waited: seconds of these in which the consumer waited for a batch to be read; what stages
        compute is not in it.
      padding: which fraction of all rows was padding. With a `BucketBatcher` or `PackingBatcher`,
        which fraction of all steps of the ragged fields.

    >>> PipelineStats(batches=10, records=320, seconds=2.0, waited=0.1, padding=0.0).rate
    160.0
    """

    batches: int = 0
    records: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    padding: float = 0.0

    @property
    def rate(self) -> float:
        """Records a second; 0 before the first batch."""
        return self.records / self.seconds if self.seconds else 0.0


class Meter:
    """Adds up what `PipelineStats` tells."""

    def __init__(self) -> None:
        self._begun = self._last = self._waited = 0.0
        self._batches = self._records = self._used = self._cells = 0

    def add(self, times: tuple[float, float, float], batch: Batch, batcher: Any) -> None:
        """Counts a batch.

        Args:
          times: when it was asked for, when it had been read, and when it was delivered.
          batch: the batch as it was read, on the host.
          batcher: what made it, if any did.
        """
        asked, came, done = times
        if not self._batches:
            self._begun = asked
        self._last, self._waited = done, self._waited + came - asked
        records = int(np.count_nonzero(batch.valid_mask))
        used, cells = _filled(batch, batcher, records)
        self._batches, self._records = self._batches + 1, self._records + records
        self._used, self._cells = self._used + used, self._cells + cells

    def read(self) -> PipelineStats:
        """The sums so far."""
        return PipelineStats(
            self._batches,
            self._records,
            self._last - self._begun,
            self._waited,
            1 - self._used / self._cells if self._cells else 0.0,
        )


def _filled(batch: Batch, batcher: Any, records: int) -> tuple[int, int]:
    """How many cells of a batch hold data, and how many there are."""
    if isinstance(batcher, PackingBatcher):
        segments = batch.data["segment_ids"]
        return int(np.count_nonzero(segments)), segments.size
    if isinstance(batcher, BucketBatcher):
        suffix = batcher.config.mask_suffix
        masks = [_at(batch.data, path + suffix) for path in batcher.config.length_fields]
        return sum(int(mask.sum()) for mask in masks), sum(mask.size for mask in masks)
    return records, len(batch)


def _at(data: Mapping[str, Any], path: str) -> Any:
    node: Any = data
    for name in path.split("."):
        node = node[name]
    return node
