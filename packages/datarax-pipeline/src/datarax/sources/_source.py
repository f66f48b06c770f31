"""`DataSourceModule`: where records come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int, PyTree, UInt32

from datarax.batching import record_spec
from datarax.core import randomness
from datarax.core.element_batch import Batch, Element
from datarax.core.structural import StructuralModule
from datarax.sources._config import SourceConfig
from datarax.sources._ends import stopped
from datarax.sources._fingerprint import sampled
from datarax.sources._metadata import require_numbers, with_metadata
from datarax.sources._order import Order, Plan, Positions, words_of_key, words_of_seed

if TYPE_CHECKING:
    from datarax.sources._selected import SelectedSource

SHUFFLE_STREAM = "shuffle"
MAX_RECORDS = 2**32 - 1


class ShuffleKey(nnx.Variable[Any]):
    """uint32 `(4,)`, from which the order of every epoch follows."""


SourceConfigT = TypeVar("SourceConfigT", bound=SourceConfig)


class DataSourceModule(StructuralModule[SourceConfigT]):
    """Base class of sources: implement `__len__` and `__getitem__`.

    Override `gather` where many records can be read faster than one by one, `read` where they can
    be read ahead, `element_spec` where the spec is known without reading, `record_numbers` for an
    order of its own, and `batches` where something else decides which records come.
    `source(indices)` is `source.gather(indices)`.

    Args:
      config: whether to shuffle, and from which seed.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: its name in messages.

    Attributes:
      in_memory: whether reading only copies within memory. Such a source is not read ahead where
        the CPU computes too, because that would slow it down; False unless you set it.
      sequential: whether something else decides on the order, so that records are read one after
        the other and not by number; False unless you set it.
      num_threads: how many threads read records where the pipeline's `num_threads` is None; 0
        unless you set it.
      num_workers: how many processes read where the pipeline's `num_workers` is None; 0 unless you
        set it.

    Raises:
      TypeError: if `config` or `rngs` is of the wrong type.
      ValueError: if `config.stochastic` and `rngs` lacks the stream.

    >>> class Squares(DataSourceModule):
    ...     def __len__(self):
    ...         return 4
    ...
    ...     def __getitem__(self, index):
    ...         return {"x": np.float32(index) ** 2}
    >>> Squares(SourceConfig()).gather(np.array([3, 1]))["x"].tolist()
    [9.0, 1.0]
    """

    config_class = SourceConfig
    in_memory = False
    sequential = False
    num_threads = 0
    num_workers = 0
    # Whether `_record` heeds its epoch.
    _differs_by_epoch = False

    def __init__(
        self, config: SourceConfigT, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        self.shuffle_key = self._own_shuffle_key(rngs)

    def _own_shuffle_key(self, rngs: nnx.Rngs | None) -> ShuffleKey | None:
        if not self.config.shuffle:
            return None
        if self.config.seed is not None:
            return ShuffleKey(words_of_seed(self.config.seed))
        if self.rngs is not None and self.stream_name is not None:
            return ShuffleKey(words_of_key(self.rngs[self.stream_name].key.get_value()))
        return None if rngs is None else _derived_key(self, rngs)

    def __len__(self) -> int:
        """Number of records."""
        raise NotImplementedError(f"{type(self).__name__} must implement __len__")

    def __getitem__(self, index: int) -> Element | PyTree:
        """One record: an `Element`, or just its data."""
        raise NotImplementedError(f"{type(self).__name__} must implement __getitem__")

    def gather(self, indices: Int[np.ndarray, " batch"]) -> Batch:
        """Reads records and stacks them to a batch.

        Args:
          indices: which records, from 0; in any order, repetitions allowed.

        Returns:
          A batch of these records in this order, without `record_index` and `epoch`; each field is
          `(len(indices), ...)`.

        Raises:
          TypeError: if a field is not an array of numbers.
          ValueError: if the records differ in structure, shape or dtype.
        """
        return self._stacked(self.read_elements(indices), indices)

    def _stacked(self, elements: list[Element], indices: Int[np.ndarray, " batch"]) -> Batch:
        try:
            return Batch.from_elements(elements)
        except (TypeError, ValueError) as error:
            if isinstance(error, TypeError):
                for index, element in zip(indices, elements, strict=True):
                    require_numbers(element.data, f"record {index} of {self._label()}")
            error.add_note(f"while {self._label()} read the records {np.asarray(indices).tolist()}")
            raise

    def read_elements(self, indices: Int[np.ndarray, " records"]) -> list[Element]:
        """Reads records that need not be alike, for batchers of ragged records.

        Args:
          indices: which records, from 0.

        Returns:
          The records in this order, unstacked.
        """
        return [self._element(int(index)) for index in indices]

    def process(self, elements: Int[np.ndarray, " batch"]) -> Batch:
        return self.gather(elements)

    def element_spec(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of one record's fields, as batches will have them."""
        element = self._element(0)
        require_numbers(element.data, f"record 0 of {self._label()}")
        return record_spec(element)

    def _record(self, index: int, epoch: int) -> Any:
        """What `source[index]` is in this epoch, where that makes a difference."""
        return self[index]

    def _read(self, index: int, epoch: int) -> tuple[Any, tuple[str, ...]]:
        """A record as the source gives it, and which of its fields are metadata."""
        what = f"record {index} of {self._label()}"
        try:
            return self._record(index, epoch), self.config.metadata_fields
        except StopIteration as error:
            raise stopped(what) from error
        except Exception as error:
            error.add_note(f"while reading {what}")
            raise

    def _element(self, index: int, epoch: int = 0) -> Element:
        record, fields = self._read(index, epoch)
        return with_metadata(record, fields, f"record {index} of {self._label()}")

    def record_numbers(
        self, epoch: int, positions: Int[np.ndarray, " n"]
    ) -> UInt32[np.ndarray, " n"]:
        """Which records stand at these positions of an epoch, found without the whole order.

        Args:
          epoch: from 0. A shuffling source has another order in each.
          positions: each from 0 and less than `len(source)`.

        Raises:
          ValueError: if the source shuffles, but has neither a seed nor `rngs`.
        """
        if type(self).order is not DataSourceModule.order:
            # A source with an order of its own, as a whole.
            return self.order(epoch)[positions]
        return self._order(epoch, len(self)).at(np.asarray(positions))

    def _order(self, epoch: int, length: int) -> Order:
        if not self.config.shuffle:
            return Order(length, None)
        return Order(length, (*self._require_shuffle_key().tolist(), epoch))

    def order(self, epoch: int) -> UInt32[np.ndarray, " records"]:
        """The records of an epoch in the order in which they come, as one array.

        Args:
          epoch: from 0. A shuffling source has another order in each.

        Raises:
          ValueError: if the source shuffles, but has neither a seed nor `rngs`.
        """
        return self.record_numbers(epoch, np.arange(len(self)))

    def _require_shuffle_key(self) -> UInt32[np.ndarray, "4"]:
        if self.shuffle_key is None:
            raise ValueError(
                f"{self._label()} has shuffle=True, but nothing to derive the order from; set "
                "the config's seed, or pass rngs=nnx.Rngs(0) to the source or to the pipeline"
            )
        return np.asarray(self.shuffle_key.get_value())

    def read(self, plan: Plan) -> Iterator[Batch]:
        """Reads batch after batch; what a pipeline calls.

        Args:
          plan: a sequence with the numbers of the records of each batch, not all of one length;
            `plan.epoch` and `plan.positions` say where in which epoch they stand.

        Yields:
          What `gather` gives for each, with `record_index`.
        """
        for indices in plan:
            if self._differs_by_epoch:
                elements = [self._element(int(index), plan.epoch) for index in indices]
                batch = self._stacked(elements, indices)
            else:
                batch = self.gather(indices)
            yield dataclasses.replace(batch, record_index=indices)

    def _state_at(self, epoch: int, position: int) -> str:
        """What a sequential source needs to go on there in another process; a JSON text, or ""."""
        return ""

    def _resume_at(self, epoch: int, position: int, state: str) -> None:
        """Takes what `_state_at` gave."""

    @property
    def _makes_batches(self) -> bool:
        """Whether `batches` decides which records come, rather than `record_numbers`."""
        return type(self).batches is not DataSourceModule.batches

    def batches(self, epoch: int, start: int, batch_size: int) -> Iterator[Batch]:
        """Reads an epoch, or the rest of one.

        Args:
          epoch: from 0.
          start: how many records of the epoch to leave out.
          batch_size: records of each batch; the last one has fewer if they run out.

        Yields:
          Batches with `record_index` and `epoch`.
        """
        positions = Positions(start, len(self), batch_size, range(batch_size))
        for indices in Plan(self, epoch, positions):
            yield self.gather(indices).replace(record_index=indices, epoch=epoch)

    def fingerprint(self) -> dict[str, str]:
        """What tells the records from those of another source, the same in every process.

        Returns:
          Short texts: `kind`, `records`, `fields`, `shuffled` and `content`, which a state is
          compared by. An empty one is not compared. Here `content` is a hash of three records, as
          long as they read the same twice; override it where a name or a version tells more.
        """
        return {
            "kind": type(self).__name__,
            "records": str(len(self)),
            "shuffled": str(self.config.shuffle),
            **sampled(self),
        }

    def device_records(self) -> Batch | None:
        """All records as one batch on a device, if that is where the source has them.

        A pipeline then reads `index_batch`, and gathers inside its compiled call.
        """
        return None

    def index_batch(self, indices: UInt32[np.ndarray, " batch"]) -> Batch:
        """Like `gather`, with the numbers of the records as the data.

        Raises:
          NotImplementedError: if the source has no `device_records`.
        """
        raise NotImplementedError(f"{type(self).__name__} holds no records on a device")

    def select(self, indices: Sequence[int] | Int[np.ndarray, " records"]) -> SelectedSource:
        """These records as a source of their own, numbered from 0; it shuffles if this one does.

        Args:
          indices: which records, from 0, in any order, repetitions allowed; a `range` takes no
            memory.

        Raises:
          TypeError: for anything but integers, or if the records cannot be read by number.
          ValueError: if `indices` is empty.
          IndexError: if there is no such record.
        """
        from datarax.sources._selected import SelectedSource

        return SelectedSource(self, indices)

    def take(self, n: int) -> SelectedSource:
        """The first records as a source of their own; see `select`.

        Args:
          n: how many.

        Raises:
          TypeError: if `n` is not an integer, or if the records cannot be read by number.
          ValueError: unless it is from 1 to the number of records.
        """
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"n must be an integer, got {type(n).__name__} {n!r}")
        if not 1 <= n <= len(self):
            raise ValueError(f"n must be from 1 to {len(self)}, the number of records, got {n}")
        return self.select(range(n))

    def shuffled(self, seed: int | None = None) -> Self:
        """A copy over the same records, whose order is random.

        Args:
          seed: see `SourceConfig.seed`.

        Raises:
          ValueError: if the source shuffles already, or is sequential.
        """
        if self.config.shuffle or self.sequential:
            why = "is read sequentially" if self.sequential else "has shuffle=True already"
            raise ValueError(
                f"{self._label()} {why}: it has an order of its own, which a pipeline does not "
                "shuffle; leave shuffle and seed of the pipeline out"
            )
        new = self.clone()
        new.config = dataclasses.replace(self.config, shuffle=True, seed=seed)
        new.shuffle_key = nnx.data(new._own_shuffle_key(None))
        return new

    def with_rngs(self, rngs: nnx.Rngs) -> Self:
        """A copy over the same records, whose order is derived from these streams.

        Args:
          rngs: have a stream "shuffle" or "default".
        """
        new = self.clone()
        new.shuffle_key = nnx.data(_derived_key(self, rngs))
        return new


def _derived_key(source: DataSourceModule, rngs: nnx.Rngs) -> ShuffleKey:
    streams = randomness.own_streams(source._label(), type(source), rngs, [SHUFFLE_STREAM])
    return ShuffleKey(words_of_key(streams[SHUFFLE_STREAM].key.get_value()))
