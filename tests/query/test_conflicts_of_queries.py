"""ON CONFLICT behind INSERT … SELECT, beside sqlite3."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

import m2mdb

TARGET = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, n INTEGER NOT NULL DEFAULT 7, "
    "c INTEGER CHECK (c < 50))"
)
SOURCE = "CREATE TABLE s (k INTEGER, w TEXT, m INTEGER)"


class Both:
    """The same statements on both sides; what they gave and what was left is compared."""

    def __init__(self) -> None:
        self.mine = m2mdb.connect(":memory:", autocommit=True)
        self.theirs = sqlite3.connect(":memory:", isolation_level=None)
        for sql in (TARGET, SOURCE):
            self.run(sql)

    def run(self, sql: str) -> bool:
        """Whether the statement succeeded."""
        found: list[Any] = []
        for module, con in ((m2mdb, self.mine), (sqlite3, self.theirs)):
            outcome: Any = "failed"
            try:
                cursor = con.execute(sql)
                outcome = cursor.fetchall() if "RETURNING" in sql else cursor.rowcount
            except module.IntegrityError:
                pass
            left = con.execute("SELECT * FROM t ORDER BY id").fetchall()
            found.append((outcome, left))
        assert sql.startswith("CREATE") or found[0] == found[1], sql
        return bool(found[0][0] != "failed")


@pytest.fixture
def both() -> Iterator[Both]:
    both = Both()
    yield both
    both.mine.close()
    both.theirs.close()


ROWS = "(1, 'a', 5), (2, 'b', 6), (1, 'c', 7), (3, 'a', 8), (4, 'z', 9)"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT k, w, m, 1 FROM s WHERE true ON CONFLICT DO NOTHING",
        "SELECT k, w, m, 1 FROM s WHERE true ON CONFLICT (id) DO NOTHING",
        "SELECT k, w || k, m, 1 FROM s WHERE true ON CONFLICT (id) DO NOTHING",
        "SELECT k, w, m, 1 FROM s WHERE true ON CONFLICT (u) DO UPDATE SET n = n + excluded.n",
        "SELECT k, w || m, m, 1 FROM s WHERE m < 9 ON CONFLICT (id) DO UPDATE SET n = n + "
        "excluded.n, u = excluded.u WHERE excluded.n < 8",
        "SELECT k, NULL, count(*), 2 FROM s GROUP BY k ON CONFLICT (id) DO UPDATE SET n = -t.n",
        "SELECT k, NULL, count(*), 2 FROM s GROUP BY k HAVING k > 1 ON CONFLICT (id) DO NOTHING",
        "SELECT k, NULL, m, 2 FROM s ORDER BY m DESC ON CONFLICT (id) DO UPDATE SET n = excluded.n",
        "SELECT k, NULL, m, 2 FROM s ORDER BY m LIMIT 2 ON CONFLICT (id) DO UPDATE SET n = 0",
        "SELECT k, NULL, m, 2 FROM s UNION SELECT 9, NULL, 9, 9 WHERE true ON CONFLICT (id) DO "
        "UPDATE SET c = c + 1",
        "SELECT 2, 'b', 3, 4 WHERE true ON CONFLICT (u) DO UPDATE SET n = 40",
        "SELECT a.k, NULL, b.m, 1 FROM s AS a JOIN s AS b ON a.k = b.k WHERE true "
        "ON CONFLICT (id) DO UPDATE SET n = n * 2",
        "SELECT a.k, NULL, b.m, 1 FROM s AS a JOIN s AS b WHERE true ON CONFLICT (id) DO NOTHING",
        "SELECT id, u, n + 1, c FROM t WHERE true ON CONFLICT (id) DO UPDATE SET n = excluded.n",
        "SELECT k, w, m, 49 + (m = 9) FROM s WHERE true ON CONFLICT (id) DO NOTHING",
        "SELECT k, w, nullif(m, 8), 1 FROM s WHERE true ON CONFLICT (id) DO NOTHING",
        "SELECT k, w, m, 1 FROM s WHERE k > 99 ON CONFLICT (id) DO UPDATE SET n = 1",
    ],
)
@pytest.mark.parametrize("returning", ["", " RETURNING id, u, n, c"])
def test_what_a_query_conflicts_with(both: Both, sql: str, returning: str) -> None:
    both.run(f"INSERT INTO s VALUES {ROWS}")
    both.run("INSERT INTO t VALUES (1, 'one', 1, 1), (2, 'b', 2, 2)")

    both.run(f"INSERT INTO t {sql}{returning}")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT k, w, m, 1 FROM s ON CONFLICT DO NOTHING",
        "SELECT k, w, m, 1 FROM s, t ON CONFLICT DO NOTHING",
        "SELECT s.k, w, m, 1 FROM s JOIN s AS r USING (k, w, m) ON CONFLICT DO NOTHING",
        "SELECT 1, 'x', 1, 1 ON CONFLICT DO NOTHING",
    ],
)
def test_where_true_is_asked_for_behind_a_join_alone(both: Both, sql: str) -> None:
    both.mine.execute(f"INSERT INTO t {sql}")

    with pytest.raises(m2mdb.ProgrammingError, match='near "DO"'):
        both.mine.execute("INSERT INTO t SELECT 1 FROM s JOIN t ON CONFLICT DO NOTHING")


def test_random_queries_with_conflicts_do_what_they_do_in_sqlite3(both: Both) -> None:
    choose = random.Random(11)
    failed = 0
    for _ in range(300):
        rows = ", ".join(
            f"({choose.randint(1, 12)}, {choose.choice(('NULL', repr(choose.choice('abcdef'))))}, "
            f"{choose.choice(('NULL', *'123456789'))})"
            for _ in range(choose.randint(1, 6))
        )
        for con in (both.mine, both.theirs):
            con.execute("DELETE FROM s")
        both.run(f"INSERT INTO s VALUES {rows}")
        what = choose.choice(
            (
                "DO NOTHING",
                "(id) DO NOTHING",
                "(u) DO NOTHING",
                "(id) DO UPDATE SET n = excluded.n, u = excluded.u",
                "(id) DO UPDATE SET n = n + 1 WHERE excluded.n > t.n",
                "(u) DO UPDATE SET id = excluded.id + 20, c = excluded.c",
                "(id) DO UPDATE SET c = c + 10",
            )
        )
        query = choose.choice(
            (
                "SELECT k, w, coalesce(m, 5), m FROM s WHERE true",
                "SELECT k, w, m, m FROM s WHERE m > 2",
                "SELECT k, max(w), sum(m), 1 FROM s GROUP BY k ORDER BY k",
                "SELECT id, u, n + 1, c FROM t WHERE id < 9 ORDER BY id DESC LIMIT 3",
                "SELECT k, min(w), 1, 1 FROM s GROUP BY k HAVING count(m) > 0 ORDER BY k",
            )
        )
        returning = choose.choice(("", " RETURNING id, u, n, c"))
        failed += not both.run(f"INSERT INTO t {query} ON CONFLICT {what}{returning}")
        if choose.random() < 0.1:
            both.run(f"DELETE FROM t WHERE id % 3 = {choose.randint(0, 2)}")
    assert 20 < failed < 250


def test_values_that_came_as_arrays_are_those_of_the_rows(both: Both) -> None:
    """A query over one table hands numbers on as arrays."""
    con = both.mine
    con.execute("CREATE TABLE v (k INTEGER PRIMARY KEY, x REAL, e VECTOR(2))")
    con.executemany("INSERT INTO v VALUES (?, ?, ?)", [(i, i / 2, [i, 1]) for i in range(2000)])

    con.execute(
        "INSERT INTO v SELECT k + 1000, x, e FROM v WHERE true "
        "ON CONFLICT (k) DO UPDATE SET x = x + excluded.x, e = excluded.e"
    )

    assert con.execute("SELECT count(*), sum(x) FROM v").fetchall() == [
        (3000, sum(i / 2 for i in range(2000)) * 2)
    ]
    assert con.execute("SELECT e FROM v WHERE k = 1500").fetchone()[0].tolist() == [500, 1]
    assert con.execute("SELECT x, typeof(x) FROM v WHERE k = 1500").fetchone() == (1000.0, "real")
