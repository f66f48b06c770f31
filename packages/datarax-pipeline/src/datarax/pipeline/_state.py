"""What of a pipeline and of its iterator is saved: Flax modules of Variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from datarax.core.operator import OperatorModule
from datarax.core.state import read_state, write_state
from datarax.sources import DataSourceModule


class Position(nnx.Variable[Any]):
    """A uint32 host scalar."""

    @classmethod
    def of(cls, number: int) -> Position:
        """The position with this number."""
        return cls(np.uint32(number))


class PipelineState(nnx.Module):
    """All Variables of a pipeline as they are now.

    Args:
      source: the source; arrays of it that are no Variables are data, not state.
      stages: the operators.
      epoch: the number of the epoch that the next iterator reads.
      transform_key: what the transforms draw from, if one does.
    """

    def __init__(
        self,
        source: DataSourceModule,
        stages: Sequence[OperatorModule],
        epoch: Position,
        transform_key: nnx.Variable[Any] | None = None,
    ) -> None:
        self.source = _variables_of(source)
        self.stages = nnx.List(stages)
        self.epoch = epoch
        self.source_length = Position.of(len(source))
        if transform_key is not None:
            self.transform_key = transform_key

    def read(self) -> dict[str, Any]:
        """Copies the state into nested dicts of arrays."""
        return read_state(self)

    def write(self, state: Mapping[str, Any]) -> None:
        """Sets the state, entirely or not at all."""
        self.require_same_source(state)
        write_state(self, state)

    def require_same_source(self, state: Any) -> None:
        """Raises a ValueError if the state was saved over another number of records."""
        saved, length = _number(state, "source_length"), int(self.source_length.get_value())
        if saved is not None and saved != length:
            raise ValueError(
                "state does not fit the pipeline. Differences:\n  source_length: expected "
                f"{length}, the number of records of the source, got {saved}"
            )


class IteratorState(nnx.Module):
    """All Variables of a pipeline and of its iterator as they are now.

    Args:
      pipeline: those of the pipeline.
      epoch: the number of the iterator's epoch.
      record: how many of its records were delivered.
    """

    def __init__(self, pipeline: PipelineState, epoch: Position, record: Position) -> None:
        self.pipeline = pipeline
        self.epoch = epoch
        self.record = record

    def read(self) -> dict[str, Any]:
        """Copies the state into nested dicts of arrays."""
        return read_state(self)

    def write(self, state: Mapping[str, Any]) -> None:
        """Sets the state, entirely or not at all."""
        if isinstance(state, Mapping):
            self.pipeline.require_same_source(state.get("pipeline"))
        record, length = _number(state, "record"), int(self.pipeline.source_length.get_value())
        if record is not None and record > length:
            raise ValueError(
                "state does not fit the iterator. Differences:\n  record: expected at most "
                f"{length}, the number of records of the source, got {record}"
            )
        write_state(self, state)


def _variables_of(module: nnx.Module) -> nnx.Dict[Any]:
    """The Variables of a module, under the same paths."""
    tree: dict[str, Any] = {}
    for path, leaf in nnx.to_flat_state(nnx.state(module)):
        if isinstance(leaf, nnx.Variable):
            *parents, last = map(str, path)
            node = tree
            for name in parents:
                node = node.setdefault(name, {})
            node[last] = leaf
    return _as_module(tree)


def _as_module(tree: dict[str, Any]) -> nnx.Dict[Any]:
    return nnx.Dict(
        {name: _as_module(leaf) if isinstance(leaf, dict) else leaf for name, leaf in tree.items()}
    )


def _number(state: Any, name: str) -> int | None:
    """An integer of the state; None where it is missing or malformed, which is found out later."""
    value = np.asarray(state[name]) if isinstance(state, Mapping) and name in state else None
    if value is None or value.shape != () or value.dtype.kind not in "iu":
        return None
    return int(value)
