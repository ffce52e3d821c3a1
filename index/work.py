"""Work: how far a build of lists or an OPTIMIZE is, told to who waits for it.

    handler(task, done, total)   of tasks that may take seconds: lists of a segment (rows, by
                                 stage), the merges of an OPTIMIZE (segments)

Stages of a build take about the shares of time that stand in STAGES: `done` is where a stage
begins, and the same again, four times a second at most, while it lasts. The last call of a task has
done = total.

Invariants
    WK1 What the handler raises ends the statement, which is undone as by any exception.
    WK2 Without a handler nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2mdb.index.database import Database

Handler = Callable[[str, int, int], object]
STAGES = {"training": 0.0, "assigning": 0.3, "coding": 0.5, "measuring": 0.65}  # begun at
AGAIN_SECONDS = 0.25


def tell(database: Database, task: str, done: int, total: int) -> None:
    """Tell how far a task is."""
    if database.work is not None:
        database.work(task, done, total)


class ListsWork:
    """The build of one segment's lists."""

    __slots__ = ("_begun", "_database", "_last", "_rows", "_stage", "_task")

    def __init__(self, database: Database, task: str, rows: int) -> None:
        """`task` says whose lists they are."""
        self._database = database
        self._task = task
        self._rows = rows
        self._stage = ""
        self._begun = 0
        self._last = 0.0

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self._stage = f"{self._task}: {stage}"
        self._begun = int(STAGES[stage] * self._rows)
        self._tell()

    def tick(self) -> None:
        """Look for an interrupt, and tell that the stage goes on."""
        database = self._database
        database.check_interrupted()
        if database.work is None or not self._stage:
            return
        if database.store.vfs.monotonic() - self._last >= AGAIN_SECONDS:
            self._tell()

    def end(self) -> None:
        """The lists are made."""
        tell(self._database, self._task, self._rows, self._rows)

    def _tell(self) -> None:
        if self._database.work is not None:
            self._last = self._database.store.vfs.monotonic()
            tell(self._database, self._stage, self._begun, self._rows)
