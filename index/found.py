"""Found: the rows that one side of a search has found, best first."""

from __future__ import annotations

import numpy as np


class Found:
    """Hits of a vector or text search, in columns.

    rowids     int64 (m,)
    parts      int64 (m,), the index into `CollectionView.parts()`; an int where all have one
    ordinals   int64 (m,), the row's number in its part
    scores     float32 (m,), higher is better; float64 under l2
    distances  float32 (m,), or None for a text search
    """

    __slots__ = ("distances", "ordinals", "parts", "rowids", "scores")

    def __init__(
        self,
        rowids: np.ndarray,
        parts: np.ndarray | int,
        ordinals: np.ndarray,
        scores: np.ndarray,
        distances: np.ndarray | None = None,
    ) -> None:
        self.rowids = rowids
        self.parts = parts
        self.ordinals = ordinals
        self.scores = scores
        self.distances = distances

    def __len__(self) -> int:
        return len(self.rowids)

    @classmethod
    def nothing(cls) -> Found:
        """No hit."""
        none = np.empty(0, np.int64)
        return cls(none, none, none, np.empty(0, np.float32), np.empty(0, np.float32))

    @property
    def places(self) -> list[tuple[int, int]]:
        """(part, ordinal) of each hit, as `CollectionView.rows` takes them."""
        ordinals, parts = self.ordinals.tolist(), self.parts
        if isinstance(parts, int):
            return [(parts, ordinal) for ordinal in ordinals]
        return list(zip(parts.tolist(), ordinals, strict=True))

    def take(self, chosen: np.ndarray) -> Found:
        """Some of the hits, by index or mask."""
        distances = None if self.distances is None else self.distances[chosen]
        return Found(
            self.rowids[chosen],
            self.parts if isinstance(self.parts, int) else self.parts[chosen],
            self.ordinals[chosen],
            self.scores[chosen],
            distances,
        )
