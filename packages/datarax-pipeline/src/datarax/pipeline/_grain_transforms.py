"""Operators as transforms of Grain: of batches, and of single records."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index as as_index
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule


class GrainMap:
    """An operator for `map` of a Grain data set of batches, as `dataset.batch(n)` gives them.

    The operator alone does the same; this also passes element specs on.

    Args:
      operator: what to apply to dicts of arrays `(batch, ...)`.

    >>> from datarax.operators import MapOperator, MapOperatorConfig
    >>> halve = MapOperator(MapOperatorConfig(), fn=lambda leaf, key=None: leaf / 2)
    >>> GrainMap(halve).map({"x": np.float32([2, 4])})["x"].tolist()
    [1.0, 2.0]
    """

    def __init__(self, operator: OperatorModule[Any]) -> None:
        self.operator = _checked(operator)

    def map(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch after the operator; what it draws comes from the operator's own stream."""
        return self.operator(batch)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What `map` gives."""
        return self.map(batch)

    def output_spec(self, input_spec: Mapping[str, Any]) -> PyTree[jax.ShapeDtypeStruct]:
        """The spec of such a batch after the operator."""
        leaves = jax.tree.leaves(input_spec)
        rows = leaves[0].shape[0]
        records = jax.tree.map(lambda leaf: _spec(leaf.shape[1:], leaf), input_spec)
        source = self.operator.source_rows(rows)
        rows = rows if source is None else len(source)
        new = self.operator.output_spec(records)
        return jax.tree.map(lambda leaf: _spec((rows, *leaf.shape), leaf), new)


class GrainMapWithIndex:
    """An operator for `map_with_index` of a Grain data set of records: as a pipeline draws.

    Record number `index % length` in epoch `index // length` gets what a `Pipeline` with the same
    operator gives it.

    Args:
      operator: what to apply to dicts of arrays.
      length: how many records an epoch has; None: all numbers are of epoch 0.
    """

    def __init__(self, operator: OperatorModule[Any], length: int | None = None) -> None:
        self.operator = _checked(operator)
        if length is not None and as_index(length) < 1:
            raise ValueError(f"length must be 1 or more, got {length}")
        self.length = length

    def map_with_index(self, index: int, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record after the operator, as host arrays.

        Args:
          index: its number in the data set.
          record: dict of arrays.
        """
        epoch, number = divmod(int(index), self.length) if self.length else (0, int(index))
        batch = Batch.from_arrays(_as_batch(record), record_index=[number], epoch=epoch)
        return _as_record(self.operator(batch).data)

    __call__ = map_with_index

    def output_spec(self, input_spec: Mapping[str, Any]) -> PyTree[jax.ShapeDtypeStruct]:
        """The spec of such a record after the operator."""
        return self.operator.output_spec(input_spec)


class GrainRandomMap:
    """An operator for `random_map` of a Grain data set of records, or a pipeline's `transforms`.

    What it draws follows from the generator that it is given for the record alone.

    Args:
      operator: what to apply to dicts of arrays.
    """

    def __init__(self, operator: OperatorModule[Any]) -> None:
        self.operator = _checked(operator)

    def random_map(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The record after the operator, as host arrays.

        Args:
          record: dict of arrays.
          rng: where the operator's key comes from.
        """
        words = jnp.asarray(rng.integers(2**32, size=2, dtype=np.uint32))
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
        return _as_record(self.operator(_as_batch(record), key=key))

    __call__ = random_map

    def output_spec(self, input_spec: Mapping[str, Any]) -> PyTree[jax.ShapeDtypeStruct]:
        """The spec of such a record after the operator."""
        return self.operator.output_spec(input_spec)


def _checked(operator: Any) -> OperatorModule[Any]:
    if not isinstance(operator, OperatorModule):
        raise TypeError(f"operator must be an operator, got {type(operator).__name__}")
    return operator


def _as_batch(record: Mapping[str, Any]) -> dict[str, Any]:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], dict(record))


def _as_record(data: Mapping[str, Any]) -> dict[str, Any]:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], dict(data))


def _spec(shape: tuple[int, ...], leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, leaf.dtype)
