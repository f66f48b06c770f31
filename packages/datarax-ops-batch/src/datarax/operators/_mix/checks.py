"""Checks of single options."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


def require_number(owner: str, name: str, value: Any, low: float, high: float) -> None:
    """Raises unless the value is a number from `low` to `high`, ends included."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{owner}.{name} must be a number from {low:g} to {high:g}, got "
            f"{type(value).__name__} {value!r}"
        )
    if not low <= float(value) <= high:
        raise ValueError(f"{owner}.{name} must be from {low:g} to {high:g}, got {value!r}")


def require_alpha(owner: str, name: str, value: Any) -> None:
    """Raises unless the value is a parameter of a Beta distribution."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{owner}.{name} must be a positive number, got {type(value).__name__} {value!r}"
        )
    if not 0 < float(value) <= 1e30:
        raise ValueError(
            f"{owner}.{name} must be positive and finite, as the parameter of Beta(α, α), got "
            f"{value!r}; to switch mixing off set prob=0 or op.enabled"
        )


def require_whole(owner: str, name: str, value: Any, low: int) -> None:
    """Raises unless the value is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{owner}.{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < low:
        raise ValueError(f"{owner}.{name} must be at least {low}, got {value}")


def require_choice(owner: str, name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises a ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{owner}.{name} must be one of {tuple(choices)}, got {value!r}")


def require_tuple(owner: str, name: str, value: Any, kind: Any) -> None:
    """Raises a TypeError unless the value is a tuple of this type only."""
    if not isinstance(value, tuple) or not all(
        isinstance(item, kind) and not isinstance(item, bool) for item in value
    ):
        wanted = {str: 'names, such as ("depth",)', int: "axes, such as (1, 2)"}
        raise TypeError(
            f"{owner}.{name} must be a tuple of {wanted.get(kind, 'two numbers')}, got "
            f"{type(value).__name__} {value!r}"
        )


def require_disjoint(owner: str, roles: dict[str, tuple[str, ...]]) -> None:
    """Raises a ValueError if a field has two roles or stands twice in one."""
    seen: dict[str, str] = {}
    for role, names in roles.items():
        for name in names:
            if not name:
                raise ValueError(f"{owner}.{role} must hold non-empty names, got {names!r}")
            if name in seen:
                raise ValueError(
                    f"{owner} names the field {name!r} as {seen[name]} and as {role}; name it once"
                )
            seen[name] = role


def require_fractions(owner: str, name: str, value: Any) -> None:
    """Raises unless the value is a tuple of two ascending fractions of the image's sides."""
    require_tuple(owner, name, value, Real)
    if len(value) != 2 or not 0 <= value[0] <= value[1] <= 1:
        raise ValueError(
            f"{owner}.{name} must be two fractions of the image's sides with "
            f"0 <= low <= high <= 1, such as (0.2, 0.8), got {value!r}"
        )
