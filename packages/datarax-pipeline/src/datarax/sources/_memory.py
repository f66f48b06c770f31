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
      data: a dict of arrays `(records, ...)`, nested or not, which are not copied; or a list of
        records, each an `Element` (state and metadata are kept) or a dict of arrays.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: what to call it in messages.

    Raises:
      TypeError: if `data` is neither, or a field is no array of numbers.
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
        super().__init__(config, _as_records(data), rngs=rngs, name=name)

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


def _as_records(data: Any) -> Batch:
    if isinstance(data, Mapping):
        return Batch.from_arrays(dict(data))
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
        elements.append(record if isinstance(record, Element) else Element(dict(record)))
    return Batch.from_elements(elements)
