"""Checks of the arguments that all batchers take."""

from __future__ import annotations

from typing import Any

# What becomes of records that do not fill a last batch.
REMAINDERS = ("pad", "drop", "partial")


def require_remainder(name: str, remainder: Any) -> None:
    """Raises a ValueError for an unknown policy."""
    if remainder not in REMAINDERS:
        raise ValueError(f"{name} must be one of {REMAINDERS}, got {remainder!r}")


def resolved_remainder(remainder: str, drop_remainder: Any) -> str:
    """The policy of a call.

    Raises:
      TypeError: if `drop_remainder` is not bool.
    """
    if not isinstance(drop_remainder, bool):
        raise TypeError(f"drop_remainder must be True or False, got {drop_remainder!r}")
    return "drop" if drop_remainder else remainder
