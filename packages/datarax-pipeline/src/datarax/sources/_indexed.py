"""`IndexedSource`: anything with a length and records by number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Int

from datarax.core.element_batch import Element
from datarax.sources._config import SourceConfig
from datarax.sources._ends import stopped
from datarax.sources._source import DataSourceModule


class Dataset:
    """An object with `__len__` and `__getitem__`, opaque to Flax: no part of the state.

    Raises:
      TypeError: if it has no length and records by number.
    """

    def __init__(self, wrapped: Any) -> None:
        if isinstance(wrapped, list | tuple) and any(isinstance(x, nnx.Module) for x in wrapped):
            names = [type(entry).__name__ for entry in wrapped]
            raise TypeError(
                f"source must hold records, but it is a {type(wrapped).__name__} of modules "
                f"{names}; pass one source as source=..., and operators as stages=[...]"
            )
        if isinstance(wrapped, Mapping | str | bytes | np.ndarray) or not (
            hasattr(wrapped, "__len__") and hasattr(wrapped, "__getitem__")
        ):
            raise TypeError(
                "source must be a DataSourceModule, or an object whose len() is the number of "
                "records and whose [number] is an Element or a dict, got "
                f"{type(wrapped).__name__}; for arrays use MemorySource(MemorySourceConfig(), "
                "data={'image': images}), "
                "and of a dict of splits choose one"
            )
        self.wrapped = wrapped

    def record(self, index: int) -> Any:
        """The record with this number."""
        try:
            return self.wrapped[index]
        except StopIteration as error:
            raise stopped(f"record {index} of {type(self.wrapped).__name__}") from error


class IndexedSource(DataSourceModule[SourceConfig]):
    """Serves the records of a dataset.

    Args:
      dataset: gives an `Element` or a dict of arrays for each integer below its length.
      fields: names of the parts of records that are tuples; None if they are none.
    """

    def __init__(self, dataset: Dataset, fields: tuple[str, ...] | None = None) -> None:
        super().__init__(SourceConfig())
        self._dataset = dataset
        self._fields = fields

    def _label(self) -> str:
        return type(self._dataset.wrapped).__name__

    def __len__(self) -> int:
        return len(self._dataset.wrapped)

    def __getitem__(self, index: int) -> Any:
        return self._named(index, self._dataset.record(index))

    def read_elements(self, indices: Int[np.ndarray, " records"]) -> list[Element]:
        # Data sets of Hugging Face and of TFDS read several records much faster than one by one.
        together = getattr(self._dataset.wrapped, "__getitems__", None)
        if together is None:
            return super().read_elements(indices)
        numbers = [int(index) for index in indices]
        try:
            records = together(numbers)
        except Exception:
            # One of them, which is found and named.
            return super().read_elements(indices)
        named = map(self._named, numbers, records)
        return [record if isinstance(record, Element) else Element(record) for record in named]

    def _named(self, index: int, record: Any) -> Any:
        parts = isinstance(record, tuple) and not hasattr(record, "_fields")
        if self._fields is None and not parts:
            return record
        if not parts or self._fields is None or len(record) != len(self._fields):
            came = f"a tuple of {len(record)}" if parts else type(record).__name__
            names = "no fields" if self._fields is None else f"fields={self._fields}"
            raise TypeError(
                f"record {index} of {type(self._dataset.wrapped).__name__} is {came}, but the "
                f"pipeline has {names}; name every part of a tuple, as in "
                'Pipeline(fields=("image", "label"))'
            )
        return dict(zip(self._fields, record, strict=True))


def as_source(source: Any) -> DataSourceModule[Any]:
    """The source, or the object with `__len__` and `__getitem__` as one."""
    if isinstance(source, DataSourceModule):
        return source
    return IndexedSource(Dataset(source))
