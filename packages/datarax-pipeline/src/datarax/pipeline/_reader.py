"""Reading an epoch: batches of one size, on the host or already on the device."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np

from datarax.batching import pad_batch
from datarax.core.batcher import logger
from datarax.core.element_batch import Batch
from datarax.pipeline._failures import Failure
from datarax.pipeline._host import HostWork
from datarax.sources import DataSourceModule
from datarax.sources._ends import is_of_generator, stopped
from datarax.sources._order import Plan, Positions


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What is to be read of an epoch, and in which form.

    Args:
      source: where to read.
      number: of the epoch, from 0.
      start: how many records of the epoch to leave out.
      batch_size: rows of each batch, on all hosts together.
      rows: which of these rows this host reads, ascending.
      remainder: whether to "pad" or "drop" a smaller last batch or give it as it is ("partial").
      pad_values: what padding holds.
      work: what to do with each record; None: nothing, the source makes the batches.
    """

    source: DataSourceModule[Any]
    number: int
    start: int
    batch_size: int
    rows: range | tuple[int, ...]
    remainder: str
    pad_values: Any = 0
    work: HostWork | None = None

    @property
    def whole(self) -> bool:
        """Whether this host reads all of them."""
        return len(self.rows) == self.batch_size

    @property
    def plan(self) -> Plan:
        """The records of each of this host's batches."""
        length = stop = len(self.source)
        if self.remainder == "drop":
            stop = length - (length - self.start) % self.batch_size
        positions = Positions(self.start, stop, self.batch_size, self.rows)
        return Plan(self.source, self.number, positions)

    def log_end(self, rest: int) -> None:
        """Says what became of a last batch of so many records, or, of 0, nothing."""
        if not rest:
            return
        if self.remainder == "drop":
            logger.info(
                "epoch %d of %s leaves out the last %d records, too few for a batch of %d; "
                "remainder='pad' keeps them",
                self.number,
                self.source._label(),
                rest,
                self.batch_size,
            )
        elif self.remainder == "pad":
            logger.info(
                "epoch %d of %s ends with %d rows of padding, which valid_mask marks",
                self.number,
                self.source._label(),
                self.batch_size - rest,
            )


@dataclasses.dataclass(frozen=True)
class Read:
    """A batch that was read.

    Attributes:
      batch: perhaps on a device.
      as_read: the same batch, on the host.
      position: how many records of the epoch are delivered with it, by all hosts together.
      failures: records that could not be read, whose rows are padding.
    """

    batch: Batch
    as_read: Batch
    position: int
    failures: tuple[Failure, ...] = ()


def read(epoch: Epoch) -> Generator[Read, None, None]:
    """Reads what is left of an epoch.

    Yields:
      Batches of this host's rows.

    Raises:
      TypeError: if the source gives anything but a `Batch`.
      ValueError: if a batch has too many rows, or no `record_index` or `epoch`.
      RuntimeError: if the source gives fewer records than it has.
    """
    return _of_its_own(epoch) if epoch.source._makes_batches else _planned(epoch)


def _planned(epoch: Epoch) -> Generator[Read, None, None]:
    """What the source reads by number."""
    source, plan = epoch.source, epoch.plan
    batches: Any
    if epoch.work is not None:
        batches = epoch.work.read(plan)
    elif source.device_records() is not None:
        batches = ((_indexed(source, indices), ()) for indices in plan)
    else:
        batches = ((batch, ()) for batch in source.read(plan))
    number, rows = np.asarray(epoch.number, np.uint32), len(epoch.rows)
    position, stop = epoch.start, plan.positions.stop
    for step, (batch, failures) in enumerate(_batches(epoch, batches)):
        present = plan.positions.present(step)
        _require_batch(source, batch, "read", max(present, 1), max(present, 1))
        batch = dataclasses.replace(batch, epoch=number)
        position = min(position + epoch.batch_size, stop)
        if not present:
            batch, failures = _padded(batch.slice(0, 0), rows, epoch), ()
        elif present < rows and epoch.remainder == "pad":
            batch = _padded(batch, rows, epoch)
        yield Read(batch, batch, position, failures)
    _require_end(epoch, position, stop)
    epoch.log_end((len(source) - epoch.start) % epoch.batch_size)


def _indexed(source: DataSourceModule[Any], indices: np.ndarray) -> Batch:
    return dataclasses.replace(source.index_batch(indices), record_index=indices)


def _of_its_own(epoch: Epoch) -> Generator[Read, None, None]:
    """What a source gives that makes its batches itself."""
    source, size = epoch.source, epoch.batch_size
    position, length, rest = epoch.start, len(source), 0
    for batch in _batches(epoch, source.batches(epoch.number, epoch.start, size)):
        _require_batch(source, batch, "batches", 0, size)
        rest, position = len(batch), position + len(batch)
        if rest < size and epoch.remainder == "drop":
            # Only the last batch may be smaller.
            break
        if rest < size and epoch.remainder == "pad":
            batch = _padded(batch, size, epoch)
        if not epoch.whole:
            batch = batch.slice(epoch.rows[0], epoch.rows[-1] + 1)
        yield Read(batch, batch, position)
    _require_end(epoch, position, length)
    epoch.log_end(rest % size)


def _padded(batch: Batch, rows: int, epoch: Epoch) -> Batch:
    if not len(batch) and batch.metadata is not None:
        batch = dataclasses.replace(batch, metadata=())
    return pad_batch(batch, rows, pad_values=epoch.pad_values)


def _require_end(epoch: Epoch, position: int, stop: int) -> None:
    if position < stop:
        raise RuntimeError(
            f"batches of {epoch.source._label()} gave a smaller batch, or none, after {position} "
            f"of the {len(epoch.source)} records of epoch {epoch.number}; whatever raises "
            "StopIteration inside it ends it early, and a source whose len() is right gives every "
            "record"
        )


def _batches(epoch: Epoch, batches: Any) -> Iterator[Any]:
    """The batches; StopIteration inside the source's generator is named for what it is."""
    iterator, label = iter(batches), epoch.source._label()
    for number in itertools.count():
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            if is_of_generator(error):
                what = f"batches of {label}, for batch {number} of epoch {epoch.number},"
                raise stopped(what) from error.__cause__
            raise
        yield batch


def _require_batch(
    source: DataSourceModule[Any], batch: object, method: str, least: int, most: int
) -> None:
    if not isinstance(batch, Batch):
        raise TypeError(
            f"{method} of {source._label()} must yield Batch objects, got {type(batch).__name__}"
        )
    numbered = batch.record_index is not None and (method == "read" or batch.epoch is not None)
    if not least <= len(batch) <= most or not numbered:
        rows = f"{most}" if least == most else f"at most {most}"
        raise ValueError(
            f"{method} of {source._label()} must yield {rows} rows with record_index and epoch, "
            f"got {batch!r} with record_index {batch.record_index}"
        )


def transfer() -> Callable[[Read], Read]:
    """A function for another thread that brings what `read` yields to this thread's device.

    The batch as it was read stays on the host. For the CPU it does nothing: a compiled call takes
    host arrays as they are, and sooner.
    """
    # A default device that a context manager has set is not known in another thread.
    device = _default_device()
    if computes_on_cpu():
        return lambda item: item
    return lambda item: dataclasses.replace(item, batch=on_device(item.batch, device))


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
