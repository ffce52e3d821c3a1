"""m2m_history and m2m_tiers: counts that a model keeps, bytes that the file has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import m2mdb


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.m2m"


@pytest.fixture
def con(path: Path) -> Iterator[m2mdb.Connection]:
    with m2mdb.connect(path, autocommit=True) as con:
        con.execute("PRAGMA keep_commits = 100")
        con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")
        yield con
    con.close()


def history(con: m2mdb.Connection) -> list[tuple[int, int]]:
    return con.execute(
        "SELECT written, ended FROM m2m_history WHERE collection = 't' ORDER BY \"commit\""
    ).fetchall()


def test_the_history_counts_what_each_commit_wrote_and_ended(con: m2mdb.Connection) -> None:
    con.executemany("INSERT INTO t (n) VALUES (?)", [(n,) for n in range(10)])
    con.execute("UPDATE t SET n = n + 1 WHERE id <= 4")
    con.execute("DELETE FROM t WHERE id > 7")
    expected = [(10, 0), (4, 4), (0, 3)]
    assert history(con) == expected

    con.execute("OPTIMIZE t")  # versions move to segments and kept segments
    assert history(con) == expected

    con.collection("t").add({"n": np.arange(2000)})
    con.execute("DELETE FROM t WHERE n >= 1000")
    expected += [(2000, 0), (0, 1000)]
    assert history(con) == expected
    con.execute("OPTIMIZE t")
    assert history(con) == expected


def test_the_history_goes_as_far_as_the_past_is_kept(con: m2mdb.Connection, path: Path) -> None:
    con.execute("PRAGMA keep_commits = 3")
    for n in range(9):
        con.execute("INSERT INTO t (n) VALUES (?)", (n,))

    commits = [row[0] for row in con.execute('SELECT "commit" FROM m2m_history').fetchall()]

    oldest = con.execute("SELECT oldest_commit FROM m2m_collections").fetchone()
    newest = con.execute("SELECT last_commit FROM m2m_stats").fetchone()
    assert oldest is not None and newest is not None
    assert commits == list(range(oldest[0], newest[0] + 1))
    with m2mdb.connect(path) as other:
        assert len(other.execute("SELECT * FROM m2m_history").fetchall()) == len(commits)
    other.close()


def test_a_commit_that_is_not_made_is_no_history(con: m2mdb.Connection) -> None:
    con.execute("INSERT INTO t (n) VALUES (1)")
    con.execute("BEGIN")
    con.execute("INSERT INTO t (n) VALUES (2), (3)")
    assert history(con) == [(1, 0), (2, 0)]
    con.execute("ROLLBACK")
    assert history(con) == [(1, 0)]


def test_tiers_say_what_was_read(path: Path) -> None:
    with m2mdb.connect(path, autocommit=True) as con:
        con.execute("CREATE TABLE v (body TEXT FULLTEXT, e VECTOR(64))")
        random = np.random.default_rng(1)
        vectors = random.standard_normal((4000, 64)).astype(np.float32)
        con.collection("v").add({"body": [f"word{n % 9}" for n in range(4000)], "e": vectors})
    con.close()
    with m2mdb.connect(path, autocommit=True) as con:
        sums = "SELECT content, tier, sum(bytes) FROM m2m_tiers GROUP BY 1, 2"
        before = {row[:2]: row[2] for row in con.execute(sums).fetchall()}
        assert before["vectors", "cold"] == 4000 * 64 * 4 + 4000 * 4
        assert ("vectors", "warm") not in before

        con.execute("SEARCH v NEAR ? K 3 EXACT", (vectors[0],)).fetchall()

        after = {row[:2]: row[2] for row in con.execute(sums).fetchall()}
        assert after["vectors", "warm"] == before["vectors", "cold"]
        assert sum(after.values()) == sum(before.values())
        con.execute("INSERT INTO v (body) VALUES ('new')")
        rows = con.execute("SELECT part, tier FROM m2m_tiers WHERE content = 'delta'").fetchall()
        assert rows == [("delta", "warm")]
    con.close()
