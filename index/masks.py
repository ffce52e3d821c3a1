"""Kept masks: which rows of a segment pass a condition, for the next search under the same one.

The rows of a segment never change, so what was found of them holds while the segment is open;
which of them are live is none of a mask's business. Least recently used masks go when all of them
take more than MOST_BYTES, or are more than MOST_MASKS.

Beside a mask stands what its searches have been given last, the rows of it that are live, and
codes of its rows side by side (`index.gathered`), of which all together take MOST_GATHERED at most.

Invariants
    KM1 A mask that was given away is never changed, nor are the codes beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import numpy as np

    from m2mdb.compute.gathering import Gathered

MOST_BYTES = 8 << 20  # of one segment
MOST_MASKS = 64
MOST_GATHERED = 8 << 20  # bytes of codes beside the masks of one segment


class KeptMask:
    """A mask of all rows, the last one of the live rows, and codes of its rows by column id.

    searches  under this mask that compared its rows
    """

    __slots__ = ("_live", "gathered", "mask", "searches", "shown")

    def __init__(self, mask: np.ndarray) -> None:
        self.mask = self.shown = mask
        self._live: np.ndarray | None = None
        self.searches = 0
        self.gathered: dict[int, Gathered | None] = {}

    def under(self, live: np.ndarray | None) -> np.ndarray:
        """Those of its rows that are live; the same array as long as `live` is the same."""
        if live is not self._live:
            shown = self.mask if live is None else self.mask & live
            shown.flags.writeable = False
            self._live, self.shown = live, shown
        return self.shown


class KeptMasks:
    """The masks of one segment, by condition and values."""

    __slots__ = ("_masks", "_most", "_shown")

    def __init__(self, rows: int) -> None:
        """`rows` of the segment: every mask has one byte for each."""
        self._masks: dict[Hashable, KeptMask] = {}
        self._shown: dict[int, KeptMask] = {}  # by the address of what was given last
        self._most = min(MOST_MASKS, MOST_BYTES // max(1, rows))

    def get(self, key: Hashable) -> np.ndarray | None:
        """The bool mask that was kept, not to be changed."""
        return self.under(key, None)

    def under(self, key: Hashable, live: np.ndarray | None) -> np.ndarray | None:
        """The live rows of the mask that was kept, not to be changed; None where none was."""
        found = self._masks.pop(key, None)
        if found is None:
            return None
        self._masks[key] = found
        before = found.shown
        shown = found.under(live)
        if shown is not before:
            self._shown.pop(id(before), None)
        self._shown[id(shown)] = found
        return shown

    def made(
        self, key: Hashable, live: np.ndarray | None, make: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """`under`, of a mask that is made where none is kept."""
        shown = self.under(key, live)
        if shown is not None:
            return shown
        mask = make()
        self.keep(key, mask)
        shown = self.under(key, live)
        if shown is None:  # it is too large to be kept
            return mask if live is None else mask & live
        return shown

    def keep(self, key: Hashable, mask: np.ndarray) -> None:
        """Keep a mask; from now on nobody may change it."""
        if not self._most:
            return
        if len(self._masks) >= self._most:
            gone = self._masks.pop(next(iter(self._masks)))
            self._shown.pop(id(gone.shown), None)
        mask.flags.writeable = False
        self._masks[key] = KeptMask(mask)

    def of(self, mask: np.ndarray) -> KeptMask | None:
        """What is kept of a mask that `under` gave; None where it is another array."""
        found = self._shown.get(id(mask))
        return found if found is not None and found.shown is mask else None

    def make_room(self, size: int) -> None:
        """Drop codes of the masks that were used longest ago, until so many bytes may come."""
        used = [
            (sum(each.nbytes for each in kept.gathered.values() if each), kept)
            for kept in self._masks.values()
        ]
        total = sum(taken for taken, _ in used)
        for taken, kept in used:
            if total + size <= MOST_GATHERED:
                return
            if taken:
                kept.gathered.clear()
                kept.searches = 0
                total -= taken

    def __len__(self) -> int:
        return len(self._masks)
