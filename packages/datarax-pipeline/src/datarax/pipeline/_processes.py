"""Grain's worker processes, which read batches of one epoch after the other."""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
import weakref
from collections.abc import Generator
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from datarax.core.element_batch import Batch
from datarax.pipeline._failures import Failure
from datarax.pipeline._threads import PATIENCE
from datarax.sources._order import Plan, Positions

if TYPE_CHECKING:
    from datarax.pipeline._host import HostWork

# As many batches as that, beyond any run, can be asked of the processes.
_WITHOUT_END = 2**40

# Bytes of the number of a process.
_MEMBER = 8

# From how many bytes on an array goes through shared memory, which costs more than it saves below.
SHARED_FROM = 2**14


class Job:
    """What the processes do: the batch with this number, from a first epoch on.

    Args:
      work: what to do with each record.
      epoch: the first epoch.
      first: the positions of the first epoch's batches.
      later: those of every later one.
    """

    def __init__(self, work: HostWork, epoch: int, first: Positions, later: Positions) -> None:
        self._work, self._epoch = work, epoch
        self._first, self._later = first, later
        self._assemble: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        import cloudpickle

        content = (self._work, self._epoch, self._first, self._later)
        return _unpacked, (cloudpickle.dumps(content), bool(jax.config.jax_enable_x64))  # pyright: ignore

    def __call__(self, number: int) -> dict[str, Any]:
        """A batch as a dict that Grain sends to the other process.

        Returns:
          `data`, `states`, `valid_mask`, `metadata`, `record_index` and `failures`; or `error`.
        """
        epoch, positions = self._epoch, self._first
        if number >= len(positions):
            turns, number = divmod(number - len(positions), len(self._later))
            epoch, positions = epoch + 1 + turns, self._later
        indices = Plan(self._work.source, epoch, positions)[number]
        assemble = self._assemble or self._work.assembly()
        self._assemble = assemble
        try:
            batch, failures = assemble(indices, [self._work.attempt((epoch, i)) for i in indices])
        except Exception as error:
            return {"error": Failure(int(indices[0]), error)}
        return {
            "data": batch.data,
            "states": batch.states,
            "valid_mask": batch.valid_mask,
            "metadata": _Whole(batch.metadata),
            "record_index": batch.record_index,
            "failures": _Whole(failures),
        }


class _Whole:
    """A value that is a leaf of a pytree, whatever it holds."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _unpacked(content: bytes, wide: bool) -> Job:
    """The job, in a process that never needs an accelerator."""
    import cloudpickle

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", wide)
    return Job(*cloudpickle.loads(content))


class Processes:
    """Worker processes at a place in the epochs of a source.

    Args:
      work: what to do with each record.
      epoch: the first epoch.
      positions: the positions of its batches.
    """

    def __init__(self, work: HostWork, epoch: int, positions: Positions) -> None:
        grain = _grain()
        length, size = len(work.source), positions.batch_size
        stop = length if positions.stop == length else length - length % size
        self._later = Positions(0, stop, size, positions.rows)
        self.expected = _signature(work, epoch, positions)
        numbers = grain.MapDataset.range(_WITHOUT_END).map(Job(work, epoch, positions, self._later))
        options = grain.ReadOptions(
            num_threads=work.threads, prefetch_buffer_size=work.threads or 1
        )
        # A process says who it is before it reads, so that none is stuck unknown.
        members = SharedMemory(create=True, size=_MEMBER * (1 + work.workers))
        read = grain.experimental.WithOptionsIterDataset(
            numbers.to_iter_dataset(options),
            grain.experimental.DatasetOptions(min_shm_size=SHARED_FROM),
        ).mp_prefetch(
            grain.multiprocessing.MultiprocessingOptions(num_workers=work.workers),
            functools.partial(_join, members.name),
        )
        self._iterator: Any = iter(read)
        self.close = weakref.finalize(self, _end, self._iterator, members)

    def read(
        self, work: HostWork, plan: Plan
    ) -> Generator[tuple[Batch, tuple[Failure, ...]], None, None]:
        """The batches of the epoch where the processes are; afterwards they are at the next."""
        for _ in range(len(plan)):
            item = next(self._iterator)
            if "error" in item:
                raise item["error"].error
            failures = item.pop("failures").value
            item["metadata"] = item["metadata"].value
            yield Batch.from_arrays(item.pop("data"), **item), failures
        self.expected = _signature(work, plan.epoch + 1, self._later)


def _join(members: str, worker: int, _: int) -> None:
    """Notes the number of this process for the one that started it, and ends with that one."""
    shared = SharedMemory(members)
    _noted(shared)[1 + worker] = os.getpid()
    ended = _noted(shared)[0]
    shared.close()
    if ended:
        os._exit(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when its parent is killed, which has no time to end it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _end(iterator: Any, members: SharedMemory) -> None:
    """Ends the processes, if need be those that are stuck in a read by force."""
    closing = threading.Thread(target=iterator.close, daemon=True)
    try:
        closing.start()
        closing.join(PATIENCE)
    except RuntimeError:
        # While the interpreter ends, no thread can begin.
        _kill(members)
        iterator.close()
    if closing.is_alive():
        _kill(members)
        closing.join()
    members.close()
    members.unlink()


def _kill(members: SharedMemory) -> None:
    """Ends all processes that have joined at once, and each later one when it joins."""
    _noted(members)[0] = 1
    numbers = _noted(members)[1:].tolist()
    for process in multiprocessing.active_children():
        if process.pid in numbers:
            process.kill()


def _noted(members: SharedMemory) -> np.ndarray:
    """Whether they were ended, and the numbers of the processes; 0 of those to come."""
    assert members.buf is not None
    return np.frombuffer(members.buf, np.int64, members.size // _MEMBER)


class Running:
    """The processes that are read from, for whoever ends them while the reader waits for them."""

    def __init__(self) -> None:
        self._processes: Processes | None = None
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def take(self, processes: Processes | None) -> None:
        """Takes what is read from now on; None: nothing is."""
        self._processes = processes
        if self._closed:
            self.close()

    def close(self) -> None:
        """Ends them, now or when they come; who waits for them gets an error."""
        self._closed = True
        if self._processes is not None:
            self._processes.close()


class Parked:
    """Keeps processes from one epoch to the next."""

    def __init__(self) -> None:
        self._processes: Processes | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def at(self, work: HostWork, plan: Plan) -> Processes:
        """The processes that wait for this epoch, or new ones."""
        processes, self._processes = self._processes, None
        if processes is not None:
            if processes.expected == _signature(work, plan.epoch, plan.positions):
                return processes
            processes.close()
        return Processes(work, plan.epoch, plan.positions)

    def park(self, processes: Processes) -> None:
        """Takes processes for the next epoch."""
        self.close()
        self._processes = processes

    def close(self) -> None:
        """Ends processes that wait."""
        if self._processes is not None:
            self._processes.close()
        self._processes = None


def _signature(work: HostWork, epoch: int, positions: Positions) -> tuple[Any, ...]:
    """What decides on the batches that the processes read."""
    keys = work.key, work.source.shuffle_key
    words = [None if key is None else np.asarray(key.get_value()).tolist() for key in keys]
    return epoch, positions, str(words)


def _grain() -> Any:
    try:
        import grain
        from absl import flags
    except ImportError as error:
        raise ImportError(
            "num_workers needs grain; run python -m pip install 'datarax-pipeline[grain]' "
            f"(the import failed with: {error})"
        ) from error
    if not flags.FLAGS.is_parsed():
        # Grain reads its flags in programs that absl does not run, too.
        flags.FLAGS.mark_as_parsed()
    return grain
