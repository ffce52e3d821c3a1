"""Gathering: 8-bit codes of the rows that pass a condition, side by side, for search after search.

    rows that pass --codes--> Gathered --query, k--> numbers of those that may be among the k best

A condition that one row in a hundred passes has its rows all over a segment: to compare them in
full reads their vectors at random places. Their codes stand side by side, are a quarter of float32
vectors, and leave some rows more than k to be compared in full (`gathered_kernels`).

Invariants
    GA1 The rows that are found are those that a scan would find (GK1).
    GA2 What a plan points to is kept by who has the plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.compute.ranking import Codes, readable
from m2mdb.compute.rescore import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from numpy.typing import NDArray

    Rows = NDArray[Any]
    Ints = NDArray[np.int64]

_CHUNK = 1024  # rows that are coded between two looks for an interrupt
_SPARE = 512  # rows beyond k that may be left before a scan is better


class _Picked:
    """Some rows of a matrix, by place in a list of ordinals."""

    __slots__ = ("_ordinals", "_rows")

    def __init__(self, rows: Rows, ordinals: Ints) -> None:
        self._rows, self._ordinals = rows, ordinals

    def __getitem__(self, some: slice) -> Rows:
        return self._rows[self._ordinals[some]]


class Gathered:
    """The codes of some rows of one matrix.

    ordinals  int64 (n,), ascending
    nbytes    what they take
    """

    __slots__ = ("_codes", "_head", "_live", "_plan", "nbytes", "ordinals")

    def __init__(
        self, metric: str, rows: Rows, ordinals: Ints, kernels: ModuleType, tick: Callable[[], None]
    ) -> None:
        """`rows`: float32, float16 or int8 [any, dimension], of which `ordinals` are coded."""
        self.ordinals = readable(np.ascontiguousarray(ordinals, np.int64))
        count, dimension = len(ordinals), rows.shape[1]
        codes = self._codes = Codes(metric, dimension, kernels)
        picked: Any = _Picked(rows, self.ordinals)
        codes.reserve(count)
        for start in range(0, count, _CHUNK):
            tick()
            codes.extend(picked, min(count, start + _CHUNK))
        self._head = (KINDS[metric], dimension, codes.width, codes.panels.ctypes.data, count)
        self.nbytes = codes.panels.nbytes + codes.factors.nbytes + 9 * count
        self._live: tuple[Rows | None, Rows | None] = (None, None)
        self._plan = self._planned(None)

    def _planned(self, live: Rows | None) -> Ints:
        factors = [each.ctypes.data for each in self._codes.factors]
        address = 0 if live is None else live.ctypes.data
        plan = [*self._head, *factors, address, self.ordinals.ctypes.data]
        return readable(np.array(plan, np.int64))

    def allow(self, live: Rows | None) -> None:
        """Say which rows of the matrix may be found, bool by ordinal; None: all."""
        if live is self._live[0]:
            return
        own = None if live is None else live[self.ordinals].view(np.uint8)
        self._plan, self._live = self._planned(own), (live, own)  # GA2

    def reached(self, query: Rows, k: int) -> Ints | None:
        """Ordinals of the rows that may be among the k best; None where a scan is to find them.

        query  float32 [dimension], contiguous
        """
        from m2mdb.compute import gathered_kernels

        room, most = self._room(k)
        numbers = np.empty(most, np.int64)
        count = gathered_kernels.reached(self._plan, query, k, room, numbers)
        return numbers[:count] if count >= 0 else None

    def _room(self, k: int) -> tuple[Rows, int]:
        """Scratch of the kernel, and how many rows it may find."""
        from m2mdb.compute import gathered_kernels

        most = 2 * k + _SPARE
        return np.empty(gathered_kernels.room_size(self._codes.width, k, most)), most

    def parts_of_call(self, k: int) -> tuple[Ints, Rows, int, tuple[Any, ...]]:
        """The plan as the kernels read it, new scratch, how many rows may be found, and what is
        to be kept meanwhile (GA2)."""
        room, most = self._room(k)
        return self._plan, room, most, (self._codes, self.ordinals, self._live)


def codes_size(count: int, dimension: int) -> int:
    """Bytes that the codes of so many rows take, about."""
    return count * (dimension + 33)


__all__ = ["Gathered", "codes_size"]
