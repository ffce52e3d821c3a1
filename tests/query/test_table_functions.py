"""json_each, json_tree, generate_series, and changes() and its like, beside sqlite3's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

import m2mdb

DOCUMENTS = (
    '{"a":{"b":1},"a b":[1,2],"x_1":null,"":true,"é":false}', '[1,"x",2.5,[],{}]', "5", None,
    '{"k":[{"n":1},{"n":[2,{"m":"deep"}]}]}', '"text"', "null", "[]",
)  # fmt: skip
QUERIES = [
    *[f"SELECT * FROM {name}((SELECT j FROM t WHERE k = {k}))"
      for name in ("json_each", "json_tree") for k in range(1, 9)],
    *[f"SELECT * FROM {name}((SELECT j FROM t WHERE k = {k}), '{path}')"
      for name in ("json_each", "json_tree")
      for k, path in ((5, "$.k"), (5, "$"), (5, "$.z"), (2, "$[9]"))],
    "SELECT * FROM json_each('[1]', NULL)",
    "SELECT k, key, value, type FROM t, json_each(t.j)",
    "SELECT t.k, e.fullkey FROM t JOIN json_tree(t.j) AS e ON e.type = 'integer' WHERE e.atom > 1",
    "SELECT k, e.value FROM t LEFT JOIN json_each(j) AS e ON e.type = 'integer'",
    "SELECT k, e.value, u.n FROM t, json_each(t.j) AS e, u WHERE u.n = e.value",
    "SELECT u.n, e.value FROM u JOIN t ON t.k = u.n JOIN json_each(t.j) AS e WHERE u.n = 2",
    "SELECT k, (SELECT count(*) FROM json_each(t.j)) FROM t",
    "SELECT k FROM t WHERE EXISTS (SELECT 1 FROM json_tree(t.j) WHERE atom = 2)",
    "SELECT k, (SELECT sum(value) FROM json_each(t.j) WHERE type = 'integer') FROM t",
    "SELECT t.k, e.key, f.value FROM t, json_each(t.j) AS e, json_each(e.value) AS f "
    "WHERE e.type IN ('array', 'object')",
    "SELECT key, value FROM json_each('[3,1,2]') ORDER BY value DESC LIMIT 2",
    "SELECT n FROM u WHERE n IN (SELECT value FROM json_each('[1,7,9]'))",
    "SELECT e.value, f.value FROM json_each('[1,4]') AS e, json_each('[4,5]') AS f "
    "WHERE f.value > e.value",
    "SELECT type, count(*) FROM t, json_tree(t.j) GROUP BY type ORDER BY type",
    "WITH e AS (SELECT k, value FROM t, json_each(t.j)) SELECT count(*) FROM e WHERE k < 3",
    "SELECT max(e.value) FROM u, t, json_each(t.j) AS e WHERE t.k = u.n AND e.type = 'integer'",
]  # fmt: skip


@pytest.fixture
def both() -> Iterator[tuple[m2mdb.Connection, sqlite3.Connection]]:
    con = m2mdb.connect(":memory:", compute="numpy", autocommit=True)
    twin = sqlite3.connect(":memory:", isolation_level=None)
    rows = [(document,) for document in DOCUMENTS]
    for each in (con, twin):
        each.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, j TEXT)")
        each.executemany("INSERT INTO t (j) VALUES (?)", rows)
        each.execute("CREATE TABLE u (n INTEGER)")
        each.execute("INSERT INTO u VALUES (1), (2), (7)")
    yield con, twin
    con.close()
    twin.close()


Both = tuple[m2mdb.Connection, sqlite3.Connection]


@pytest.mark.parametrize("sql", QUERIES)
def test_rows_are_those_of_sqlite(both: Both, sql: str) -> None:
    con, twin = both

    found, expected = con.execute(sql).fetchall(), twin.execute(sql).fetchall()

    assert sorted(found, key=repr) == sorted(expected, key=repr)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM json_ech('1')", "no such table function: json_ech; did you mean json_each"),
        ("SELECT * FROM json_each('1', '$', 3)", "wrong number of arguments"),
        ("SELECT * FROM json_each(j)", "no such column: j"),
        ("SELECT * FROM json_each(t.j), t", "no such column: t.j"),
        ("SELECT 1 FROM t RIGHT JOIN json_each(t.j) AS e ON 1", "cannot name what is left"),
        ("SELECT * FROM json_each('[1]', 'a')", "malformed JSON path"),
    ],
)
def test_wrong_calls_are_refused(both: Both, sql: str, message: str) -> None:
    con, _ = both

    with pytest.raises(m2mdb.ProgrammingError, match=message):
        con.execute(sql)


def test_damaged_json_is_refused_in_the_midst(both: Both) -> None:
    con, _ = both
    con.execute("INSERT INTO t VALUES (99, '{bad')")

    with pytest.raises(m2mdb.DataError, match="malformed JSON"):
        con.execute("SELECT count(*) FROM t, json_each(t.j)")


def test_series(both: Both) -> None:
    con, _ = both

    assert con.execute("SELECT value FROM generate_series(1, 10, 4)").fetchall() == [
        (1,), (5,), (9,)
    ]  # fmt: skip
    assert con.execute("SELECT * FROM generate_series(3, 1, -1)").fetchall() == [(3,), (2,), (1,)]
    assert con.execute("SELECT count(*) FROM generate_series(3, 1)").fetchall() == [(0,)]
    assert con.execute("SELECT count(*) FROM generate_series(NULL, 1)").fetchall() == [(0,)]
    rows = con.execute("SELECT n, value FROM u, generate_series(1, n) WHERE n < 3").fetchall()
    assert rows == [(1, 1), (2, 1), (2, 2)]
    with pytest.raises(m2mdb.DataError, match="10,000,000 at most"):
        con.execute("SELECT count(*) FROM generate_series(1)")
    with pytest.raises(m2mdb.DataError, match="more than 10,000,000"):
        con.execute("SELECT count(*) FROM u, generate_series(1, 4000000 + n)")


def test_what_the_last_statements_changed(both: Both) -> None:
    told = "SELECT changes(), last_insert_rowid(), total_changes()"
    for sql in (
        "SELECT 1", "INSERT INTO u VALUES (8), (9)", "UPDATE u SET n = n + 1 WHERE n > 7",
        "DELETE FROM u WHERE n < 0", "INSERT OR IGNORE INTO t VALUES (1, 'x')",
        "INSERT INTO u VALUES (last_insert_rowid())", "REPLACE INTO t VALUES (1, 'y'), (99, 'z')",
        "INSERT INTO t VALUES (1, 'w') ON CONFLICT (k) DO UPDATE SET j = 'v'",
    ):  # fmt: skip
        found = []
        for each in both:
            each.execute(sql)
            found.append(each.execute(told).fetchall())
        assert found[0] == found[1], sql
    con, _ = both
    ((total,),) = con.execute("SELECT total_changes()").fetchall()
    assert total == con.total_changes
    con.collection("u").add({"n": [1, 2, 3]})
    assert con.execute("SELECT total_changes()").fetchall() == [(total + 3,)]
