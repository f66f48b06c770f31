"""Reading an epoch: batches of one size, on the host or already on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Any

import jax
import numpy as np

from datarax.batching import pad_batch
from datarax.core.element_batch import Batch
from datarax.sources import DataSourceModule


def read(
    source: DataSourceModule, epoch: int, start: int, batch_size: int, remainder: str
) -> Generator[tuple[Batch, int], None, None]:
    """Reads what is left of an epoch.

    Args:
      source: where to read.
      epoch: from 0.
      start: how many records of the epoch to leave out.
      batch_size: rows of each batch.
      remainder: whether to "pad" or "drop" a smaller last batch or give it as it is ("partial").

    Yields:
      A batch with `record_index` and `epoch`, and how many records it has.

    Raises:
      TypeError: if the source gives anything but a `Batch`.
      ValueError: if a batch has too many rows, or no `record_index`.
    """
    opened = source.batches if source.device_records() is None else source.index_batches
    for batch in opened(epoch, start, batch_size):
        rows = _checked_rows(source, batch, batch_size)
        if rows < batch_size and remainder == "drop":
            return
        if rows < batch_size and remainder == "pad":
            batch = pad_batch(batch, batch_size)
        yield dataclasses.replace(batch, epoch=np.uint32(epoch)), rows


def _checked_rows(source: DataSourceModule, batch: object, batch_size: int) -> int:
    if not isinstance(batch, Batch):
        raise TypeError(
            f"batches of {source._label()} must yield Batch objects, got {type(batch).__name__}"
        )
    if len(batch) > batch_size or batch.record_index is None:
        raise ValueError(
            f"batches of {source._label()} must yield at most {batch_size} rows with a "
            f"record_index, got {batch!r} with record_index {batch.record_index}"
        )
    return len(batch)


def on_device(batch: Batch, device: Any = None) -> Batch:
    """The batch with data and states on a device; mask, indices and epoch stay on the host.

    Args:
      batch: a batch of host or device arrays.
      device: where to put host arrays; None: the default device.
    """

    def put(leaf: Any) -> Any:
        return leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf, device)

    # Not `replace`, which would check the rows of every batch again.
    return dataclasses.replace(
        batch,
        data=jax.tree.map(put, batch.data),
        states=jax.tree.map(put, batch.states),
        batch_state=jax.tree.map(put, batch.batch_state),
    )
