"""Single values of a patch dropout config: numbers, counts, lengths, ranges."""

from __future__ import annotations

from typing import Any

from datarax.core._modality_config import is_sequence, require_number, require_pair

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
