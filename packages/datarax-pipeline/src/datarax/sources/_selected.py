"""`SelectedSource`: some records of another source."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, PyTree

from datarax.core.element_batch import Batch, Element
from datarax.sources._config import SourceConfig
from datarax.sources._opaque import Opaque
from datarax.sources._source import MAX_RECORDS, DataSourceModule


class SelectedSource(DataSourceModule[SourceConfig]):
    """The records with these numbers, numbered from 0; made by `source.select` and `source.take`.

    It shuffles if the source does, in an order of its own that follows from the same key.

    Args:
      source: what to choose from.
      indices: which records, from 0, in any order, repetitions allowed; a `range` takes no memory.

    Raises:
      TypeError: for anything but integers, or if the records cannot be read by number.
      ValueError: if there is none.
      IndexError: if there is no such record.

    >>> from datarax.sources import MemorySource, MemorySourceConfig
    >>> source = MemorySource(MemorySourceConfig(), data={"x": np.arange(10)})
    >>> source.select([7, 2])[0].data["x"].item(), len(source.take(4))
    (7, 4)
    """

    def __init__(
        self, source: DataSourceModule[Any], indices: Sequence[int] | Int[np.ndarray, " records"]
    ) -> None:
        require_numbered("select", source)
        numbers = _checked(indices, readable(source), source._label())
        # The records of `source` have their metadata already.
        shuffle, seed = source.config.shuffle, source.config.seed
        super().__init__(SourceConfig(shuffle=shuffle, seed=seed))
        if source.shuffle_key is not None:
            self.shuffle_key = type(source.shuffle_key)(source.shuffle_key.get_value())
        self._chosen = Opaque((source, numbers))
        self.in_memory = source.in_memory
        self._differs_by_epoch = source._differs_by_epoch
        self.num_threads, self.num_workers = source.num_threads, source.num_workers

    def __len__(self) -> int:
        return len(self._chosen.value[1])

    def __getitem__(self, index: int) -> Element:
        return self._element(index)

    def _read(self, index: int, epoch: int) -> tuple[Any, tuple[str, ...]]:
        source, numbers = self._chosen.value
        if not 0 <= index < len(numbers):
            raise IndexError(f"index must be from 0 to {len(numbers) - 1}, got {index}")
        try:
            return source._read(int(numbers[index]), epoch)
        except Exception as error:
            error.add_note(f"which is record {index} of {self._label()}")
            raise

    def gather(self, indices: Int[np.ndarray, " batch"]) -> Batch:
        source, numbers = self._chosen.value
        indices = require_indices(indices, len(numbers))
        if isinstance(numbers, range):
            chosen = numbers.start + numbers.step * indices.astype(np.int64)
        else:
            chosen = numbers[indices]
        batch = source.gather(chosen)
        return dataclasses.replace(batch, record_index=None, epoch=None)

    def element_spec(self) -> PyTree[jax.ShapeDtypeStruct]:
        return self._chosen.value[0].element_spec()


def readable(source: DataSourceModule[Any]) -> int:
    """How many records can be read by number, which can be more than an epoch has."""
    return getattr(source, "records", len(source))


def require_numbered(what: str, source: DataSourceModule[Any]) -> None:
    """Raises a TypeError if the source's records cannot be read by number."""
    if source.sequential:
        raise TypeError(
            f"{what} needs records that can be read by number, but {source._label()} is "
            "sequential; do it in what it reads"
        )


def require_indices(indices: Any, length: int) -> np.ndarray:
    """The numbers of records as an array, after a check that all of them exist."""
    indices = np.asarray(indices)
    if indices.size and not (indices.min() >= 0 and indices.max() < length):
        raise IndexError(f"indices must be from 0 to {length - 1}, got {indices.tolist()}")
    return indices


def _checked(indices: Any, length: int, label: str) -> range | np.ndarray:
    if isinstance(indices, range):
        numbers, ends = indices, (indices[0], indices[-1]) if indices else ()
    else:
        numbers = np.asarray(indices)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise TypeError(
                f"indices must be a list or array of integers, got {type(indices).__name__} of "
                f"dtype {numbers.dtype} and shape {numbers.shape}; np.flatnonzero makes them of a "
                "mask"
            )
        ends = (numbers.min(), numbers.max()) if numbers.size else ()
    if not ends or len(numbers) > MAX_RECORDS:
        raise ValueError(f"indices must name from 1 to {MAX_RECORDS} records, got {len(numbers)}")
    if min(ends) < 0 or max(ends) >= length:
        raise IndexError(
            f"indices must be from 0 to {length - 1}, the last record of {label}, got from "
            f"{min(ends)} to {max(ends)}"
        )
    return numbers if isinstance(numbers, range) else numbers.astype(np.uint32)
