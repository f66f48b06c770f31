"""The three policies that AutoAugment found, as its paper prints them.

A line is a sub-policy: two layers of (operation, probability, magnitude from 0 to 9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from datarax.core._modality_config import is_sequence, require_number
from datarax.operators.modality.image._operations import Entry, Operation
from datarax.operators.modality.image._policy import NONE
from datarax.operators.modality.image._policy_tables import AUTO_AUGMENT, require_named

Layer = tuple[Entry, float, float | None]
SubPolicy = tuple[Layer, ...]

LARGEST = 9

IMAGENET: tuple[SubPolicy, ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, None), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, None)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, None)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, None), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, None)),
    (("Equalize", 0.0, None), ("Equalize", 0.8, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, None)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, None)),
    (("Color", 0.4, 0), ("Equalize", 0.6, None)),
    (("Equalize", 0.4, None), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, None)),
    (("Invert", 0.6, None), ("Equalize", 1.0, None)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, None), ("Equalize", 0.6, None)),
)

CIFAR10: tuple[SubPolicy, ...] = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)

SVHN: tuple[SubPolicy, ...] = (
    (("ShearX", 0.9, 4), ("Invert", 0.2, None)),
    (("ShearY", 0.9, 8), ("Invert", 0.7, None)),
    (("Equalize", 0.6, None), ("Solarize", 0.6, 6)),
    (("Invert", 0.9, None), ("Equalize", 0.6, None)),
    (("Equalize", 0.6, None), ("Rotate", 0.9, 3)),
    (("ShearX", 0.9, 4), ("AutoContrast", 0.8, None)),
    (("ShearY", 0.9, 8), ("Invert", 0.4, None)),
    (("ShearY", 0.9, 5), ("Solarize", 0.2, 6)),
    (("Invert", 0.9, None), ("AutoContrast", 0.8, None)),
    (("Equalize", 0.6, None), ("Rotate", 0.9, 3)),
    (("ShearX", 0.9, 4), ("Solarize", 0.3, 3)),
    (("ShearY", 0.8, 8), ("Invert", 0.7, None)),
    (("Equalize", 0.9, None), ("TranslateY", 0.6, 6)),
    (("Invert", 0.9, None), ("Equalize", 0.6, None)),
    (("Contrast", 0.3, 3), ("Rotate", 0.8, 4)),
    (("Invert", 0.8, None), ("TranslateY", 0.0, 2)),
    (("ShearY", 0.7, 6), ("Solarize", 0.4, 8)),
    (("Invert", 0.6, None), ("Rotate", 0.8, 4)),
    (("ShearY", 0.3, 7), ("TranslateX", 0.9, 3)),
    (("ShearX", 0.1, 6), ("Invert", 0.6, None)),
    (("Solarize", 0.7, 2), ("TranslateY", 0.6, 7)),
    (("ShearY", 0.8, 4), ("Invert", 0.8, None)),
    (("ShearX", 0.7, 9), ("TranslateY", 0.8, 3)),
    (("ShearY", 0.8, 5), ("AutoContrast", 0.7, None)),
    (("ShearX", 0.7, 2), ("Invert", 0.1, None)),
)

POLICIES: Mapping[str, tuple[SubPolicy, ...]] = {
    "imagenet": IMAGENET,
    "cifar10": CIFAR10,
    "svhn": SVHN,
}


def checked_policy(label: str, policy: Any) -> tuple[SubPolicy, ...]:
    """A policy of the user's own, as tuples.

    Raises:
      TypeError: if it is not made of layers (operation, probability, magnitude).
      ValueError: if it is empty somewhere, names an operation that there is not, or has a number
        out of its range.
    """
    if isinstance(policy, str) or not is_sequence(policy):
        kind = ValueError if isinstance(policy, str) else TypeError
        raise kind(
            f"{label} must be one of {list(POLICIES)}, or a tuple of sub-policies, got {policy!r}"
        )
    if not policy:
        raise ValueError(f"{label} must have at least one sub-policy, got {policy!r}")
    return tuple(_checked_line(f"{label}[{at}]", line) for at, line in enumerate(policy))


def _checked_line(label: str, line: Any) -> SubPolicy:
    if not is_sequence(line) or not all(is_sequence(layer) and len(layer) == 3 for layer in line):
        raise TypeError(
            f"{label} must be a tuple of layers (operation, probability, magnitude), got {line!r}"
        )
    if not line:
        raise ValueError(f"{label} must have at least one layer, got {line!r}")
    for entry, probability, magnitude in line:
        require_named(label, entry, AUTO_AUGMENT)
        if not 0 <= require_number(f"probability in {label}", probability) <= 1:
            raise ValueError(f"probability in {label} must be from 0 to 1, got {probability}")
        strength = 0 if magnitude is None else magnitude
        if not 0 <= require_number(f"magnitude in {label}", strength) <= LARGEST:
            raise ValueError(f"magnitude in {label} must be from 0 to {LARGEST}, got {magnitude}")
    return tuple(map(tuple, line))


class Tabulated(NamedTuple):
    """A policy as arrays `(sub-policies, layers)`.

    Attributes:
      operation: int32 numbers of the operations, `NONE` where a sub-policy has fewer layers.
      probability: float32.
      magnitude: float32.
    """

    operation: np.ndarray
    probability: np.ndarray
    magnitude: np.ndarray


def tabulated(policy: Sequence[SubPolicy], operations: Sequence[str | Operation]) -> Tabulated:
    """The policy, of which these are the operations."""
    shape = len(policy), max(map(len, policy))
    table = Tabulated(
        np.full(shape, NONE, np.int32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    )
    for line, sub_policy in enumerate(policy):
        for layer, (entry, probability, magnitude) in enumerate(sub_policy):
            table.operation[line, layer] = operations.index(entry)
            table.probability[line, layer] = probability
            table.magnitude[line, layer] = magnitude or 0
    return table
