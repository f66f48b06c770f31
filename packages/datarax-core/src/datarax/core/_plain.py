"""Plain dicts of arrays: to a `Batch`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from datarax.core.element_batch import RESERVED_FIELD, Batch


def as_batch(owner: str, fields: Any) -> Batch:
    """The batch whose data are the fields, with the mask from the field `valid_mask`, if any.

    Raises:
      TypeError: if it is no dict, or a field is no array of numbers.
      ValueError: if the fields differ in their number of rows, or have none.
    """
    __tracebackhide__ = True
    if not isinstance(fields, Mapping):
        raise TypeError(
            f"{owner} transforms a Batch or a dict of arrays (batch, ...), got "
            f"{type(fields).__name__}; make one with Batch.from_arrays(...) or "
            "Batch.from_elements(...)"
        )
    data = dict(fields)
    mask = data.pop(RESERVED_FIELD, None)
    try:
        if mask is not None and not isinstance(mask, jax.Array):
            mask = np.asarray(mask)
        return Batch.from_arrays(data, valid_mask=mask)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{owner} cannot read the dict as a batch: {error}. Every field must be an array "
            "(batch, ...) of numbers; leave others out, and give a single record a batch axis of 1"
        ) from None


def as_fields(owner: str, out: Batch, given: Mapping[str, Any]) -> dict[str, Any]:
    """The batch's fields, what an operator left in its states, and the mask if it was given.

    Args:
      owner: what the errors call the operator.
      out: the result.
      given: the dict that the operator got, whose order the fields keep.

    Raises:
      ValueError: if a field would be overwritten.
    """
    __tracebackhide__ = True
    if not isinstance(out.data, Mapping):
        raise TypeError(
            f"{owner} got a dict and must give one back, but its data are now "
            f"{type(out.data).__name__}; call it with a Batch"
        )
    fields = {name: out.data[name] for name in given if name in out.data} | dict(out.data)
    more = dict(out.states) if isinstance(out.states, Mapping) else {}
    if RESERVED_FIELD in given:
        more[RESERVED_FIELD] = out.valid_mask
    for name, value in more.items():
        if name in fields:
            raise ValueError(
                f"{owner} leaves {name!r} beside the fields, where a field has that name; rename "
                "the field, or call the operator with a Batch"
            )
        fields[name] = value
    return fields
