"""Living: which codes of lists are of rows that are there, as a word of 32 bits a block.

    live rows by ordinal --places of each row's codes--> words, bit s: slot s of the block

A search takes a block's word off the codes that its bounds let in, before it looks at any of them:
so a row that has gone costs nothing, where a mask by ordinal is looked up at two random places for
each code. A hundred thousand rows have 25 KiB of words, and what died since the last ones is all
that has to be found out.

Invariants
    LV1 Words that were given away are never changed.
    LV2 Words are given only where every code of a row is known: a row has two at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.compute.hrm2.lists import BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Lists

    Marks = NDArray[np.bool_]
    Words = NDArray[np.uint32]

NOWHERE = -1
EVERY = np.uint32(0xFFFFFFFF)


class Living:
    """Where the codes of each row stand, and the words that were made last."""

    __slots__ = ("_blocks", "_last", "_places")

    def __init__(self, lists: Lists, rows: int) -> None:
        """`rows`: how many ordinals there are, those without a vector too."""
        flat = lists.positions.reshape(-1)
        self._blocks = len(flat) // BLOCK
        at = np.flatnonzero(flat >= 0).astype(np.int32)
        ordinals = lists.ordinals[flat[at]]
        places = np.full((2, rows), NOWHERE, np.int32)
        is_known = not len(ordinals) or int(ordinals.max()) < rows
        if is_known:
            places[0, ordinals] = at  # its last code ...
            places[1, ordinals[::-1]] = at[::-1]  # ... and its first one
            codes = np.count_nonzero(places[0] >= 0) + np.count_nonzero(places[0] != places[1])
            is_known = codes == len(at)
        self._places = places if is_known else None  # LV2
        self._last: tuple[Marks, Words] | None = None

    def words(self, live: Marks) -> Words | None:
        """uint32 [blocks], not to be changed; None where a mask has to do (LV2).

        live  bool by ordinal; the same array says the same rows for ever
        """
        places, last = self._places, self._last
        if places is None or len(live) != places.shape[1]:
            return None
        if last is not None and last[0] is live:
            return last[1]
        if last is not None and not (live & ~last[0]).any():
            died, words = np.flatnonzero(last[0] & ~live), last[1].copy()
        else:
            died, words = np.flatnonzero(~live), np.full(self._blocks, EVERY)
        for slots in places[:, died]:
            there = slots[slots >= 0]
            bits = np.uint32(1) << (there % BLOCK).astype(np.uint32)
            np.bitwise_and.at(words, there // BLOCK, ~bits)
        words.flags.writeable = False
        self._last = live, words
        return words
