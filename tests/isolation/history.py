"""Histories: what each session did and saw, written down while it happens.

A session is one connection; each writes a file of its own, one JSON list a transaction:

    [session, begin, end, outcome, version, operations]

    begin      nanoseconds of the system's monotonic clock, before the first statement
    end        the same, after the last one (COMMIT, ROLLBACK) has returned
    outcome    "committed", "aborted", or "read" where nothing was written
    version    what the transaction set the cell `version` to, where it committed; else 0

    operations
      ["r", key, value]    the value that a statement found
      ["S", {key: value}]  the values of all cells, found by one statement
      ["w", key, value]    a write; all values ever written differ
      ["a", key, element]  an element appended to a list by the statement itself
      ["s"], ["z"]         a savepoint; everything since is rolled back
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

Operation = list[Any]


class Transaction(NamedTuple):
    """One transaction of a history."""

    session: str
    begin: int
    end: int
    outcome: str
    version: int
    operations: list[Operation]


class Recorder:
    """Appends a session's transactions to its file."""

    def __init__(self, folder: Path, session: str) -> None:
        self.session = session
        self._file: TextIO = (folder / f"{session}.history").open("a", encoding="ascii")

    def record(
        self, begin: int, end: int, outcome: str, version: int, operations: list[Operation]
    ) -> None:
        line = json.dumps([self.session, begin, end, outcome, version, operations])
        self._file.write(line + "\n")

    def close(self) -> None:
        self._file.close()


def load(folder: Path) -> Iterable[Transaction]:
    """All transactions of a folder, each session's in its order."""
    for path in sorted(folder.glob("*.history")):
        with path.open(encoding="ascii") as lines:
            for line in lines:
                yield Transaction(*json.loads(line))
