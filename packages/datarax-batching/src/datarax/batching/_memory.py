"""Host memory for batches: plain NumPy arrays that begin where XLA wants them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# What XLA demands of memory that its CPU device takes over without a copy.
ALIGNMENT = 64

# How much memory of one size waits for later arrays: a loop holds one batch while the next is made.
SPARE_AT_MOST = 2


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array that begins at a multiple of 64 bytes."""
    return np.ndarray(shape, dtype, _aligned_bytes(_size(shape, dtype)))


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _aligned_bytes(size: int) -> np.ndarray:
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + size]


class RecycledMemory:
    """Uninitialised NumPy arrays, in memory of arrays that are gone where there is some.

    An array's memory is free when nothing refers to it any more: no view, no device array that
    aliases it, no computation under way. Each array has a `_Loan` as its base, to which all of
    these lead; NumPy lets go of it with the last of them, and not before.

    >>> memory = RecycledMemory()
    >>> array = memory.empty((4, 16), np.float32)
    >>> kept = array[1:]
    >>> address = array.ctypes.data
    >>> del array
    >>> memory.empty((4, 16), np.float32).ctypes.data == address
    False
    >>> del kept
    >>> memory.empty((4, 16), np.float32).ctypes.data == address
    True
    """

    def __init__(self) -> None:
        self._spare: dict[int, list[np.ndarray]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, here or in another process, begins without memory.
        return type(self), ()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array that begins at a multiple of 64 bytes; what it holds is undefined.

        Args:
          shape: its shape.
          dtype: its dtype.
        """
        size = _size(shape, dtype)
        spare = self._spare.setdefault(size, [])
        try:
            memory = spare.pop()
        except IndexError:
            # What is spare of other sizes is of batches that looked otherwise.
            for other in list(self._spare.values()):
                other.clear()
            memory = _aligned_bytes(size)
        return np.ndarray(shape, dtype, np.asarray(_Loan(memory, spare)))


class _Loan:
    """What an array and its views have as their base; it gives the memory back when it dies."""

    def __init__(self, memory: np.ndarray, spare: list[np.ndarray]) -> None:
        self._memory, self._spare = memory, spare
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        if len(self._spare) < SPARE_AT_MOST:
            self._spare.append(self._memory)


class ReusedMemory:
    """One and the same memory for every array of a shape, which JAX has to copy."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[int, ...], np.ndarray] = {}

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """As that of `RecycledMemory`, over what was there before."""
        if shape not in self._arrays:
            size, shift = _size(shape, dtype), ALIGNMENT // 2
            self._arrays[shape] = np.ndarray(shape, dtype, _aligned_bytes(size + shift), shift)
        return self._arrays[shape]


Memory = RecycledMemory | ReusedMemory
