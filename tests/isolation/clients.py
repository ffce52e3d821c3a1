"""Clients: what the processes of an isolation campaign do to registers and lists.

The cells are rows of one collection: registers r0… hold a number, lists l0… a text of elements
with commas between, `version` the number of the last commit. Every value written is made of the
client's number and a count, so no two are the same. Each writes down what it did and saw.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Any

import m2mdb
from tests.isolation.history import Operation, Recorder

REGISTERS = 12
LISTS = 5
LONGEST_LIST = 400  # characters; then it is begun anew
TIMEOUT = 120.0  # seconds

INITIAL: dict[str, Any] = {
    "version": 0,
    **{f"r{i}": -i for i in range(REGISTERS)},
    **{f"l{i}": f"first{i}" for i in range(LISTS)},
}
_CELLS = [key for key in INITIAL if key != "version"]


def create(path: Path) -> None:
    """The cells as they are in the beginning."""
    con = m2mdb.connect(path, compute="numpy")
    con.execute("CREATE COLLECTION cells (id TEXT PRIMARY KEY, number INTEGER, items TEXT)")
    for key, value in INITIAL.items():
        column = "items" if key[0] == "l" else "number"
        con.execute(f"INSERT INTO cells (id, {column}) VALUES (?, ?)", (key, value))
    con.commit()
    con.close()


class RolledBack(Exception):
    """The transaction was given up on purpose, or refused as stale."""


class Session:
    """One connection, and the transaction that is open on it."""

    def __init__(self, path: Path, folder: Path, name: str, rng: Random, **options: Any) -> None:
        self.rng = rng
        self.name = name
        self._path = path
        self._options = options
        self.con = self._connect()
        self._recorder = Recorder(folder, name)
        self._count = 0
        self._operations: list[Operation] = []
        self._begin = 0

    def _connect(self) -> m2mdb.Connection:
        con = m2mdb.connect(self._path, timeout=TIMEOUT, compute="numpy", **self._options)
        con.execute(f"PRAGMA wal_autocheckpoint = {self.rng.choice((10, 100, 1000))}")
        return con

    def reopen(self) -> None:
        self.con.close()
        self.con = self._connect()

    def close(self) -> None:
        self.con.close()
        self._recorder.close()

    def begin(self) -> None:
        """A transaction begins now, as far as the clock is asked."""
        self._operations = []
        self._begin = time.monotonic_ns()

    def end(self, outcome: str, version: int = 0) -> None:
        """It has ended, and is written down."""
        now = time.monotonic_ns()
        self._recorder.record(self._begin, now, outcome, version, self._operations)

    # -- statements ----------------------------------------------------------------------------

    def look(self, key: str) -> Any:
        """Read one cell."""
        number, items = self.con.execute(
            "SELECT number, items FROM cells WHERE id = ?", (key,)
        ).fetchone()
        value = items if key[0] == "l" else number
        self._operations.append(["r", key, value])
        return value

    def look_at_all(self) -> None:
        """Read all cells with one statement."""
        rows = self.con.execute("SELECT id, number, items FROM cells").fetchall()
        found = {id_: items if id_[0] == "l" else number for id_, number, items in rows}
        assert len(found) == len(INITIAL), found
        self._operations.append(["S", found])

    def change(self, key: str) -> None:
        """Set a register, or append to a list, by what it holds in the statement itself."""
        self._count += 1
        if key[0] == "r":
            value = int(self.name.replace(".", "")) * 100_000_000 + self._count
            self.con.execute("UPDATE cells SET number = ? WHERE id = ?", (value, key))
            self._operations.append(["w", key, value])
            return
        element = f"{self.name}:{self._count}"
        if self.rng.random() < 0.02 or len(self.look(key)) > LONGEST_LIST:
            self.con.execute("UPDATE cells SET items = ? WHERE id = ?", (element, key))
            self._operations.append(["w", key, element])
        else:
            self.con.execute(
                "UPDATE cells SET items = items || ',' || ? WHERE id = ?", (element, key)
            )
            self._operations.append(["a", key, element])

    def raise_version(self) -> int:
        """The commit's number, one more than the last one's."""
        version = int(
            self.con.execute(
                "UPDATE cells SET number = number + 1 WHERE id = 'version' RETURNING number"
            ).fetchone()[0]
        )
        self._operations.append(["r", "version", version - 1])
        self._operations.append(["w", "version", version])
        return version

    def savepoint(self) -> None:
        self.con.execute("SAVEPOINT here")
        self._operations.append(["s"])

    def rollback_to(self) -> None:
        self.con.execute("ROLLBACK TO here")
        self._operations.append(["z"])


# -- transactions ------------------------------------------------------------------------------


def read_one(session: Session, other: Session) -> None:
    """A statement by itself."""
    session.begin()
    if session.rng.random() < 0.9:
        session.look(session.rng.choice(list(INITIAL)))
    else:
        session.look_at_all()
    session.end("read")


def read_some(session: Session, other: Session) -> None:
    """A transaction that reads; now and then it lasts, and the other connection writes."""
    rng = session.rng
    session.begin()
    session.con.execute("BEGIN")
    keys = rng.choices(list(INITIAL), k=rng.randint(2, 20))
    for key in [*keys, keys[0]]:
        session.look(key)
        if rng.random() < 0.01:
            time.sleep(rng.random() * 0.01)
        if rng.random() < 0.01 and other is not session:
            write(other, other)
    if rng.random() < 0.2:
        session.look_at_all()
    session.con.commit()
    session.end("read")


def write(session: Session, other: Session) -> None:
    """A transaction that writes, in one of the ways in which it may begin, and may be undone."""
    rng = session.rng
    session.begin()
    try:
        version = _write(session, rng)
        session.con.commit()
        session.end("committed", version)
    except RolledBack:
        session.con.rollback()
        session.end("aborted")


def _write(session: Session, rng: Random) -> int:
    way = rng.randrange(3)
    version = 0
    if way == 0:
        session.con.execute("BEGIN IMMEDIATE")
    elif way == 1:
        session.con.execute("BEGIN")
        for key in rng.choices(_CELLS, k=rng.randint(1, 3)):
            session.look(key)
        version = _first_write(session)
    else:
        version = session.raise_version()  # it is the first write that begins the transaction
    for key in rng.choices(_CELLS, k=rng.randint(1, 4)):
        session.change(key)
        if rng.random() < 0.3:
            session.look(rng.choice(_CELLS))
    if rng.random() < 0.2:
        session.savepoint()
        for key in rng.choices(_CELLS, k=2):
            session.change(key)
            session.look(key)
        session.rollback_to()
        session.look(rng.choice(_CELLS))
    if rng.random() < 0.1:
        raise RolledBack
    return version or session.raise_version()


def _first_write(session: Session) -> int:
    """The first write of a transaction that has read: refused where its snapshot is stale (S13)."""
    try:
        return session.raise_version()
    except m2mdb.OperationalError as error:
        assert "stale snapshot" in str(error), error
        raise RolledBack from error


def run(path: Path, folder: Path, number: int, seed: int, until: float, synchronous: str) -> None:
    """One process: two connections, transactions on either until the time is over."""
    rng = Random(seed)
    share = rng.choice((0.02, 0.1, 0.4))  # of writing transactions
    sessions = [
        Session(path, folder, f"{number}.{i}", rng, synchronous=synchronous) for i in range(2)
    ]
    while time.monotonic() < until:
        rng.shuffle(sessions)
        session, other = sessions
        if rng.random() < share:
            write(session, other)
        elif rng.random() < 0.4:
            read_one(session, other)
        else:
            read_some(session, other)
        if rng.random() < 0.001:
            session.reopen()
    for session in sessions:
        session.close()


def checkpoint(path: Path, seed: int, until: float) -> None:
    """One process that checkpoints in all modes."""
    rng = Random(seed)
    con = m2mdb.connect(path, timeout=0.05, compute="numpy")
    while time.monotonic() < until:
        mode = rng.choice(("passive", "full", "restart", "truncate"))
        con.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        time.sleep(rng.random() * 0.1)
    con.close()


def look_at_the_end(path: Path, folder: Path) -> None:
    """The state that is left, as one more read."""
    session = Session(path, folder, "99.9", Random(0))
    session.begin()
    session.look_at_all()
    session.end("read")
    found = session.con.execute("PRAGMA integrity_check").fetchall()
    assert [tuple(row) for row in found] == [("ok",)], found
    session.close()
