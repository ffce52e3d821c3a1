"""Selection: the final order, and thresholds.

Invariants
    T1  `best_first` orders by (key descending, id ascending): a total order, so every backend and
        every split of the rows into parts gives the same answer.
    T2  `floor_of_groups` is never above the k-th largest value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids = NDArray[np.int64]
    Floats = NDArray[np.float32]

GROUP_ROWS = 64  # rows a group maximum stands for, where k allows it


def best_first(keys: Floats, ids: Ids, k: int) -> NDArray[np.intp]:
    """Positions of the k best, by (key descending, id ascending)."""
    return np.lexsort((ids, -keys))[:k]


def kth_largest(values: Floats, k: int) -> float:
    """The k-th largest value, or minus infinity if there are fewer."""
    size = values.shape[0]
    if size < k:
        return -math.inf
    return float(np.partition(values, size - k)[size - k])


def floor_of_groups(values: Floats, k: int) -> float:
    """A cheap lower bound of the k-th largest value (T2): the k-th largest of group maxima."""
    size = values.shape[0]
    rows = min(GROUP_ROWS, size // (2 * k))
    if rows < 2:
        return kth_largest(values, k)
    width = size // rows
    return kth_largest(values[: rows * width].reshape(rows, width).max(axis=0), k)
