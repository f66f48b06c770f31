"""Fresh host memory that JAX's CPU device takes over without a copy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# What XLA demands of memory that it does not copy.
ALIGNMENT = 64


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array that begins at a multiple of 64 bytes."""
    return _empty(shape, np.dtype(dtype), 0)


def misaligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array that JAX has to copy, so that it may be written again."""
    return _empty(shape, np.dtype(dtype), ALIGNMENT // 2)


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 2 * ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT + offset
    return memory[start : start + size].view(dtype).reshape(shape)
