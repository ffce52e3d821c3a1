"""The time and the author of each commit, as m2m_history shows them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb.index.moments import AFTER, KIND, SPARE, key_of
from m2mdb.pager.btree import BTree

START = datetime.datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=datetime.UTC)


class Clock:
    """A second passes whenever it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> datetime.datetime:
        self.asked += 1
        return START + datetime.timedelta(seconds=self.asked)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.m2m"


def opened(path: Path | str, clock: Any = None, keep: int = 50) -> m2mdb.Connection:
    con = m2mdb.connect(path, autocommit=True, clock=clock or Clock())
    con.execute(f"PRAGMA keep_commits = {keep}")
    con.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, n INTEGER)")
    return con


def stored_moments(con: m2mdb.Connection) -> int:
    """How many the catalog's tree has, within reach or not."""
    assert con.database is not None
    with con.database.reading() as view:
        tree = BTree(view.pages, view.header().catalog_root)
        return sum(1 for _ in tree.scan(KIND, AFTER))


def moments(con: m2mdb.Connection) -> list[Any]:
    return con.execute('SELECT time, author FROM m2m_history ORDER BY "commit"').fetchall()


def test_each_commit_has_its_time_and_author(path: Path) -> None:
    clock = Clock()
    con = opened(path, clock)
    con.execute("INSERT INTO t (n) VALUES (1)")
    first = clock.asked
    con.execute("PRAGMA author = 'Ada Lovelace'")
    assert con.execute("PRAGMA author").fetchall() == [("Ada Lovelace",)]
    con.execute("BEGIN")
    con.execute("INSERT INTO t (n) VALUES (2)")
    con.execute("UPDATE t SET n = 5")
    con.execute("COMMIT")
    con.execute("PRAGMA author = ''")
    con.execute("DELETE FROM t WHERE id = 1")

    expected = [
        (START + datetime.timedelta(seconds=first + step), author)
        for step, author in enumerate((None, "Ada Lovelace", None))
    ]
    assert moments(con) == expected
    con.close()
    with opened(path) as again:
        assert moments(again) == expected
        assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = again.execute(
            "SELECT written FROM m2m_history WHERE author = 'Ada Lovelace' AND time > ?", (START,)
        )
        assert found.fetchall() == [(2,)]
    again.close()


def test_what_is_not_committed_has_no_moment(path: Path) -> None:
    with opened(path) as con:
        con.execute("BEGIN")
        con.execute("INSERT INTO t (n) VALUES (1)")
        assert moments(con) == [(None, None)]
        con.execute("ROLLBACK")
        assert moments(con) == []
        con.execute("BEGIN")
        con.execute("COMMIT")
        assert moments(con) == []


def test_moments_go_when_as_of_cannot_reach_their_commits(path: Path) -> None:
    for keep in (0, 3, 40):
        with opened(path, keep=keep) as con:
            con.execute("PRAGMA author = 'Ada'")
            for n in range(100):
                con.execute("INSERT INTO t (n) VALUES (?)", (n,))
            assert all(time is not None for time, _ in moments(con))
            assert keep < stored_moments(con) <= keep + SPARE + 1
        con.close()


def test_nobody_who_keeps_no_past_pays_for_moments(path: Path) -> None:
    """A small commit is one frame of the log; moments of a past that is given up go."""
    with opened(path, keep=5) as con:
        for n in range(10):
            con.execute("INSERT INTO t (n) VALUES (?)", (n,))
        con.execute("PRAGMA keep_commits = 0")
        for n in range(2 * SPARE):
            con.execute("INSERT INTO t (n) VALUES (?)", (n,))
        assert not stored_moments(con)
        (before,) = con.execute("SELECT log_pages FROM m2m_stats").fetchone()
        for n in range(5):
            con.execute("INSERT INTO t (n) VALUES (?)", (n,))
        (after,) = con.execute("SELECT log_pages FROM m2m_stats").fetchone()
        assert after - before == 5
        assert moments(con) == [(None, None)]
    con.close()


def test_maintenance_keeps_moments_and_has_none(path: Path, tmp_path: Path) -> None:
    with opened(path) as con:
        con.execute("PRAGMA author = 'B'")
        con.collection("t").add({"n": list(range(3000))})
        con.execute("DELETE FROM t WHERE n > 2000")
        expected = moments(con)
        con.execute("OPTIMIZE")
        con.execute("VACUUM")
        con.execute("CHECKPOINT truncate")
        assert moments(con) == expected
        con.execute("VACUUM INTO ?", (str(tmp_path / "copy.m2m"),))
        with m2mdb.connect(tmp_path / "copy.m2m") as copy:
            assert moments(copy) == expected
            assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with m2mdb.connect(":memory:") as other:
            con.backup(other)
            assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        con.execute("FORGET FROM t WHERE id = 1")
        assert moments(con) == []
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_failing_clock_loses_no_commit(path: Path) -> None:
    def broken() -> float:
        raise ValueError("no battery")

    with opened(path, broken) as con:
        con.execute("INSERT INTO t (n) VALUES (1)")
        assert moments(con) == [(None, None)]
        assert con.execute("SELECT n FROM t").fetchall() == [(1,)]


@pytest.mark.parametrize("author", ["x" * 256, "é" * 128, "a\nb"])
def test_an_author_that_cannot_be_is_refused(path: Path, author: str) -> None:
    with opened(path) as con:
        con.execute("PRAGMA author = 'kept'")
        with pytest.raises(m2mdb.ProgrammingError, match="PRAGMA author"):
            con.execute(f"PRAGMA author = '{author}'")
        with pytest.raises(m2mdb.ProgrammingError, match="expected a text"):
            con.execute("PRAGMA author = 5")
        assert con.execute("PRAGMA author").fetchall() == [("kept",)]


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        (key_of(3)[:-1], bytes(8), "a moment of 8 and 8 bytes"),
        (key_of(2), bytes(7), "a moment of 9 and 7 bytes"),
        (key_of(2), b"\xff" * 7 + b"\x7f", "commit 2 has the time"),
        (key_of(2), bytes(8) + b"\xff", "author of commit 2"),
        (key_of(99), bytes(8), "a moment of commit 99"),
    ],
)
def test_damaged_moments_are_found(path: Path, key: bytes, value: bytes, fault: str) -> None:
    with opened(path) as con:
        database = con.database
        assert database is not None
        with database.writing() as write:
            write.catalog_tree().put(key, value)
        faults = con.execute("PRAGMA integrity_check").fetchall()
        assert len(faults) == 1 and fault in faults[0][0]
