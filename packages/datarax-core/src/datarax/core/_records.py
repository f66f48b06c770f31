"""An operator's `apply`, record by record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from datarax.core.element_batch import RESERVED_FIELD, Batch

if TYPE_CHECKING:
    from datarax.core.operator import OperatorModule


def map_records(
    operator: OperatorModule[Any], batch: Batch, random_params: PyTree, stats: dict[str, Any] | None
) -> tuple[PyTree, PyTree]:
    """Data and states of a batch after `apply`, by `vmap` or one record after the other."""
    __tracebackhide__ = True
    mapped, shared = random_params, None
    if not operator.per_record_params:
        mapped, shared = None, random_params

    def one(record: tuple[PyTree, PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        __tracebackhide__ = True
        data, state, params = record
        return apply_record(operator, data, state, shared if params is None else params, stats)

    records = (batch.data, batch.states, mapped)
    if operator.config.batch_strategy == "scan":
        return jax.lax.map(one, jax.tree.map(jnp.asarray, records))
    return jax.vmap(one)(records)


def apply_record(
    operator: OperatorModule[Any], data: PyTree, state: PyTree, params: PyTree, stats: Any
) -> tuple[PyTree, PyTree]:
    """Calls `apply` without metadata and checks the form of its result."""
    __tracebackhide__ = True
    result = operator.apply(data, state, None, params, stats)
    if not isinstance(result, tuple) or len(result) != 3:
        raise TypeError(
            f"apply of {type(operator).__name__} must return (data, state, metadata), "
            f"got {type(result).__name__}"
        )
    for name, before, after in (("data", data, result[0]), ("state", state, result[1])):
        _require_fields(operator, name, before, after)
    return result[0], result[1]


def _require_fields(
    operator: OperatorModule[Any], name: str, before: PyTree, after: PyTree
) -> None:
    """Raises for a field without a value, and for one that would become the mask of the batch."""
    if after is None and before is not None:
        raise TypeError(f"{operator._label()} must return {name}, got None")
    if not isinstance(after, Mapping):
        return
    for field, value in after.items():
        if value is None and not (isinstance(before, Mapping) and before.get(field, 0) is None):
            raise TypeError(
                f"{operator._label()} must give {name}[{field!r}] a value, got None; is there a "
                "return at the end of the function that makes it?"
            )
    if RESERVED_FIELD in after:
        raise ValueError(
            f"{operator._label()} must not write {name}[{RESERVED_FIELD!r}], because that is the "
            "mask of a batch; choose another name"
        )


def checked_params(operator: OperatorModule[Any], params: PyTree, rows: int) -> PyTree:
    """The random parameters, if they have so many rows.

    Raises:
      ValueError: if an array has not.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if jnp.shape(leaf)[:1] != (rows,):
            raise ValueError(
                f"random_params{jax.tree_util.keystr(path)} from generate_random_params of "
                f"{operator._label()} must have axis 0 of length {rows}, the batch size in "
                f"data_shapes, got shape {jnp.shape(leaf)}; for one draw a batch set "
                "per_record_params = False"
            )
    return params


def require_declared_structure(
    operator: OperatorModule[Any], batch: Batch, out: tuple[PyTree, PyTree]
) -> None:
    """Raises a ValueError unless the result is what `get_output_structure` declares."""
    first = jax.tree.map(lambda leaf: leaf[0], (batch.data, batch.states))
    declared = operator.get_output_structure(*first)
    for name, tree, wanted in zip(("data", "state"), out, declared, strict=True):
        actual = jax.tree.structure(tree)
        expected = jax.tree.structure(wanted, is_leaf=lambda leaf: leaf is None)
        if actual != expected:
            raise ValueError(
                f"{name} from apply must have the structure that get_output_structure of "
                f"{operator._label()} declares: expected {expected}, got {actual}"
            )
