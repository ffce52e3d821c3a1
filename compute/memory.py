"""Memory for arrays that are large and, for the most part, never written to."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np

MAPPED_SIZE = 1 << 20  # bytes from which an array has pages of its own


def untouched_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Zeros of which only what is written to takes memory of the machine's.

    np.zeros promises no such thing: what the allocator recycles it clears, and that is touched.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < MAPPED_SIZE or not hasattr(mmap, "MAP_PRIVATE"):  # as on Windows
        return np.zeros(shape, dtype)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, dtype).reshape(shape)
