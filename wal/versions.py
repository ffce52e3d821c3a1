"""Versions: the decoded pages that a store keeps, one version of each page.

    page number -> (place, node)        place: offset of the frame in the log, 0: in the file

Within one generation of the log a place says which version it is, so a lookup costs one dict and
one comparison. Two halves make the cache forget what was not asked for lately:

    put --> | young |  --full-->  | old |  --young full again-->  dropped
                ^------- hit -------'

When the log is reset, `turned` makes the cache of the next generation from what stays true: the
version in a page's newest frame is now the file's, a page without frames has not changed, every
other version is gone. Snapshots of the old generation go on with the old cache.

Invariants
    V1  Only committed nodes get in (S15), and nobody mutates them.
    V2  A cache belongs to one generation of the log; each other generation has another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2mdb.pager.pages import Node

DECODED_FACTOR = 3  # bytes that a node takes for each byte of its page, about
_SMALLEST_HALF = 16  # nodes

Versions = dict[int, tuple[int, "Node"]]


class VersionCache:
    """One version of each page, bounded in number; `young` is looked into directly."""

    __slots__ = ("_half", "_old", "young")

    def __init__(self, size: int, page_size: int) -> None:
        """`size` bytes, about."""
        self._half = max(size // (page_size * DECODED_FACTOR) // 2, _SMALLEST_HALF)
        self.young: Versions = {}
        self._old: Versions = {}

    def __len__(self) -> int:
        return len(self.young.keys() | self._old.keys())

    def find(self, page_number: int, place: int) -> Node | None:
        """The node of a version where it is kept."""
        found = self.young.get(page_number)
        if found is None:
            found = self._old.get(page_number)
            if found is None:
                return None
            if found[0] == place:
                self._keep(page_number, found)
        return found[1] if found[0] == place else None

    def put(self, page_number: int, place: int, node: Node) -> None:
        """Keep a version unless a newer one of the page is kept."""
        found = self.young.get(page_number) or self._old.get(page_number)
        if found is None or found[0] <= place:
            self._keep(page_number, (place, node))

    def _keep(self, page_number: int, version: tuple[int, Node]) -> None:
        if len(self.young) >= self._half and page_number not in self.young:
            self._old = self.young
            self.young = {}
        self.young[page_number] = version

    def turned(self, frames: dict[int, list[int]]) -> VersionCache:
        """The cache of the next generation: the log with these frames is in the file, whole."""
        other = VersionCache(0, 1)
        other._half = self._half
        other.young = _turned(self.young, frames)
        other._old = _turned(self._old, frames)
        return other


def _turned(versions: Versions, frames: dict[int, list[int]]) -> Versions:
    kept = {}
    for page_number, (place, node) in versions.items():
        offsets = frames.get(page_number)
        if place == (offsets[-1] if offsets is not None else 0):
            kept[page_number] = (0, node)
    return kept
