"""All stages of a pipeline as one operator, and thus as one compiled call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import is_
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.operators import CompositeOperatorConfig, CompositeOperatorModule


class DeviceRecords(nnx.Variable[Any]):
    """Data and states of all records of a source that holds them on a device."""


class StageStoppedError(Exception):
    """Says which stage raised StopIteration."""


class Stages(CompositeOperatorModule):
    """Applies operators one after the other, after gathering the batch where records are at hand.

    Made by `Stages.of`: a constructor with arguments would keep copies of the operators.
    """

    records: DeviceRecords | None

    def __init__(self) -> None:
        OperatorModule.__init__(self, CompositeOperatorConfig())

    @classmethod
    def of(cls, operators: Sequence[OperatorModule], records: Batch | None) -> Stages:
        """Chains operators.

        Args:
          operators: the stages, which keep their Variables.
          records: all records of the source, on a device; batches then come with record numbers as
            their data, and these records are gathered. None: batches come with their data.
        """
        stages = cls()
        stages.hold(operators)
        stages.records = None if records is None else DeviceRecords((records.data, records.states))
        return stages

    @contextmanager
    def turn_of(self, number: int) -> Iterator[OperatorModule]:
        with super().turn_of(number) as stage:
            try:
                yield stage
            except StopIteration as error:
                raise StageStoppedError(f"stages[{number}] {stage._label()}") from error

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        if self.records is not None:
            batch = gathered(self.records.get_value(), batch)
        return super().apply_batch(batch, stats)

    def _check_values(self, batch: Batch) -> None:
        """Checks nothing: `StageChecks` shows each stage what reaches it."""

    def count_operations(self, valid_mask: Any, applied: Any = None) -> None:
        """Counts nothing: each stage counts for itself."""


class Keys:
    """Notices other random keys in operators by the identity of all that operators hold.

    A walk through their graphs for every batch would take longer than a small batch.

    Args:
      operators: the stages.
    """

    def __init__(self, operators: Sequence[OperatorModule]) -> None:
        nodes = [node for _, node in nnx.iter_graph(nnx.List(operators))]
        self._keys = [node for node in nodes if isinstance(node, nnx.RngKey)]
        # Views, in which later changes show.
        self._held = [held for held in map(_contents, nodes) if held is not None]
        self._seen = self._now()

    def are_the_same(self) -> bool:
        """Whether no operator holds anything else than at first, nor a key another value."""
        now = self._now()
        return len(now) == len(self._seen) and all(map(is_, now, self._seen))

    def _now(self) -> list[Any]:
        return [*(key.get_raw_value() for key in self._keys), *chain.from_iterable(self._held)]


def _contents(node: Any) -> Any:
    if isinstance(node, dict):
        return node.values()
    if isinstance(node, list):
        return node
    return vars(node).values() if isinstance(node, nnx.Pytree) else None


def gathered(records: tuple[Any, Any], batch: Batch) -> Batch:
    """The batch with its records' data and states, and zeros where it has padding."""

    def rows(leaf: jax.Array) -> jax.Array:
        taken = leaf[batch.data]
        mask = batch.valid_mask.reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(mask, taken, jnp.zeros((), leaf.dtype))

    data, states = jax.tree.map(rows, records)
    return batch.replace(data=data, states=states)
