"""The numbers that an image operator leaves in the states, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from datarax.core.element_batch import RESERVED_FIELD, Batch
from datarax.core.fields import DottedFields

if TYPE_CHECKING:
    from datarax.operators.modality.image._image_operator import ImageOperator

APPLIED = "applied"


def with_info(owner: str, key: str, state: Any, numbers: Any) -> dict[str, Any]:
    """The states with the numbers at this key."""
    if not isinstance(state, Mapping):
        raise TypeError(
            f"{owner} has info_key={key!r} and needs states to be a dict, got "
            f"{type(state).__name__}"
        )
    if key in state:
        raise ValueError(
            f"{owner} has info_key={key!r}, which states have already; give each operator another"
        )
    return {**state, key: dict(numbers or {})}


def numbers_spec(operator: ImageOperator[Any], batch: Batch) -> dict[str, Any]:
    """Shapes and dtypes of the numbers that an operator draws for a batch."""
    if not operator.stochastic:
        return {}
    shapes = DottedFields(jax.tree.map(lambda leaf: tuple(leaf.shape), batch.data))
    return jax.eval_shape(lambda: operator.generate_random_params(jax.random.key(0), shapes))


def replay(operator: ImageOperator[Any], batch: Any, numbers: Any) -> Any:
    """What `ImageOperator.replay` does."""
    if isinstance(batch, Batch):
        # What a caller forbids to its own arithmetic does not reach ours, and who calls with arrays
        # of the host wants them on a device.
        with jax.numpy_rank_promotion("allow"), jax.transfer_guard("allow"):
            params = given_numbers(operator, batch, numbers)
            graph, state = nnx.split(operator)
            return batch.replace(data=_replayed(graph, state, batch.data, params))
    if not isinstance(batch, Mapping):
        raise TypeError(
            f"{operator._label()} replays a Batch or a dict of arrays (batch, ...), got "
            f"{type(batch).__name__}"
        )
    fields = dict(batch)
    mask = fields.pop(RESERVED_FIELD, None)
    data = replay(operator, Batch.from_arrays(fields, valid_mask=mask), numbers).data
    return dict(data) if mask is None else {**data, RESERVED_FIELD: mask}


@partial(jax.jit, static_argnums=0)
def _replayed(
    graph: nnx.GraphDef[Any], state: nnx.State[Any, Any], data: PyTree, params: Any
) -> PyTree:
    return transformed(nnx.merge(graph, state), data, params)


def transformed(operator: ImageOperator[Any], data: PyTree, params: Any) -> PyTree:
    """The data of a batch after an operator with these numbers."""
    stats = operator.get_statistics()

    def one(record: tuple[PyTree, PyTree]) -> PyTree:
        data, params = record
        return operator.transform_record(data, params, stats)

    records = (jax.tree.map(jnp.asarray, data), params)
    scans = operator.config.batch_strategy == "scan"
    with operator._mapped():
        return jax.lax.map(one, records) if scans else jax.vmap(one)(records)


def given_numbers(operator: ImageOperator[Any], batch: Batch, numbers: Any) -> dict[str, Any]:
    """The numbers, checked against what the operator draws, and which records are changed."""
    owner, spec = operator._label(), numbers_spec(operator, batch)
    if not isinstance(numbers, Mapping):
        raise TypeError(
            f"numbers for {owner} must be a dict of arrays (batch,), got {type(numbers).__name__}; "
            f"it draws {list(spec)}"
        )
    unknown = [name for name in numbers if name not in spec]
    if unknown:
        raise ValueError(
            f"numbers for {owner} have {unknown}, which its config does not draw; it draws "
            f"{list(spec)}"
        )
    given = {}
    for name, leaf in spec.items():
        if name not in numbers and name != APPLIED:
            raise KeyError(f"numbers for {owner} lack {name!r}; there are {list(numbers)}")
        value = jnp.asarray(numbers.get(name, np.ones(leaf.shape, bool)))
        if not np.can_cast(value.dtype, leaf.dtype, "same_kind"):
            raise TypeError(
                f"numbers[{name!r}] for {owner} must be {leaf.dtype}, got {value.dtype}"
            )
        if value.shape != leaf.shape:
            raise ValueError(
                f"numbers[{name!r}] for {owner} must have shape {leaf.shape} for this batch, got "
                f"{value.shape}"
            )
        given[name] = value.astype(leaf.dtype)
    return given
