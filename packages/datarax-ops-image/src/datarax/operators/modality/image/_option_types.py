"""Single values of a patch dropout config: numbers, counts, lengths, ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datarax.core._modality_config import require_number

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
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{label} must be (min, max), got {value!r}")
    low, high = (require_number(label, number) for number in value)
    if not 0 < low <= high <= most:
        raise ValueError(f"{label} must be (min, max) with 0 < min <= max <= {most}, got {value!r}")
    return float(low), float(high)


def numbers(label: str, value: Any) -> float | tuple[float, ...]:
    """Returns a number, or a tuple of numbers for a sequence or vector."""
    if getattr(value, "ndim", 0) == 1:
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        return require_number(label, value)
    if not value:
        raise ValueError(f"{label} must be a number or one per channel, got none")
    return tuple(require_number(label, number) for number in value)


def count(label: str, value: Any) -> int | tuple[int, int]:
    """Returns a number of patches, or its bounds."""
    if not isinstance(value, tuple | list):
        number = integer(label, value)
        if number < 0:
            raise ValueError(f"{label} must be at least 0, got {number}")
        return number
    if len(value) != 2:
        raise TypeError(f"{label} must be an int or (min, max), got {value!r}")
    low, high = (integer(label, number) for number in value)
    if not 0 <= low <= high:
        raise ValueError(f"{label} must be (min, max) with 0 <= min <= max, got {value!r}")
    return low, high


def size(label: str, value: Any) -> tuple[Length, Length]:
    """Returns the height and width of a patch, each a length or the bounds of one."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{label} must be (height, width), got {value!r}")
    height, width = (_length(label, length) for length in value)
    return height, width


def _length(label: str, value: Any) -> Length:
    if not isinstance(value, tuple | list):
        return _one_length(label, value)
    if len(value) != 2:
        raise TypeError(f"{label} must hold lengths or (min, max) of lengths, got {value!r}")
    low, high = (_one_length(label, number) for number in value)
    if type(low) is not type(high):
        raise TypeError(
            f"{label} range must be (min, max), both in pixels (int) or both fractions (float), "
            "got "
            f"{value!r}"
        )
    if low > high:
        raise ValueError(f"{label} range must be (min, max) with min <= max, got {value!r}")
    return low, high


def _one_length(label: str, value: Any) -> int | float:
    number = require_number(label, value)
    if isinstance(number, int) and number < 1:
        raise ValueError(f"{label} must be at least 1 pixel, got {number}")
    if isinstance(number, float) and not 0 < number <= 1:
        raise ValueError(
            f"{label} of type float is a fraction of the image, in (0, 1], got {number}; for "
            "pixels "
            "use an int"
        )
    return number


def axes(label: str, value: Any) -> tuple[int, int]:
    """Returns (height axis, width axis)."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{label} must be (height axis, width axis), got {value!r}")
    height, width = (integer(label, axis) for axis in value)
    if not 0 <= height < width:
        raise ValueError(
            f"{label} must be two axes of a record, counted from 0, height before width, got "
            f"{(height, width)}"
        )
    return height, width
