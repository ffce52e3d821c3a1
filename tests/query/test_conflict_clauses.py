"""OR ABORT, FAIL, IGNORE, REPLACE and ROLLBACK of INSERT and UPDATE, beside sqlite3."""

from __future__ import annotations

import random
import sqlite3
from typing import Any

import pytest

import m2mdb

SCHEMA = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, u INTEGER UNIQUE, n INTEGER NOT NULL DEFAULT 7, "
    "c INTEGER CHECK (c < 50), a INTEGER, b TEXT, UNIQUE (a, b))"
)
ACTIONS = ("ABORT", "FAIL", "IGNORE", "REPLACE", "ROLLBACK")


class Both:
    """The same statements on both sides; what they did and what was left is compared."""

    def __init__(self) -> None:
        self.mine = m2mdb.connect(":memory:", isolation_level=None)
        self.theirs = sqlite3.connect(":memory:", isolation_level=None)
        self.run(SCHEMA)

    def close(self) -> None:
        self.mine.close()
        self.theirs.close()

    def run(self, sql: str, *parameters: Any) -> str:
        found = []
        for module, con in ((m2mdb, self.mine), (sqlite3, self.theirs)):
            error, rows = "", None
            try:
                cursor = con.execute(sql, parameters)
                rows = cursor.fetchall() if "RETURNING" in sql else cursor.rowcount
            except module.IntegrityError as problem:
                error = str(problem).split(":")[0]
                if "OR FAIL" not in sql:
                    error = "failed"  # of several rows that fail, another may be told of
            left = con.execute("SELECT * FROM t ORDER BY id").fetchall()
            found.append((error, rows if not error else None, left, con.in_transaction))
        assert found[0] == found[1], sql
        return found[0][0]


@pytest.fixture
def both() -> Any:
    both = Both()
    yield both
    both.close()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize(
    "rows",
    [
        "(10, 10, 1, 1, 1, 'x'), (11, 2, 1, 1, 1, 'y'), (12, 12, 1, 1, 1, 'z')",
        "(10, 10, 1, 1, 1, 'x'), (10, 11, 1, 1, 1, 'y'), (12, 12, 1, 1, 1, 'z')",
        "(10, 10, 1, 1, 1, 'x'), (11, 11, NULL, 1, 1, 'y'), (12, 12, 1, 1, 1, 'z')",
        "(10, 10, 1, 1, 1, 'x'), (11, 11, 1, 90, 1, 'y'), (12, 12, 1, 1, 1, 'z')",
        "(10, 10, 1, 1, 1, 'x'), (11, 11, 1, 1, 5, 'five'), (12, 12, 1, 1, 1, 'x')",
        "(10, 10, 1, 1, 1, 'x'), (11, 11, 1, 1, 3, 'y')",
    ],
)
def test_insert(both: Both, action: str, begins: bool, rows: str) -> None:
    both.run("INSERT INTO t VALUES (1, 1, 1, 1, 1, 'a'), (2, 2, 2, 2, 5, 'five')")
    if begins:
        both.run("BEGIN")
        both.run("INSERT INTO t (id) VALUES (5)")
    both.run(f"INSERT OR {action} INTO t VALUES {rows}")
    both.run("INSERT INTO t (id) VALUES (99)")


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        "SET u = 3 WHERE id >= 3",
        "SET u = u + 1 WHERE id = 4",
        "SET id = id - 1 WHERE id > 2",
        "SET n = CASE id WHEN 3 THEN NULL ELSE 9 END",
        "SET c = id * 20",
        "SET a = 1, b = 'same'",
        "SET b = 'same', c = c + 1 WHERE id < 5",
        "SET id = 3, u = 1 WHERE id = 5",
        "SET n = NULL, u = 1 WHERE id = 5",
        "SET u = 2 RETURNING id, u",
    ],
)
def test_update(both: Both, action: str, begins: bool, change: str) -> None:
    for id_ in range(1, 6):
        both.run("INSERT INTO t VALUES (?, ?, 1, 1, ?, 'b')", id_, id_ + (id_ > 4), id_)
    if begins:
        both.run("BEGIN")
        both.run("INSERT INTO t (id, u) VALUES (7, 70)")
    if action == "ABORT" and "id - 1" in change:
        return  # UNIQUE at the end: a listed difference
    both.run(f"UPDATE OR {action} t {change}")
    both.run("INSERT INTO t (id) VALUES (99)")


def test_random_statements_do_what_they_do_in_sqlite3(both: Both) -> None:
    choose = random.Random(5)
    errors = 0

    def number(most: int = 12) -> int:
        return choose.randint(1, most)

    for _ in range(400):
        action = choose.choice(ACTIONS)
        if choose.random() < 0.1:
            both.run("COMMIT" if both.mine.in_transaction else "BEGIN")
        if choose.random() < 0.5:
            rows = ", ".join(
                f"({number()}, {number()}, {choose.choice(('NULL', '1'))}, {number(55)}, "
                f"{number(3)}, '{choose.choice('pqr')}')"
                for _ in range(number(3))
            )
            errors += bool(both.run(f"INSERT OR {action} INTO t VALUES {rows}"))
        elif action in ("IGNORE", "REPLACE", "FAIL"):
            column = choose.choice(("id", "u", "n", "c", "a", "b"))
            new = choose.choice((str(number()), f"{column} + {number(3)}", "NULL"))
            if column in ("b", "id"):
                new = f"'{choose.choice('pqr')}'" if column == "b" else f"id + {number(3)}"
            low = number()
            where = f"WHERE id BETWEEN {low} AND {low + number(4)}"
            errors += bool(both.run(f"UPDATE OR {action} t SET {column} = {new} {where}"))
        else:
            errors += bool(both.run(f"UPDATE OR {action} t SET u = {number()} WHERE id = 3"))
    assert errors > 40
    assert both.mine.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_or_fail_keeps_what_came_before_in_a_large_batch() -> None:
    with m2mdb.connect(":memory:", autocommit=True) as con:
        con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER)")
        con.execute("INSERT INTO t VALUES (3000, 0)")
        rows = [(n, n) for n in range(5000)]
        with pytest.raises(m2mdb.IntegrityError, match="UNIQUE"):
            con.executemany("INSERT OR FAIL INTO t VALUES (?, ?)", rows)
        assert con.execute("SELECT count(*), max(x) FROM t").fetchall() == [(3001, 2999)]
        con.execute("DELETE FROM t")
        con.executemany("INSERT OR FAIL INTO t VALUES (?, ?)", rows)
        assert con.execute("SELECT count(*) FROM t").fetchall() == [(5000,)]
        with pytest.raises(m2mdb.IntegrityError):
            con.executemany("UPDATE OR FAIL t SET id = ? WHERE id = ?", [(9000, 1), (9000, 2)])
        assert con.execute("SELECT id FROM t WHERE id > 4999").fetchall() == [(9000,)]


@pytest.mark.parametrize(
    ("row", "text"),
    [((3, 1), "UNIQUE constraint failed: t.id = 3 (row 2)"),
     ((1, None), "NOT NULL constraint failed: t.x (row 2)"),
     ((1, -1), "CHECK constraint failed: x >= 0 (row 2)")],
)  # fmt: skip
def test_or_fail_names_the_row_of_the_statement(row: tuple[int, int | None], text: str) -> None:
    """The batch is halved until the row is found; the error names its place in the whole one."""
    with m2mdb.connect(":memory:", autocommit=True) as con:
        con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER NOT NULL CHECK (x >= 0))")
        con.execute("INSERT INTO t VALUES (3, 0)")
        with pytest.raises(m2mdb.IntegrityError) as caught:
            con.execute("INSERT OR FAIL INTO t VALUES (10, 1), (11, 1), (?, ?), (12, 1)", row)
        assert str(caught.value) == text
        assert con.execute("SELECT id FROM t").fetchall() == [(3,), (10,), (11,)]
        if isinstance(caught.value, m2mdb.CheckFailedError):
            assert caught.value.rows == [2]
