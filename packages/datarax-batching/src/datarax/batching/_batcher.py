"""`StreamBatcher`: what our batchers have in common."""

from __future__ import annotations

from collections.abc import Iterable

from datarax.batching._input import Record
from datarax.batching._stream import RecordStream
from datarax.core.batcher import BatcherModule
from datarax.core.structural import StructuralConfigT


class StreamBatcher(BatcherModule[StructuralConfigT]):
    """A batcher whose batches are a `RecordStream`."""

    def process(
        self, elements: Iterable[Record], *, batch_size: int, drop_remainder: bool = False
    ) -> RecordStream:
        raise NotImplementedError(f"{type(self).__name__} must implement process")

    def __call__(
        self, elements: Iterable[Record], *, batch_size: int, drop_remainder: bool = False
    ) -> RecordStream:
        """Calls `process`."""
        return self.process(elements, batch_size=batch_size, drop_remainder=drop_remainder)
