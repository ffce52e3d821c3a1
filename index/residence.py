"""Residence: how many bytes of mapped files a connection keeps in memory (`PRAGMA memory_budget`).

Extents are read through a map of the file. Pages that were read stay resident for as long as the
system has memory to spare: good for the next search, and what a process is seen to hold grows to
the size of what it ever touched. With a budget, the pages are given back when more than so many
bytes became resident since the last time:

    first   rows: vectors, texts, the 8-bit codes of lists, key hashes, inverted lists
    then    if that was not enough, what searches read whole: centroids and 1-bit codes

Nothing is lost by it but time: a page that is touched again comes from the system's cache of the
file, or from the disk. What stands in memory of our own (scratch of searches, caches of values and
catalog, mirrors of deltas) is not counted, and neither are pages of programs and libraries.

Invariants
    RE1 Bytes of a view are the same before and after: only the map's pages go, never the map.
    RE2 Without a budget nothing is measured and nothing given back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.segment import Segment

_SCANNED = (
    "h.head", "h.centers", "h.center_scales", "h.center_squares", "h.starts", "h.codes",
    "h.factors", "h.positions", "h.middle",
)  # fmt: skip
UNMEASURED = 64  # statements between two trims where the system does not say what is resident


class Budget:
    """The bytes that may become resident, and how many there were when counting began."""

    __slots__ = ("_database", "_floor", "_statements", "limit", "trims")

    def __init__(self, database: Database, limit: int) -> None:
        """Begins with nothing of the file resident."""
        self._database = database
        self._statements = 0
        self.limit = limit
        self.trims = 0
        self._floor = 0
        self.trim(everything=True)

    def after_statement(self) -> None:
        """A statement has ended: give back what is beyond the budget."""
        resident = self._database.store.vfs.resident_bytes()
        if resident is None:
            self._statements += 1
            if self._statements % UNMEASURED == 0:
                self.trim(everything=True)
        elif resident - self._floor > self.limit:
            self.trim()

    def trim(self, *, everything: bool = False) -> None:
        """Give back rows, and what searches read whole where that is not enough."""
        self.trims += 1
        vfs = self._database.store.vfs
        for segment in self._database.opened_segments():
            _release_rows(segment)
        resident = vfs.resident_bytes() or 0
        if everything or resident - self._floor > self.limit:
            for segment in self._database.opened_segments():
                for extent in segment.extents:
                    extent.release(0, extent.size)
            self._floor = vfs.resident_bytes() or 0


def _release_rows(segment: Segment) -> None:
    """What a search reads row by row: all but the parts in _SCANNED, extent by extent."""
    kept: dict[int, list[tuple[int, int]]] = {}
    for name, column in segment.names():
        if name in _SCANNED:
            extent, offset, size = segment.range_of(name, column)
            kept.setdefault(id(extent), []).append((offset, offset + size))
    for extent in segment.extents:
        at = 0
        for start, stop in sorted(kept.get(id(extent), [])):
            extent.release(at, start - at)
            at = stop
        extent.release(at, extent.size - at)
