"""What of a pipeline and of its iterator is saved: Flax modules of Variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from datarax.core import _state
from datarax.core.operator import OperatorModule
from datarax.sources import DataSourceModule


class Position(nnx.Variable[Any]):
    """A uint32 host scalar."""


class PipelineState(nnx.Module):
    """The source, the stages, and `epoch`, the number of the epoch that the next iterator reads."""

    def __init__(self, source: DataSourceModule, stages: Sequence[OperatorModule]) -> None:
        self.source = source
        self.stages = nnx.List(stages)
        self.epoch = Position(np.uint32(0))
        self.source_length = Position(np.uint32(len(source)))

    def read(self) -> dict[str, Any]:
        """Copies the state into nested dicts of arrays."""
        return _state.read(self)

    def write(self, state: Mapping[str, Any]) -> None:
        """Sets the state, entirely or not at all."""
        self.require_same_source(state)
        _state.write(self, state)

    def require_same_source(self, state: Any) -> None:
        """Raises a ValueError if the state was saved over another number of records."""
        saved, length = _number(state, "source_length"), int(self.source_length.get_value())
        if saved is not None and saved != length:
            raise ValueError(
                f"state does not fit the pipeline. Differences:\n  source_length: expected "
                f"{length}, the number of records in {self.source._label()}, got {saved}"
            )


class IteratorState(nnx.Module):
    """The pipeline's state, the epoch, and `record`, how many of its records were delivered."""

    def __init__(self, pipeline: PipelineState, epoch: int) -> None:
        self.pipeline = pipeline
        self.epoch = Position(np.uint32(epoch))
        self.record = Position(np.uint32(0))

    def read(self) -> dict[str, Any]:
        """Copies the state into nested dicts of arrays."""
        return _state.read(self)

    def write(self, state: Mapping[str, Any]) -> None:
        """Sets the state, entirely or not at all."""
        if isinstance(state, Mapping):
            self.pipeline.require_same_source(state.get("pipeline"))
        record, length = _number(state, "record"), int(self.pipeline.source_length.get_value())
        if record is not None and record > length:
            raise ValueError(
                f"state does not fit the iterator. Differences:\n  record: expected at most "
                f"{length}, the number of records in {self.pipeline.source._label()}, got {record}"
            )
        _state.write(self, state)


def _number(state: Any, name: str) -> int | None:
    """An integer of the state; None where it is missing or malformed, which is found out later."""
    value = np.asarray(state[name]) if isinstance(state, Mapping) and name in state else None
    if value is None or value.shape != () or value.dtype.kind not in "iu":
        return None
    return int(value)
