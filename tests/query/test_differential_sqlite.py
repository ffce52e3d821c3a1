"""Scripts of statements give what SQLite gives, statement by statement."""

from __future__ import annotations

import math
import sqlite3
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.pager.errors import DatabaseError
from m2mdb.query.executor import execute
from tests.query.conftest import opened

Outcome = tuple[str, object]
COLUMNS = "id INTEGER PRIMARY KEY, k TEXT UNIQUE, a INTEGER, b REAL, c TEXT"
KEYS = st.sampled_from(["NULL", "'x'", "'y'", "'z'", "'w'", "'long " + "k" * 90 + "'"])
IDS = st.integers(1, 9).map(str)
INTEGERS = st.sampled_from(["NULL", "0", "1", "2", "-3", "7", "9007199254740993"])
REALS = st.sampled_from(["NULL", "0.0", "1.5", "-2.5", "7.0", "1e10", "3"])
TEXTS = st.sampled_from(["NULL", "''", "'a'", "'A'", "'abc'", "'b'", "'12'", "'%'"])


def _row(args: tuple[str, ...]) -> str:
    return "(" + ", ".join(args) + ")"


ROWS = st.tuples(IDS, KEYS, INTEGERS, REALS, TEXTS).map(_row)
OPERANDS = st.sampled_from(
    ["id", "a", "b", "c", "k", "1", "2.5", "'abc'", "NULL", "a + 1", "b * 2", "-a", "c || 'x'",
     "length(c)", "a % 2", "coalesce(a, b, 0)", "upper(k)", "CAST(c AS INTEGER)"]
)  # fmt: skip
SYMBOLS = st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "IS", "IS NOT"])


def _condition_leaves() -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(OPERANDS, SYMBOLS, OPERANDS).map(" ".join),
        st.tuples(OPERANDS, st.sampled_from(["IS NULL", "IS NOT NULL"])).map(" ".join),
        st.tuples(OPERANDS, OPERANDS, OPERANDS).map("{0[0]} BETWEEN {0[1]} AND {0[2]}".format),
        st.tuples(OPERANDS, st.lists(OPERANDS, min_size=1, max_size=3).map(", ".join)).map(
            "{0[0]} IN ({0[1]})".format
        ),
        st.tuples(st.sampled_from(["c", "k"]), st.sampled_from(["a%", "%B%", "_"])).map(
            "{0[0]} LIKE '{0[1]}'".format
        ),
        st.sampled_from(
            ["id = 3", "id IN (1, 2, 5)", "k = 'x'", "k IN ('x', 'y')", "a > 0 AND a < 5",
             "a IN (SELECT a FROM t WHERE id < 5)", "a = (SELECT max(a) FROM t)",
             "EXISTS (SELECT 1 FROM t WHERE a > 3)", "rowid = 2", "c = 'abc'", "c > 'A'"]
        ),
    )  # fmt: skip


CONDITIONS = st.recursive(
    _condition_leaves(),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" AND ", " OR "]), inner).map(
            "({0[0]}{0[1]}{0[2]})".format
        ),
        inner.map("NOT ({})".format),
    ),
    max_leaves=4,
)
WHERE = st.one_of(st.just(""), CONDITIONS.map(" WHERE {}".format))
LIMIT = st.sampled_from(["", " LIMIT 3", " LIMIT 2 OFFSET 1", " LIMIT -1 OFFSET 2", " LIMIT 0"])
ORDERS = st.sampled_from(
    ["", " ORDER BY a, id", " ORDER BY c DESC, id", " ORDER BY 2, 1", " ORDER BY b + a, id DESC",
     " ORDER BY a NULLS LAST, id", " ORDER BY c COLLATE NOCASE DESC, id", " ORDER BY n, id"]
)  # fmt: skip
PLAIN = st.tuples(
    st.sampled_from(["id, a AS n", "id, *, c AS n", "id, a + b, length(c) AS n, k", "id, c n"]).map(
        lambda items: items.replace(" n", " AS n").replace("AS AS", "AS")
    ),
    WHERE, ORDERS, LIMIT,
).map(
    lambda parts: f"SELECT {parts[0]} FROM t{parts[1]}{parts[2]}{parts[3] if parts[2] else ''}"
)  # fmt: skip
DISTINCT = st.tuples(st.sampled_from(["a", "c", "a % 2, c IS NULL", "b"]), WHERE).map(
    "SELECT DISTINCT {0[0]} FROM t{0[1]} ORDER BY 1".format
)
AGGREGATES = (
    "count(*), count(a), sum(a % 10), total(b), avg(a % 10), min(c), max(k), count(DISTINCT a), "
    "min(b), max(a)"
)
WHOLE = WHERE.map(f"SELECT {AGGREGATES} FROM t{{}}".format)
GROUPED = st.tuples(
    st.sampled_from(["a", "c", "a % 2", "length(k)", "b > 0"]),
    st.sampled_from(["count(*)", "sum(a % 10) AS s", "min(id), max(c)", "total(b) + count(a)"]),
    WHERE,
    st.sampled_from(["", " HAVING count(*) > 1", " HAVING min(id) < 4"]),
    st.sampled_from([" ORDER BY 1", " ORDER BY count(*) DESC, 1", " ORDER BY 2, 1 LIMIT 2"]),
).map("SELECT {0[0]}, {0[1]} FROM t{0[2]} GROUP BY {0[0]}{0[3]}{0[4]}".format)
SELECTS = st.one_of(PLAIN, PLAIN, DISTINCT, WHOLE, GROUPED)
RETURNING = st.sampled_from(["", " RETURNING id, a, c", " RETURNING *"])
ACTIONS = st.sampled_from(["INSERT", "INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "REPLACE"])
CONFLICTS = st.sampled_from(
    ["", "", " ON CONFLICT DO NOTHING", " ON CONFLICT (k) DO NOTHING",
     " ON CONFLICT (id) DO UPDATE SET a = excluded.a + coalesce(t.a, 0) % 100, c = excluded.k",
     " ON CONFLICT (k) DO UPDATE SET b = excluded.b WHERE t.a > 0"]
)  # fmt: skip
INSERTS = st.one_of(
    st.tuples(ACTIONS, ROWS, RETURNING).map("{0[0]} INTO t VALUES {0[1]}{0[2]}".format),
    st.tuples(st.lists(ROWS, min_size=1, max_size=4).map(", ".join), CONFLICTS, RETURNING).map(
        "INSERT INTO t VALUES {0[0]}{0[1]}{0[2]}".format
    ),
    st.tuples(IDS, TEXTS, INTEGERS).map(
        "INSERT INTO t (c, id, a) VALUES ({0[1]}, {0[0]}, {0[2]})".format
    ),
    WHERE.map("INSERT INTO t (id, a, c) SELECT id + 20, a, c FROM t{} ORDER BY id".format),
)
SETS = st.sampled_from(
    ["a = a % 100 + 1", "b = a, a = 3", "c = c || '!'", "c = upper(c), b = NULL",
     "a = CAST(b AS INTEGER)", "k = 'u'", "a = (SELECT count(*) FROM t)", "c = 12", "a = '5'",
     "b = id / 2.0"]
)  # fmt: skip
UPDATES = st.tuples(SETS, WHERE, RETURNING).map("UPDATE t SET {0[0]}{0[1]}{0[2]}".format)
DELETES = st.tuples(CONDITIONS, RETURNING).map("DELETE FROM t WHERE {0[0]}{0[1]}".format)
OTHERS = st.sampled_from(
    ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s",
     "CREATE INDEX IF NOT EXISTS ta ON t (a)", "CREATE INDEX IF NOT EXISTS tc ON t (c)",
     "DROP INDEX IF EXISTS ta", "DROP INDEX IF EXISTS tc", "CREATE UNIQUE INDEX tb ON t (b)"]
)  # fmt: skip
STATEMENTS = st.one_of(INSERTS, INSERTS, INSERTS, SELECTS, SELECTS, UPDATES, DELETES, OTHERS)


def plain(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.12g}")
    return value


def ordered(statement: str, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows in the order that the statement promises; without ORDER BY SQLite promises none."""
    rows = [tuple(map(plain, row)) for row in rows]
    return rows if "ORDER BY" in statement or "ON CONFLICT" in statement else sorted(rows, key=repr)


def sqlite_outcome(twin: sqlite3.Connection, statement: str) -> Outcome:
    try:
        cursor = twin.execute(statement)
        rows = cursor.fetchall()
    except sqlite3.Error as error:
        return "error", type(error).__name__
    names = [each[0] for each in cursor.description] if cursor.description else None
    changed = statement.startswith(("INSERT", "REPLACE", "UPDATE", "DELETE"))
    return "rows", (names, ordered(statement, rows),
                    cursor.rowcount if changed and names is None else None)  # fmt: skip


def own_outcome(database: Any, statement: str) -> Outcome:
    try:
        result = execute(database, statement)
    except DatabaseError as error:
        return "error", type(error).__name__
    changed = statement.startswith(("INSERT", "REPLACE", "UPDATE", "DELETE"))
    return "rows", (result.columns, ordered(statement, result.rows),
                    result.rowcount if changed and result.columns is None else None)  # fmt: skip


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.lists(STATEMENTS, min_size=4, max_size=25))
def test_scripts_agree_with_sqlite(script: list[str]) -> None:
    twin = sqlite3.connect(":memory:", isolation_level=None)
    twin.execute(f"CREATE TABLE t ({COLUMNS}) STRICT")
    database = opened()
    execute(database, f"CREATE TABLE t ({COLUMNS})")
    done: list[str] = []
    for statement in [*script, "SELECT * FROM t"]:
        done.append(statement)

        mine, theirs = own_outcome(database, statement), sqlite_outcome(twin, statement)

        assert mine[0] == theirs[0] and (mine[0] == "error" or mine[1] == theirs[1]), (
            ";\n".join(done) + f"\nmine   {mine}\nSQLite {theirs}"
        )
        assert database.in_transaction == twin.in_transaction, ";\n".join(done)
    database.close()
    twin.close()
