"""Effort: what a search asks of lists, and what each part of a collection did for it."""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_RECALL = 0.95


class Effort(NamedTuple):
    """How much of the true answer the lists of a segment have to find.

    recall   the share of the k nearest rows that is found in the mean; 1 compares every row
    probes   lists of each segment that are probed, whatever the recall; None: by the recall
    """

    recall: float = DEFAULT_RECALL
    probes: int | None = None

    @property
    def is_exact(self) -> bool:
        """Whether every row is compared."""
        return self.recall >= 1.0 and self.probes is None


EXACT = Effort(1.0)


class PartWork(NamedTuple):
    """What a search did in one part, for EXPLAIN ANALYZE.

    rows      that could be found; where the part was scanned, all of them were compared
    lists     of the part; 0 where it was scanned
    codes     1-bit codes that were compared, in the lists `probed`
    reranked  rows that were compared by their 8-bit codes
    recall    expected; None where PROBES decided
    given_up  whether probing spent its budget (`index.costs`); a scan of the part follows
    """

    name: str
    rows: int
    lists: int = 0
    probed: int = 0
    codes: int = 0
    reranked: int = 0
    recall: float | None = 1.0
    given_up: bool = False
