"""Many small arrays into the rows of a large one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Rows below this size are joined first and then copied at once, as much as stays in the cache.
_SMALL, _CHUNK = 2**14, 2**16


def write_rows(out: np.ndarray, rows: Sequence[Any]) -> None:
    """Writes arrays to the first rows of another one.

    `np.stack` and `np.concatenate` let go of the interpreter's lock for each array of 500 elements
    or more, and beside a busy thread wait 5 ms to get it back: 0.2 s for a batch of 128. What is
    copied here is bytes of one joined row, or a single element of a row's size, for which they keep
    it.

    Args:
      out: C-contiguous, `(batch, ...)`.
      rows: at most `batch` arrays `(...)` of the same dtype and shape.

    Raises:
      ValueError: if there are more rows than `out` has.
    """
    count, size = len(rows), out.itemsize * math.prod(out.shape[1:])
    if count > len(out):
        raise ValueError(f"{count} rows do not fit an array of shape {out.shape}")
    if size >= _SMALL:
        whole = np.dtype((np.void, size))
        np.concatenate([_flat(row).view(whole) for row in rows], out=_flat(out).view(whole)[:count])
        return
    target = memoryview(_flat(out).view(np.uint8))
    step = _CHUNK // max(size, 1)
    for first in range(0, count, step):
        chunk = rows[first : first + step]
        try:
            joined = b"".join(chunk)
        except TypeError:
            # One is not contiguous.
            joined = b"".join([row.tobytes() for row in chunk])
        target[first * size : (first + len(chunk)) * size] = joined


def _flat(array: np.ndarray) -> Any:
    return array.reshape(-1)
