"""Probing: candidates of a segment from its lists, or the finding that a scan is better.

    lists, k, recall, how many rows pass --`costs`--> scan, or probe within a budget
    probe --k rows, before the budget is spent--> candidates;  else --> scan

Invariants
    PB1 Candidates are live, pass the mask and have a vector (E1).
    PB2 Where fewer candidates were found than min(k, rows that may be found), or the budget was
        spent, there are none: the caller scans the segment (E3).
    PB3 The choice depends on what was counted, never on time, so that a search gives the same
        answer again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.patience import RECALLS
from m2mdb.index.costs import is_spent
from m2mdb.index.effort import PartWork
from m2mdb.index.hrm2 import SegmentLists, searched_query

if TYPE_CHECKING:
    from m2mdb.compute.hrm2.reference import Stop
    from m2mdb.index.collection import SegmentPart
    from m2mdb.index.effort import Effort
    from m2mdb.index.schema import Column

MOST_ROWS = 1 << 12  # k beyond: a scan is as fast


class Chosen(NamedTuple):
    """How the lists of a part are searched: until when, for which rows, and how many these are."""

    lists: SegmentLists
    stop: Stop
    mask: np.ndarray | None
    matches: int


class Probing:
    """One search of the lists of a column, over all segments."""

    __slots__ = ("column", "column_index", "effort", "k")

    def __init__(self, column: Column, column_index: int, k: int, effort: Effort) -> None:
        self.column = column
        self.column_index = column_index
        self.k = k
        self.effort = effort

    @property
    def is_possible(self) -> bool:
        """Whether lists are searched at all for so many rows and such a recall."""
        effort = self.effort
        return self.k <= MOST_ROWS and (effort.probes is not None or effort.recall <= RECALLS[-1])

    def prepared(self, query: np.ndarray) -> np.ndarray | None:
        """The query as `candidates` takes it; None where every row must be compared."""
        return searched_query(query, self.column.metric) if self.is_possible else None

    def candidates(
        self,
        part: SegmentPart,
        query: np.ndarray,
        mask: np.ndarray | None,
        works: list[PartWork] | None,
    ) -> np.ndarray | None:
        """Ordinals of k rows or more, among them those sought; None where a scan is due.

        query  from `prepared`
        mask   which rows pass WHERE; None for all
        works  is given what was done
        """
        chosen = self.chosen(part, mask)
        if chosen is None:
            return None
        lists, matches = chosen.lists, chosen.matches
        found = lists.search(query, chosen.stop, chosen.mask)
        ordinals = found.ordinals.astype(np.int64)
        is_short = len(ordinals) < self.k and len(ordinals) < self.findable(part, chosen)
        given_up = is_short or is_spent(chosen.stop, found.probed)
        if works is not None:
            recall = None if self.effort.probes is not None else self.effort.recall
            works.append(
                PartWork(part.name, matches, lists.count, found.probed, found.codes,
                         found.reranked, recall, given_up)
            )  # fmt: skip
        return None if given_up else ordinals

    def chosen(self, part: SegmentPart, mask: np.ndarray | None) -> Chosen | None:
        """How the lists of a part are searched; None where it has none, or a scan is due.

        mask   which rows pass WHERE; None for all
        """
        lists = part.segment.lists(self.column)
        if lists is None:
            return None
        live = part.live
        if live is not None:
            mask = live if mask is None else mask & live
        matches = lists.rows if mask is None else int(np.count_nonzero(mask))
        stop = lists.stop(self.k, matches, self.effort)
        return None if stop is None else Chosen(lists, stop, mask, matches)

    def findable(self, part: SegmentPart, chosen: Chosen) -> int:
        """Rows that pass and have a vector."""
        present = part.present(self.column_index)
        if chosen.mask is None or present is None:
            return chosen.matches
        return int(np.count_nonzero(chosen.mask & present))
