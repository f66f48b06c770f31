"""Host memory for batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# What XLA demands of memory that its CPU device takes over without a copy.
ALIGNMENT = 64
# Bytes from which on fresh memory costs more, in page faults, than taking back what was given out.
_WORTH_KEEPING = 1 << 17


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array that begins at a multiple of 64 bytes."""
    return _empty(shape, np.dtype(dtype), 0)


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> np.ndarray:
    memory = np.empty(math.prod(shape) * dtype.itemsize + 2 * ALIGNMENT, np.uint8)
    address, _ = memory.__array_interface__["data"]
    return np.ndarray(shape, dtype, memory, -address % ALIGNMENT + offset)


class Recycled:
    """Aligned arrays, each in memory of its own, taken from arrays that are gone if there are any.

    Memory comes back when the last object that refers to it dies, exactly when NumPy would free it:
    views, device arrays that alias it and computations under way all hold a reference.
    """

    def __init__(self) -> None:
        self._spare: dict[int, list[_Memory]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, here or in another process, begins without memory.
        return Recycled, ()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array that begins at a multiple of 64 bytes."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < _WORTH_KEEPING:
            return _empty(shape, dtype, 0)
        spare = self._spare.setdefault(size, [])
        try:
            memory = spare.pop()
        except IndexError:
            # What is spare of other sizes is of batches that looked otherwise.
            for other in list(self._spare.values()):
                other.clear()
            memory = _Memory(size)
        return np.ndarray(shape, dtype, np.asarray(_Loan(memory, spare)))


class _Memory:
    """Bytes, and how NumPy finds them."""

    def __init__(self, size: int) -> None:
        self.array = aligned_empty((size,), np.uint8)
        self.interface = self.array.__array_interface__


class _Loan:
    """What arrays have as their base; gives the memory back when the last of them is gone."""

    _spare_at_most = 2

    def __init__(self, memory: _Memory, spare: list[_Memory]) -> None:
        self._memory, self._spare = memory, spare
        self.__array_interface__ = memory.interface

    def __del__(self) -> None:
        if len(self._spare) < self._spare_at_most:
            self._spare.append(self._memory)


class Reused:
    """One and the same memory for every array of a shape, which JAX has to copy."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[int, ...], np.ndarray] = {}

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The array of this shape, with what was last written to it."""
        if shape not in self._arrays:
            self._arrays[shape] = _empty(shape, np.dtype(dtype), ALIGNMENT // 2)
        return self._arrays[shape]
