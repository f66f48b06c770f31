"""What happens to records one by one before they are batched: reading, transforms, errors."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx
from jaxtyping import PyTree

from datarax.batching import record_spec
from datarax.core import randomness
from datarax.core.element_batch import Batch, Element
from datarax.pipeline import _arguments
from datarax.pipeline._assembly import Assembly
from datarax.pipeline._failures import Failure
from datarax.pipeline._processes import Parked, Running
from datarax.pipeline._threads import Threads
from datarax.pipeline._transforms import Transform, checked_transforms
from datarax.sources import DataSourceModule
from datarax.sources._config import checked_names
from datarax.sources._metadata import require_numbers, with_metadata
from datarax.sources._order import Plan, words_of_key, words_of_seed
from datarax.sources._source import ShuffleKey

TRANSFORM_STREAM = "transforms"
# What tells the key of transforms from that of a source's order, where both come of one seed.
_TAG = 0x7472616E
MOST_THREADS = 16


@dataclass(frozen=True)
class HostWork:
    """What a pipeline does with each record of its source.

    Args:
      source: where to read.
      transforms: what to apply, in this order.
      key: what transforms draw from, uint32 `(4,)`; None where none draws.
      metadata_fields: fields that become metadata, after the transforms.
      mask: whether a record that cannot be read becomes a row of padding, rather than an error.
      threads: how many threads read and transform; 0: the one that asks for a batch.
      workers: how many processes do so, each with so many threads; 0: this one.
      parked: processes that wait for the next epoch.
      running: those that one reader reads from.
    """

    source: DataSourceModule[Any]
    transforms: tuple[Transform, ...]
    key: ShuffleKey | None
    metadata_fields: tuple[str, ...]
    mask: bool
    threads: int
    workers: int = 0
    parked: Parked = field(default_factory=Parked, repr=False, compare=False)
    running: Running = field(default_factory=Running, repr=False, compare=False)

    def element(self, epoch: int, index: int) -> Element:
        """A record as it goes into a batch.

        Args:
          epoch: from 0.
          index: its number in the source.

        Raises:
          Exception: whatever the source or a transform raises, with a note that names the record.
        """
        record, fields = self.source._read(index, epoch)
        if isinstance(record, Element) and not record.state and record.metadata is None:
            record = record.data
        words = None if self.key is None else self.key.get_value()
        for transform in self.transforms:
            record = transform(record, words, epoch, index)
        fields = tuple(dict.fromkeys(fields + self.metadata_fields))
        return with_metadata(record, fields, f"record {index} of {self.source._label()}")

    def element_spec(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of one record's fields, as batches will have them."""
        return record_spec(self.template())

    def template(self) -> Element:
        """The first record, or, with `mask`, the first that can be read."""
        if not self.mask:
            return self._checked(self.element(0, 0), 0)
        last: Exception | None = None
        for index in range(len(self.source)):
            found = self.attempt((0, index))
            if isinstance(found, Element):
                return self._checked(found, index)
            last = found.error
        raise RuntimeError(
            f"none of the {len(self.source)} records of {self.source._label()} can be read; the "
            "last one's error is the cause"
        ) from last

    def _checked(self, element: Element, index: int) -> Element:
        require_numbers(element.data, f"record {index} of {self.source._label()}")
        return element

    def of_one_reader(self) -> HostWork:
        """The same work, with processes that one reader alone reads from."""
        return dataclasses.replace(self, running=Running())

    def assembly(self) -> Assembly:
        """What makes batches of such records."""
        return Assembly(self)

    def read(self, plan: Plan) -> Generator[tuple[Batch, tuple[Failure, ...]], None, None]:
        """Reads batches.

        Args:
          plan: the numbers of the records of each batch.

        Yields:
          A batch with `record_index`, and the records that became padding.
        """
        if not self.workers:
            yield from self._read(plan)
            return
        processes = self.parked.at(self, plan)
        self.running.take(processes)
        try:
            yield from processes.read(self, plan)
        except BaseException:
            processes.close()
            raise
        finally:
            self.running.take(None)
        self.parked.park(processes)

    def _read(self, plan: Plan) -> Generator[tuple[Batch, tuple[Failure, ...]], None, None]:
        assemble = self.assembly()
        first, second = itertools.tee(plan)
        results = self.records(plan.epoch, (int(index) for indices in first for index in indices))
        try:
            for indices in second:
                found = list(itertools.islice(results, len(indices)))
                yield assemble(indices, found)
        finally:
            results.close()

    def records(
        self, epoch: int, numbers: Iterable[int]
    ) -> Generator[Element | Failure, None, None]:
        """Reads records one by one in this process, several at once where there are threads.

        Args:
          epoch: from 0.
          numbers: which records, in the order in which they come.
        """
        items = ((epoch, number) for number in numbers)
        pool = Threads(self.attempt, self.threads) if self.threads else None
        try:
            # As many as keep all threads busy while one of them is slow.
            yield from pool.map(items, 4 * self.threads) if pool else map(self.attempt, items)
        finally:
            if pool:
                pool.close()

    def attempt(self, item: tuple[int, int]) -> Element | Failure:
        """The element of an epoch's record, or why there is none.

        Args:
          item: the epoch and the record's number.
        """
        try:
            return self.element(item[0], int(item[1]))
        except Exception as error:
            return Failure(int(item[1]), error)


def host_work(
    source: DataSourceModule[Any],
    *,
    transforms: Any,
    metadata_fields: Any,
    threads: Any,
    workers: Any,
    mask: bool,
    seed: int | None,
    rngs: nnx.Rngs | None,
) -> HostWork | None:
    """What a pipeline's arguments say about single records; None if there is nothing to do.

    Args:
      source: where to read.
      transforms: those of `Pipeline`.
      metadata_fields: those of `Pipeline`.
      threads: its `num_threads`.
      workers: its `num_workers`.
      mask: whether a record that cannot be read becomes padding.
      seed: that of `Pipeline`, checked.
      rngs: those of `Pipeline`, checked.

    Raises:
      TypeError: for an argument of the wrong type, or a source that has no records by number.
      ValueError: for transforms that draw, with nothing to derive their numbers from.
    """
    checked = checked_transforms(transforms)
    fields = checked_names("metadata_fields", metadata_fields)
    count, processes = source.num_threads, source.num_workers
    if workers is not None:
        processes = _arguments.checked_integer("num_workers", workers, 0)
    if threads is not None:
        count = _arguments.checked_integer("num_threads", threads, 0)
    elif checked and not count and not processes:
        count = min(os.cpu_count() or 1, MOST_THREADS)
    if source._makes_batches:
        if checked or fields or mask or threads or workers:
            how = "is read sequentially" if source.sequential else "makes its batches itself"
            raise TypeError(
                "transforms, metadata_fields, num_threads, num_workers and on_error='mask' need a "
                f"source that is read by number, but {source._label()} {how}; do the work on "
                "records in what it reads"
            )
        return None
    if not (checked or fields or mask or count or processes):
        return None
    draws = any(transform.kind == "random" for transform in checked)
    key = _key_of_transforms(source, seed, rngs) if draws else None
    return HostWork(source, checked, key, fields, mask, count, processes)


def _key_of_transforms(
    source: DataSourceModule[Any], seed: int | None, rngs: nnx.Rngs | None
) -> ShuffleKey:
    if seed is not None:
        return ShuffleKey(words_of_seed([seed, _TAG]))
    if rngs is not None:
        streams = randomness.own_streams("Pipeline", HostWork, rngs, [TRANSFORM_STREAM])
        return ShuffleKey(words_of_key(streams[TRANSFORM_STREAM].key.get_value()))
    if source.shuffle_key is not None:
        return ShuffleKey(words_of_seed([*source.shuffle_key.get_value().tolist(), _TAG]))
    raise ValueError(
        "transforms draw random numbers, but there is nothing to derive them from; pass seed=0 or "
        "rngs=nnx.Rngs(0) to the pipeline, or a seed to its source"
    )
