"""`IndexedSource`: anything with a length and records by number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from datarax.sources._config import SourceConfig
from datarax.sources._source import DataSourceModule


class Dataset:
    """An object with `__len__` and `__getitem__`, opaque to Flax: no part of the state.

    Raises:
      TypeError: if it has no length and records by number.
    """

    def __init__(self, wrapped: Any) -> None:
        if isinstance(wrapped, Mapping | str | bytes | np.ndarray) or not (
            hasattr(wrapped, "__len__") and hasattr(wrapped, "__getitem__")
        ):
            raise TypeError(
                "source must be a DataSourceModule, or an object whose len() is the number of "
                "records and whose [number] is an Element or a dict, got "
                f"{type(wrapped).__name__}; for arrays use MemorySource(MemorySourceConfig(), "
                "data={'image': images})"
            )
        self.wrapped = wrapped


class IndexedSource(DataSourceModule):
    """Serves the records of a dataset in its order.

    Args:
      dataset: gives an `Element` or a dict of arrays for each integer below its length.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(SourceConfig())
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset.wrapped)

    def __getitem__(self, index: int) -> Any:
        return self._dataset.wrapped[index]
