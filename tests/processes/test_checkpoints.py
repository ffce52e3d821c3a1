"""Checkpoints between processes, long readers, and what shows them (S10, S28)."""

from __future__ import annotations

import gc
import os
import warnings
from pathlib import Path

import pytest

import m2mdb
from tests.processes.peers import Peer

HOLD = "con.execute('BEGIN'); con.execute('SELECT * FROM t').fetchall()"
LET_GO = "con.commit()"


def fill(con: m2mdb.Connection, count: int = 20) -> None:
    """Commits that put many pages into the log."""
    for _ in range(count):
        con.execute("INSERT INTO t (body) VALUES (?)", ("word " * 900,))
        con.commit()


def checkpoint(con: m2mdb.Connection, mode: str) -> tuple[int, int, int]:
    busy, log, copied = con.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return busy, log, copied


def stats(con: m2mdb.Connection) -> dict[str, object]:
    cursor = con.execute("SELECT * FROM m2m_stats")
    row = cursor.fetchone()
    assert cursor.description is not None
    return dict(zip((column[0] for column in cursor.description), row, strict=True))


def size_of_log(path: Path) -> int:
    return os.path.getsize(f"{path}-wal")


def test_s10_each_mode_goes_as_far_as_a_reader_of_another_process_lets_it(
    path: Path, con: m2mdb.Connection, peer: Peer
) -> None:
    fill(con)
    peer.run(HOLD)
    fill(con)

    busy, log, copied = checkpoint(con, "passive")
    assert busy == 0 and 0 < copied < log, "what the reader's snapshot has"
    for mode in ("full", "restart", "truncate"):
        assert checkpoint(con, mode) == (1, log, copied)
    size = size_of_log(path)

    peer.run(LET_GO)
    assert checkpoint(con, "passive") == (0, log, log)
    assert checkpoint(con, "full") == (0, log, log)
    assert checkpoint(con, "restart") == (0, 0, 0)
    assert size_of_log(path) == size, "the log keeps its length"
    assert checkpoint(con, "truncate") == (0, 0, 0)
    assert size_of_log(path) < 4096
    assert peer.run("answer = con.execute('SELECT count(*) FROM t').fetchone()[0]") == 43


def test_s10_full_waits_for_a_reader_and_goes_on(con: m2mdb.Connection, peer: Peer) -> None:
    peer.run(HOLD)
    fill(con, 3)
    con.execute("PRAGMA busy_timeout = 60000")

    peer.tell("import time; time.sleep(0.1); con.commit()")
    busy, log, copied = checkpoint(con, "full")
    peer.hear()

    assert busy == 0 and log == copied > 0


def test_s10_a_commit_checkpoints_by_itself(con: m2mdb.Connection, peer: Peer) -> None:
    assert con.execute("PRAGMA wal_autocheckpoint").fetchone()[0] == 1000
    con.execute("PRAGMA wal_autocheckpoint = 30")
    fill(con, 30)
    assert stats(con)["log_pages_copied"] != 0

    peer.run("con.execute('PRAGMA wal_autocheckpoint = 0')")
    con.execute("CHECKPOINT truncate")
    for number in range(100, 140):
        peer.run(f"con.execute('INSERT INTO t VALUES ({number}, NULL)'); con.commit()")
    found = stats(con)
    assert (found["log_pages_copied"], found["log_pages"]) >= (0, 40)
    assert found["log_pages_copied"] == 0
    with pytest.raises(m2mdb.ProgrammingError, match="0 or more"):
        con.execute("PRAGMA wal_autocheckpoint = -1")


def test_s28_stats_show_the_log_and_its_oldest_reader(
    path: Path, con: m2mdb.Connection, peer: Peer
) -> None:
    fill(con)
    con.execute("CREATE TABLE gone (x INTEGER)")
    con.collection("gone").add({"x": list(range(5000))})
    con.commit()
    peer.run(HOLD)
    read = stats(con)["last_commit"]
    con.execute("DROP TABLE gone")
    con.commit()
    con.execute("INSERT INTO t (body) VALUES ('new')")
    con.commit()

    found = stats(con)

    assert found["last_commit"] == con.commit_number
    assert found["log_bytes"] == size_of_log(path)
    assert (found["readers"], found["oldest_commit"], found["oldest_pid"]) == (1, read, peer.pid)
    held = found["pages_held"]
    assert isinstance(held, int) and held > 5, "what was dropped is still read"
    peer.run(LET_GO)
    after = stats(con)
    assert (after["readers"], after["oldest_commit"], after["oldest_pid"]) == (0, None, None)
    assert after["pages_held"] == 0 and after["free_pages"] == found["free_pages"]
    assert (after["page_size"], after["checkpoint_error"]) == (4096, None)


def test_s28_a_transaction_counts_as_a_reader_of_its_own(con: m2mdb.Connection) -> None:
    assert stats(con)["readers"] == 0
    con.execute("BEGIN")
    con.execute("SELECT * FROM t").fetchall()
    assert stats(con)["readers"] == 1
    assert stats(con)["oldest_pid"] == os.getpid()
    con.execute("INSERT INTO t (body) VALUES ('one')")
    assert stats(con)["free_pages"] == 0
    con.rollback()


@pytest.mark.parametrize("way", ["execute", "commit", "add", "autocommit"])
def test_s28_a_checkpoint_held_back_by_a_reader_is_warned_of(
    path: Path, peer: Peer, way: str
) -> None:
    """Where the program's own line stands, once until the log has doubled, with the process."""
    con = m2mdb.connect(path, timeout=0, autocommit=way == "autocommit")
    con.execute("PRAGMA wal_autocheckpoint = 2")
    peer.run(HOLD)

    def write() -> None:
        body = "word " * 900
        if way == "add":
            con.collection("t").add({"body": [body]})
            return
        con.execute("INSERT INTO t (body) VALUES (?)", (body,))
        if way == "execute":
            con.execute("COMMIT")
        elif way == "commit":
            con.commit()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(40):
            write()
    texts = [str(each.message) for each in caught]
    assert {each.category for each in caught} == {m2mdb.LongReaderWarning}
    assert {each.filename for each in caught} == {__file__}
    assert 2 <= len(texts) <= 8
    assert f"process {peer.pid} reads commit" in texts[0]

    peer.run(LET_GO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(40):
            write()
    con.close()


def test_s28_a_warning_made_an_error_undoes_no_commit(con: m2mdb.Connection, peer: Peer) -> None:
    con.execute("PRAGMA wal_autocheckpoint = 1")
    peer.run(HOLD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(m2mdb.LongReaderWarning):
            fill(con)

    assert not con.in_transaction
    count = con.execute("SELECT count(*) FROM t").fetchone()[0]
    assert count > 3
    con.execute("INSERT INTO t (body) VALUES ('more')")
    con.commit()
    assert con.execute("SELECT count(*) FROM t").fetchone()[0] == count + 1


@pytest.mark.parametrize("way", ["execute", "commit", "add"])
def test_s28_a_statement_that_is_committed_raises_no_warning(
    path: Path, con: m2mdb.Connection, peer: Peer, way: str
) -> None:
    """Made an error, it is the next statement's, which has done nothing."""
    con.execute("PRAGMA wal_autocheckpoint = 1")
    con.autocommit = way == "execute"
    peer.run(HOLD)
    told, done = 0, con.execute("SELECT count(*) FROM t").fetchone()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(60):
            before = con.commit_number
            try:
                if way == "add":
                    con.collection("t").add({"body": ["word " * 900]})
                else:
                    con.execute("INSERT INTO t (body) VALUES (?)", ("word " * 900,))
            except m2mdb.LongReaderWarning:
                told += 1
                assert con.commit_number == before
                assert not con.in_transaction
                continue
            con.commit()
            done += 1
    assert told > 1
    assert con.execute("SELECT count(*) FROM t").fetchone()[0] == done


def test_s28_journal_size_limit_cuts_a_log_that_is_begun_anew(
    path: Path, con: m2mdb.Connection, peer: Peer
) -> None:
    assert con.execute("PRAGMA journal_size_limit").fetchone()[0] == -1
    fill(con, 60)
    long = size_of_log(path)
    con.execute("PRAGMA journal_size_limit = 20000")
    assert checkpoint(con, "passive")[0] == 0
    assert size_of_log(path) == long > 200_000

    fill(con, 1)

    assert size_of_log(path) < 100_000
    peer.run("con.execute(\"INSERT INTO t (body) VALUES ('two')\"); con.commit()")
    fill(con, 60)
    con.execute("PRAGMA journal_size_limit = 0")
    assert checkpoint(con, "restart")[0] == 0
    assert size_of_log(path) < 4096
    fill(con, 3)
    assert con.execute("PRAGMA journal_size_limit = -7").fetchone()[0] == -1
    with pytest.raises(m2mdb.ProgrammingError, match="expected bytes"):
        con.execute("PRAGMA journal_size_limit = 'long'")
    peer.kill()
    con.close()
    again = m2mdb.connect(path)
    assert again.execute("SELECT count(*) FROM t").fetchone()[0] == 3 + 60 + 1 + 1 + 60 + 3
    assert again.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    again.close()


def test_s28_a_log_cut_by_its_limit_is_recovered_after_a_kill(path: Path, peer: Peer) -> None:
    insert = "con.execute('INSERT INTO t VALUES (?, ?)', (number, 'word ' * 900)); con.commit()"
    peer.run(f"for number in range(100, 200): {insert}")
    assert size_of_log(path) > 500_000
    peer.run("con.execute('CHECKPOINT'); con.execute('PRAGMA journal_size_limit = 0')")
    peer.run(f"number = 200; {insert}")
    assert size_of_log(path) < 300_000, "what a log begins with"
    peer.kill()

    con = m2mdb.connect(path)
    assert con.execute("SELECT count(*) FROM t").fetchone()[0] == 3 + 101
    con.close()


@pytest.mark.parametrize("autocommit", [False, True])
def test_s28_a_forgotten_cursor_holds_no_mark(path: Path, peer: Peer, autocommit: bool) -> None:
    con = m2mdb.connect(path, autocommit=autocommit)
    cursor = con.execute("SELECT x FROM t ORDER BY x")
    assert cursor.fetchone()[0] == 1
    gc.collect()

    assert peer.run("answer = con.execute('SELECT readers FROM m2m_stats').fetchone()[0]") == 0
    peer.run("con.execute('DELETE FROM t'); con.commit()")
    assert peer.run("answer = con.execute('CHECKPOINT truncate').fetchone()[0]") == 0
    assert [x for (x,) in cursor] == [2, 3], "its rows are copies of one moment"
    con.close()
