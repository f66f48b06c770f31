"""Single values of a config: numbers, counts, lengths, ranges, axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datarax.core._modality_config import is_sequence, require_number, require_pair

if TYPE_CHECKING:
    from datarax.core._modality_config import ModalityOperatorConfig

Axes = tuple[int, int]
FieldAxes = Mapping[str, Axes] | tuple[tuple[str, Axes], ...]
Length = int | float | tuple[int, int] | tuple[float, float]


def integer(label: str, value: Any) -> int:
    """Returns an int; TypeError for anything else."""
    number = require_number(label, value)
    if not isinstance(number, int):
        raise TypeError(f"{label} must be an int, got {number!r}")
    return number


def fraction(label: str, value: Any) -> float:
    """Returns a number from 0 to 1; ValueError for any other."""
    number = require_number(label, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{label} must be from 0 to 1, got {number}")
    return number


def positive_range(label: str, value: Any, most: float) -> tuple[float, float]:
    """Returns (min, max) with 0 < min <= max <= most."""
    pair = require_pair(label, value, "(min, max)")
    low, high = (require_number(label, number) for number in pair)
    if not 0 < low <= high <= most:
        raise ValueError(f"{label} must be (min, max) with 0 < min <= max <= {most}, got {pair!r}")
    return float(low), float(high)


def numbers(label: str, value: Any) -> float | tuple[float, ...]:
    """Returns a number, or a tuple of numbers for a sequence or vector."""
    if getattr(value, "ndim", 0) == 1:
        value = value.tolist()
    if not is_sequence(value):
        return require_number(label, value)
    if not value:
        raise ValueError(f"{label} must be a number or one per channel, got none")
    return tuple(require_number(label, number) for number in value)


def count(label: str, value: Any) -> int | tuple[int, int]:
    """Returns a number of patches, or its bounds."""
    if not is_sequence(value):
        number = integer(label, value)
        if number < 0:
            raise ValueError(f"{label} must be at least 0, got {number}")
        return number
    pair = require_pair(label, value, "an int or (min, max)")
    low, high = (integer(label, number) for number in pair)
    if not 0 <= low <= high:
        raise ValueError(f"{label} must be (min, max) with 0 <= min <= max, got {pair!r}")
    return low, high


def size(label: str, value: Any) -> tuple[Length, Length]:
    """Returns the height and width of a patch, each a length or the bounds of one."""
    pair = require_pair(label, value, "(height, width)")
    height, width = (_length(label, length) for length in pair)
    return height, width


def _length(label: str, value: Any) -> Length:
    if not is_sequence(value):
        return _one_length(label, value)
    pair = require_pair(label, value, "lengths or (min, max) of lengths")
    low, high = (_one_length(label, number) for number in pair)
    if type(low) is not type(high):
        raise TypeError(
            f"{label} range must be (min, max), both in pixels (int) or both fractions (float), "
            f"got {pair!r}"
        )
    if low > high:
        raise ValueError(f"{label} range must be (min, max) with min <= max, got {pair!r}")
    return low, high


def _one_length(label: str, value: Any) -> int | float:
    number = require_number(label, value)
    if isinstance(number, int) and number < 1:
        raise ValueError(f"{label} must be at least 1 pixel, got {number}")
    if isinstance(number, float) and not 0 < number <= 1:
        raise ValueError(
            f"{label} of type float is a fraction of the image, in (0, 1], got {number}; for "
            "pixels use an int"
        )
    return number


def axes(label: str, value: Any) -> tuple[int, int]:
    """Returns (height axis, width axis)."""
    pair = require_pair(label, value, "(height axis, width axis)")
    height, width = (integer(label, axis) for axis in pair)
    if not 0 <= height < width:
        raise ValueError(
            f"{label} must be two axes of a record, counted from 0, height before width, got "
            f"{(height, width)}"
        )
    return height, width


def field_axes(config: ModalityOperatorConfig, value: Any) -> tuple[tuple[str, Axes], ...]:
    """Pairs of a mask's name and its (height axis, width axis), which can be hashed.

    Raises:
      TypeError: unless it is a mapping, or such pairs, of two integers.
      ValueError: for a name that is no mask, or axes that do not ascend.
    """
    label = f"{type(config).__name__}.field_axes"
    pairs = tuple(value.items()) if isinstance(value, Mapping) else value
    if not is_sequence(pairs) or not all(is_sequence(pair) and len(pair) == 2 for pair in pairs):
        raise TypeError(
            f"{label} must be a dict of axes by field, such as {{'masks': (-2, -1)}}, got {value!r}"
        )
    others = (*config.box_fields, *config.keypoint_fields)
    masks = [name for name in config.auxiliary_fields or () if name not in others]
    if extra := [name for name, _ in pairs if name not in masks]:
        raise ValueError(
            f"{label} names {extra}, but the masks of auxiliary_fields are {masks}; name one of "
            "these"
        )
    return tuple((name, _pair(f"{label}[{name!r}]", given)) for name, given in pairs)


def _pair(label: str, value: Any) -> Axes:
    pair = require_pair(label, value, "(height axis, width axis)")
    height, width = (integer(label, axis) for axis in pair)
    if not (0 <= height < width or height < width < 0):
        raise ValueError(
            f"{label} must be two axes of a record, height before width, both counted from 0 or "
            f"both from the end, got {(height, width)}"
        )
    return height, width
