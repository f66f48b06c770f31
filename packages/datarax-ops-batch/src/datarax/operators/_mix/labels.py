"""Labels: class numbers to one-hot rows, smoothing, and checks of values that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import checkify
from jaxtyping import Array, Bool, Float, Int

from datarax.core.element_batch import Batch
from datarax.core.fields import get_field

if TYPE_CHECKING:
    from datarax.operators.batch_mix_operator import BatchMixOperatorConfig

# How far from 1 the sum of a row of probabilities may be, bfloat16 ones included.
SUM_TOLERANCE = 0.02


def holds_classes(shape: Sequence[int], dtype: Any) -> bool:
    """Whether a label is one class number a row, `(batch,)` or `(batch, 1)`."""
    return jnp.issubdtype(dtype, jnp.integer) and tuple(shape[1:]) in ((), (1,))


def one_hot(
    labels: Int[Array, " batch"],
    num_classes: int,
    valid: Bool[Array, " batch"],
    ignored: Bool[Array, " batch"],
) -> Float[Array, "batch classes"]:
    """Rows of float32, of zeros where the class is ignored.

    NaN in valid rows whose class does not exist, so that the loss shows it.
    """
    labels = _wide(labels)
    rows = labels[:, None] == jnp.arange(num_classes, dtype=labels.dtype)
    rows &= ~ignored[:, None]
    right = exists(labels, num_classes) | ignored | ~valid
    return jnp.where(right[:, None], rows.astype(jnp.float32), jnp.nan)


def exists(labels: Any, num_classes: int) -> Any:
    """Which class numbers are from 0 to num_classes − 1."""
    return (labels >= 0) & (labels < num_classes)


def are_ignored(labels: Any, ignore_index: int | None) -> Any:
    """Which class numbers stand for no class: none if the dtype has not got that number."""
    limits = jnp.iinfo(labels.dtype)
    if ignore_index is None or not limits.min <= ignore_index <= limits.max:
        return labels < labels
    return labels == labels.dtype.type(ignore_index)


def _wide(labels: Int[Array, " batch"]) -> Int[Array, " batch"]:
    # Narrow integers cannot count to num_classes.
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def smooth(
    labels: Float[Array, "batch classes"],
    epsilon: float,
    rows: Bool[Array, " batch"],
    multi_hot: bool,
) -> Float[Array, "batch classes"]:
    """(1 − ε) y + ε / K in the given rows; NaN in rows that do not sum to 1, unless multi-hot."""
    smoothed = labels * (1 - epsilon) + epsilon / labels.shape[1]
    if not multi_hot:
        is_distribution = jnp.abs(labels.sum(1, keepdims=True) - 1) <= SUM_TOLERANCE
        smoothed = jnp.where(is_distribution, smoothed, jnp.nan)
    return jnp.where(rows[:, None], smoothed, labels)


def can_be_read(*arrays: Any) -> bool:
    """Whether the values are there and reading them does not wait for an accelerator."""
    return all(
        isinstance(array, np.ndarray)
        or (
            isinstance(array, jax.Array)
            and not isinstance(array, Tracer)
            and array.is_fully_addressable
            and all(device.platform == "cpu" for device in array.devices())
        )
        for array in arrays
    )


def are_checked(config: BatchMixOperatorConfig) -> bool:
    """Whether any values of labels could be wrong."""
    return config.num_classes is not None or bool(config.label_smoothing)


def check_values(
    owner: str, config: BatchMixOperatorConfig, batch: Batch, traced: bool = True
) -> None:
    """Raises a ValueError if labels whose values can be read do not fit the config.

    Class numbers that cannot be read are left to `checkify`, if `traced` and the config wants that.
    """
    if not are_checked(config):
        return
    for path, count in zip(config.label_fields(), config.classes(), strict=True):
        try:
            labels = get_field(batch.data, path)
        except KeyError:
            continue
        label = f"label {path!r} of {owner}"
        if not hasattr(labels, "dtype"):
            continue
        if holds_classes(labels.shape, labels.dtype) and count is not None:
            if can_be_read(labels, batch.valid_mask):
                check_classes(label, labels, batch, count, config.ignore_index)
            elif traced and config.checkify and isinstance(labels, jax.Array):
                checkify_classes(label, labels, batch, count, config.ignore_index)
        elif (
            config.label_smoothing
            and not config.smooth_multi_hot
            and labels.ndim == 2
            and can_be_read(labels, batch.valid_mask)
        ):
            check_distributions(label, labels, batch.valid_mask)


def check_classes(
    label: str, labels: Any, batch: Batch, num_classes: int, ignore_index: int | None
) -> None:
    """Raises a ValueError that names the first record whose class does not exist."""
    classes = np.asarray(labels).reshape(-1)
    wrong = ~exists(classes, num_classes) & ~are_ignored(classes, ignore_index)
    wrong &= np.asarray(batch.valid_mask)
    if not wrong.any():
        return
    row = int(wrong.argmax())
    where = f"row {row}"
    if batch.record_index is not None and can_be_read(batch.record_index):
        where = f"record {np.asarray(batch.record_index)[row]} ({where})"
    raise ValueError(
        f"{label} must hold class numbers from 0 to {num_classes - 1}, got {classes[row]} in "
        f"{where}; raise num_classes, renumber the classes, or set ignore_index to the number "
        "that stands for no class"
    )


def checkify_classes(
    label: str, labels: Array, batch: Batch, num_classes: int, ignore_index: int | None
) -> None:
    """The same inside a trace, where `checkify` can bring it out; a no-op without."""
    labels = labels.reshape(-1)
    classes = _wide(labels)
    wrong = ~exists(classes, num_classes) & ~are_ignored(labels, ignore_index)
    wrong &= jnp.asarray(batch.valid_mask)
    row = jnp.argmax(wrong)
    record = row if batch.record_index is None else jnp.asarray(batch.record_index)[row]
    name = label.replace("{", "{{").replace("}", "}}")
    checkify.debug_check(
        ~wrong.any(),
        f"{name} must hold class numbers from 0 to {num_classes - 1}, got {{wrong}} in "
        f"{'row' if batch.record_index is None else 'record'} {{record}}; raise num_classes or "
        "renumber the classes",
        wrong=classes[row],
        record=record,
    )


def check_distributions(label: str, labels: Any, valid: Any) -> None:
    """Raises a ValueError if a valid row does not sum to 1."""
    sums = np.asarray(labels)[np.asarray(valid)].astype(np.float32).sum(1)
    wrong = sums[np.abs(sums - 1) > SUM_TOLERANCE]
    if wrong.size:
        raise ValueError(
            f"{label} must hold rows that sum to 1 for label_smoothing, got a sum of {wrong[0]}; "
            "leave label_smoothing out, or set smooth_multi_hot=True to smooth multi-hot labels"
        )
