"""Host memory for batches."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

# What XLA demands of memory that its CPU device takes over without a copy.
ALIGNMENT = 64


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array that begins at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    memory = np.empty(_size(shape, dtype) + ALIGNMENT, np.uint8)
    address, _ = memory.__array_interface__["data"]
    return np.ndarray(shape, dtype, memory, -address % ALIGNMENT)


def _size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize


class _Memory:
    """Memory that is written like a file.

    For many small arrays this takes half the time of `np.concatenate`, which besides releases the
    interpreter's lock for each of them: beside a busy thread a batch would take seconds.
    """

    def __init__(self, size: int, offset: int = 0) -> None:
        self._file = io.BytesIO(bytes(size + 2 * ALIGNMENT))
        address, _ = np.frombuffer(self.locked(), np.uint8).__array_interface__["data"]
        self._start = -address % ALIGNMENT + offset
        place = (address + self._start, False)
        self.__array_interface__ = {"version": 3, "shape": (size,), "typestr": "|u1", "data": place}

    def write(self, parts: Iterable[Any]) -> None:
        self._file.seek(self._start)
        self._file.writelines(parts)

    def locked(self) -> memoryview:
        """What keeps the memory where it is, and refuses writes, until it is released."""
        return self._file.getbuffer()


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

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterable[np.ndarray] = ()
    ) -> np.ndarray:
        """An array that begins with the bytes of these parts and is uninitialised behind them.

        Args:
          shape: its shape.
          dtype: its dtype.
          parts: C-contiguous arrays, together at most as large.

        Raises:
          ValueError: if a part is not C-contiguous.
        """
        size = _size(shape, dtype)
        spare = self._spare.setdefault(size, [])
        try:
            memory = spare.pop()
        except IndexError:
            # What is spare of other sizes is of batches that looked otherwise.
            for other in list(self._spare.values()):
                other.clear()
            memory = _Memory(size)
        try:
            memory.write(parts)
        except ValueError:
            spare.append(memory)
            raise
        return np.ndarray(shape, dtype, np.asarray(_Loan(memory, spare)))


class _Loan:
    """What arrays have as their base; gives the memory back when the last of them is gone."""

    _spare_at_most = 2

    def __init__(self, memory: _Memory, spare: list[_Memory]) -> None:
        self._memory, self._spare = memory, spare
        self._lock = memory.locked()
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._lock.release()
        if len(self._spare) < self._spare_at_most:
            self._spare.append(self._memory)


class Reused:
    """One and the same memory for every array of a shape, which JAX has to copy."""

    def __init__(self) -> None:
        self._memory: dict[tuple[int, ...], _Memory] = {}

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterable[np.ndarray] = ()
    ) -> np.ndarray:
        """As that of `Recycled`, over what was there before."""
        if shape not in self._memory:
            self._memory[shape] = _Memory(_size(shape, dtype), ALIGNMENT // 2)
        memory = self._memory[shape]
        memory.write(parts)
        return np.ndarray(shape, dtype, np.asarray(memory))


Buffers = Recycled | Reused
