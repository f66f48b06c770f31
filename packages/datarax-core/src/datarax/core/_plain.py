"""Plain dicts of arrays: to a `Batch`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from datarax.core import _batch_checks, specs
from datarax.core.element_batch import RESERVED_FIELD, Batch

if TYPE_CHECKING:
    from datarax.core.operator import OperatorModule


def as_batch(owner: OperatorModule[Any], fields: Any) -> Batch:
    """The batch whose data are the fields, with the mask from the field `valid_mask`, if any.

    Raises:
      TypeError: if it is not a dict, or a field is not an array of numbers.
      ValueError: if the fields differ in their number of rows, or have none.
    """
    __tracebackhide__ = True
    if not isinstance(fields, Mapping):
        raise TypeError(
            f"{owner._label()} transforms a Batch or a dict of arrays (batch, ...), got "
            f"{type(fields).__name__}; make one with Batch.from_arrays(...) or "
            "Batch.from_elements(...)"
        )
    data = dict(fields)
    mask = data.pop(RESERVED_FIELD, None)
    try:
        mask = None if mask is None else _batch_checks.as_mask(mask)
        # What from_arrays would find out in 10 of the 15 us that a dict may cost.
        rows = specs.rows_of_arrays(data)
        if not rows:
            data = {name: _as_leaf(name, value) for name, value in data.items()}
            rows = specs.rows_of_arrays(data, seen=True)
        if rows and (mask is None or mask.shape == (rows,)):
            return Batch(data, {}, _batch_checks.all_valid(rows) if mask is None else mask)
        return Batch.from_arrays(data, valid_mask=mask)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{owner._label()} cannot read the dict as a batch: {str(error).rstrip('.')}. Every "
            "field must be one array (batch, ...) of numbers; np.stack a list of arrays, leave "
            "others out, and give a single record a batch axis of 1"
        ) from None


def _as_leaf(name: str, value: Any) -> Any:
    """A field that is one leaf as `from_arrays` would take it; a tree as it is."""
    if type(value) is np.ndarray or jax.tree_util.all_leaves((value,)):
        return specs.as_leaf(f"data[{name!r}]", value)
    return value


def as_fields(
    owner: OperatorModule[Any], out: Batch, given: Mapping[str, Any], mask: np.ndarray | jax.Array
) -> dict[str, Any]:
    """The batch's fields, what an operator left in its states, and the mask.

    Args:
      owner: the operator.
      out: the result.
      given: the dict that the operator got, whose order the fields keep.
      mask: the mask that the operator got. If `given` has none, the result has one only if the
        operator changed it for the same rows.

    Raises:
      TypeError: if data or states are no dict.
      ValueError: if a field would be overwritten.
    """
    __tracebackhide__ = True
    for name, tree in (("data", out.data), ("states", out.states)):
        if not isinstance(tree, Mapping):
            raise TypeError(
                f"{owner._label()} got a dict and must give one back, but its {name} are now "
                f"{type(tree).__name__}; call it with a Batch"
            )
    fields = _in_order(out.data, given)
    more = dict(out.states)
    same_rows = out.valid_mask.shape == mask.shape
    if RESERVED_FIELD in given or (out.valid_mask is not mask and same_rows):
        more[RESERVED_FIELD] = out.valid_mask
    for name, value in more.items():
        if name in fields:
            raise ValueError(
                f"{owner._label()} leaves {name!r} beside the fields, where a field has that name; "
                "rename the field, or call the operator with a Batch"
            )
        fields[name] = value
    return fields


def _in_order(out: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in the order in which they came, which JAX does not keep, and new ones after."""
    fields = {name: out[name] for name in given if name in out}
    if len(fields) < len(out):
        fields |= out
    for name, value in fields.items():
        if type(value) is dict and isinstance(given.get(name), Mapping):
            fields[name] = _in_order(value, given[name])
    return fields
