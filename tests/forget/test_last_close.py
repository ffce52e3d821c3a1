"""The last close scrubs what waits for it, and FORGET tells of what it has done (S26)."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest

import m2mdb
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.query.executor import execute
from tests.forget.conftest import Connect
from tests.forget.rows import Row, insert_in_bulk
from tests.forget.traces import assert_gone, files_at, traces
from tests.vacuum.cases import opened


def test_s26_the_last_close_scrubs_what_another_connection_has_freed(
    con: m2mdb.Connection, connect: Connect, path: str
) -> None:
    """It never wrote, so it has not loaded the free map."""
    rows = [Row(number) for number in range(600)]
    insert_in_bulk(con, rows)
    con.execute("CHECKPOINT truncate")
    con.execute("PRAGMA secure_delete = on")
    reader = connect()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM notes").fetchall()
    con.execute("DROP COLLECTION notes")
    con.close()
    assert traces(files_at(path), rows[7].needles())
    reader.rollback()

    reader.close()

    assert_gone(files_at(path), rows[7].needles())


def test_s26_vacuum_cuts_nothing_off_that_is_to_be_overwritten(
    con: m2mdb.Connection, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that were free before the FORGET are given back, and lie behind the last page."""
    rows = [Row(number) for number in range(1200)]
    insert_in_bulk(con, rows[:20])
    insert_in_bulk(con, rows[20:])
    con.execute("DELETE FROM notes WHERE id NOT IN (?, ?)", [rows[0].id, rows[1].id])
    con.execute("OPTIMIZE")
    con.execute("CHECKPOINT truncate")

    with monkeypatch.context() as patched:  # as if a reader were there, and gone before the cut
        patched.setattr("m2mdb.index.scrubbing.begin_scrub", lambda *_: None)
        receipt = con.execute("FORGET FROM notes WHERE id = ?", [rows[0].id]).fetchone()
        assert receipt[3] == "pending"
        assert traces(files_at(path), rows[30].needles())
        size = os.path.getsize(path)
        remaining = con.execute("VACUUM").fetchone()[3]
        assert "a FORGET is pending" in remaining
        assert os.path.getsize(path) >= size

    con.execute("VACUUM")
    assert con.execute("SELECT status FROM m2m_receipts").fetchall() == [("done",)]
    assert os.path.getsize(path) < size
    assert_gone(files_at(path), rows[0].needles() | rows[30].needles())


@pytest.mark.parametrize("kind", ["lock", "read", "sync", "write", "truncate", "allocate", "share"])
def test_s26_a_forget_that_is_committed_gives_its_receipt(kind: str) -> None:
    """Whatever fails behind its commit: the rows are gone, and an error would deny that."""
    for at_call in range(1, 200):
        vfs = SimVfs(at_call)
        database = opened(vfs)
        execute(database, "CREATE COLLECTION t (k INTEGER PRIMARY KEY, v TEXT)")
        execute(database, "INSERT INTO t (v) VALUES ('a'), ('b'), ('c')")
        fault = vfs.fail(kind, at_call=at_call, error=errno.EIO)
        row = None
        with contextlib.suppress(m2mdb.OperationalError):
            row = execute(database, "FORGET FROM t WHERE k = 2").rows[0]
        vfs.clear_faults()
        other = opened(vfs.fork_process())
        count = execute(other, "SELECT count(*) FROM t").rows[0][0]
        assert (count == 2) == (row is not None), f"{kind} {at_call}"
        if row is not None:
            found = execute(other, "SELECT rows, digest, receipt FROM m2m_receipts").rows
            assert found == [(row[0], row[2], row[5])]
            assert row[3] == "done" or row[4]
        if fault.calls_left > 0:
            return
