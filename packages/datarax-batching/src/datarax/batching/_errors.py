"""Which record an error is about."""

from __future__ import annotations


class WrongRecordError(Exception):
    """Says which of a batch's records is wrong, by its position, and why."""

    def __init__(self, position: int, reason: Exception) -> None:
        super().__init__(position, reason)
        self.position, self.reason = position, reason
