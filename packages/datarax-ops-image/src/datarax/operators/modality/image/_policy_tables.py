"""Which operations the published policies choose from, and what their magnitudes mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datarax.core._modality_config import is_sequence
from datarax.operators.modality.image import _operations as moves
from datarax.operators.modality.image import functional as fn
from datarax.operators.modality.image._operations import Operation, Warp

# timm's "increasing" set: the larger the magnitude, the stronger each of them.
TIMM: Mapping[str, Operation] = {
    "AutoContrast": Operation(fn.auto_contrast),
    "Equalize": Operation(fn.equalize),
    "Invert": Operation(fn.invert),
    "Rotate": Warp(moves.rotate, 0, 30, signed=True),
    "PosterizeIncreasing": Operation(fn.posterize, 4, 0, whole="truncate"),
    "SolarizeIncreasing": Operation(fn.solarize, 256, 0, whole="truncate", levels=True),
    "SolarizeAdd": Operation(fn.solarize_add, 0, 110, whole="truncate", levels=True),
    "ColorIncreasing": Operation(fn.saturation, 1, 1.9, signed=True),
    "ContrastIncreasing": Operation(fn.contrast, 1, 1.9, signed=True),
    "BrightnessIncreasing": Operation(fn.brightness, 1, 1.9, signed=True),
    "SharpnessIncreasing": Operation(fn.sharpness, 1, 1.9, signed=True),
    "ShearX": Warp(moves.shear_x, 0, 0.3, signed=True),
    "ShearY": Warp(moves.shear_y, 0, 0.3, signed=True),
    "TranslateXRel": Warp(moves.translate_x_rel, 0, 0.45, signed=True),
    "TranslateYRel": Warp(moves.translate_y_rel, 0, 0.45, signed=True),
}

# The set of the AutoAugment and RandAugment papers with the ranges of torchvision, which moves
# images by whole pixels.
TORCHVISION: Mapping[str, Operation] = {
    "Identity": Operation(moves.identity),
    "ShearX": Warp(moves.shear_x, 0, 0.3, signed=True),
    "ShearY": Warp(moves.shear_y, 0, 0.3, signed=True),
    "TranslateX": Warp(moves.translate_x_whole, 0, 150 / 331, signed=True),
    "TranslateY": Warp(moves.translate_y_whole, 0, 150 / 331, signed=True),
    "Rotate": Warp(moves.rotate, 0, 30, signed=True),
    "Brightness": Operation(fn.brightness, 1, 1.9, signed=True),
    "Color": Operation(fn.saturation, 1, 1.9, signed=True),
    "Contrast": Operation(fn.contrast, 1, 1.9, signed=True),
    "Sharpness": Operation(fn.sharpness, 1, 1.9, signed=True),
    "Posterize": Operation(fn.posterize, 8, 4, whole="round"),
    "Solarize": Operation(fn.solarize, 255, 0, levels=True),
    "AutoContrast": Operation(fn.auto_contrast),
    "Equalize": Operation(fn.equalize),
}

# TrivialAugment's wide ranges: all that a magnitude can mean is drawn.
WIDE: Mapping[str, Operation] = {
    "Identity": Operation(moves.identity),
    "ShearX": Warp(moves.shear_x, 0, 0.99, signed=True),
    "ShearY": Warp(moves.shear_y, 0, 0.99, signed=True),
    "TranslateX": Warp(moves.translate_x, 0, 32, signed=True, whole="truncate"),
    "TranslateY": Warp(moves.translate_y, 0, 32, signed=True, whole="truncate"),
    "Rotate": Warp(moves.rotate, 0, 135, signed=True),
    "Brightness": Operation(fn.brightness, 1, 1.99, signed=True),
    "Color": Operation(fn.saturation, 1, 1.99, signed=True),
    "Contrast": Operation(fn.contrast, 1, 1.99, signed=True),
    "Sharpness": Operation(fn.sharpness, 1, 1.99, signed=True),
    "Posterize": Operation(fn.posterize, 8, 2, whole="round"),
    "Solarize": Operation(fn.solarize, 255, 0, levels=True),
    "AutoContrast": Operation(fn.auto_contrast),
    "Equalize": Operation(fn.equalize),
}

RAND_AUGMENT = {"timm": TIMM, "torchvision": TORCHVISION}
TRIVIAL_AUGMENT = {"wide": WIDE}
AUTO_AUGMENT = {**TORCHVISION, "Invert": Operation(fn.invert)}


def require_named(label: str, entry: Any, table: Mapping[str, Operation]) -> None:
    """Raises unless the entry is an operation, or the name of one in the table."""
    if isinstance(entry, Operation):
        return
    if not isinstance(entry, str):
        raise TypeError(
            f"{label} must have names of operations or an Operation, got {type(entry).__name__} "
            f"{entry!r}"
        )
    if entry not in table:
        raise ValueError(f"{label} names {entry!r}, which is no operation; there are {list(table)}")


def checked_operations(
    label: str, operations: Any, tables: Mapping[str, Mapping[str, Operation]]
) -> str | tuple[str | Operation, ...]:
    """The name of a table, or a tuple of names and operations.

    Raises:
      TypeError: if it is neither.
      ValueError: if there is no such table or operation, or none at all.
    """
    if isinstance(operations, str) and operations in tables:
        return operations
    if isinstance(operations, str) or not is_sequence(operations):
        kind = ValueError if isinstance(operations, str) else TypeError
        raise kind(
            f"{label} must be one of {list(tables)}, or a tuple of names and of Operations, got "
            f"{operations!r}"
        )
    if not operations:
        raise ValueError(f"{label} must have at least one operation, got {operations!r}")
    for entry in operations:
        require_named(label, entry, joined(tables))
    return tuple(operations)


def joined(tables: Mapping[str, Mapping[str, Operation]]) -> dict[str, Operation]:
    """All operations of several tables, which mean the same where their names are the same."""
    return {name: each for table in tables.values() for name, each in table.items()}


def operations_in(
    operations: str | tuple[str | Operation, ...], tables: Mapping[str, Mapping[str, Operation]]
) -> tuple[Operation, ...]:
    """The operations that a config names, in the order in which they are numbered."""
    if isinstance(operations, str):
        return tuple(tables[operations].values())
    table = joined(tables)
    return tuple(table[each] if isinstance(each, str) else each for each in operations)
