"""Scratch: arrays for the time of a build, in memory up to a bound and on the disk beyond it.

A merge or a build of lists needs some multiple of a segment's vectors: those of its rows in their
new order, the rotated ones, the codes. A segment may have a gigabyte. What does not fit into
MEMORY_BYTES stands in files without a name beside the database, which the kernel writes out and
takes back as it needs memory, and of which a crash leaves nothing (`Vfs.scratch`).

Invariants
    SC1 Arrays of one Scratch that lie in memory have MEMORY_BYTES together at most; what else a
        build allocates is a sample (`training`) or a chunk of rows.
    SC2 Between two chunks `tick` is called, which raises where the statement was interrupted: the
        statement is then undone as by any exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from m2mdb.index.database import Database
    from m2mdb.index.work import ListsWork

MEMORY_BYTES = 256 << 20
LEAST_FILE = 1 << 20  # bytes of an array that is worth a file
CHUNK_BYTES = 8 << 20  # of rows that are handled at a time


def _never() -> None:
    """Nobody interrupts."""


def _untold(stage: str) -> None:
    """Nobody wants to know."""


class Scratch:
    """Gives out zeroed arrays; each lives until nothing refers to it."""

    __slots__ = ("_left", "_path", "_vfs", "stage", "tick")

    def __init__(self, database: Database | None = None, work: ListsWork | None = None) -> None:
        """Without a database, all arrays stand in memory, and nothing interrupts.

        work  told of the stages that begin, and of each tick
        """
        self._left = MEMORY_BYTES
        self._vfs = None if database is None else database.store.vfs
        self._path = "" if database is None else database.path
        self.tick: Callable[[], None] = _never if database is None else database.check_interrupted
        self.stage: Callable[[str], None] = _untold
        if work is not None:
            self.tick, self.stage = work.tick, work.begin

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
        """An array of zeros, writable (SC1).

        Raises OperationalError where the disk has no room for it.
        """
        kind = np.dtype(dtype)
        size = kind.itemsize
        for each in shape:
            size *= each
        if self._vfs is None or size < LEAST_FILE or size <= self._left:
            self._left -= size
            return np.zeros(shape, kind)
        view = self._vfs.scratch(self._path, size)
        out: np.ndarray = np.frombuffer(view, kind).reshape(shape)
        return out

    def chunks(self, count: int, row_bytes: int) -> Iterator[slice]:
        """Slices of so many rows, of about CHUNK_BYTES each; `tick` before each (SC2)."""
        step = max(256, CHUNK_BYTES // max(1, row_bytes))
        for start in range(0, count, step):
            self.tick()
            yield slice(start, min(start + step, count))
