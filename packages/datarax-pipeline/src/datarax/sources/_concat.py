"""`ConcatSource`: the records of several sources, one source after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int, PyTree

from datarax.core.element_batch import Batch, Element
from datarax.sources._config import SourceConfig
from datarax.sources._indexed import as_source
from datarax.sources._opaque import Opaque
from datarax.sources._selected import readable, require_indices, require_numbered
from datarax.sources._source import MAX_RECORDS, DataSourceModule


class JoinedSource(DataSourceModule[SourceConfig]):
    """Records of several sources under common numbers: those of the first, of the second, ...

    Args:
      sources: `DataSourceModule`s that do not shuffle, or objects with `__len__` and `__getitem__`.
      config: whether to shuffle, and from which seed.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: its name in messages.

    Attributes:
      records: how many records the sources have together.

    Raises:
      TypeError: if there is no source, or one whose records cannot be read by number.
      ValueError: if a source has no record or shuffles, or all together have 2^32 records or more.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        *,
        config: SourceConfig | None = None,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(SourceConfig() if config is None else config, rngs=rngs, name=name)
        if not isinstance(sources, list | tuple) or not sources:
            raise TypeError(
                f"sources of {self._label()} must be a list of at least one source, got "
                f"{type(sources).__name__} {sources!r}"
            )
        modules = tuple(map(as_source, sources))
        for number, source in enumerate(modules):
            what = f"sources[{number}] of {self._label()}"
            require_numbered(what, source)
            if source.config.shuffle:
                raise ValueError(
                    f"{what} has shuffle=True, but {type(self).__name__} decides the order; give "
                    f"it {type(self).__name__}(..., config=SourceConfig(shuffle=True, seed=0))"
                )
            if not len(source):
                raise ValueError(f"{what} has no records")
        self._joined = Opaque(modules)
        self._starts = Opaque(np.cumsum([0, *map(readable, modules)], dtype=np.int64))
        self.in_memory = all(source.in_memory for source in modules)
        self._differs_by_epoch = any(source._differs_by_epoch for source in modules)
        self.num_threads = max(source.num_threads for source in modules)
        self.num_workers = max(source.num_workers for source in modules)
        self.records = int(self._starts.value[-1])
        if self.records > MAX_RECORDS:
            raise ValueError(
                f"sources of {self._label()} have {self.records} records, more than {MAX_RECORDS}"
            )

    @property
    def sources(self) -> tuple[DataSourceModule[Any], ...]:
        """The sources."""
        return self._joined.value

    def locate(
        self, indices: Int[np.ndarray, " batch"]
    ) -> tuple[Int[np.ndarray, " batch"], Int[np.ndarray, " batch"]]:
        """Where records come from.

        Args:
          indices: which records, from 0.

        Returns:
          The number of each record's source, and the record's number there.

        Raises:
          IndexError: if there is no such record.
        """
        indices = require_indices(indices, self.records).astype(np.int64)
        which = np.searchsorted(self._starts.value, indices, side="right") - 1
        return which, indices - self._starts.value[which]

    def __getitem__(self, index: int) -> Element:
        return self._element(index)

    def _read(self, index: int, epoch: int) -> tuple[Any, tuple[str, ...]]:
        (which,), (number,) = self.locate(np.array([index]))
        try:
            record, fields = self.sources[which]._read(int(number), epoch)
        except Exception as error:
            error.add_note(f"which is record {index} of {self._label()}")
            raise
        return record, tuple(dict.fromkeys(fields + self.config.metadata_fields))

    def gather(self, indices: Int[np.ndarray, " batch"]) -> Batch:
        which, numbers = self.locate(indices)
        present = np.unique(which)
        if self.config.metadata_fields or len(present) > 1 + len(which) // 4:
            # Metadata is split off record by record; and pieces of few records do not pay.
            return super().gather(indices)
        rows = [np.flatnonzero(which == source) for source in present]
        parts = [
            self.sources[source].gather(numbers[own])
            for source, own in zip(present, rows, strict=True)
        ]
        if len(parts) == 1:
            return parts[0]
        if any(part.metadata is not None for part in parts):
            parts = [
                part if part.metadata is not None else part.replace(metadata=(None,) * len(part))
                for part in parts
            ]
        try:
            joined = Batch.concatenate(parts)
        except ValueError as error:
            error.add_note(f"batch i has records of sources[i], i of {present.tolist()}")
            raise
        return _reordered(joined, np.argsort(np.concatenate(rows)))

    def element_spec(self) -> PyTree[jax.ShapeDtypeStruct]:
        if self.config.metadata_fields:
            return super().element_spec()
        return self.sources[0].element_spec()


class ConcatSource(JoinedSource):
    """The records of several sources, one source after the other, in one numbering.

    Args:
      sources: `DataSourceModule`s that do not shuffle, or objects with `__len__` and `__getitem__`.
      config: whether to shuffle over all of them, and from which seed.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: its name in messages.

    Raises:
      TypeError: if there is no source, or one whose records cannot be read by number.
      ValueError: if a source has no record or shuffles, or all together have 2^32 records or more.

    >>> source = ConcatSource([[{"x": 0}, {"x": 1}], [{"x": 2}]])
    >>> len(source), source[2].data
    (3, {'x': 2})
    """

    def __len__(self) -> int:
        return self.records


def _reordered(batch: Batch, order: np.ndarray) -> Batch:
    def taken(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[order], tree)

    metadata = batch.metadata
    return Batch.from_arrays(
        taken(batch.data),
        states=taken(batch.states),
        metadata=None if metadata is None else [metadata[row] for row in order],
    )
