"""`Pipeline`: batches from a source, through operators, epoch after epoch."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, get_args

import jax
import numpy as np
from flax import nnx

from datarax.core.batcher import BatcherModule
from datarax.core.config import StructuralConfig
from datarax.core.operator import OperatorModule
from datarax.core.randomness import ordinals
from datarax.pipeline import _arguments
from datarax.pipeline._arguments import OnError, Remainder
from datarax.pipeline._checks import StageChecks
from datarax.pipeline._failures import Losses
from datarax.pipeline._host import host_work
from datarax.pipeline._iterator import PipelineIterator
from datarax.pipeline._progress import require_tqdm
from datarax.pipeline._stages import Stages
from datarax.pipeline._state import PipelineState, Position
from datarax.sources import DataSourceModule


class Pipeline:
    """Reads records, batches them and runs operators over the batches, in one compiled call.

    Each `iter(pipeline)` is the next epoch, from 0. Batches carry `record_index` (the record's
    number in the source, when shuffled too), `epoch` and `valid_mask`, so that what an operator
    draws for a record depends on neither batch size nor order. Data and states come as device
    arrays; mask, indices and epoch as host arrays.

    Args:
      source: a `DataSourceModule`, or any object with `__len__` and `__getitem__` that gives
        records (`Element`s or dicts of arrays), which are read in order.
      stages: operators, applied in this order. Each draws numbers of its own; those of one
        class that were made from equal seeds are told apart by their order.
      batch_size: rows of each batch.
      shuffle: whether each epoch has a random order of its own; for sources that do not shuffle by
        themselves.
      seed: from 0, decides on that order (see `SourceConfig`) and on what `transforms` draw.
      fields: names of the parts of records that are tuples, such as `("image", "label")`; only for
        a `source` that is no `DataSourceModule`.
      metadata_fields: fields that arrays do not hold, such as `("name",)`; after the transforms,
        they go to the metadata of their records, a dict for each.
      transforms: what is done with each record before it is batched, on the host, in this order:
        functions of a record, functions of a record and an `np.random.Generator`, and objects that
        have `map(record)`, `random_map(record, generator)` or `map_with_index(number, record)`, as
        those of Grain. A generator follows from the seed, the epoch, the record's number and the
        transform's place alone. A record is a dict if the source gives dicts.
      num_threads: how many threads read and transform records; the source and `transforms` must
        allow it. None: as many as there are CPUs, at most 16, where there are transforms, else 0.
      num_workers: how many processes of Grain (extra `[grain]`) do so instead, each with
        `num_threads` threads for whole batches; source and transforms must be picklable. They are
        kept from one epoch to the next, and end with an error, an early end of the loop, `close`
        or the pipeline. None: what the source says, else 0.
      on_error: what becomes of a record for which the source or a transform raises an error:
        "raise" it, with a note that names the record and its source; or "mask" the record: its row
        is padding, and all others are as they would be. It is logged by the logger
        `datarax.pipeline` and counted in `error_count`.
      max_errors: with "mask", how many records may be lost before it is an error after all.
      rngs: streams ("shuffle" or "default") from which the order of a shuffling source is derived
        if it has neither a seed nor `rngs` of its own.
      remainder: what to do with records that do not fill a last batch: "pad" it (the first stage
        sees zeros in padding, which `valid_mask` tells from records), "drop" them, or give a
        smaller batch ("partial"), for which stages are compiled again.
      prefetch: how many batches a thread reads and brings to the device ahead; 0: no thread.
        None: 2, or 0 if the records are in memory and a CPU computes, which a thread would only
        disturb. Sources that hold their records on a device need none and get none.
      progress: whether to show a progress bar (needs the extra `[progress]`).
      name: what to call it in the progress bar.

    Raises:
      TypeError: for an argument of the wrong type.
      ValueError: for an empty source, a `batch_size` below 1, a negative `prefetch`, an unknown
        `remainder`, "drop" with less records than one batch, a source that shuffles with nothing to
        derive its order from, `shuffle` for a source that has an order of its own, a `seed` that
        nothing draws from, transforms that draw without one, or `max_errors` without "mask".
      ImportError: for `progress` without tqdm.

    >>> from datarax.sources import MemorySource, MemorySourceConfig
    >>> source = MemorySource(MemorySourceConfig(), data={"x": np.float32([1, 2, 3])})
    >>> pipeline = Pipeline(source=source, batch_size=2)
    >>> for batch in pipeline:
    ...     print(batch["x"].tolist(), batch.valid_mask.tolist())
    [1.0, 2.0] [True, True]
    [3.0, 0.0] [True, False]
    """

    def __init__(
        self,
        *,
        source: DataSourceModule[Any] | Any,
        stages: Sequence[OperatorModule[Any]] = (),
        batch_size: int,
        shuffle: bool = False,
        seed: int | None = None,
        fields: Sequence[str] | None = None,
        metadata_fields: Sequence[str] = (),
        transforms: Sequence[Any] = (),
        num_threads: int | None = None,
        num_workers: int | None = None,
        on_error: OnError = "raise",
        max_errors: int | None = None,
        rngs: nnx.Rngs | None = None,
        remainder: Remainder = "pad",
        prefetch: int | None = None,
        progress: bool = False,
        name: str | None = None,
    ) -> None:
        self.stages = _arguments.checked_stages(stages)
        self.batch_size = _arguments.checked_batch_size(batch_size)
        self.remainder = _arguments.checked_choice("remainder", remainder, get_args(Remainder))
        self.prefetch = _arguments.checked_prefetch(prefetch)
        self.progress = _arguments.checked_bool("progress", progress)
        self.name = _arguments.checked_name(name)
        self.source = _arguments.checked_source(source, rngs, fields, shuffle, seed)
        on_error = _arguments.checked_choice("on_error", on_error, get_args(OnError))
        self._work = host_work(
            self.source,
            transforms=transforms,
            metadata_fields=metadata_fields,
            threads=num_threads,
            workers=num_workers,
            mask=on_error == "mask",
            seed=_arguments.checked_seed(seed),
            rngs=rngs,
        )
        most = _arguments.checked_max_errors(max_errors, on_error)
        self._losses = Losses(self.source._label(), most)
        if seed is not None and not shuffle and (self._work is None or self._work.key is None):
            raise ValueError(
                f"seed={seed} decides on the order of a shuffle and on what transforms draw, but "
                "shuffle=False and no transform draws; set shuffle=True or leave seed out"
            )
        if not len(self):
            raise ValueError(
                f"batch_size {self.batch_size} with remainder='drop' leaves no batch of the "
                f"{len(self.source)} records; use at most {len(self.source)}, or remainder='pad'"
            )
        if self.progress:
            require_tqdm()
        self._epoch = Position.of(0)
        self._compiled: Stages | None = None
        self._checks = StageChecks((), None)

    def __repr__(self) -> str:
        stages = ", ".join(stage._label() for stage in self.stages)
        return (
            f"Pipeline(source={self.source._label()}, stages=[{stages}], "
            f"batch_size={self.batch_size}, batches={len(self)}, epoch={self.epoch})"
        )

    def _repr_html_(self) -> str:
        steps = "".join(f"<li>{step._repr_html_()}</li>" for step in (self.source, *self.stages))
        return f"<code>{escape(repr(self))}</code><ol>{steps}</ol>"

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        records = len(self.source)
        if self.remainder == "drop":
            return records // self.batch_size
        return -(-records // self.batch_size)

    def close(self) -> None:
        """Ends worker processes that wait for the next epoch; it starts new ones."""
        if self._work is not None:
            self._work.parked.close()

    @property
    def error_count(self) -> int:
        """How many records became padding because they could not be read, since it was made."""
        return self._losses.count

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next iterator reads, from 0."""
        return int(self._epoch.get_value())

    def __iter__(self) -> PipelineIterator:
        epoch = self.epoch
        iterator = PipelineIterator(self, epoch)
        self._epoch.set_value(np.uint32(epoch + 1))
        return iterator

    def _one_call(self) -> Stages | None:
        """The stages as one operator, or None if there is nothing to do."""
        records = None if self._work is not None else self.source.device_records()
        if not self.stages and records is None:
            return None
        if self._compiled is None or self._compiled.ordinals != ordinals(self.stages):
            self._compiled = Stages.of(self.stages, records)
            self._checks = StageChecks(self.stages, records)
        return self._compiled

    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct | Any]:
        """What `batch.as_dict()` of a full batch looks like, found without reading data.

        The source's `element_spec` goes through the `output_spec` of each stage.

        Returns:
          The fields with shapes `(rows, ...)`, and `valid_mask`, bool `(rows,)`, where rows are
          `batch_size`, or more if a stage repeats records.

        Raises:
          TypeError: if the records are no dicts.
        """
        spec = (self._work or self.source).element_spec()
        rows = self.batch_size
        for stage in self.stages:
            spec = stage.output_spec(spec)
            source = stage.source_rows(rows)
            rows = rows if source is None else len(source)
        return BatcherModule(StructuralConfig()).batch_spec(spec, batch_size=rows)

    def _state(self) -> PipelineState:
        key = None if self._work is None else self._work.key
        return PipelineState(self.source, self.stages, self._epoch, key)

    def get_state(self) -> dict[str, Any]:
        """A copy of the state between epochs, as Orbax saves it; within one, use the iterator's.

        Returns:
          Nested dicts of arrays: `epoch`, the number of the next epoch; `source` and `stages`, the
          states of these modules; `source_length`, the number of records.
        """
        return self._state().read()

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned; the next iterator starts with that epoch.

        Raises:
          TypeError: if `state` is no dict.
          ValueError: if it does not fit, listing every difference; nothing has changed then.
        """
        self._state().write(state)
