"""`GrainSource`: what Grain reads, by number or one record after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import index as as_index
from typing import Any, Protocol

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int, PyTree, UInt32

from datarax.batching import record_spec
from datarax.core.element_batch import Batch, Element
from datarax.sources._config import SourceConfig
from datarax.sources._indexed import Dataset
from datarax.sources._metadata import require_numbers, with_metadata
from datarax.sources._opaque import Opaque
from datarax.sources._source import MAX_RECORDS, DataSourceModule


class Shard(Protocol):
    """Which part of the records a host reads, as `grain.sharding.ShardOptions` says it."""

    shard_index: int
    shard_count: int
    drop_remainder: bool


@dataclass(frozen=True, kw_only=True)
class GrainSourceConfig(SourceConfig):
    """Configuration of `GrainSource`.

    Args:
      num_workers: how many processes of Grain read if the pipeline does not say; 0: this one.
        They are kept from one epoch to the next. Batches are the same for every number.
      num_threads: how many threads read records in each process, if the pipeline does not say;
        0: none, which suits data in memory.
      shard: which part of each (shuffled) epoch this host reads, such as
        `grain.sharding.ShardByJaxProcess(drop_remainder=True)`; None: all of it.
      length: how many records an epoch has, for a `grain.IterDataset`, which has no length of its
        own. Each epoch continues where the one before ended; a data set that ends starts again.
      cacheable, batch_stats_fn, precomputed_stats: see `DataraxModuleConfig`.
      stochastic, stream_name, shuffle, seed, metadata_fields: see `SourceConfig`.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a negative number, or a length of 0.

    >>> GrainSourceConfig(shuffle=True, seed=0, num_workers=4).num_workers
    4
    """

    num_workers: int = 0
    num_threads: int = 4
    shard: Shard | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("num_workers", 0), ("num_threads", 0), ("length", 1)):
            value = getattr(self, field)
            if field == "length" and value is None:
                continue
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise TypeError(f"GrainSourceConfig.{field} must be an integer, got {value!r}")
            if as_index(value) < least:
                raise ValueError(f"GrainSourceConfig.{field} must be {least} or more, got {value}")
        if isinstance(self.shard, Mapping):
            from grain.sharding import ShardOptions

            object.__setattr__(self, "shard", ShardOptions(**self.shard))
        if self.shard is not None and not hasattr(self.shard, "shard_index"):
            raise TypeError(
                "GrainSourceConfig.shard must be grain.sharding.ShardOptions or None, got "
                f"{self.shard!r}"
            )


class GrainSource(DataSourceModule[GrainSourceConfig]):
    """Reads a Grain data set.

    A `grain.MapDataset` (ArrayRecord, a `grain.sources` class with maps, ...) is read by number:
    `record_index` is the record's number in `dataset`, so leave shuffling, sharding, batching and
    repeating of `dataset` to this source and the pipeline. What its `random_map` draws differs in
    every epoch. `len(source)` is the number of records of this host's shard.

    A `grain.IterDataset` (Parquet, TFRecord, mixtures, ...) is read one record after the other, in
    its own order: shuffle, shard, filter and decode in Grain, do not batch there. It needs
    `config.length`; `record_index` counts within the epoch. A pipeline's iterator saves Grain's
    state with its own, and goes on from it. StopIteration raised by a source or a function of the
    data set is an error that names it, in processes of `mp_prefetch` too.

    Args:
      config: whether to shuffle, and which host reads which records.
      dataset: a `grain.MapDataset`, one of `grain.sources`, or any object that has a length and a
        dict of arrays for each number; or a `grain.IterDataset` of such dicts. With worker
        processes, it must be picklable.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: its name in messages.

    Raises:
      ImportError: without the extra `[grain]`.
      TypeError: if `dataset` is neither, or its first record is not a dict.
      ValueError: if `dataset`, or this host's shard of it, is empty; for an `IterDataset` without
        `length`, or with options that are for the other kind; if a `MapDataset` is shuffled and has
        a `random_map` too.

    >>> import grain  # doctest: +SKIP
    >>> dataset = grain.MapDataset.range(6).map(lambda i: {"x": i})  # doctest: +SKIP
    >>> source = GrainSource(GrainSourceConfig(shuffle=True, seed=0), dataset=dataset)
    ... # doctest: +SKIP
    """

    config_class = GrainSourceConfig

    def __init__(
        self,
        config: GrainSourceConfig,
        *,
        dataset: Any,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        grain = _grain()
        self.sequential = isinstance(dataset, grain.IterDataset)
        self.num_workers, self.num_threads = config.num_workers, config.num_threads
        if self.sequential:
            _require_sequential(config)
            from datarax.sources._grain_stream import GrainStream

            self._stream = Opaque(GrainStream(dataset))
            return
        self._dataset = _numbered(dataset)
        self._differs_by_epoch = _draws(dataset)
        if config.length is not None:
            raise ValueError(
                f"length={config.length} is for a grain.IterDataset, but dataset is a "
                f"{type(dataset).__name__} of {len(dataset)} records; use source.take"
            )
        if not 0 < self.records <= MAX_RECORDS or not len(self):
            raise ValueError(
                f"dataset must have from 1 to {MAX_RECORDS} records and at least one in this "
                f"shard, got {self.records} records and {config.shard}; a repeated dataset is "
                "endless: leave repeating to the pipeline"
            )
        _require_dict(self._dataset.record(0), "dataset[0]")

    @property
    def records(self) -> int:
        """How many records there are on all hosts."""
        return len(self) if self.sequential else len(self._dataset.wrapped)

    def __len__(self) -> int:
        shard = self.config.shard
        if self.config.length is not None:
            return self.config.length
        if shard is None:
            return self.records
        each, more = divmod(self.records, shard.shard_count)
        return each + (not shard.drop_remainder and shard.shard_index < more)

    def __getitem__(self, index: int) -> Any:
        return self._record(index, 0)

    def _record(self, index: int, epoch: int) -> Any:
        if self.sequential:
            raise TypeError(
                f"{self._label()} reads a grain.IterDataset one record after the other; records by "
                "number need a grain.MapDataset"
            )
        # A MapDataset begins again after its end, there with other random numbers.
        if not 0 <= index < self.records:
            raise IndexError(f"index must be from 0 to {self.records - 1}, got {index}")
        turn = epoch if self._differs_by_epoch else 0
        record = self._dataset.record(index + turn * self.records)
        if record is None:
            raise ValueError(
                f"record {index} is None, as filtered records are; a source has a fixed number of "
                "records: filter before, and give a dataset of what is left, or a "
                "grain.IterDataset"
            )
        return record

    def record_numbers(
        self, epoch: int, positions: Int[np.ndarray, " n"]
    ) -> UInt32[np.ndarray, " n"]:
        shard, positions = self.config.shard, np.asarray(positions)
        if self.sequential or shard is None:
            return super().record_numbers(epoch, positions)
        places = shard.shard_index + positions.astype(np.int64) * shard.shard_count
        return self._order(epoch, self.records).at(places)

    def element_spec(self) -> PyTree[jax.ShapeDtypeStruct]:
        if not self.sequential:
            return super().element_spec()
        element = self._from_stream(self._stream.value.first(), 0)
        require_numbers(element.data, f"record 0 of {self._label()}")
        return record_spec(element)

    def _state_at(self, epoch: int, position: int) -> str:
        if not self.sequential:
            return ""
        return self._stream.value.state(epoch * len(self) + position) or ""

    def _resume_at(self, epoch: int, position: int, state: str) -> None:
        if self.sequential and state:
            self._stream.value.resume(epoch * len(self) + position, state)

    @property
    def _makes_batches(self) -> bool:
        return self.sequential

    def batches(self, epoch: int, start: int, batch_size: int) -> Iterator[Batch]:
        if not self.sequential:
            yield from super().batches(epoch, start, batch_size)
            return
        length = len(self)
        stream = self._stream.value.records(epoch * length + start)
        try:
            for first in range(start, length, batch_size):
                numbers = np.arange(first, min(first + batch_size, length), dtype=np.uint32)
                elements = [self._from_stream(next(stream), int(number)) for number in numbers]
                stream.remember()
                batch = self._stacked(elements, numbers)
                yield batch.replace(record_index=numbers, epoch=epoch)
        except BaseException:
            stream.end()
            raise
        self._stream.value.park(stream)

    def _from_stream(self, record: Any, number: int) -> Element:
        what = f"record {number} of the epoch, of {self._label()}"
        _require_dict(record, what)
        return with_metadata(record, self.config.metadata_fields, what)


def _numbered(dataset: Any) -> Dataset:
    """The data set, if it has records by number."""
    try:
        return Dataset(dataset)
    except TypeError as error:
        raise TypeError(
            "dataset must be a grain.MapDataset, one of grain.sources, any object with a length "
            "and a dict for each number, or a grain.IterDataset, got "
            f"{type(dataset).__name__}"
        ) from error


def _require_sequential(config: GrainSourceConfig) -> None:
    if config.length is None:
        raise ValueError(
            "dataset is a grain.IterDataset, which has no length; say how many records an epoch "
            "has: GrainSourceConfig(length=...)"
        )
    if config.shuffle or config.shard is not None or config.num_workers:
        raise ValueError(
            "dataset is a grain.IterDataset, which is read in its own order; shuffle, shard and "
            "read it in processes before it comes here (WindowShuffle, slices, mp_prefetch), got "
            f"shuffle={config.shuffle}, shard={config.shard}, num_workers={config.num_workers}"
        )


def _require_dict(record: Any, what: str) -> None:
    if not isinstance(record, Mapping):
        raise TypeError(
            f"{what} must be a dict of arrays, got {type(record).__name__}; decode it first: "
            "grain.MapDataset.source(dataset).map(decode)"
        )


def _draws(dataset: Any) -> bool:
    """Whether a transform of the data set draws random numbers."""
    kinds = [type(node).__name__ for node in _nodes(dataset)]
    draws = any("RandomMap" in kind for kind in kinds)
    if draws and any("Shuffle" in kind for kind in kinds):
        raise ValueError(
            "dataset is shuffled and draws random numbers in a random_map, so that its records "
            "would have other numbers in every epoch; leave shuffling to "
            "GrainSourceConfig(shuffle=True)"
        )
    return draws


def _nodes(dataset: Any) -> Iterator[Any]:
    yield dataset
    for parent in getattr(dataset, "parents", ()):
        yield from _nodes(parent)


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ImportError(
            "GrainSource needs grain; run python -m pip install 'datarax-pipeline[grain]' "
            f"(the import failed with: {error})"
        ) from error
    return grain
