"""Interrupted calls keep nobody waiting: Ctrl-C at a system call, then another process (K3).

It opens the file, writes and checkpoints before the interrupted connection is used again.
"""

from __future__ import annotations

import pytest

from m2mdb.connection import Connection
from m2mdb.index.database import Database
from m2mdb.pager.sim_machine import Call
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.store import StoreOptions

pytestmark = pytest.mark.usefixtures("only_own_garbage")

PATH = "/d/a.m2m"
STEP = 11  # of all calls every so many are interrupted, and each that gives a lock up
MOST = 40  # interrupts of one operation


class Interrupt(BaseException):
    """As KeyboardInterrupt, and not taken for one of pytest's."""


def connect(vfs: SimVfs) -> Connection:
    options = StoreOptions(create=True, timeout=0.0)
    return Connection(Database.open(vfs, PATH, options, autocommit=True), PATH)


def rows(con: Connection, statement: str) -> list[tuple[object, ...]]:
    return con.execute(statement).fetchall()


def built(vfs: SimVfs) -> Connection:
    con = connect(vfs)
    con.execute("CREATE COLLECTION t (k INTEGER PRIMARY KEY, g INTEGER, v TEXT)")
    con.collection("t").add([{"k": k, "g": k % 5, "v": f"row {k} " * 9} for k in range(400)])
    con.execute("DELETE FROM t WHERE k < 250")
    con.execute("CREATE COLLECTION u (k INTEGER PRIMARY KEY)")
    for k in range(5):
        con.execute("INSERT INTO u VALUES (?)", (k,))
    return con


OPERATIONS = (
    "SELECT count(*) FROM u",
    "INSERT INTO u VALUES (100) RETURNING k",
    "PRAGMA wal_checkpoint",
    "PRAGMA wal_checkpoint(truncate)",
    "PRAGMA incremental_vacuum(20)",
    "VACUUM",
    "FORGET FROM t WHERE g = 1",
    "SELECT * FROM m2m_stats",
)


def interrupted(vfs: SimVfs, con: Connection, statement: str, at: int = 0) -> list[str]:
    """Run a statement; the `at`-th call of it is interrupted. The kinds of the calls."""
    kinds: list[str] = []

    def hook(call: Call) -> None:
        kinds.append(call.kind)
        if len(kinds) == at:
            raise Interrupt

    vfs.on_call = hook
    try:
        con.execute(statement).fetchall()
    except Interrupt:
        pass
    finally:
        vfs.on_call = None
    return kinds


@pytest.mark.parametrize("statement", OPERATIONS)
def test_s12_an_interrupted_connection_keeps_no_lock(statement: str) -> None:
    vfs = SimVfs(2)
    kinds = interrupted(vfs, built(vfs), statement)
    points = [at for at, kind in enumerate(kinds, 1) if kind == "unlock" or at % STEP == 0]
    for at in points[:: 1 + len(points) // MOST]:
        vfs = SimVfs(2)
        con = built(vfs)
        expected = rows(con, "SELECT count(*), sum(k) FROM t WHERE g <> 1")
        interrupted(vfs, con, statement, at)

        where = f"{statement}, call {at} of {len(kinds)}"
        other = connect(vfs.fork_process())
        other.execute("INSERT INTO u VALUES (1000)")
        assert rows(other, "PRAGMA wal_checkpoint(truncate)")[0][0] == 0, where
        assert rows(other, "SELECT count(*), sum(k) FROM t WHERE g <> 1") == expected, where

        assert rows(con, "SELECT count(*) FROM u WHERE k = 1000") == [(1,)], where
        con.execute("INSERT INTO u VALUES (1001)")
        assert rows(con, "PRAGMA integrity_check") == [("ok",)], where
        other.close()
        con.close()
