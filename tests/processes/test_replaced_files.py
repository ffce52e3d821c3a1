"""A file that was moved or replaced while it is open, and the one that is opened at its path (S29).

Both have the same names for log and shared state. What one connection has acknowledged is neither
lost to the other one's work, nor taken for the other's.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import m2mdb
from m2mdb.wal.shared import Backfill
from tests.processes.peers import Peer

ROWS = [1, 2, 3]


def rows(con: m2mdb.Connection) -> list[int]:
    return [x for (x,) in con.execute("SELECT x FROM t ORDER BY x").fetchall()]


def add(con: m2mdb.Connection, *numbers: int) -> None:
    for x in numbers:
        con.execute("INSERT INTO t VALUES (?, NULL)", (x,))
        con.commit()


def whole(path: Path) -> list[int]:
    """The rows of a file that nobody has open."""
    with m2mdb.connect(path) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = rows(con)
    con.close()
    return found


@pytest.mark.parametrize("mode", ["passive", "full", "restart", "truncate"])
def test_s29_a_checkpoint_of_a_replaced_file_takes_nothing_from_the_one_in_its_place(
    path: Path, mode: str, peer: Peer
) -> None:
    """It copied the new file's frames into the old one and said that they were safe."""
    peer.run("con.close()")
    shutil.copy(path, path.with_name("backup"))  # of the same uuid
    old = m2mdb.connect(path, timeout=0)
    add(old, 10)
    path.with_name("backup").rename(path)

    peer.run("con = m2mdb.connect(path, timeout=0, autocommit=True, compute='numpy')")
    for x in range(20, 24):
        peer.run(f"con.execute('INSERT INTO t VALUES ({x}, NULL)')")
    assert rows(old) == [*ROWS, 10]
    with pytest.raises(m2mdb.OperationalError, match="was moved, removed or replaced"):
        old.execute(f"PRAGMA wal_checkpoint({mode})")
    peer.run("con.execute('INSERT INTO t VALUES (24, NULL)')")
    assert rows(old) == [*ROWS, 10]
    old.close()
    peer.kill()

    assert whole(path) == [*ROWS, 20, 21, 22, 23, 24]


@pytest.mark.parametrize("with_log", [False, True])
@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("old_first", [False, True])
def test_s29_a_file_moved_aside_keeps_its_commits_beside_the_one_in_its_place(
    path: Path, con: m2mdb.Connection, with_log: bool, writes: bool, old_first: bool
) -> None:
    """Its last close took the other file's shared state for its own, and its log for needless."""
    aside = path.with_name("aside.m2m")
    con.backup(path.with_name("backup.m2m"))
    con.execute("PRAGMA wal_checkpoint")
    add(con, *range(10, 20))
    path.rename(aside)
    if with_log:
        Path(f"{path}-wal").rename(f"{aside}-wal")
    path.with_name("backup.m2m").rename(path)

    other = m2mdb.connect(path)
    if writes:
        add(other, 99)
    assert rows(con) == [*ROWS, *range(10, 20)]
    with pytest.raises(m2mdb.OperationalError, match="was moved, removed or replaced"):
        add(con, 98)
    for each in (con, other) if old_first else (other, con):
        assert rows(each) == ([*ROWS, 99] if writes else ROWS) if each is other else True
        each.close()

    assert whole(aside) == [*ROWS, *range(10, 20)]
    assert whole(path) == ([*ROWS, 99] if writes else ROWS)


def test_s29_a_file_moved_aside_that_dies_is_not_taken_for_whole(path: Path, peer: Peer) -> None:
    peer.run("con.backup(path + '.backup')")
    peer.run("con.execute('INSERT INTO t VALUES (4, NULL)'); con.commit()")
    aside = path.with_name("aside.m2m")
    path.rename(aside)
    Path(f"{path}.backup").rename(path)
    assert whole(path) == ROWS
    peer.kill()

    with pytest.raises(m2mdb.CorruptDatabaseError, match="without its log"):
        m2mdb.connect(aside)


def test_s29_a_live_file_copied_with_its_log_is_no_danger_to_the_one_it_replaces(
    path: Path, con: m2mdb.Connection
) -> None:
    add(con, 4)
    for side in ("", "-wal"):
        shutil.copy(f"{path}{side}", f"{path}{side}.copy")
    add(con, 5)
    aside = path.with_name("aside.m2m")
    path.rename(aside)
    for side in ("", "-wal"):
        os.replace(f"{path}{side}.copy", f"{path}{side}")

    other = m2mdb.connect(path)
    add(other, 6)
    assert rows(con) == [*ROWS, 4, 5]
    other.close()
    con.close()

    assert whole(path) == [*ROWS, 4, 6]
    assert whole(aside) == [*ROWS, 4, 5]


def test_s29_the_first_to_open_and_the_first_to_write_make_files_of_their_own(path: Path) -> None:
    """O5, CR3: whoever still has the old ones is left alone."""
    shared, log = Path(f"{path}-shm"), Path(f"{path}-wal")
    for file in (shared, log):
        file.write_bytes(b"somebody's" * 1000)
    with shared.open("rb") as old_shared, log.open("rb") as old_log:
        con = m2mdb.connect(path)
        assert rows(con) == ROWS
        add(con, 4)
        for old, new in ((old_shared, shared), (old_log, log)):
            assert old.read() == b"somebody's" * 1000
            assert os.fstat(old.fileno()).st_ino != new.stat().st_ino
    con.close()
    assert whole(path) == [*ROWS, 4]


def test_s29_shared_state_of_another_file_is_neither_written_nor_believed(
    path: Path, con: m2mdb.Connection
) -> None:
    """CL5: where -shm could not be made anew, whoever finds another's there stops."""
    add(con, 4)
    assert con.database is not None
    store = con.database.store
    shared = store.shared
    assert shared is not None
    foreign = store.identity._replace(inode=store.identity.inode + 1)
    shared.begin(foreign, store.end._replace(generation=0), Backfill(0, 0, 0))

    for statement in ("INSERT INTO t VALUES (5, NULL)", "PRAGMA wal_checkpoint"):
        with pytest.raises(m2mdb.DatabaseError, match=r"filled for another file|not of generation"):
            con.execute(statement)
    con.close()

    assert Path(f"{path}-wal").exists()
    assert whole(path) == [*ROWS, 4]
