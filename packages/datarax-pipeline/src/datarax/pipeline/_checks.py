"""Values that a stage checks on the host, because the compiled call does not know them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.core.fields import get_field, put_field
from datarax.core.operator import OperatorModule
from datarax.operators.composite_operator import in_order
from datarax.pipeline._stages import Stages, gathered


class StageChecks:
    """Shows each stage the values that it wants to check, as they are when they reach it.

    Where no earlier stage changes them, which is found out once by tracing, they are those that
    were read. Elsewhere the earlier stages are run once more for these fields alone.

    Args:
      operators: the stages.
      records: all records of a source that holds them on a device; batches are then numbers of
        records, and what is to be checked is kept on the host too.
    """

    def __init__(self, operators: Sequence[OperatorModule], records: Batch | None) -> None:
        self._records = records
        operators = in_order(operators)
        self._checked = [
            (operator, Stages.of(operators[:number], None), operator._checked_fields())
            for number, operator in enumerate(operators)
            if operator._checked_fields() or (number == 0 and records is None)
        ]
        self._on_host: dict[str, np.ndarray] = {}
        self._changed: dict[Any, bool] = {}

    def __call__(self, batch: Batch) -> None:
        """Checks a batch as it was read.

        Raises:
          ValueError: if a value is wrong.
        """
        for operator, earlier, paths in self._checked:
            if self._are_changed(earlier, paths, batch):
                whole = batch if self._records is None else gathered(self._tables(), batch)
                operator._check_values(_arriving(earlier, paths, whole))
            else:
                operator._check_values(self._as_read(paths, batch))

    def _tables(self) -> tuple[Any, Any]:
        assert self._records is not None
        return self._records.data, self._records.states

    def _as_read(self, paths: Sequence[str], batch: Batch) -> Batch:
        if self._records is None:
            return batch
        data: dict[str, Any] = {}
        for path in paths:
            if path not in self._on_host:
                self._on_host[path] = jax.device_get(get_field(self._records.data, path))
            data = put_field(data, path, self._on_host[path][np.asarray(batch.data)])
        return batch.replace(data=data)

    def _are_changed(self, earlier: Stages, paths: Sequence[str], batch: Batch) -> bool:
        if not earlier.operators:
            return False
        leaves, structure = jax.tree.flatten(batch)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = len(earlier.operators), structure, shapes
        if key not in self._changed:
            whole = batch
            if self._records is not None:
                whole = jax.eval_shape(gathered, self._tables(), batch)
            self._changed[key] = _changes(earlier, paths, whole)
        return self._changed[key]


def _changes(earlier: Stages, paths: Sequence[str], batch: Batch) -> bool:
    """Whether stages change one of the fields, or which rows are records."""
    graphdef, state = nnx.split(earlier)
    found = []

    def trace(state: Any, batch: Batch) -> None:
        out = nnx.merge(graphdef, state).apply_batch(batch)
        same = [get_field(out.data, path) is get_field(batch.data, path) for path in paths]
        found.append(not all(same) or out.valid_mask is not batch.valid_mask)

    jax.eval_shape(trace, state, batch)
    return found[0]


def _arriving(earlier: Stages, paths: Sequence[str], batch: Batch) -> Batch:
    """The batch after these stages, on the host, with these fields only."""
    graphdef, state = nnx.split(earlier)
    return jax.device_get(_run(state, batch, graphdef, tuple(paths)))


@functools.partial(jax.jit, static_argnames=("graphdef", "paths"))
def _run(state: Any, batch: Batch, graphdef: Any, paths: tuple[str, ...]) -> Batch:
    out = nnx.merge(graphdef, state).apply_batch(batch)
    data: dict[str, Any] = {}
    for path in paths:
        data = put_field(data, path, get_field(out.data, path))
    return out.replace(data=data, states={}, batch_state={})
