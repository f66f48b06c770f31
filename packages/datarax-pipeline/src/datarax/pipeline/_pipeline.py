"""`Pipeline`: batches from a source, through operators, epoch after epoch."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any, get_args

import jax
from flax import nnx

from datarax.batching import BucketBatcher
from datarax.core.batcher import BatcherModule
from datarax.core.config import StructuralConfig
from datarax.core.element_batch import RESERVED_FIELD, Batch
from datarax.core.operator import OperatorModule
from datarax.core.randomness import ordinals
from datarax.core.state import variables
from datarax.pipeline import _arguments
from datarax.pipeline._arguments import Batcher, OnError, Remainder
from datarax.pipeline._checks import StageChecks
from datarax.pipeline._failures import Losses
from datarax.pipeline._host import host_work
from datarax.pipeline._iterator import PipelineIterator
from datarax.pipeline._placement import on_automatic_axes, on_explicit_axes
from datarax.pipeline._processes import Parked
from datarax.pipeline._progress import require_tqdm
from datarax.pipeline._reader import gathers_on_device
from datarax.pipeline._stages import Keys, Stages
from datarax.pipeline._state import Description
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
        class that were made from equal seeds differ by their order.
      batch_size: rows of each batch, on all hosts together; left out if the batcher's config has
        `batch_sizes`.
      batcher: a `BucketBatcher` or `PackingBatcher` for records of unequal length, or a
        `DefaultBatcher` with a `collate_fn`. Its config says what happens to a remainder.
      shuffle: whether each epoch has a random order of its own; for sources that do not shuffle by
        themselves.
      seed: from 0, decides on that order (see `SourceConfig`) and on what `transforms` draw.
      fields: names of the parts of records that are tuples, such as `("image", "label")`; only for
        a `source` that is not a `DataSourceModule`.
      metadata_fields: fields that arrays do not hold, such as `("name",)`; after the transforms,
        they go to the metadata of their records, a dict for each.
      transforms: what is done with each record before it is batched, on the host, in this order:
        functions of a record, functions of a record and an `np.random.Generator`, and objects that
        have `map(record)`, `random_map(record, generator)` or `map_with_index(number, record)`, as
        those of Grain. A generator follows from the seed, the epoch, the record's number and the
        transform's place alone. A record is its dict, or an `Element` if it has state or metadata.
      num_threads: how many threads read and transform records; the source and `transforms` must
        allow it. None: as many as there are CPUs, at most 16, where there are transforms, else 0.
      num_workers: how many processes of Grain (extra `[grain]`) do so instead, each with
        `num_threads` threads for whole batches; source and transforms must be picklable. They are
        kept from one epoch to the next, and end with an error, an early end of the loop, `close`
        or the pipeline. None: what the source says, else 0.
      on_error: what happens to a record for which the source or a transform raises an error:
        "raise" it, with a note that names the record and its source; or "mask" the record: its row
        is padding, and all others are as they would be. It is logged by the logger
        `datarax.pipeline` and counted in `error_count`.
      max_errors: with "mask", how many records may be lost before the run ends with an error.
      rngs: streams ("shuffle" or "default") from which the order of a shuffling source is derived
        if it has neither a seed nor `rngs` of its own.
      remainder: what happens to records that do not fill a last batch: "pad" adds rows of
        padding, where `valid_mask` is False; "drop" leaves them out; "partial" gives a smaller
        batch, for which stages are compiled again.
      pad_values: what padding holds when the first stage sees it, see `pad_batch`: "last" where
        zeros would become NaN.
      epochs: how many epochs an iterator goes through, one after the other; None: without end.
      sharding: spreads the rows of batches over a mesh, where the stages run too, such as
        `NamedSharding(mesh, PartitionSpec("data"))`. All leaves are then device arrays, the mask
        and the numbers too. Of several processes each reads its own rows, and all take equally
        many steps; with a `batcher`, each reads all records and keeps its rows.
      prefetch: how many batches a thread reads ahead and moves to the device; 0: no thread.
        None: 2, or 0 if the records are in memory and a CPU computes, which a thread would only
        disturb. Sources that hold their records on a device need none and get none.
      progress: whether to show a progress bar (needs the extra `[progress]`).
      name: its name in the progress bar.

    Raises:
      TypeError: for an argument of the wrong type.
      ValueError: for an empty source, a `batch_size` below 1, a negative `prefetch`, an unknown
        `remainder`, "drop" with fewer records than one batch, a source that shuffles
        without a seed or stream, `shuffle` for a source that has its own order, a `seed` that
        nothing draws from, transforms that draw without one, or `max_errors` without "mask".
      ImportError: for `progress` without tqdm.

    >>> import numpy as np
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
        batch_size: int | None = None,
        batcher: Batcher | None = None,
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
        pad_values: Any = 0,
        epochs: int | None = 1,
        sharding: jax.sharding.NamedSharding | None = None,
        prefetch: int | None = None,
        progress: bool = False,
        name: str | None = None,
    ) -> None:
        self._stages = _arguments.checked_stages(stages)
        self.remainder = _arguments.checked_choice("remainder", remainder, get_args(Remainder))
        self.batcher = _arguments.checked_batcher(batcher, remainder, pad_values)
        self.batch_size = _arguments.checked_batch_size(batch_size, batcher)
        self.pad_values = _arguments.checked_pad_values(pad_values, remainder)
        self.epochs = _arguments.checked_epochs(epochs)
        self.placement = _arguments.checked_placement(sharding, batcher, self.batch_size, remainder)
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
        _arguments.require_numbered(self.batcher, self.source, self._work)
        most = _arguments.checked_max_errors(max_errors, on_error)
        self._losses = Losses(self.source._label(), most)
        if seed is not None and not shuffle and (self._work is None or self._work.key is None):
            raise ValueError(
                f"seed={seed} decides on the order of a shuffle and on what transforms draw, but "
                "shuffle=False and no transform draws; set shuffle=True or leave seed out"
            )
        # Records on explicit axes of a mesh are gathered there; other batches go to it before.
        records = self.source.device_records() if self._gathers() else None
        rows = 1 if self.batch_size is None or remainder == "partial" else self.batch_size
        found = on_explicit_axes(records, rows)
        self._before_stages = self.placement if found is None else None
        self.placement = self.placement or found
        if self._steps() == 0:
            raise ValueError(
                f"batch_size {self.batch_size} with remainder='drop' leaves no batch of the "
                f"{len(self.source)} records; use at most {len(self.source)}, or remainder='pad'"
            )
        if self.progress:
            require_tqdm()
        self._epoch = 0
        self._compiled: Stages | None = None
        self._checks, self._stage_keys = StageChecks((), None), Keys(())
        self._described: Description | None = None

    def __repr__(self) -> str:
        stages = ", ".join(stage._label() for stage in self.stages)
        try:
            batches = f"batches={len(self)}"
        except TypeError:
            batches = f"epochs={self.epochs}"
        return (
            f"Pipeline(source={self.source._label()}, stages=[{stages}], "
            f"batch_size={self.batch_size}, {batches}, epoch={self.epoch})"
        )

    def _repr_html_(self) -> str:
        steps = "".join(f"<li>{step._repr_html_()}</li>" for step in (self.source, *self.stages))
        return f"<code>{escape(repr(self))}</code><ol>{steps}</ol>"

    def __len__(self) -> int:
        """How many batches an iterator gives, the same on every host.

        Raises:
          TypeError: if it goes on without end, or a batcher decides by the records' lengths.
        """
        steps = self._steps()
        if steps is None or self.epochs is None:
            why = "epochs=None: it has no end" if steps else "the lengths of records decide"
            raise TypeError(f"the pipeline has no number of batches, {why}; count them")
        return steps * self.epochs

    def __bool__(self) -> bool:
        return True

    def _steps(self) -> int | None:
        """How many batches an epoch has, where that is known."""
        if self.batcher is not None or self.batch_size is None:
            return None
        records = len(self.source)
        if self.remainder == "drop":
            return records // self.batch_size
        return -(-records // self.batch_size)

    def close(self) -> None:
        """Ends worker processes that wait for the next epoch, which would start new ones."""
        if self._work is not None:
            self._work.parked.close()

    @property
    def error_count(self) -> int:
        """How many records, since the pipeline was made, became padding for an error."""
        return self._losses.count

    @property
    def stages(self) -> tuple[OperatorModule[Any], ...]:
        """The operators; assigned ones work from the next batch on, also of a running iterator."""
        return self._stages

    @stages.setter
    def stages(self, stages: Sequence[OperatorModule[Any]]) -> None:
        self._stages = _arguments.checked_stages(stages)
        self._compiled = self._described = None

    @property
    def epoch(self) -> int:
        """The number of the epoch with which the next iterator begins, from 0."""
        return self._epoch

    def __iter__(self) -> PipelineIterator:
        return self._iterator(self.epochs)

    def repeat(self, epochs: int | None = None) -> PipelineIterator:
        """An iterator over the next epochs, one after the other.

        Args:
          epochs: how many; None: without end.
        """
        return self._iterator(_arguments.checked_epochs(epochs))

    def _iterator(self, epochs: int | None) -> PipelineIterator:
        iterator = PipelineIterator(self, self._epoch, epochs)
        self._epoch += 1 if epochs is None else epochs
        return iterator

    def peek(self) -> Batch:
        """The first batch of the next epoch, which stays the next one; stages count no records."""
        with PipelineIterator(self, self._epoch, 1) as iterator:
            return iterator.peek()

    def __deepcopy__(self, memo: dict[int, Any]) -> Pipeline:
        new = copy.copy(self)
        memo[id(self)] = new
        new._losses = copy.deepcopy(self._losses, memo)
        # The records, and where they come from, are shared.
        new.source, new.batcher = self.source.clone(), copy.deepcopy(self.batcher, memo)
        if self._work is not None:
            new._work = dataclasses.replace(self._work, source=new.source, parked=Parked())
        new.stages = [copy.deepcopy(stage, memo) for stage in self._stages]
        return new

    def _gathers(self) -> bool:
        return gathers_on_device(self.source, self.pad_values, self._work)

    def _one_call(self) -> Stages | None:
        """The stages as one operator, or None if there is nothing to do."""
        records = self.source.device_records() if self._gathers() else None
        if not self._stages and records is None:
            return None
        if self._compiled is not None and self._stage_keys.are_the_same():
            return self._compiled
        self._stage_keys = Keys(self._stages)
        if self._compiled is None or self._compiled.ordinals != ordinals(self._stages):
            records = None if records is None else on_automatic_axes(records)
            self._compiled = Stages.of(self._stages, records)
            self._checks = StageChecks(self._stages, records)
        return self._compiled

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Puts the Variables of the stages back at the end."""
        before = [
            (variable, variable.get_raw_value())
            for _, variable in variables(nnx.List(self._stages))
        ]
        try:
            yield
        finally:
            for variable, value in before:
                variable.set_raw_value(value)

    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct | Any]:
        """What `batch.as_dict()` of a full batch looks like, found without reading many records.

        The source's `element_spec` goes through the batcher and the `output_spec` of each stage.

        Returns:
          The fields with shapes `(rows, ...)`, and `valid_mask`, bool `(rows,)`, where rows are
          `batch_size`, or more if a stage repeats records.

        Raises:
          TypeError: if the records are not dicts.
          ValueError: if a `BucketBatcher` gives several shapes.
        """
        specs = self.batch_specs()
        spec, *others = specs
        if others:
            raise ValueError(
                f"batches have {1 + len(others)} shapes, one for each bucket; use batch_specs"
            )
        return spec

    def batch_specs(self) -> tuple[dict[str, jax.ShapeDtypeStruct | Any], ...]:
        """A `batch_spec` for each shape that batches have: several with a `BucketBatcher` only."""
        spec = (self._work or self.source).element_spec()
        size, batcher = self.batch_size, self.batcher
        if batcher is None:
            assert size is not None
            return (self._after_stages(spec, size),)
        sizes: Any = {} if size is None else {"batch_size": size}
        if isinstance(batcher, BucketBatcher):
            batched = batcher.batch_specs(spec, **sizes)
        else:
            batched = (batcher.batch_spec(spec, **sizes),)
        return tuple(self._after_stages(*_of_a_row(each)) for each in batched)

    def _after_stages(self, spec: Any, rows: int) -> dict[str, Any]:
        for stage in self._stages:
            spec = stage.output_spec(spec)
            source = stage.source_rows(rows)
            rows = rows if source is None else len(source)
        return BatcherModule(StructuralConfig()).batch_spec(spec, batch_size=rows)

    def _description(self) -> Description:
        if self._described is None:
            batcher = "" if self.batcher is None else type(self.batcher).__name__
            self._described = Description(self.source, self._stages, batcher, self._work)
        return self._described

    def get_state(self) -> dict[str, Any]:
        """The state between epochs; within one, use the iterator's.

        Returns:
          A dict of numbers and short texts, nested, as that of `PipelineIterator.get_state`:
          `epoch` is the number of the next epoch.
        """
        return self._description().read(epoch=self._epoch)

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned; the next iterator starts with that epoch.

        Raises:
          TypeError: if `state` is not a dict.
          ValueError: if it does not fit, listing every difference; nothing has changed then.
        """
        write, numbers = self._description().restorer(state, "pipeline", ("epoch",))
        write()
        self._epoch = int(numbers["epoch"])


def _of_a_row(batched: dict[str, Any]) -> tuple[Any, int]:
    """The spec of one row of a batch, and how many rows there are."""
    fields = dict(batched)
    rows = fields.pop(RESERVED_FIELD).shape[0]
    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), fields)
    return row, rows
