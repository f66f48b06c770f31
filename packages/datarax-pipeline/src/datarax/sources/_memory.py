"""`MemorySource`: records in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from flax import nnx

from datarax.core.config import DataraxModuleConfig
from datarax.core.element_batch import Batch, Element
from datarax.sources._arrays import ArraySource
from datarax.sources._config import SourceConfig
from datarax.sources._metadata import require_numbers, with_metadata


@dataclass(frozen=True)
class MemorySourceConfig(SourceConfig):
    """Configuration of `MemorySource`; adds nothing to `SourceConfig`.

    >>> MemorySourceConfig(shuffle=True, seed=0).shuffle
    True
    """


class MemorySource(ArraySource[MemorySourceConfig]):
    """Records in memory, on the host or on a device.

    NumPy arrays stay on the host, and each batch goes to the device. If there is a `jax.Array`
    among the fields, all are held on the device, and a pipeline gathers each batch there.

    Args:
      config: whether to shuffle, and from which seed.
      data: a dict of arrays `(records, ...)`, nested or not, which are not copied (those of
        `config.metadata_fields` can be lists of anything); or a list of records, each an `Element`
        (state and metadata are kept) or a dict of arrays.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: its name in messages.

    Raises:
      TypeError: if `data` is neither, or a field is not an array of numbers.
      ValueError: if there is no record, or fields differ in length or records in structure.

    >>> import numpy as np
    >>> source = MemorySource(MemorySourceConfig(), data={"x": np.float32([1, 2, 3])})
    >>> len(source), source[1].data["x"].item()
    (3, 2.0)
    """

    def __init__(
        self,
        config: MemorySourceConfig,
        *,
        data: Mapping[str, Any] | list[Any] | tuple[Any, ...],
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        self._require_config(config)
        super().__init__(config, _as_records(data, config), rngs=rngs, name=name)

    def copy(
        self,
        *,
        config: DataraxModuleConfig | None = None,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> Self:
        new = super().copy(config=config, rngs=rngs, name=name)
        # A list of records has lost its metadata on the way through the kept arguments.
        new._records = self._records
        return new


def _as_records(data: Any, config: MemorySourceConfig) -> Batch:
    if isinstance(data, Mapping):
        return _as_columns(data, config.metadata_fields)
    if not isinstance(data, list | tuple):
        raise TypeError(
            f"data must be a dict of arrays or a list of records, got {type(data).__name__}"
        )
    if not data:
        raise ValueError("data must hold at least one record, got none")
    elements = []
    for number, record in enumerate(data):
        if not isinstance(record, Element | Mapping):
            raise TypeError(
                f"data[{number}] must be an Element or a dict of arrays, got "
                f"{type(record).__name__}; for whole columns pass a dict: {{'image': images}}"
            )
        what = f"data[{number}]"
        record = record if isinstance(record, Element) else dict(record)
        elements.append(with_metadata(record, config.metadata_fields, what))
        require_numbers(elements[-1].data, what)
    return Batch.from_elements(elements)


def _as_columns(data: Mapping[str, Any], fields: tuple[str, ...]) -> Batch:
    missing = [name for name in fields if name not in data]
    if missing:
        raise KeyError(f"metadata_fields names {missing}, but data has the fields {sorted(data)}")
    columns = {name: column for name, column in data.items() if name not in fields}
    require_numbers(columns, "the source")
    lengths = {name: len(data[name]) for name in fields}
    batch = Batch.from_arrays(columns)
    if any(length != len(batch) for length in lengths.values()):
        raise ValueError(
            f"metadata_fields must have an entry for each of the {len(batch)} records, got so "
            f"many: {lengths}"
        )
    rows = zip(*(data[name] for name in fields), strict=True)
    metadata = [dict(zip(fields, row, strict=True)) for row in rows]
    return batch.replace(metadata=metadata) if fields else batch
