"""Agreement between the processes of a job, so that none goes on where another has failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

Result = TypeVar("Result")

_BYTES = 4096


def exchange(text: str) -> list[str]:
    """Sends a text, cut off after 4 KiB, to all processes; they must all call this.

    Returns:
      The texts of all processes, in their order.
    """
    if jax.process_count() == 1:
        return [text]
    from jax.experimental import multihost_utils

    sent = np.zeros(_BYTES, np.uint8)
    encoded = np.frombuffer(text.encode()[:_BYTES], np.uint8)
    sent[: len(encoded)] = encoded
    received = np.asarray(multihost_utils.process_allgather(sent))
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in received]


def is_first() -> bool:
    """Whether this process is the one that decides."""
    return jax.process_index() == 0


def from_first(value: Any) -> Any:
    """What the first process has, a value that JSON can hold; they must all call this."""
    return json.loads(exchange(json.dumps(value))[0])


def together(work: Callable[[], Result]) -> Result:
    """Does work that does not wait for other processes, in all of them or, on an error, in none.

    Raises:
      ValueError: if it raised in another process.
    """
    try:
        result = work()
    except Exception as error:
        exchange(f"{type(error).__name__}: {error}")
        raise
    for process, failure in enumerate(exchange("")):
        if failure:
            raise ValueError(f"process {process} failed, so this one stopped too: {failure}")
    return result
