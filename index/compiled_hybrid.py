"""Compiled hybrid searches: a vector and words in one compiled call, for as long as nothing comes.

    CompiledSearch --whether all is as it was, and its call--+
                                                             +--> search_both --> ids and scores
    TextPlan ------slots of words that are known-------------+

As `index.compiled`, whose CompiledSearch is the vector side. Words that no search at this snapshot
has met yet, signs and what else is not plain go by steps (`index.prepared_hybrid`).

Invariants
    CS1, CS3  As in `index.compiled`.
    CH1 It holds no view: both sides belong to one, and go with it.
    CH2 No list of the text side lies in the file (HK1): all are unpacked, or of the delta.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

import numpy as np

from m2mdb.index.text.match_query import is_plain

if TYPE_CHECKING:
    from typing import Any

    from m2mdb.index.collection import CollectionView
    from m2mdb.index.compiled import CompiledSearch
    from m2mdb.index.lexical import TextSearcher

    Array = np.ndarray[Any, Any]

FLOAT = np.dtype(np.float32)
STRIDES = (4,)


class CompiledHybrid:
    """A hybrid search of one depth and effort, for the newest commit."""

    __slots__ = ("_call", "_kept", "_kernel", "_most", "_words", "near")

    def __init__(
        self, near: CompiledSearch, words: TextSearcher, parts: Array, weights: Array, most: int
    ) -> None:
        """Of two sides of one view. Use `compiled_hybrid`.

        parts    of the text side's plan, with the masks of live rows
        weights  as `rank_fusion.fuse_ranks` takes them
        most     hits
        """
        from m2mdb.compute import hybrid_kernels as kernels

        self._kernel = kernels.search_both
        self.near, self._words, self._most = ref(near), ref(words), most
        depth, size = near.k, 1
        while size < 2 * depth:
            size *= 2
        kept: list[Array] = [
            np.empty(depth, np.int64), np.empty(depth), np.empty(depth, np.int64),
            np.empty(depth, np.float32), np.empty((2, depth), np.int64), weights.copy(),
            np.empty(3 * size, np.int64), np.empty((3, most), np.int64),
        ]  # fmt: skip
        *all_but_rows, rows = [array.ctypes.data for array in kept]
        self._kept = [*kept, parts]
        call = np.zeros(kernels.CALL_SIZE, np.int64)
        call[:] = (depth, *all_but_rows, 3 * size, rows, parts.ctypes.data, *parts.shape)
        call.flags.writeable = False
        self._call = call

    def answer(self, near: CompiledSearch, query: Any, text: str) -> tuple[Array, Array] | None:
        """Rowids (int64) and scores (float64) of the best rows; None: it is to be made by steps.

        near   what `self.near` gave, found to be current
        query  anything; what is no contiguous float32 vector of the column is for the steps
        """
        if query.__class__ is not np.ndarray or query.dtype != FLOAT or query.strides != STRIDES:
            return None
        words = self._words()
        if words is None or words.plan is None or not is_plain(text):
            return None
        scratch = words.plan.ready(text, near.k)
        if scratch is None:
            return None
        near.forget_interrupt()
        ids, scores = np.empty(self._most, np.int64), np.empty(self._most)
        try:
            count = self._kernel(self._call, near.call, query, scratch.words, ids, scores)
        except TypeError:  # of an address that is no multiple of four
            return None
        words.plan.give_back(scratch)
        if count == self._most:
            return ids, scores
        return (ids[:count], scores[:count]) if count >= 0 else None


def compiled_hybrid(
    view: CollectionView, near: CompiledSearch, match: int | None, weights: Array, most: int
) -> CompiledHybrid | None:
    """Both sides as one call, None where the text side cannot be had; a snapshot holds the view.

    near   the vector side, of this view, whose k is how many rows of each side take part
    match  the text's column by index, None for all
    most   hits
    """
    words = view.text_searchers.get(match)
    if words is None or words.plan is None:
        return None
    parts = words.plan.parts_in_memory([part.live for part in view.parts()])
    if parts is None:
        return None
    return CompiledHybrid(near, words, parts, weights, min(most, 2 * near.k))


__all__ = ["CompiledHybrid", "compiled_hybrid"]
