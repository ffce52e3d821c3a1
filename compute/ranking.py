"""Ranking in one call: plans of where rows lie, codes of rows that grow, and the call.

    RankPlan(metric, dimension, dtype, parts, codes) --answer--> Answer
    Codes.extend(rows) as rows come in --------------^

The kernels stand in `ranking_kernels`; `rescore.rank` is their twin, and to the bit.

Invariants
    RA1 A plan keeps every array alive whose address it holds, those of codes that have grown since
        too: what was coded is never changed.
    RA2 Scratch belongs to one call: it is taken out of where it is kept by one step, which no other
        thread and no signal handler comes between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.loader import LOADER
from m2mdb.compute.rescore import KINDS, MOST_INSERTED, kernels_agree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    Rows = NDArray[Any]
    Vector = NDArray[np.float32]
    Ints = NDArray[np.int64]
    Doubles = NDArray[np.float64]
    Mask = NDArray[np.uint8]

DTYPES = {"float32": 0, "float16": 1, "int8": 2}  # as `ranking_kernels` numbers them
PANEL, GROUP = 16, 64  # rows of a panel, and of what is scanned at once
NO_NUMBERS = np.empty(0, np.int64)
NO_MASK = np.empty(0, np.uint8)
for _none in (NO_NUMBERS, NO_MASK):
    _none.flags.writeable = False
_CHUNK = 1024  # rows that are widened at a time
_LARGEST = 127.0
_GROWTH = 1.0 + 1e-6


class PartRows(NamedTuple):
    """Where the rows of a part lie.

    rows      [n, dimension], C-contiguous; None for a part that no row is taken of
    rowids    int64 [n], C-contiguous
    verified  uint8, one for each block of the extent, not 0 where it may be read; None: all may
    offset    bytes from the extent's start to the rows
    """

    first: int
    rows: Rows | None
    rowids: Ints | None
    verified: NDArray[np.uint8] | None = None
    offset: int = 0


class Answer(NamedTuple):
    """The best rows, in order.

    numbers    int64, through all parts
    ids        int64, rowids
    scores     float64: a float32's value, but under l2
    distances  float64: a float32's value
    """

    numbers: Ints
    ids: Ints
    scores: Doubles
    distances: Doubles


class Unverified(NamedTuple):
    """Rows that have to be verified before anything can be ranked, by number."""

    numbers: Ints


def ranking_kernels() -> ModuleType | None:
    """The compiled kernels, where they are loaded and add as this NumPy does; else None."""
    global _known
    kernels = LOADER.module
    if kernels is not _known[0]:
        _known = kernels, None
        if kernels is not None and kernels_agree(kernels):
            from m2mdb.compute import ranking_kernels as found

            _known = kernels, found
    return _known[1]


_known: tuple[ModuleType | None, ModuleType | None] = (None, None)  # and what follows from it


class Codes:
    """8-bit codes of rows, which rows are added to.

    count  rows that are coded
    """

    __slots__ = ("_kernels", "_kind", "count", "factors", "panels", "width")

    def __init__(self, metric: str, dimension: int, kernels: ModuleType) -> None:
        self._kernels = kernels
        self._kind = KINDS[metric]
        self.width = -(-dimension // 4) * 4
        self.count = 0
        self.panels = np.zeros(0, np.uint8)
        self.factors = np.zeros((3, 0))

    def extend(self, rows: Rows, count: int) -> None:
        """Code those of the first `count` rows that are not coded yet.

        rows  float32, float16 or int8; those before `self.count` are as they were
        """
        if count > self.factors.shape[1]:
            self._grow(count)
        while self.count < count:
            stop = min(count, self.count + _CHUNK)
            some = np.ascontiguousarray(rows[self.count : stop], np.float32)
            self._kernels.encode(
                self._kind, some, self.count, self.width, self.panels, self.factors
            )
            self.count = stop

    def reserve(self, count: int) -> None:
        """Have room for so many rows."""
        if count > self.factors.shape[1]:
            self._grow(count)

    def _grow(self, count: int) -> None:
        """Room for twice as many; plans go on reading the old arrays (RA1)."""
        capacity = -(-max(count, 2 * self.factors.shape[1]) // GROUP) * GROUP
        panels, factors = np.zeros(capacity * self.width, np.uint8), np.zeros((3, capacity))
        panels[: len(self.panels)] = self.panels
        factors[:, : self.factors.shape[1]] = self.factors
        self.panels, self.factors = panels, factors


def encoded(rows: Rows, metric: str) -> tuple[NDArray[np.int8], Doubles]:
    """Codes of rows and their factors, as `Codes` has them but row by row: the kernel's twin.

    Returns int8 [n, d], and float64 [3, n]: scales, lengths of the rests, lengths.
    """
    wide = rows.astype(np.float64)
    lengths = np.sqrt(np.add.reduce(wide * wide, axis=1))
    if metric == "cosine":
        factor = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    else:
        factor = np.ones_like(lengths)
    scales = np.abs(wide).max(axis=1) * factor / _LARGEST
    values = wide * factor[:, None]
    codes = np.rint(
        np.divide(values, scales[:, None], out=np.zeros_like(values), where=scales[:, None] > 0)
    )
    rest = values - codes * scales[:, None]
    errors = np.sqrt(np.add.reduce(rest * rest, axis=1)) * _GROWTH
    sizes = np.ones_like(lengths) if metric == "cosine" else lengths
    return codes.astype(np.int8), np.stack((scales, errors, sizes))


class RankPlan:
    """Where the rows of a snapshot lie, ready for the kernel."""

    __slots__ = (
        "_bare", "_kept", "_kernels", "_plan", "_room_size", "_rooms",
    )  # fmt: skip

    def __init__(
        self,
        metric: str,
        dimension: int,
        dtype: np.dtype[Any],
        parts: Sequence[PartRows],
        codes: tuple[Codes, int] | None,
        kernels: ModuleType,
    ) -> None:
        """`codes`: those of part 0, and how many of its rows are to be scanned by them."""
        self._kernels = kernels
        width = -(-dimension // 4) * 4
        self._room_size = kernels.room_size(dimension, width)
        self._rooms: list[Doubles] = []
        plan = [KINDS[metric], dimension, DTYPES[dtype.name], width]
        self._kept: list[Any] = [parts]  # RA1
        if codes is not None and codes[1]:
            panels, factors = codes[0].panels, codes[0].factors
            self._kept += [panels, factors]
            plan += [_address(panels), codes[1], *(_address(each) for each in factors)]
        else:
            plan += [0] * 5
        plan.append(0)
        for part in parts:
            arrays = (part.rows, part.rowids, part.verified)
            plan += [part.first, *map(_address, arrays), part.offset]
        self._plan = readable(np.array(plan, np.int64))
        self._bare: RankPlan | None = None

    def without_codes(self) -> RankPlan:
        """The plan of a search that finds nothing by codes."""
        if self._bare is None:
            bare = self._bare = RankPlan.__new__(RankPlan)
            plan = self._plan.copy()
            plan[self._kernels.CODED] = 0
            bare._kernels, bare._room_size, bare._rooms = self._kernels, self._room_size, []
            bare._kept, bare._plan, bare._bare = self._kept, readable(plan), bare
        return self._bare

    def listed(self, listed: tuple[Ints, tuple[Any, ...]]) -> RankPlan:
        """The plan of a search of lists, after which part 0 is scanned by a `Listing`.

        listed  what its `plan` gave, for the rows that have codes
        """
        found = RankPlan.__new__(RankPlan)
        plan = self._plan.copy()
        plan[self._kernels.LISTED] = _address(listed[0])
        found._kernels, found._room_size, found._rooms = self._kernels, self._room_size, []
        found._kept, found._plan, found._bare = [self._kept, listed], readable(plan), None
        return found

    def parts_of_call(self) -> tuple[Ints, Doubles]:
        """The plan as the kernels read it, and new scratch, for who calls them himself (RA1)."""
        return self._plan, np.empty(self._room_size)

    def answer(
        self, query: Vector, k: int, sources: Ints, numbers: Ints, mask: Mask
    ) -> Answer | Unverified:
        """The k best rows; see `ranking_kernels.answer`.

        query  float32 [dimension], contiguous
        k      1 to MOST_INSERTED
        """
        out = np.empty((4, k), np.int64)
        try:
            room = self._rooms.pop()  # RA2
        except IndexError:
            room = np.empty(self._room_size)
        count = self._kernels.answer(self._plan, sources, numbers, mask, query, room, out)
        self._rooms.append(room)
        if count < 0:
            return Unverified(out[0, :-count])
        if count < k:
            out = out[:, :count]
        numbers, ids, scores, distances = out
        return Answer(numbers, ids, scores.view(np.float64), distances.view(np.float64))

    def answer_many(
        self, queries: Rows, k: int, numbers: Ints, mask: Mask, lists: int = 0
    ) -> Answer | Unverified:
        """`answer` for each query, in matrices of k columns: -1 and NaN where no row is.

        queries  float32 [m, dimension]
        numbers  int64 [m, any], candidates; -1 for none
        lists    address of the scratch of a search of lists, which is for this call alone: rows of
                 part 0 are found by their Listing; 0: by their codes
        """
        missing = np.empty(_CHUNK, np.int64)
        count = self._kernels.unread_many(self._plan, numbers, missing)
        if count:
            return Unverified(missing[:count])
        ints = np.full((len(queries), 2, k), -1, np.int64)
        reals = np.full((len(queries), 2, k), np.nan)
        room = np.empty(self._room_size)
        if lists and self._plan[self._kernels.LISTED]:
            from m2mdb.compute.search_kernels import answer_many_listed

            out = (ints, reals)
            answer_many_listed(self._plan, lists, numbers, mask, queries, room, out)
        else:
            self._kernels.answer_many(self._plan, numbers, mask, queries, room, ints, reals)
        return Answer(ints[:, 0], ints[:, 1], reals[:, 0], reals[:, 1])


def readable(array: NDArray[Any]) -> NDArray[Any]:
    """The array as kernels take what they only read."""
    if array.flags.c_contiguous and not array.flags.writeable:
        return array
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _address(array: Rows | None) -> int:
    """Where an array begins; 0 for none."""
    if array is None or not array.size:
        return 0
    assert array.flags.c_contiguous and array.flags.aligned
    return array.ctypes.data


__all__ = [
    "MOST_INSERTED", "NO_MASK", "NO_NUMBERS", "Answer", "Codes", "PartRows", "RankPlan",
    "Unverified", "encoded", "ranking_kernels", "readable",
]  # fmt: skip
