"""Which fields of a batch are mixed, and whether they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from datarax.operators._mix.blend import INTEGER_SIZES


def require_fields(owner: str, data: Any, roles: Mapping[str, Sequence[str]]) -> None:
    """Raises a TypeError unless data is a dict, and a KeyError if it lacks a field."""
    if not isinstance(data, Mapping):
        kind = "one array" if hasattr(data, "dtype") else type(data).__name__
        raise TypeError(
            f"{owner} mixes the fields of a dict, but batch.data is {kind}; use "
            'Batch.from_arrays({"image": ...})'
        )
    for role, names in roles.items():
        for name in names:
            if name not in data:
                advice = ", or label_field=None" if role == "label_field" else ""
                raise KeyError(
                    f"{owner} needs the field {name!r} ({role}), but the batch has {sorted(data)}; "
                    f"name one of these as {role}{advice}"
                )
            if not hasattr(data[name], "dtype"):
                raise TypeError(
                    f"field {name!r} ({role}) must be one array, got {type(data[name]).__name__}"
                )


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


def require_sizes(name: str, shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """The sizes on the spatial axes.

    Raises:
      ValueError: if the array lacks one of the axes, or has no pixel.
    """
    if len(shape) <= axes[-1]:
        raise ValueError(
            f"field {name!r} must have the spatial axes {tuple(axes)} beside batch axis 0, got "
            f"shape {tuple(shape)}; set spatial_axes to the axes that a box is cut on"
        )
    sizes = tuple(shape[axis] for axis in axes)
    if not all(0 < size < 2**16 for size in sizes):
        raise ValueError(
            f"field {name!r} must have from 1 to 65535 pixels on the spatial axes {tuple(axes)}, "
            f"got shape {tuple(shape)}"
        )
    return sizes


def require_same_sizes(
    name: str, shape: Sequence[int], axes: Sequence[int], sizes: Sequence[int], like: str
) -> None:
    """Raises a ValueError unless the spatial sizes are those of the image."""
    if require_sizes(name, shape, axes) != tuple(sizes):
        raise ValueError(
            f"field {name!r} must be {tuple(sizes)} on the spatial axes {tuple(axes)} like "
            f"{like!r}, so that the same box fits, got shape {tuple(shape)}; resize it first"
        )


def require_label(name: str, shape: Sequence[int], dtype: Any, num_classes: int | None) -> None:
    """Raises unless a label is a float row of classes, or a class number with `num_classes`."""
    if jnp.issubdtype(dtype, jnp.floating):
        if len(shape) != 2:
            raise ValueError(
                f"label {name!r} of floats must have shape (batch, classes), got {tuple(shape)}; "
                "cast class numbers to an integer and set num_classes, or name regression targets "
                "in mix_fields"
            )
        if num_classes is not None and shape[1] != num_classes:
            raise ValueError(
                f"label {name!r} must have num_classes={num_classes} columns, got shape "
                f"{tuple(shape)}"
            )
        return
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(
            f"label {name!r} must be float rows of classes or integer class numbers, got "
            f"{jnp.dtype(dtype)}; cast it to float32"
        )
    if len(shape) != 1:
        raise ValueError(
            f"label {name!r} of integers must be class numbers of shape (batch,), got shape "
            f"{tuple(shape)}; cast one-hot or multi-hot rows to float32"
        )
    if num_classes is None:
        raise ValueError(
            f"label {name!r} holds integer class numbers, which have no mean; set num_classes to "
            "get one-hot labels, or pass one-hot floats"
        )
