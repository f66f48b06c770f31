"""`GrainSource`: what Grain reads, shuffled, sharded and read ahead by Grain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import index as as_index
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import nnx
from jaxtyping import UInt32

from datarax.core.element_batch import Batch
from datarax.sources._config import SourceConfig
from datarax.sources._indexed import Dataset
from datarax.sources._order import seed_of_epoch
from datarax.sources._source import MAX_RECORDS, DataSourceModule

if TYPE_CHECKING:
    from grain.sharding import ShardOptions


@dataclass(frozen=True, kw_only=True)
class GrainSourceConfig(SourceConfig):
    """Configuration of `GrainSource`.

    Args:
      num_workers: how many processes read; 0: this one. They start anew with each epoch. Batches
        are the same for every number.
      num_threads: how many batches each process reads at once and ahead; 0: none, which suits data
        in memory.
      shard: which part of each (shuffled) epoch this host reads, such as
        `grain.sharding.ShardByJaxProcess(drop_remainder=True)`; None: all of it.
      cacheable, batch_stats_fn, precomputed_stats: see `DataraxModuleConfig`.
      stochastic, stream_name, shuffle, seed: see `SourceConfig`.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a negative number.

    >>> GrainSourceConfig(shuffle=True, seed=0, num_workers=4).num_workers
    4
    """

    num_workers: int = 0
    num_threads: int = 4
    shard: ShardOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("num_workers", "num_threads"):
            value = getattr(self, field)
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise TypeError(f"GrainSourceConfig.{field} must be an integer, got {value!r}")
            if as_index(value) < 0:
                raise ValueError(f"GrainSourceConfig.{field} must be 0 or more, got {value}")
        if self.shard is not None and not hasattr(self.shard, "shard_index"):
            raise TypeError(
                "GrainSourceConfig.shard must be grain.sharding.ShardOptions or None, got "
                f"{self.shard!r}"
            )


class GrainSource(DataSourceModule[GrainSourceConfig]):
    """Reads a Grain data set (ArrayRecord, Parquet, a `MapDataset` with maps, ...).

    Grain shuffles, shards and runs the worker processes; `record_index` is the record's number in
    `dataset`, so leave shuffling, sharding, batching and repeating of `dataset` to this source and
    the pipeline. Resumes exactly. `len(source)` is the number of records of this host's shard.

    Args:
      config: whether to shuffle, and who reads which records.
      dataset: a `grain.MapDataset` or one of `grain.sources`: has a length, and a dict of arrays
        for each number. With worker processes, it must be picklable.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: what to call it in messages.

    Raises:
      ImportError: without the extra `[grain]`.
      TypeError: if `dataset` has no records by number, or its first one is no dict.
      ValueError: if `dataset`, or this host's shard of it, is empty.

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
        self._dataset = Dataset(dataset)
        _grain()
        length = len(dataset)
        if not 0 < length <= MAX_RECORDS or not len(self):
            raise ValueError(
                f"dataset must have from 1 to {MAX_RECORDS} records and at least one in this "
                f"shard, got {length} records and {config.shard}; a repeated dataset is endless: "
                "leave repeating to the pipeline"
            )
        first = self._dataset.record(0)
        if not isinstance(first, Mapping):
            raise TypeError(
                f"dataset[0] must be a dict of arrays, got {type(first).__name__}; decode it "
                "first: grain.MapDataset.source(dataset).map(decode)"
            )

    def __len__(self) -> int:
        records, shard = len(self._dataset.wrapped), self.config.shard
        if shard is None:
            return records
        each, more = divmod(records, shard.shard_count)
        return each + (not shard.drop_remainder and shard.shard_index < more)

    def __getitem__(self, index: int) -> Any:
        length = len(self._dataset.wrapped)
        # A MapDataset begins again after its end.
        if not 0 <= index < length:
            raise IndexError(f"index must be from 0 to {length - 1}, got {index}")
        return self._dataset.record(index)

    def order(self, epoch: int) -> UInt32[np.ndarray, " records"]:
        return np.fromiter(self._numbers(epoch), np.uint32, len(self))

    def batches(self, epoch: int, start: int, batch_size: int) -> Iterator[Batch]:
        if start >= len(self):
            return
        grain, config = _grain(), self.config
        numbers = self._numbers(epoch)[start:]
        records = numbers.map(_reader(self._dataset.wrapped)).batch(batch_size)
        # Records were batched before, so that buffers count batches.
        options = grain.ReadOptions(
            num_threads=config.num_threads, prefetch_buffer_size=config.num_threads
        )
        read = records.to_iter_dataset(options)
        if config.num_workers:
            _parse_flags()
            read = read.mp_prefetch(
                grain.multiprocessing.MultiprocessingOptions(num_workers=config.num_workers)
            )
        iterator = iter(read)
        try:
            for item in iterator:
                yield Batch.from_arrays(item["record"], record_index=item["index"], epoch=epoch)
        finally:
            iterator.close()

    def _numbers(self, epoch: int) -> Any:
        """The numbers of this shard's records in the order of an epoch, as a `MapDataset`."""
        shard, records = self.config.shard, len(self._dataset.wrapped)
        numbers = _grain().MapDataset.range(records)
        if self.config.shuffle:
            numbers = numbers.shuffle(seed=seed_of_epoch(self._require_shuffle_key(), epoch))
        if shard is not None:
            last = records - records % shard.shard_count if shard.drop_remainder else records
            numbers = numbers[shard.shard_index : last : shard.shard_count]
        return numbers


def _reader(dataset: Any) -> Callable[[int], dict[str, Any]]:
    # Nested, so that worker processes get it by value and need not import this package.
    def refuse_masked(name: str, node: Any) -> None:
        # Before Grain stacks records, which drops the mask.
        if isinstance(node, Mapping):
            for key, child in node.items():
                refuse_masked(f"{name}[{key!r}]", child)
        elif isinstance(node, np.ma.MaskedArray) and np.ma.is_masked(node):
            raise ValueError(
                f"{name} is a masked array with masked entries, for which batches have no place; "
                "fill them with array.filled(...), and give the mask as a field of its own"
            )

    def read(index: int) -> dict[str, Any]:
        try:
            record = dataset[index]
        except StopIteration as error:
            raise RuntimeError(
                f"record {index} of dataset raised StopIteration, which would end the epoch before "
                "its end; return a value, or raise another error"
            ) from error
        refuse_masked(f"record {index}", record)
        if record is None:
            raise ValueError(
                f"record {index} is None, as filtered records are; a source has a fixed number of "
                "records: filter before, and give a dataset of what is left"
            )
        return {"index": np.uint32(index), "record": record}

    return read


def _parse_flags() -> None:
    """Lets Grain read its flags in a program that is not run by absl and parses none."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ImportError(
            "GrainSource needs grain; run python -m pip install 'datarax-pipeline[grain]' "
            f"(the import failed with: {error})"
        ) from error
    return grain
