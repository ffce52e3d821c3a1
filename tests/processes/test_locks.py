"""Locks between processes: who has what, how long one waits, and who is named (S1, S2, S5, S13)."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

import m2mdb
from tests.processes.peers import Peer, PeerError

INSERT = "con.execute('INSERT INTO t VALUES ({0}, NULL)')"


def beside(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_s01_closing_one_connection_keeps_the_locks_of_another(
    path: Path, con: m2mdb.Connection, peer: Peer
) -> None:
    """POSIX's own locks would all go with the first descriptor that is closed."""
    second = m2mdb.connect(path, timeout=0)
    con.execute("INSERT INTO t VALUES (4, NULL)")

    second.close()
    path.read_bytes()  # a descriptor of somebody else's, opened and closed

    with pytest.raises(PeerError, match=rf"DatabaseBusyError: .*process {os.getpid()} writes"):
        peer.run(INSERT.format(5))
    con.commit()
    peer.run(INSERT.format(5) + "; con.commit()")


def test_s01_a_snapshot_outlives_another_connection_of_its_process(
    path: Path, con: m2mdb.Connection, peer: Peer
) -> None:
    con.execute("BEGIN")
    assert con.execute("SELECT count(*) FROM t").fetchone()[0] == 3
    second = m2mdb.connect(path, timeout=0)
    second.execute("SELECT * FROM t").fetchall()
    second.close()

    peer.run("con.execute('DELETE FROM t'); con.commit()")
    assert peer.run("answer = con.execute('CHECKPOINT restart').fetchone()[0]") == 1

    assert con.execute("SELECT count(*) FROM t").fetchone()[0] == 3
    con.commit()
    assert peer.run("answer = con.execute('CHECKPOINT restart').fetchone()[0]") == 0


def test_s01_the_locks_of_a_killed_process_are_free(
    path: Path, con: m2mdb.Connection, peer: Peer
) -> None:
    peer.run("con.execute('BEGIN IMMEDIATE'); " + INSERT.format(4))
    with pytest.raises(m2mdb.DatabaseBusyError, match=f"process {peer.pid} writes"):
        con.execute("INSERT INTO t VALUES (5, NULL)")

    peer.kill()

    con.execute("INSERT INTO t VALUES (5, NULL)")
    con.commit()
    assert [x for (x,) in con.execute("SELECT x FROM t").fetchall()] == [1, 2, 3, 5]


def test_s01_a_busy_timeout_is_waited_for_and_the_holder_is_named(
    path: Path, con: m2mdb.Connection, peer: Peer
) -> None:
    con.execute("PRAGMA busy_timeout = 60")
    peer.run("con.execute('BEGIN IMMEDIATE')")

    with pytest.raises(m2mdb.DatabaseBusyError) as raised:
        con.execute("INSERT INTO t VALUES (4, NULL)")

    assert re.search(rf"process {peer.pid} writes; waited 0\.[1-9] s", str(raised.value))
    con.execute("PRAGMA busy_timeout = 60000")
    peer.tell("import time; time.sleep(0.05); con.rollback()")
    con.execute("INSERT INTO t VALUES (4, NULL)")
    con.commit()
    peer.hear()


def test_s01_a_busy_handler_is_asked_instead(path: Path, con: m2mdb.Connection, peer: Peer) -> None:
    asked: list[int] = []

    def handler(count: int) -> bool:
        asked.append(count)
        if len(asked) == 7:
            peer.run("con.rollback()")
        return len(asked) != 3

    con.set_busy_handler(handler)
    peer.run("con.execute('BEGIN IMMEDIATE')")

    with pytest.raises(m2mdb.DatabaseBusyError, match=f"process {peer.pid} writes"):
        con.execute("INSERT INTO t VALUES (4, NULL)")
    assert asked == [0, 1, 2]
    con.execute("INSERT INTO t VALUES (4, NULL)")
    assert asked == [0, 1, 2, 0, 1, 2, 3]
    con.commit()

    con.set_busy_handler(None)
    peer.run("con.execute('BEGIN IMMEDIATE')")
    with pytest.raises(m2mdb.DatabaseBusyError, match="; waited"):
        con.execute("INSERT INTO t VALUES (5, NULL)")
    with pytest.raises(m2mdb.InterfaceError, match="not callable"):
        con.set_busy_handler(3)  # type: ignore[arg-type]


def test_s02_a_reader_sees_each_commit_of_another_process_at_once(
    con: m2mdb.Connection, peer: Peer
) -> None:
    for number in range(4, 40):
        peer.run(INSERT.format(number) + "; con.commit()")
        assert con.execute("SELECT max(x) FROM t").fetchone()[0] == number


def test_s02_a_mark_is_dead_when_its_process_is(con: m2mdb.Connection, peer: Peer) -> None:
    peer.run("con.execute('BEGIN'); con.execute('SELECT * FROM t').fetchall()")
    con.execute("INSERT INTO t VALUES (4, NULL)")
    con.commit()
    assert con.execute("SELECT oldest_pid FROM m2m_stats").fetchone()[0] == peer.pid

    peer.kill()

    assert con.execute("SELECT readers, oldest_pid FROM m2m_stats").fetchone() == (0, None)
    assert con.execute("CHECKPOINT truncate").fetchone()[0] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_s05_a_forked_child_keeps_no_lock_of_its_parent(path: Path, peer: Peer) -> None:
    answer = peer.run(
        "import time\n"
        "con.execute('BEGIN IMMEDIATE')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    try: con.execute('SELECT 1')\n"
        "    except m2mdb.InterfaceError: time.sleep(60)\n"
        "    os._exit(1)\n"
        "answer = child"
    )
    try:
        peer.kill()
        con = m2mdb.connect(path, timeout=60)  # until the child has run at all
        con.execute("INSERT INTO t VALUES (4, NULL)")
        con.commit()
        con.close()
        assert beside(path) == ["notes.m2m"]
        os.kill(answer, 0)  # it lives on
    finally:
        os.kill(answer, signal.SIGKILL)


def test_s13_only_a_transaction_that_has_read_is_refused_as_stale(
    con: m2mdb.Connection, peer: Peer
) -> None:
    peer.run("con.execute('BEGIN')")
    con.execute("UPDATE t SET body = 'changed' WHERE x = 1")
    con.commit()
    peer.run("con.execute(\"UPDATE t SET body = body || ' twice' WHERE x = 1\"); con.commit()")
    assert con.execute("SELECT body FROM t WHERE x = 1").fetchone()[0] == "changed twice"

    peer.run("con.execute('BEGIN'); con.execute('SELECT * FROM t').fetchall()")
    con.execute("UPDATE t SET body = 'again' WHERE x = 1")
    con.commit()

    with pytest.raises(PeerError, match=r"StaleSnapshotError: .*stale snapshot of commit"):
        peer.run(INSERT.format(4))
    assert peer.run("answer = con.execute('SELECT body FROM t').fetchone()[0]") == "changed twice"
    peer.run("con.rollback(); " + INSERT.format(4) + "; con.commit()")
    assert con.execute("SELECT count(*) FROM t").fetchone()[0] == 4
