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
from datarax.pipeline._placement import Placement
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
      batch_size: rows of each batch, on all hosts together; 0 where a batcher decides.
      remainder: whether to "pad" or "drop" a smaller last batch or give it as it is ("partial").
      pad_values: what padding holds.
      placement: where rows go if they go to a mesh.
      work: what to do with each record; None: nothing, the source makes the batches.
    """

    source: DataSourceModule[Any]
    number: int
    start: int
    batch_size: int
    remainder: str
    pad_values: Any = 0
    placement: Placement | None = None
    work: HostWork | None = None

    def share(self, batch_size: int) -> range | tuple[int, ...]:
        """Which rows of a batch of this size this host reads, ascending."""
        return range(batch_size) if self.placement is None else self.placement.rows(batch_size)

    @property
    def whole(self) -> bool:
        """Whether this host reads all of them."""
        return self.placement is None or self.placement.alone

    @property
    def plan(self) -> Plan:
        """The records of each of this host's batches."""
        length = stop = len(self.source)
        if self.remainder == "drop":
            stop = length - (length - self.start) % self.batch_size
        positions = Positions(self.start, stop, self.batch_size, self.share(self.batch_size))
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
      position: how many records of the epoch were read until then, by all hosts together.
      epoch: the number of the epoch.
      batch_size: rows of the batch, on all hosts together.
      waiting: positions before that whose records a batcher still has.
      failures: records that could not be read, whose rows are padding.
    """

    batch: Batch
    as_read: Batch
    position: int
    epoch: int
    batch_size: int
    waiting: tuple[int, ...] = ()
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


def _item(epoch: Epoch, batch: Batch, position: int, failures: tuple[Failure, ...] = ()) -> Read:
    size = len(batch) if epoch.whole else epoch.batch_size
    return Read(batch, batch, position, epoch.number, size, failures=failures)


def _planned(epoch: Epoch) -> Generator[Read, None, None]:
    """What the source reads by number."""
    source, plan = epoch.source, epoch.plan
    batches: Any
    if epoch.work is not None:
        batches = epoch.work.read(plan)
    elif gathers_on_device(source, epoch.pad_values, epoch.work):
        batches = ((_indexed(source, indices), ()) for indices in plan)
    else:
        batches = ((batch, ()) for batch in source.read(plan))
    number, rows = np.asarray(epoch.number, np.uint32), len(plan.positions.rows)
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
        yield _item(epoch, batch, position, failures)
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
            batch = rows_of(batch, epoch.share(size))
        yield _item(epoch, batch, position)
    _require_end(epoch, position, length)
    epoch.log_end(rest % size)


def gathers_on_device(source: DataSourceModule[Any], pad_values: Any, work: Any) -> bool:
    """Whether batches come as numbers of records that the compiled call gathers."""
    plain = work is None and pad_values == 0 and jax.process_count() == 1
    return plain and source.device_records() is not None


def rows_of(batch: Batch, rows: range | tuple[int, ...]) -> Batch:
    """Some rows of a host batch."""
    if isinstance(rows, range):
        return batch.slice(rows.start, rows.stop)
    chosen = np.asarray(rows)
    parts = batch.data, batch.states, batch.valid_mask, batch.record_index, batch.view
    data, states, mask, index, view = jax.tree.map(lambda leaf: leaf[chosen], parts)
    return dataclasses.replace(
        batch,
        data=data,
        states=states,
        valid_mask=mask,
        record_index=index,
        view=view,
        metadata=None if batch.metadata is None else tuple(batch.metadata[row] for row in rows),
    )


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


def transfer(placement: Placement | None) -> Callable[[Read], Read]:
    """A function, for another thread too, that brings what `read` yields to this thread's devices.

    The batch as it was read stays on the host. For the CPU without a mesh it does nothing: a
    compiled call takes host arrays as they are, and sooner.
    """
    if placement is not None:
        return lambda item: dataclasses.replace(
            item, batch=placement.place(item.batch, item.batch_size)
        )
    if computes_on_cpu():
        return lambda item: item
    # A default device that a context manager has set is not known in another thread.
    device = _default_device()
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
