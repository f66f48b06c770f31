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

    The operator alone does the same; this also tells Grain the spec of what comes out.

    Args:
      operator: what to apply to dicts of arrays `(batch, ...)`.

    Raises:
      TypeError: if it is not an operator.

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
    """An operator for `map_with_index` of a Grain data set of records, with a pipeline's draws.

    The record with the number `index` is record `index % length` of epoch `index // length`, and
    gets what a `Pipeline` with the same operator gives it there.

    Args:
      operator: what to apply to dicts of arrays without a batch axis.
      length: how many records an epoch has; None: all numbers are of epoch 0.

    Raises:
      TypeError: if it is not an operator, or `length` is not an integer.
      ValueError: if `length` is below 1.

    >>> from datarax.operators import MapOperator, MapOperatorConfig
    >>> halve = MapOperator(MapOperatorConfig(), fn=lambda leaf, key=None: leaf / 2)
    >>> GrainMapWithIndex(halve).map_with_index(7, {"x": np.float32(4)})["x"].item()
    2.0
    """

    def __init__(self, operator: OperatorModule[Any], length: int | None = None) -> None:
        self.operator = _checked(operator)
        self.length = _checked_length(length)

    def map_with_index(self, index: int, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record after the operator, as host arrays.

        Args:
          index: its number in the data set.
          record: dict of arrays.
        """
        return _of_record(self.operator, record, index, self.length)

    __call__ = map_with_index

    def output_spec(self, input_spec: Mapping[str, Any]) -> PyTree[jax.ShapeDtypeStruct]:
        """The spec of such a record after the operator."""
        return self.operator.output_spec(input_spec)


class GrainRandomMap:
    """An operator for `random_map` of a Grain data set of records, or a pipeline's `transforms`.

    Grain gives a random map a generator and a record, but does not say which record it is. If
    `index_field` names a field with the number of the record, the draws are those of a `Pipeline`
    with the same operator for that record; add this field before anything is shuffled. Otherwise
    the draws depend on the generator alone, and so on the seed of the data set.

    Args:
      operator: what to apply to dicts of arrays without a batch axis.
      index_field: the field with the record's number, which the operator does not see and the
        result keeps; None: there is none.
      length: how many records an epoch has, as in `GrainMapWithIndex`; for `index_field` only.

    Raises:
      TypeError: for an argument of the wrong type.
      ValueError: if `length` is below 1, or given without `index_field`.

    >>> from datarax.operators import ElementOperator, ElementOperatorConfig
    >>> from flax import nnx
    >>> def noisy(element, key):
    ...     return element.update_data({"noise": jax.random.normal(key)})
    >>> operator = ElementOperator(
    ...     ElementOperatorConfig(stochastic=True), fn=noisy, rngs=nnx.Rngs(0)
    ... )
    >>> transform = GrainRandomMap(operator, index_field="number")
    >>> record = transform.random_map({"x": 5, "number": 7}, np.random.default_rng())
    >>> by_number = GrainMapWithIndex(operator).map_with_index(7, {"x": 5})
    >>> (record["noise"] == by_number["noise"]).item(), record["number"]
    (True, 7)
    """

    def __init__(
        self,
        operator: OperatorModule[Any],
        *,
        index_field: str | None = None,
        length: int | None = None,
    ) -> None:
        self.operator = _checked(operator)
        if index_field is not None and not isinstance(index_field, str):
            raise TypeError(f"index_field must be the name of a field or None, got {index_field!r}")
        if length is not None and index_field is None:
            raise ValueError(
                f"length={length!r} tells the epochs of numbers in index_field, which is None; "
                "name the field or leave length out"
            )
        self.index_field = index_field
        self.length = _checked_length(length)

    def random_map(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The record after the operator, as host arrays.

        Args:
          record: dict of arrays.
          rng: where the operator's key comes from without `index_field`.

        Raises:
          KeyError: if the record lacks `index_field`, listing the fields there are.
        """
        if self.index_field is None:
            words = jnp.asarray(rng.integers(2**32, size=2, dtype=np.uint32))
            key = jax.random.wrap_key_data(words, impl="threefry2x32")
            return _as_record(self.operator(_as_batch(record), key=key))
        if self.index_field not in record:
            raise KeyError(
                f"index_field={self.index_field!r} is no field of the record, which has "
                f"{sorted(record)}; put it there with map_with_index"
            )
        index = record[self.index_field]
        rest = {name: value for name, value in record.items() if name != self.index_field}
        new = _of_record(self.operator, rest, index, self.length)
        return {**new, self.index_field: index}

    __call__ = random_map

    def output_spec(self, input_spec: Mapping[str, Any]) -> PyTree[jax.ShapeDtypeStruct]:
        """The spec of such a record after the operator."""
        if self.index_field is None:
            return self.operator.output_spec(input_spec)
        spec = dict(input_spec)
        index = spec.pop(self.index_field)
        return {**self.operator.output_spec(spec), self.index_field: index}


def _of_record(
    operator: OperatorModule[Any], record: Mapping[str, Any], index: Any, length: int | None
) -> dict[str, Any]:
    """A record after an operator, with the draw of its number."""
    epoch, number = divmod(int(index), length) if length else (0, int(index))
    batch = Batch.from_arrays(_as_batch(record), record_index=[number], epoch=epoch)
    return _as_record(operator(batch).data)


def _checked_length(length: Any) -> int | None:
    if length is not None and as_index(length) < 1:
        raise ValueError(f"length must be 1 or more, got {length}")
    return length


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
