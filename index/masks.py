"""Kept masks: which rows of a segment pass a condition, for the next search under the same one.

The rows of a segment never change, so what was found of them holds while the segment is open;
which of them are live is none of a mask's business. Least recently used masks go when all of them
take more than MOST_BYTES, or are more than MOST_MASKS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np

MOST_BYTES = 8 << 20  # of one segment
MOST_MASKS = 64


class KeptMasks:
    """The masks of one segment, by condition and values."""

    __slots__ = ("_masks", "_most")

    def __init__(self, rows: int) -> None:
        """`rows` of the segment: every mask has one byte for each."""
        self._masks: dict[Hashable, np.ndarray] = {}
        self._most = min(MOST_MASKS, MOST_BYTES // max(1, rows))

    def get(self, key: Hashable) -> np.ndarray | None:
        """The bool mask that was kept, not to be changed."""
        found = self._masks.pop(key, None)
        if found is not None:
            self._masks[key] = found
        return found

    def keep(self, key: Hashable, mask: np.ndarray) -> None:
        """Keep a mask; from now on nobody may change it."""
        if not self._most:
            return
        if len(self._masks) >= self._most:
            del self._masks[next(iter(self._masks))]
        mask.flags.writeable = False
        self._masks[key] = mask

    def __len__(self) -> int:
        return len(self._masks)
