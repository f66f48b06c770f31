"""Which fields of a batch are mixed, by dotted path, and whether they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from datarax.core.fields import field_paths, get_field
from datarax.operators._mix.blend import INTEGER_SIZES
from datarax.operators._mix.labels import holds_classes


def find_fields(owner: str, data: Any, roles: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The named fields, by path.

    Raises:
      TypeError: unless data is a dict and each field one array.
      KeyError: if a field is missing, listing those there are.
    """
    if not isinstance(data, Mapping):
        kind = "one array" if hasattr(data, "dtype") else type(data).__name__
        raise TypeError(
            f"{owner} mixes the fields of a dict, but batch.data is {kind}; use "
            'Batch.from_arrays({"image": ...})'
        )
    found = {}
    for role, paths in roles.items():
        for path in paths:
            try:
                found[path] = get_field(data, path)
            except KeyError:
                advice = ", or label_field=None" if role == "label_field" else ""
                raise KeyError(
                    f"{owner} needs the field {path!r} ({role}), but the batch has "
                    f"{sorted(field_paths(data))}; name one of these as {role}{advice}"
                ) from None
            if not hasattr(found[path], "dtype"):
                raise TypeError(
                    f"field {path!r} ({role}) must be one array, got {type(found[path]).__name__}"
                )
    return found


def require_mixable(name: str, dtype: Any) -> None:
    """Raises a TypeError unless values of the dtype have a weighted mean in that dtype."""
    if jnp.issubdtype(dtype, jnp.floating):
        return
    if jnp.issubdtype(dtype, jnp.integer) and jnp.dtype(dtype).itemsize in INTEGER_SIZES:
        return
    raise TypeError(
        f"field {name!r} must be floats or integers of 8, 16 or 32 bits to be averaged, got "
        f"{jnp.dtype(dtype)}; cast it first, or name it in paste_fields if boxes are to be pasted"
    )


def require_label(name: str, shape: Sequence[int], dtype: Any, num_classes: int | None) -> None:
    """Raises unless a label is class numbers with `num_classes`, or rows of classes."""
    shape = tuple(shape)
    if holds_classes(shape, dtype):
        if num_classes is None:
            raise ValueError(
                f"label {name!r} holds integer class numbers, which have no mean; set num_classes "
                "to get one-hot labels, or pass one-hot floats"
            )
        return
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(
            f"label {name!r} must be rows of classes or integer class numbers, got "
            f"{jnp.dtype(dtype)}; cast it to float32"
        )
    if len(shape) != 2:
        raise ValueError(
            f"label {name!r} of {jnp.dtype(dtype)} must have shape (batch, classes), got {shape}; "
            "cast class numbers to an integer of shape (batch,) and set num_classes, or name "
            "regression targets in mix_fields"
        )
    if num_classes is not None and shape[1] != num_classes:
        raise ValueError(
            f"label {name!r} must have num_classes={num_classes} columns, got shape {shape}"
        )
