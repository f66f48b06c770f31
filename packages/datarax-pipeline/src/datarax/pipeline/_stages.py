"""All stages of a pipeline as one operator, and thus as one compiled call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.core.randomness import stage_ordinal


class DeviceRecords(nnx.Variable[Any]):
    """Data and states of all records of a source that holds them on a device."""


class Stages(OperatorModule):
    """Applies operators one after the other, after gathering the batch where records are at hand.

    Made by `Stages.of`: a constructor with arguments would keep copies of the operators.
    """

    operators: nnx.List[OperatorModule]
    ordinals: tuple[int, ...]
    records: DeviceRecords | None

    def __init__(self) -> None:
        super().__init__(OperatorConfig())

    @classmethod
    def of(cls, operators: Sequence[OperatorModule], records: Batch | None) -> Stages:
        """Chains operators.

        Args:
          operators: the stages, which keep their Variables.
          records: all records of the source, on a device; batches then come with record numbers as
            their data, and these records are gathered. None: batches come with their data.
        """
        stages = cls()
        stages.operators = nnx.List(operators)
        stages.ordinals = ordinals(operators)
        stages.records = None if records is None else DeviceRecords((records.data, records.states))
        return stages

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        if self.records is not None:
            batch = _gathered(self.records.get_value(), batch)
        for operator, ordinal in zip(self.operators, self.ordinals, strict=True):
            with stage_ordinal(ordinal):
                batch = operator(batch)
        return batch

    def count_operations(self, valid_mask: Any, applied: Any = None) -> None:
        """Counts nothing: each stage counts for itself."""


def ordinals(operators: Sequence[OperatorModule]) -> tuple[int, ...]:
    """For each operator, 0 if none before it has a random key in common, else 1, 2, ..."""
    taken: dict[Any, int] = {}
    numbers = []
    for operator in operators:
        streams = [] if operator.rngs is None else [stream for _, stream in operator.rngs.items()]
        keys = [_identity(stream.key.get_value()) for stream in streams]
        number = max((taken[key] + 1 for key in keys if key in taken), default=0)
        taken |= dict.fromkeys(keys, number)
        numbers.append(number)
    return tuple(numbers)


def _identity(key: jax.Array) -> tuple[str, bytes]:
    return str(jax.random.key_impl(key)), jax.device_get(jax.random.key_data(key)).tobytes()


def _gathered(records: tuple[Any, Any], batch: Batch) -> Batch:
    """The batch with its records' data and states, and zeros where it has padding."""

    def rows(leaf: jax.Array) -> jax.Array:
        taken = leaf[batch.data]
        mask = batch.valid_mask.reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(mask, taken, jnp.zeros((), leaf.dtype))

    data, states = jax.tree.map(rows, records)
    return batch.replace(data=data, states=states)
