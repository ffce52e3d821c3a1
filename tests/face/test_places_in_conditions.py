"""Where an error in `where` is, counted in the caller's text; what total_changes counts."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

import pytest

import m2mdb

CALLS = ("count", "delete", "forget", "search", "search_batch")


@pytest.fixture
def notes() -> m2mdb.Collection:
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute('CREATE TABLE "a b" (id INTEGER PRIMARY KEY, topic TEXT, e VECTOR(2))')
    con.execute("INSERT INTO \"a b\" VALUES (1, 'x', [1, 0])")
    return con.collection("a b")


def told(notes: m2mdb.Collection, call: str, where: str) -> str:
    """What a call says of a condition."""
    given: dict[str, Any] = {"where": where}
    if call.startswith("search"):
        given["near"] = [1.0, 0.0] if call == "search" else [[1.0, 0.0]]
    with pytest.raises((m2mdb.ProgrammingError, m2mdb.NotSupportedError)) as caught:
        getattr(notes, call)(**given)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("topic == = 'x'", "line 1, column 10"),
        ("topics = 'x'", "line 1, column 1"),
        ("topic = 'x' AND nothing", "line 1, column 17"),
        ("topic = 'x' AND\n  nothing", "line 2, column 3"),
        ("topic =\n 'x' 5", "line 2, column 6"),
        ("topic = ", "line 1, column "),
        ("lowr(topic) = 'x'", "line 1, column 1"),
        ("topic = 'x", "line 1, column 9"),
        ('id IN (SELECT nope FROM "a b")', "line 1, column 15"),
    ],
)
def test_a_place_counts_in_the_condition(
    notes: m2mdb.Collection, call: str, where: str, place: str
) -> None:
    message = told(notes, call, where)

    assert place in message, message
    found = re.search(r"line (\d+), column (\d+)", message)
    assert found is not None
    line = where.split("\n")[int(found[1]) - 1]
    assert 1 <= int(found[2]) <= len(line) + 1


def test_learning_tells_the_place_too(notes: m2mdb.Collection) -> None:
    categories = m2mdb.Categories({"x": ["one"]}, column="topic")

    with pytest.raises(m2mdb.ProgrammingError, match=r'near "nope".*\(line 1, column 8\)'):
        categories.learn_from(notes, where="id = 1 nope")


@pytest.mark.parametrize("call", CALLS)
def test_what_is_wrong_around_the_condition_tells_no_place_in_it(
    notes: m2mdb.Collection, call: str
) -> None:
    gone = notes.connection.collection("a b")
    notes.connection.execute('DROP TABLE "a b"')

    assert "column" not in told(gone, call, "true")


def test_rows_that_or_fail_keeps_are_changes() -> None:
    found = []
    for module in (m2mdb, sqlite3):
        con: Any = module.connect(":memory:", isolation_level=None)
        con.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, u INTEGER UNIQUE)")
        seen: list[Any] = []
        for sql, rows in (
            ("INSERT OR FAIL INTO t VALUES (1, 1), (2, 2), (3, 1), (4, 4)", None),
            ("INSERT OR FAIL INTO t VALUES (?, ?)", [(5, 5), (6, 6), (7, 5), (8, 8)]),
            ("INSERT INTO t VALUES (9, 9), (10, 9)", None),
            ("UPDATE OR FAIL t SET u = 7 WHERE k > 1", None),
            ("DELETE FROM t WHERE k = 1", None),
        ):
            try:
                con.execute(sql) if rows is None else con.executemany(sql, rows)
            except module.IntegrityError:
                seen.append("failed")
            seen.append((con.total_changes, con.execute("SELECT total_changes()").fetchone()))
        seen.append(con.execute("SELECT * FROM t ORDER BY k").fetchall())
        found.append(seen)

    assert found[0] == found[1]
    assert found[0][1][0] == 2


@pytest.mark.parametrize(
    "where", ["1 GROUP BY a", "0 UNION SELECT 55", "1 LIMIT 0", "1 RETURNING a", "1) OR (1", "1; 1"]
)
def test_a_where_is_one_condition(where: str) -> None:
    con = m2mdb.connect(":memory:")
    con.execute("CREATE TABLE t (a INTEGER)")
    con.execute("INSERT INTO t VALUES (1), (2)")
    for call in ("count", "delete", "forget"):
        with pytest.raises(m2mdb.ProgrammingError):
            getattr(con.collection("t"), call)(where=where)
    assert con.execute("SELECT count(*) FROM t").fetchone() == (2,)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("behind", ["GROUP BY x", "ORDER BY x", "LIMIT 2", "RETURNING x", "junk"])
def test_what_may_follow_a_condition_is_what_is_told(
    notes: m2mdb.Collection, call: str, behind: str
) -> None:
    message = told(notes, call, f"id > 0 {behind}")

    word = behind.split()[0]
    assert message == f'near "{word}": expected an operator or the end (line 1, column 8)'
