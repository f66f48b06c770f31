"""Records that cannot be read: which ones, why, and how many a run may lose."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger("datarax.pipeline")


class WorkerError(Exception):
    """The traceback that an error had in the process where it was raised."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


@dataclass(frozen=True)
class Failure:
    """A record that could not be read or transformed.

    Args:
      record: its number in the source.
      error: what was raised, with its traceback.
    """

    record: int
    error: Exception

    def __reduce__(self) -> tuple[Any, ...]:
        # An error loses its traceback on the way to another process, and not every one arrives.
        text = "".join(traceback.format_exception(self.error))
        error = self.error
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
            for note in getattr(self.error, "__notes__", ()):
                error.add_note(note)
        return _from_worker, (self.record, error, text)


def _from_worker(record: int, error: Exception, text: str) -> Failure:
    error.__cause__ = WorkerError(text)
    return Failure(record, error)


class Losses:
    """Counts and logs records whose rows became padding.

    Args:
      label: what to call their source.
      most: how many may be lost; None: any number.
    """

    def __init__(self, label: str, most: int | None) -> None:
        self._label, self._most = label, most
        self.count = 0

    def add(self, failures: Sequence[Failure], epoch: int) -> None:
        """Counts records.

        Args:
          failures: those of one batch.
          epoch: its epoch.

        Raises:
          RuntimeError: if more are lost than may be, from the last one's error.
        """
        for failure in failures:
            self.count += 1
            error = failure.error
            notes = "; ".join(getattr(error, "__notes__", ()))
            logger.warning(
                "record %d of %s cannot be read in epoch %d, its row is padding: %s: %s%s",
                failure.record,
                self._label,
                epoch,
                type(error).__name__,
                error,
                f" ({notes})" if notes else "",
            )
            if self._most is not None and self.count > self._most:
                raise RuntimeError(
                    f"{self.count} records of {self._label} could not be read, more than "
                    f"max_errors={self._most}; the last is record {failure.record}"
                ) from error
