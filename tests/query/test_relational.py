"""Joins, subqueries, UNION and WITH give what SQLite gives, statement by statement."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.index.database import Database
from m2mdb.pager.errors import DatabaseError, NotSupportedError, ProgrammingError
from m2mdb.query.executor import execute
from tests.query.conftest import Run, opened

SCRIPT = [
    "CREATE TABLE t (a INTEGER, b INTEGER, s TEXT)",
    "CREATE TABLE u (a INTEGER, c INTEGER, s TEXT)",
    "CREATE TABLE k (id INTEGER PRIMARY KEY, name TEXT UNIQUE, n REAL)",
    "CREATE INDEX u_c ON u (c)",
    "INSERT INTO t VALUES (1, 2, 'x'), (3, 4, 'y'), (NULL, 5, 'x'), (9, 6, NULL), (1, 7, '1')",
    "INSERT INTO u VALUES (1, 20, 'x'), (1, 30, 'X'), (NULL, 5, 'y'), (7, 7, NULL), (3, 2, '3')",
    "INSERT INTO k VALUES (1, 'x', 1.0), (2, 'y', 3.5), (3, 'z', NULL), (20, '20', 20.0)",
]
# ruff: noqa: E501  # a statement a line
STATEMENTS = """
SELECT * FROM t JOIN u ON t.a = u.a
SELECT * FROM t, u WHERE t.a = u.a AND t.b < u.c
SELECT * FROM t CROSS JOIN u WHERE t.a + u.a = 2
SELECT count(*) FROM t, u
SELECT * FROM t JOIN u USING (a)
SELECT a, t.s, u.s FROM t JOIN u USING (a)
SELECT * FROM t NATURAL JOIN u
SELECT a, s FROM t NATURAL JOIN u
SELECT * FROM t LEFT JOIN u USING (a)
SELECT * FROM t LEFT JOIN u ON t.a = u.a AND u.c > 25 WHERE t.b > 2 OR u.c IS NOT NULL
SELECT * FROM t LEFT JOIN u ON t.a = u.a WHERE u.c IS NULL
SELECT * FROM t LEFT JOIN u ON t.a = u.a AND t.b > 2
SELECT * FROM t LEFT JOIN u ON 0
SELECT * FROM t LEFT JOIN k ON k.id = t.a LEFT JOIN u ON u.a = k.id
SELECT * FROM t LEFT JOIN u USING (a) JOIN k ON k.id = u.c
SELECT x.a, y.a, z.c FROM t AS x, t AS y, u AS z WHERE x.a = y.a AND y.a = z.a AND x.b < z.c
SELECT x.b, y.b FROM t AS x JOIN t AS y ON x.b < y.b AND x.s = y.s
SELECT u.a, count(*), sum(t.b) FROM t JOIN u ON t.a = u.a GROUP BY u.a HAVING count(*) > 1
SELECT t.s, count(u.c), max(u.c) FROM t LEFT JOIN u ON u.a = t.a GROUP BY t.s
SELECT DISTINCT t.a FROM t JOIN u ON t.a = u.a ORDER BY t.a DESC
SELECT t.*, u.rowid FROM t JOIN u ON t.rowid = u.rowid
SELECT t.a FROM t JOIN k ON k.id = t.a
SELECT k.name, t.b FROM k JOIN t ON k.id = t.a WHERE k.name = 'x'
SELECT t.b, k.n FROM t JOIN k ON k.name = t.s
SELECT t.b, k.n FROM t JOIN k ON t.s = k.id
SELECT t.b, k.id FROM t JOIN k ON k.n = t.a
SELECT t.b, u.c FROM t JOIN u ON t.s = u.s COLLATE NOCASE
SELECT t.b, u.c FROM t JOIN u ON t.a = u.a AND t.s = u.s
SELECT t.b, u.c FROM t JOIN u ON u.c = t.b + 13 OR u.c = t.b
SELECT t.b, v.column2 FROM t JOIN (VALUES (1, 'one'), (9, 'nine')) AS v ON v.column1 = t.a
SELECT * FROM (SELECT a, b FROM t) AS q JOIN u USING (a)
SELECT q.a FROM (SELECT a FROM t WHERE b > 2) AS q, (SELECT a FROM u) AS r WHERE q.a = r.a
SELECT t.a AS z FROM t JOIN u ON t.a = u.a WHERE z > 0 ORDER BY z
SELECT max(t.b), u.c FROM t JOIN u ON t.a = u.a
SELECT count(*) FROM t AS x, t AS y, t AS z WHERE x.a = z.a AND z.b = y.b
SELECT * FROM t JOIN u ON t.a = u.a ORDER BY u.c DESC, t.b LIMIT 2 OFFSET 1
SELECT * FROM t JOIN u ON t.a = u.a WHERE 0
SELECT * FROM t JOIN u ON t.a IS u.a
SELECT t.a FROM t JOIN u
SELECT a FROM t WHERE b IN (SELECT c FROM u)
SELECT a FROM t WHERE a NOT IN (SELECT a FROM u)
SELECT a FROM t WHERE a NOT IN (SELECT a FROM u WHERE a IS NOT NULL)
SELECT a, (SELECT count(*) FROM u WHERE u.a = t.a) AS n FROM t
SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a)
SELECT * FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND u.c > t.b + 20)
SELECT a FROM t WHERE b IN (SELECT c FROM u WHERE u.a = t.a) OR b = 6
SELECT a FROM t WHERE b NOT IN (SELECT c FROM u WHERE u.c > t.a)
SELECT a FROM t WHERE b > (SELECT min(c) FROM u WHERE u.a = t.a)
SELECT (SELECT max(y) FROM (SELECT c AS y FROM u WHERE u.a = t.a)) FROM t
SELECT (SELECT u.c FROM u WHERE u.a = t.a ORDER BY c DESC LIMIT 1) FROM t
SELECT b FROM t ORDER BY (SELECT max(c) FROM u WHERE u.a = t.a), b
SELECT a, (SELECT sum(c) FROM u WHERE u.a = t.a GROUP BY u.a) AS total FROM t ORDER BY total DESC, b
SELECT s, sum((SELECT count(*) FROM u WHERE u.a = t.a)) FROM t GROUP BY s
SELECT s, (SELECT count(*) FROM u WHERE u.s = t.s) FROM t GROUP BY s
SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE EXISTS (SELECT 1 FROM k WHERE k.id = t.a AND k.n < u.c))
SELECT (SELECT name FROM k WHERE id = t.a), (SELECT id FROM k WHERE name = t.s) FROM t
SELECT (SELECT t.b + u.c FROM u WHERE u.a = t.a LIMIT 1) FROM t
SELECT x.b FROM t AS x WHERE b = (SELECT max(b) FROM t AS y WHERE y.s = x.s)
SELECT (SELECT count(*) FROM t AS i WHERE i.b <= o.b) AS place FROM t AS o ORDER BY place
SELECT (SELECT a UNION SELECT b ORDER BY 1 DESC LIMIT 1) FROM t
SELECT t.b, u.c FROM t JOIN u ON u.a = t.a AND u.c = (SELECT max(c) FROM u AS w WHERE w.a = t.a)
SELECT CASE WHEN EXISTS (SELECT 1 FROM k WHERE k.id = t.a) THEN 'yes' ELSE 'no' END FROM t
SELECT a FROM t UNION SELECT a FROM u
SELECT a FROM t UNION ALL SELECT c FROM u
SELECT a FROM t INTERSECT SELECT a FROM u
SELECT a FROM t EXCEPT SELECT a FROM u
SELECT a FROM t EXCEPT SELECT a FROM u UNION SELECT 77
SELECT a, s FROM t UNION SELECT a, s FROM u ORDER BY 2, 1 DESC
SELECT a AS x FROM t UNION ALL SELECT c FROM u ORDER BY x
SELECT a FROM t UNION ALL SELECT c FROM u ORDER BY c DESC LIMIT 3
SELECT s FROM t UNION SELECT s FROM u ORDER BY s COLLATE NOCASE, 1
SELECT a FROM t UNION SELECT c FROM u LIMIT 3 OFFSET 2
SELECT a FROM t UNION ALL SELECT a FROM u LIMIT -1 OFFSET 4
SELECT count(*) FROM (SELECT a FROM t UNION SELECT a FROM u)
SELECT 1 UNION SELECT 1.0
SELECT 1 UNION ALL SELECT 'a' UNION ALL SELECT NULL ORDER BY 1
VALUES (1, 'a'), (2, NULL)
VALUES (1), (2) UNION VALUES (2), (3)
SELECT * FROM (VALUES (1, 2), (3, 4)) WHERE column2 > 2
SELECT 1 WHERE 1 IN (VALUES (1), (2))
WITH x AS (SELECT a, b FROM t WHERE a > 1) SELECT * FROM x
WITH x (p, q) AS (SELECT a, b FROM t) SELECT q, p FROM x WHERE p IS NOT NULL
WITH x AS (SELECT 1 AS n), y AS (SELECT n + 1 AS n FROM x) SELECT * FROM x, y
WITH x AS (SELECT a FROM t) SELECT (SELECT max(a) FROM x), a FROM x WHERE a IN (SELECT a FROM x)
WITH x AS (SELECT a FROM t UNION SELECT a FROM u) SELECT count(*) FROM x AS one, x AS two
WITH t AS (SELECT 5 AS a) SELECT a FROM t
WITH x AS (WITH y AS (SELECT 3 AS n) SELECT n * 2 AS m FROM y) SELECT m FROM x
SELECT * FROM (WITH y AS (SELECT 3 AS n) SELECT n FROM y)
WITH x AS (SELECT a, count(*) AS n FROM u GROUP BY a) SELECT t.b, x.n FROM t LEFT JOIN x ON x.a = t.a
WITH x AS (VALUES (1, 'one'), (3, 'three')) SELECT t.b, x.column2 FROM t JOIN x ON x.column1 = t.a
WITH x AS (SELECT 4 AS n) SELECT (SELECT n + t.a FROM x) FROM t
SELECT (WITH x AS (SELECT t.a AS n) SELECT n + 1 FROM x) FROM t
"""
CHANGES = """
INSERT INTO t SELECT a, c, s FROM u WHERE c > 5
INSERT INTO t (a, b) SELECT u.a, k.id FROM u JOIN k ON k.id = u.a
INSERT INTO t (b) SELECT b + 100 FROM t
INSERT INTO t (a) VALUES ((SELECT max(a) FROM u)), ((SELECT count(*) FROM k))
INSERT INTO k (id, name) SELECT b + 50, 'n' || b FROM t UNION SELECT 99, 'w'
INSERT INTO k (id, name) VALUES (1, 'x2') ON CONFLICT (id) DO UPDATE SET n = (SELECT max(c) FROM u WHERE u.a = k.id)
WITH x AS (SELECT 40 AS n UNION SELECT 41) INSERT INTO t (a) SELECT n FROM x
UPDATE t SET b = (SELECT max(c) FROM u WHERE u.a = t.a) WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a)
UPDATE t SET s = (SELECT name FROM k WHERE id = t.a)
UPDATE t SET b = b + 1 WHERE a IN (SELECT a FROM u WHERE u.c > t.b)
WITH x AS (SELECT 9 AS n) UPDATE t SET s = 'nine' WHERE a IN (SELECT n FROM x)
DELETE FROM t WHERE a IN (SELECT a FROM u)
DELETE FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a)
WITH x AS (SELECT max(b) AS m FROM t) DELETE FROM t WHERE b = (SELECT m FROM x)
DELETE FROM u WHERE c > (SELECT avg(c) FROM u AS w WHERE w.a = u.a)
DELETE FROM t WHERE b = (SELECT max(b) FROM t AS y WHERE y.s = t.s) RETURNING b, (SELECT count(*) FROM u WHERE u.a = t.a)
"""
OUTER = """
SELECT * FROM t RIGHT JOIN u ON t.a = u.a
SELECT * FROM t RIGHT JOIN u USING (a)
SELECT * FROM t FULL JOIN u ON t.a = u.a AND u.c > 20
SELECT * FROM t FULL JOIN u USING (a)
SELECT a, b, c FROM t FULL JOIN u USING (a) WHERE a IS NOT NULL
SELECT * FROM t FULL JOIN u USING (a) JOIN k ON k.id = a
SELECT sum(a) FROM t RIGHT JOIN u USING (a)
SELECT * FROM t FULL JOIN u ON t.a = u.a WHERE t.b > 2
"""
has_outer_joins = pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 39), reason="SQLite is old")


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


class Twins:
    """A database and SQLite with the same rows."""

    def __init__(self) -> None:
        self.mine = opened()
        self.theirs = sqlite3.connect(":memory:", isolation_level=None)
        for statement in SCRIPT:
            execute(self.mine, statement)
            self.theirs.execute(statement.replace(")", ") STRICT") if "TABLE" in statement and
                                "KEY" not in statement else statement)  # fmt: skip

    def check(self, statement: str) -> None:
        """The same names and rows, in the order that the statement promises."""
        cursor = self.theirs.execute(statement)
        names = None if cursor.description is None else [each[0] for each in cursor.description]
        theirs = _ordered(statement, cursor.fetchall())

        result = execute(self.mine, statement)

        assert result.columns == names, statement
        assert _ordered(statement, result.rows) == theirs, statement

    def check_tables(self) -> None:
        """The same rows in all tables."""
        for table in ("t", "u", "k"):
            self.check(f"SELECT * FROM {table}")


def _ordered(statement: str, rows: list[Any]) -> list[Any]:
    plain = [tuple([int(v) if isinstance(v, bool) else v for v in row]) for row in rows]
    is_ordered = re.search(r"ORDER BY [^()]*$", statement)
    return plain if is_ordered else sorted(plain, key=repr)


@pytest.fixture
def twins() -> Iterator[Twins]:
    found = Twins()
    yield found
    found.mine.close()
    found.theirs.close()


def test_queries_over_several_tables_agree_with_sqlite(twins: Twins) -> None:
    for statement in lines(STATEMENTS):
        twins.check(statement)


@has_outer_joins
def test_right_and_full_joins_agree_with_sqlite(twins: Twins) -> None:
    for statement in lines(OUTER):
        twins.check(statement)


def test_changes_that_read_other_tables_agree_with_sqlite() -> None:
    for statement in lines(CHANGES):
        twins = Twins()
        twins.check(statement)
        twins.check_tables()
        twins.mine.close()
        twins.theirs.close()


def test_rows_looked_up_by_key_or_index_are_those_of_a_scan(twins: Twins) -> None:
    rows = [(i % 700, i, f"s{i % 50}") for i in range(3000)]
    execute(twins.mine, "CREATE TABLE big (a INTEGER, c INTEGER PRIMARY KEY, s TEXT)")
    twins.theirs.execute("CREATE TABLE big (a INTEGER, c INTEGER PRIMARY KEY, s TEXT)")
    many = ", ".join(f"({a}, {c}, '{s}')" for a, c, s in rows)
    for statement in (f"INSERT INTO big VALUES {many}", "CREATE INDEX big_a ON big (a)"):
        execute(twins.mine, statement)
        twins.theirs.execute(statement)

    for where in ("t.a = big.a", "t.a = big.c", "t.a = big.a AND big.c > 700", "t.s = big.c",
                  "big.a = t.a AND big.s LIKE 's1%'"):  # fmt: skip
        twins.check(f"SELECT t.b, big.* FROM t JOIN big ON {where}")
        twins.check(f"SELECT t.b, big.* FROM t LEFT JOIN big ON {where}")


SAMPLES = st.sampled_from(["t.a", "u.a", "t.b", "u.c", "t.s", "u.s", "1", "k.id", "k.name", "k.n"])
TERMS = st.one_of(
    st.tuples(SAMPLES, st.sampled_from(["=", "=", "=", "<", "IS", "!="]), SAMPLES).map(" ".join),
    st.sampled_from(["t.a IS NULL", "u.c > 5", "k.n IS NOT NULL", "t.a + u.a > 3", "t.s IN ('x', u.s)",
                     "EXISTS (SELECT 1 FROM u AS w WHERE w.a = t.a AND w.c > u.c)"]),
)  # fmt: skip
CONDITIONS = st.recursive(
    TERMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" AND ", " AND ", " OR "]), inner).map(
            lambda parts: f"({''.join(parts)})"
        ),
        inner.map("NOT ({})".format),
    ),
    max_leaves=4,
)
KINDS = st.sampled_from(["JOIN", "JOIN", "LEFT JOIN", "CROSS JOIN"])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(KINDS, CONDITIONS, KINDS, CONDITIONS, st.one_of(st.just("1"), CONDITIONS))
def test_random_joins_agree_with_sqlite(
    first: str, on: str, second: str, on_too: str, where: str
) -> None:
    early = on.replace("k.id", "t.b").replace("k.name", "t.s").replace("k.n", "u.c")
    twins = Twins()
    twins.check(f"SELECT * FROM t {first} u ON {early} {second} k ON {on_too} WHERE {where}")
    twins.mine.close()
    twins.theirs.close()


REFUSED = [
    ("SELECT a FROM t, u", "ambiguous column name: a (line 1, column 8)"),
    ("SELECT t.a FROM t, t", "ambiguous column name: t.a"),
    ("SELECT rowid FROM t, u", "ambiguous column name: rowid"),
    ("SELECT u.zz FROM t, u", "no such column: u.zz (line 1, column 8)"),
    ("SELECT nam FROM t JOIN k ON t.a = k.id", "no such column: nam; did you mean name?"),
    ("SELECT w.a FROM t, u", "no such column: w.a; the statement reads t, u"),
    ("SELECT w.* FROM t, u", "no such collection in the statement: w; it reads t, u"),
    ("SELECT * FROM t JOIN uu ON 1", "no such collection: uu; did you mean u? (line 1, column 22)"),
    ("SELECT * FROM t JOIN u USING (zz)", "cannot join using column zz"),
    ("SELECT * FROM t, u JOIN k USING (a)", "cannot join using column a"),
    ("SELECT * FROM t JOIN u ON t.a = u.a JOIN t AS w USING (a)", "ambiguous reference to a in USING"),
    ("SELECT * FROM t NATURAL JOIN u ON t.a = u.a", "NATURAL join may not have an ON"),
    ("SELECT * FROM t LEFT JOIN u ON u.a = k.id JOIN k", "tables to its right"),
    ("SELECT * FROM t JOIN u ON count(*) = 1", "misuse of aggregate"),
    ("SELECT (SELECT a, c FROM u)", "sub-select returns 2 columns - expected 1 (line 1, column 9)"),
    ("SELECT a FROM t WHERE a IN (SELECT a, c FROM u)", "sub-select returns 2 columns"),
    ("SELECT (SELECT zz FROM u WHERE u.a = t.a) FROM t", "no such column: zz"),
    ("SELECT 1, 2 UNION SELECT 3", "do not have the same number of result columns: 2 and 1"),
    ("SELECT a FROM t UNION SELECT a FROM u ORDER BY b", "1st ORDER BY term does not match"),
    ("SELECT a FROM t UNION SELECT a FROM u ORDER BY 1, 2", "ORDER BY 2 is out of range"),
    ("WITH x AS (SELECT * FROM x) SELECT * FROM x", "circular reference: x"),
    ("WITH x AS (SELECT 1), x AS (SELECT 2) SELECT * FROM x", "duplicate WITH table name: x"),
    ("WITH x (p, q) AS (SELECT 1) SELECT * FROM x", "table x has 1 values for 2 columns"),
    ("WITH x AS (SELECT 1 AS size) SELECT sice FROM x", "sice in x; did you mean size?"),
    ("WITH x AS (SELECT 1 AS n) SELECT n FROM x AS OF 3", "has no past"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "message"), REFUSED)
def test_a_wrong_name_is_told_with_its_place(twins: Twins, statement: str, message: str) -> None:
    with pytest.raises(ProgrammingError) as caught:
        execute(twins.mine, statement)

    assert message in str(caught.value)
    twins.check_tables()


def test_recursion_is_not_built(twins: Twins) -> None:
    with pytest.raises(NotSupportedError, match="WITH RECURSIVE"):
        execute(twins.mine, "WITH RECURSIVE x AS (SELECT 1) SELECT * FROM x")


def test_a_search_is_a_table(database: Database, run: Run) -> None:
    run("CREATE TABLE notes (id INTEGER PRIMARY KEY, topic TEXT, body TEXT FULLTEXT, v VECTOR(2))")
    run(
        "INSERT INTO notes VALUES (1, 'ui', 'dark mode', [1, 0]), (2, 'food', 'dark bread', [0, 1]), "
        "(3, 'ui', 'light mode', [1, 1])"
    )
    run("CREATE TABLE topics (name TEXT PRIMARY KEY, owner TEXT)")
    run("INSERT INTO topics VALUES ('ui', 'ada'), ('food', 'bob')")

    found = run(
        "SELECT topic, count(*) AS n FROM (SEARCH notes MATCH ? K 100) GROUP BY topic", ("dark",)
    )
    joined = run(
        "SELECT h.id, t.owner FROM (SEARCH notes NEAR [1, 0] K 2) AS h JOIN topics AS t "
        "ON t.name = h.topic ORDER BY h.score DESC"
    )
    shared = run(
        "WITH h AS (SEARCH notes NEAR [1, 0] K 3 RETURNING id, topic, score) "
        "SELECT topic, max(score) FROM h GROUP BY topic ORDER BY 2 DESC"
    )
    nearest = run(
        "SELECT id, (SELECT id FROM (SEARCH notes NEAR (SELECT v FROM notes AS o WHERE o.id = n.id) "
        "K 2 RETURNING id) WHERE id != n.id) AS other FROM notes AS n ORDER BY id"
    )

    assert found == [("food", 1), ("ui", 1)]
    assert joined == [(1, "ada"), (3, "ada")]
    assert [(topic, round(score, 3)) for topic, score in shared] == [("ui", 1.0), ("food", 0.0)]
    assert nearest == [(1, 3), (2, 3), (3, 1)]


def test_a_plan_is_made_anew_where_any_of_its_tables_has_changed(run: Run) -> None:
    statement = "SELECT t.a, (SELECT n FROM u WHERE u.a = t.a) FROM t JOIN w ON w.a = t.a"
    for name in ("t", "u", "w"):
        run(f"CREATE TABLE {name} (a INTEGER, n INTEGER)")
        run(f"INSERT INTO {name} VALUES (1, 10)")
    assert run(statement) == [(1, 10)]

    for name in ("t", "u", "w"):
        run(f"DROP TABLE {name}")
        run(f"CREATE TABLE {name} (n INTEGER, x TEXT, a INTEGER)")
        run(f"INSERT INTO {name} VALUES (7, 'x', 1)")

    assert run(statement) == [(1, 7)]


def test_past_and_present_of_a_collection_join(run: Run) -> None:
    run("CREATE TABLE t (a INTEGER PRIMARY KEY, n INTEGER)")
    run("PRAGMA keep_commits = 10")
    run("INSERT INTO t VALUES (1, 10), (2, 20)")
    ((commit,),) = run("SELECT last_commit FROM m2m_stats")
    run("UPDATE t SET n = n + 1 WHERE a = 2")

    found = run(
        f"SELECT now.a, old.n, now.n FROM t AS now JOIN t AS OF {commit} AS old USING (a) ORDER BY 1"
    )

    assert found == [(1, 10, 10), (2, 20, 21)]


def test_a_cross_join_that_runs_too_long_can_be_interrupted(
    database: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("CREATE TABLE t (a INTEGER)")
    run("INSERT INTO t VALUES " + ", ".join(f"({i})" for i in range(2000)))
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise DatabaseError("interrupted")

    monkeypatch.setattr(database, "check_interrupted", check)

    with pytest.raises(DatabaseError, match="interrupted"):
        run("SELECT count(*) FROM t AS x, t AS y WHERE x.a + y.a = -1")
