"""m2m_history and m2m_tiers: counts that a model keeps, bytes that the file has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.index.footprint import Counter


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
        sums = "SELECT content, tier, sum(bytes) FROM m2m_tiers WHERE tier <> 'hot' GROUP BY 1, 2"
        before = {row[:2]: row[2] for row in con.execute(sums).fetchall()}
        assert before["vectors", "cold"] == 4000 * 64 * 4 + 4000 * 4
        assert ("vectors", "warm") not in before

        con.execute("SEARCH v NEAR ? K 3 EXACT", (vectors[0],)).fetchall()

        after = {row[:2]: row[2] for row in con.execute(sums).fetchall()}
        assert after["vectors", "warm"] == before["vectors", "cold"]
        assert sum(after.values()) == sum(before.values())
        con.execute("INSERT INTO v (body) VALUES ('new')")
        rows = con.execute("SELECT part, tier FROM m2m_tiers WHERE content = 'delta'").fetchall()
        assert rows == [("delta", "warm"), ("delta", "hot")]
    con.close()


def hot(con: m2mdb.Connection) -> dict[tuple[str, str], int]:
    rows = con.execute("SELECT part, content, bytes FROM m2m_tiers WHERE tier = 'hot'").fetchall()
    return {row[:2]: row[2] for row in rows}


def test_hot_is_what_the_process_has_made_of_it(path: Path) -> None:
    bodies = [f"the {n}th text, of some length" for n in range(3000)]
    with m2mdb.connect(path, autocommit=True) as con:
        con.execute("CREATE TABLE v (body TEXT, e VECTOR(16))")
        vectors = np.random.default_rng(1).standard_normal((3000, 16)).astype(np.float32)
        con.collection("v").add({"body": bodies, "e": vectors})
    con.close()
    with m2mdb.connect(path, autocommit=True) as con:
        before = hot(con)
        assert before.get(("segment 1", "columns"), 0) < 100
        assert before["all", "pages"] > 0

        assert con.execute("SELECT count(*) FROM v WHERE length(body) > 3").fetchall() == [(3000,)]
        for _ in range(3):
            con.collection("v").search(near=vectors[0], k=3)

        after = hot(con)
        wanted = sum(map(sys.getsizeof, bodies))
        assert wanted <= after["segment 1", "columns"] <= 2 * wanted
        assert after["segment 1", "vectors"] < 1000  # they are read where they are, in the map
        con.execute("INSERT INTO v VALUES (?, NULL)", ("x" * 5000,))
        assert hot(con)["delta", "delta"] > 5000
    con.close()
    with m2mdb.connect(path, untrusted=True) as con:  # without a map: every block is read
        con.collection("v").search(near=vectors[0], k=3)
        assert hot(con)["segment 1", "vectors"] >= vectors.nbytes
    con.close()


def test_bytes_are_counted_once_and_a_map_not_at_all(tmp_path: Path) -> None:
    counter = Counter(lambda: None)
    numbers = np.arange(1000)
    assert counter.own_bytes({"a": numbers[3:], "b": numbers}) - numbers.nbytes in range(100, 700)
    assert counter.own_bytes(numbers) == 0
    raw = bytes(5000)
    assert counter.own_bytes([np.frombuffer(raw, np.uint8), memoryview(raw)]) in range(5000, 5300)
    (tmp_path / "x").write_bytes(raw)
    mapped = np.memmap(tmp_path / "x", np.uint8, "r")
    assert counter.own_bytes(np.asarray(mapped)) == 0
    held = np.ones(700)
    assert counter.own_bytes(lambda: held) >= held.nbytes
