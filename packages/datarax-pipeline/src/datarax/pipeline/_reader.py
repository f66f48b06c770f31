"""Reading an epoch: batches of one size, on the host or already on the device."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax

from datarax.batching import pad_batch
from datarax.core.batcher import logger
from datarax.core.element_batch import Batch
from datarax.sources import DataSourceModule
from datarax.sources._ends import is_of_generator, stopped


def read(
    source: DataSourceModule, epoch: int, start: int, batch_size: int, remainder: str
) -> Generator[tuple[Batch, Batch, int], None, None]:
    """Reads what is left of an epoch.

    Args:
      source: where to read.
      epoch: from 0.
      start: how many records of the epoch to leave out.
      batch_size: rows of each batch.
      remainder: whether to "pad" or "drop" a smaller last batch or give it as it is ("partial").

    Yields:
      A batch, the same once more, and how many records it has.

    Raises:
      TypeError: if the source gives anything but a `Batch`.
      ValueError: if a batch has too many rows, or no `record_index` or `epoch`.
      RuntimeError: if the source gives fewer records than it has.
    """
    opened = source.batches if source.device_records() is None else source.index_batches
    done, length = start, len(source)
    for batch in _batches(source, epoch, opened(epoch, start, batch_size)):
        rows = _checked_rows(source, batch, batch_size)
        done += rows
        if rows < batch_size and remainder == "drop":
            if done >= length:
                logger.info(
                    "epoch %d of %s leaves out the last %d records, too few for a batch of %d; "
                    "remainder='pad' keeps them",
                    epoch,
                    source._label(),
                    rows,
                    batch_size,
                )
                return
            # Only the last batch may be smaller.
            break
        if rows < batch_size and remainder == "pad":
            logger.info(
                "epoch %d of %s ends with %d rows of padding, which valid_mask marks",
                epoch,
                source._label(),
                batch_size - rows,
            )
            batch = pad_batch(batch, batch_size)
        yield batch, batch, rows
    if done < length:
        raise RuntimeError(
            f"batches of {source._label()} gave a smaller batch, or none, after {done} of the "
            f"{length} records of epoch {epoch}; whatever raises StopIteration inside it ends it "
            "early, and a source whose len() is right gives every record"
        )


def _batches(source: DataSourceModule[Any], epoch: int, batches: Any) -> Iterator[Any]:
    """The batches; StopIteration inside the source's generator is named for what it is."""
    iterator = iter(batches)
    for number in itertools.count():
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            if is_of_generator(error):
                what = f"batches of {source._label()}, for batch {number} of epoch {epoch},"
                raise stopped(what) from error.__cause__
            raise
        yield batch


def _checked_rows(source: DataSourceModule, batch: object, batch_size: int) -> int:
    if not isinstance(batch, Batch):
        raise TypeError(
            f"batches of {source._label()} must yield Batch objects, got {type(batch).__name__}"
        )
    if len(batch) > batch_size or batch.record_index is None or batch.epoch is None:
        raise ValueError(
            f"batches of {source._label()} must yield at most {batch_size} rows with "
            f"record_index and epoch, got {batch!r} with record_index {batch.record_index}"
        )
    return len(batch)


def transfer() -> Callable[[tuple[Batch, Batch, int]], tuple[Batch, Batch, int]]:
    """A function for another thread that brings what `read` yields to this thread's device.

    The batch as it was read stays on the host. For the CPU it does nothing: a compiled call takes
    host arrays as they are, and sooner.
    """
    # A default device that a context manager has set is not known in another thread.
    device = _default_device()
    if computes_on_cpu():
        return lambda item: item
    return lambda item: (on_device(item[0], device), *item[1:])


def computes_on_cpu() -> bool:
    """Whether the default device is a CPU, which is at work while a thread of ours reads."""
    device = _default_device()
    return (device.platform if device else jax.default_backend()) == "cpu"


def _default_device() -> Any:
    device: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return jax.local_devices(backend=device)[0] if isinstance(device, str) else device


def on_device(batch: Batch, device: Any = None) -> Batch:
    """The batch with data and states on a device; mask, indices and epoch stay on the host.

    Args:
      batch: a batch of host or device arrays.
      device: where to put host arrays; None: the default device.
    """
    leaves, structure = jax.tree.flatten((batch.data, batch.states, batch.batch_state))
    if all(isinstance(leaf, jax.Array) for leaf in leaves):
        return batch
    put = [leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf, device) for leaf in leaves]
    data, states, batch_state = structure.unflatten(put)
    # Not `replace`, which would check the rows of every batch again.
    return dataclasses.replace(batch, data=data, states=states, batch_state=batch_state)
