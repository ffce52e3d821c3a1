"""Statements on a real database: definitions, changes, results, transactions, refusals."""

from __future__ import annotations

import contextlib
import datetime
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from m2mdb.index.database import Database
from m2mdb.pager.errors import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from m2mdb.query.executor import KEPT_STATEMENTS, execute, execute_many
from m2mdb.query.result import Result
from tests.query.conftest import Run

ResultOf = Callable[..., Result]
UTC = datetime.UTC


@pytest.fixture
def notes(run: Run) -> Run:
    """A collection of every type with two rows."""
    run(
        "CREATE COLLECTION notes (id TEXT PRIMARY KEY, body TEXT FULLTEXT, n INTEGER, r REAL, "
        "flag BOOLEAN, at TIMESTAMP, data BLOB, meta JSON, v VECTOR(2) METRIC l2)"
    )
    run(
        "INSERT INTO notes VALUES ('a', 'dark', 1, 1.5, TRUE, '2024-01-02', x'00ff', ?, [1, 2]), "
        "('b', NULL, 2, NULL, FALSE, NULL, NULL, NULL, NULL)",
        ({"user": {"name": "Ann"}, "tags": ["x", "y"]},),
    )
    return run


def test_values_come_back_as_python_has_them(notes: Run) -> None:
    row, other = notes("SELECT * FROM notes")

    assert row[:5] == ("a", "dark", 1, 1.5, True) and row[4] is True
    assert row[5] == datetime.datetime(2024, 1, 2, tzinfo=UTC)
    assert row[6] == b"\x00\xff"
    assert row[7] == '{"user": {"name": "Ann"}, "tags": ["x", "y"]}'
    assert row[8].dtype == np.float32 and row[8].tolist() == [1, 2]
    assert not row[8].flags.writeable
    assert other[:5] == ("b", None, 2, None, False) and other[4:6] == (False, None)


def test_json_paths_and_moments_are_compared(notes: Run) -> None:
    assert notes("SELECT meta->>'user.name', meta->'tags', meta->>'$.tags[1]' FROM notes") == [
        ("Ann", '["x","y"]', "y"),
        (None, None, None),
    ]
    assert notes("SELECT id FROM notes WHERE meta->>'$.user.name' = 'Ann'") == [("a",)]
    day = datetime.date(2024, 1, 2)
    assert notes("SELECT id FROM notes WHERE at = ?", (day,)) == [("a",)]
    assert notes("SELECT id FROM notes WHERE at < '2024-01-02T00:00:01'") == [("a",)]
    naive = datetime.datetime(2024, 1, 2)
    east = datetime.datetime(2024, 1, 2, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    for moment in (naive, east):
        assert notes("SELECT count(*) FROM notes WHERE at = ?", (moment,)) == [(1,)]
    assert notes("SELECT typeof(at), typeof(flag), typeof(v) FROM notes WHERE n = 1") == [
        ("timestamp", "boolean", "vector")
    ]


def test_result_tells_columns_types_and_counts(notes: Run, result: ResultOf) -> None:
    found = result('SELECT ID, n AS "Number", n + 1 FROM notes')
    assert found.columns == ["id", "Number", "n + 1"]
    assert found.types == ["TEXT", "INTEGER", None]
    assert (found.rowcount, found.lastrowid) == (-1, None)
    inserted = result("INSERT INTO notes (id) VALUES ('c'), ('d')")
    assert (inserted.columns, inserted.rowcount, inserted.lastrowid) == (None, 2, 4)
    assert result("UPDATE notes SET n = 5 WHERE id > 'a'").rowcount == 3
    assert result("DELETE FROM notes WHERE n = 5").rowcount == 3
    assert result("CREATE TABLE other (x)").rowcount == -1
    assert result("DROP TABLE other").columns is None


def test_every_writing_statement_can_return_rows(notes: Run, result: ResultOf) -> None:
    inserted = result("INSERT INTO notes (id, n) VALUES ('c', 7) RETURNING rowid, id, n * 2 AS d")
    assert (inserted.columns, inserted.rows) == (["rowid", "id", "d"], [(3, "c", 14)])
    updated = result("UPDATE notes SET n = n + 1 WHERE n > 1 RETURNING id, n")
    assert (updated.rows, updated.rowcount) == ([("b", 3), ("c", 8)], 2)
    assert result("DELETE FROM notes WHERE id != 'a' RETURNING id").rows == [("b",), ("c",)]
    assert result("DELETE FROM notes WHERE id = 'z' RETURNING id").rows == []
    assert result("SELECT count(*) FROM notes").rows == [(1,)]


def test_defaults_fill_what_is_not_given(run: Run) -> None:
    run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT DEFAULT 'x', b INTEGER DEFAULT -5, "
        "c REAL DEFAULT (1.0 / 4), d TIMESTAMP DEFAULT '2024-01-01', e BOOLEAN DEFAULT FALSE)"
    )

    run("INSERT INTO t DEFAULT VALUES")
    run("INSERT INTO t (a, id) VALUES (NULL, 9)")
    run("INSERT INTO t (b) VALUES (1)")

    day = datetime.datetime(2024, 1, 1, tzinfo=UTC)
    assert run("SELECT * FROM t") == [
        (1, "x", -5, 0.25, day, False),
        (9, None, -5, 0.25, day, False),
        (10, "x", 1, 0.25, day, False),
    ]


def test_upsert_sees_both_rows(run: Run) -> None:
    run("CREATE TABLE t (k TEXT PRIMARY KEY, n INTEGER DEFAULT 3, v VECTOR(2), at TIMESTAMP)")
    run("INSERT INTO t (k, v) VALUES ('a', [1, 0])")
    upsert = (
        "INSERT INTO t (k, v, at) VALUES (?, ?, '2024-01-01') ON CONFLICT (k) DO UPDATE "
        "SET n = t.n + excluded.n, v = excluded.v, at = excluded.at WHERE t.n < 9 RETURNING k, n"
    )

    assert run(upsert, ("a", [0, 1])) == [("a", 6)]
    assert run(upsert, ("a", [0, 2])) == [("a", 9)]
    assert run(upsert, ("a", [0, 3])) == []
    assert run(upsert, ("b", [5, 5])) == [("b", 3)]
    rows = run("SELECT k, n, v, at FROM t")
    assert rows[0][2].tolist() == [0, 2] and rows[1][2].tolist() == [5, 5]
    assert rows[0][3] == datetime.datetime(2024, 1, 1, tzinfo=UTC)


def test_names_have_no_case_and_may_be_quoted(run: Run) -> None:
    run('CREATE TABLE Mixed ("Two Words" TEXT, "SELECT" INTEGER, Plain TEXT)')
    run("INSERT INTO mixed (\"two words\", \"select\", PLAIN) VALUES ('x', 1, 'y')")

    assert run('SELECT "TWO WORDS", mixed."select" FROM MIXED') == [("x", 1)]
    assert run("SELECT m.plain FROM mixed AS m") == [("y",)]
    with pytest.raises(ProgrammingError, match=r"mixed.plain"):
        run("SELECT mixed.plain FROM mixed AS m")


def test_parameters_by_position_and_by_name(run: Run) -> None:
    assert run("SELECT ?, ?", (1, "x")) == [(1, "x")]
    assert run("SELECT ?2, ?1", (1, "x")) == [("x", 1)]
    assert run("SELECT :a, :b, :a", {"a": 1, "b": None, "unused": 5}) == [(1, None, 1)]
    assert run("SELECT ? IN ?", (2, [1, 2])) == [(True,)]
    assert run("SELECT ?", (np.int64(5),)) == [(5,)]
    assert run("SELECT ?", (np.float32(0.5),)) == [(0.5,)]
    assert run("SELECT ?", (bytearray(b"x"),)) == [(b"x",)]
    key = uuid.UUID(int=5)
    assert run("SELECT ?", (key,)) == [(str(key),)]
    assert run("SELECT ?", (np.datetime64("2024-01-02"),)) == [
        (datetime.datetime(2024, 1, 2, tzinfo=UTC),)
    ]


BAD_PARAMETERS: list[tuple[str, Any, type[Exception], str]] = [
    ("SELECT ?, ?", (1,), ProgrammingError,
     "Incorrect number of bindings supplied. The current statement uses 2, and there are 1"),
    ("SELECT 1", (1,), ProgrammingError, "uses 0, and there are 1 supplied"),
    ("SELECT :a", (1,), ProgrammingError, "pass a mapping, not a tuple"),
    ("SELECT :a", {"b": 1}, ProgrammingError, "a value for binding parameter :a"),
    ("SELECT ?", {"a": 1}, ProgrammingError, "pass a sequence, not a mapping"),
    ("SELECT ?", "x", InterfaceError, "a sequence or a mapping, not str 'x'"),
    ("SELECT ?", 5, InterfaceError, "a sequence or a mapping, not int 5"),
    ("SELECT ?", (object(),), InterfaceError, "parameter 1: type 'object' is not supported"),
    ("SELECT ?", (2**63,), DataError, "parameter 1: integer 9223372036854775808 does not fit"),
    ("SELECT ?", (float("nan"),), DataError, "parameter 1 is NaN"),
    ("SELECT 1 IN ?", (5,), ProgrammingError, "stands for a list and is bound to int 5"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "parameters", "error", "message"), BAD_PARAMETERS)
def test_bad_parameters_are_named(
    run: Run, statement: str, parameters: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        run(statement, parameters)

    assert message in str(caught.value)


REFUSED: list[tuple[str, type[Exception], str]] = [
    ("SELECT nope FROM notes", ProgrammingError, "no such column: nope in notes"),
    ("SELECT bodi FROM notes", ProgrammingError, "did you mean body?"),
    ("SELECT x", ProgrammingError, "no such column: x"),
    ("SELECT * ", ProgrammingError, ""),
    ("SELECT * FROM nope", ProgrammingError, "no such collection: nope"),
    ("SELECT nope(1)", ProgrammingError, "no such function: nope"),
    ("SELECT abs(1, 2)", ProgrammingError, "wrong number of arguments to function abs()"),
    ("SELECT count(n) FROM notes WHERE count(n) > 1", ProgrammingError, "misuse of aggregate"),
    ("SELECT sum(count(n)) FROM notes", ProgrammingError, "misuse of aggregate: count()"),
    ("SELECT id FROM notes GROUP BY max(n)", ProgrammingError, "misuse of aggregate"),
    ("SELECT id FROM notes ORDER BY 2", ProgrammingError, "should be between 1 and 1"),
    ("SELECT id FROM notes GROUP BY 3", ProgrammingError, "should be between 1 and 1"),
    ("SELECT id FROM notes LIMIT 'x'", DataError, "LIMIT is 'x'; expected an integer"),
    ("SELECT id FROM notes ORDER BY v", DataError, "cannot be compared"),
    ("SELECT DISTINCT v FROM notes", DataError, "cannot be compared"),
    ("SELECT id FROM notes WHERE v = 1", ProgrammingError, "v is a VECTOR column"),
    ("SELECT v + 1 FROM notes", DataError, "is not a number"),
    ("SELECT id FROM notes WHERE at > 'soon'", DataError, "'soon' is not a time"),
    ("SELECT abs(-9223372036854775807 - 1)", DataError, "integer overflow"),
    ("SELECT (SELECT 1, 2)", ProgrammingError, "sub-select returns 2 columns - expected 1"),
    ("SELECT 1 COLLATE nope = 2", ProgrammingError, "no such collation: nope"),
    ("SELECT '{}' -> '$['", ProgrammingError, "malformed JSON path"),
    ("SELECT '{' ->> 'a'", DataError, "malformed JSON"),
    ("INSERT INTO notes VALUES (1, 2)", ProgrammingError, "2 values for 9 columns of notes"),
    ("INSERT INTO notes (id, n) VALUES (1)", ProgrammingError, "1 values for 2 columns of notes"),
    ("INSERT INTO notes (id, id) VALUES (1, 2)", ProgrammingError, "id of notes is named twice"),
    ("INSERT INTO notes (nope) VALUES (1)", ProgrammingError, "no such column: nope"),
    ("INSERT INTO notes (id, n) VALUES ('c', 'many')", DataError, "'many'"),
    ("INSERT INTO notes (id, n) VALUES ('c', 1.5)", DataError, "1.5"),
    ("INSERT INTO notes (id, flag) VALUES ('c', 7)", DataError, "7"),
    ("INSERT INTO notes (id, at) VALUES ('c', 'soon')", DataError, "'soon'"),
    ("INSERT INTO notes (id, v) VALUES ('c', [1, 2, 3])", DataError, "3 dimensions"),
    ("INSERT INTO notes (id) VALUES ('a')", IntegrityError, "notes.id"),
    ("INSERT INTO notes (id) VALUES ('c'), ('c')", IntegrityError, "notes.id"),
    ("INSERT INTO notes (id) VALUES (NULL)", IntegrityError, "notes.id"),
    ("INSERT INTO notes (id) VALUES ('a') ON CONFLICT (n) DO NOTHING", ProgrammingError,
     "ON CONFLICT (n) does not match"),
    ("INSERT INTO notes (id) SELECT id, n FROM notes", ProgrammingError, "2 values for 1 columns"),
    ("INSERT INTO m2m_columns VALUES (1)", ProgrammingError, "is a system table"),
    ("UPDATE notes SET nope = 1", ProgrammingError, "no such column: nope"),
    ("UPDATE notes SET id = 'z'", IntegrityError, "notes.id"),
    ("UPDATE notes SET n = 'x' WHERE id = 'a'", DataError, "'x'"),
    ("UPDATE notes SET n = max(n)", ProgrammingError, "misuse of aggregate"),
    ("UPDATE m2m_columns SET name = 'x'", ProgrammingError, "is a system table"),
    ("DELETE FROM notes WHERE nope", ProgrammingError, "no such column: nope"),
    ("DELETE FROM m2m_columns", ProgrammingError, "is a system table"),
    ("CREATE TABLE notes (a)", ProgrammingError, "notes already exists"),
    ("CREATE TABLE m2m_x (a)", ProgrammingError, "m2m_"),
    ("CREATE TABLE t (a, A)", ProgrammingError, "duplicate column name"),
    ("CREATE TABLE t (score REAL)", ProgrammingError, "computed name"),
    ("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT PRIMARY KEY)", ProgrammingError, ""),
    ("CREATE TABLE t (v VECTOR)", ProgrammingError, "needs a dimension"),
    ("CREATE TABLE t (v VECTOR(0))", ProgrammingError, "dimension 0"),
    ("CREATE TABLE t (v VECTOR(2, f8))", ProgrammingError, "f8"),
    ("CREATE TABLE t (v VECTOR(2) METRIC manhattan)", ProgrammingError, "manhattan"),
    ("CREATE TABLE t (a INTEGER DEFAULT 'x')", DataError, "'x'"),
    ("CREATE TABLE t (a VECTOR(2) DEFAULT CURRENT_TIMESTAMP)", ProgrammingError, "no DEFAULT"),
    ("CREATE TABLE t (a INTEGER FULLTEXT)", ProgrammingError, "FULLTEXT needs TEXT"),
    ("CREATE TABLE t (a TENSOR)", NotSupportedError, "TENSOR"),
    ("CREATE TABLE t (a TEXT) WITH (dedup = 'a')", NotSupportedError, "dedup"),
    ("DROP TABLE nope", ProgrammingError, "no such collection: nope"),
    ("CREATE INDEX i ON nope (a)", ProgrammingError, "no such collection: nope"),
    ("CREATE INDEX i ON notes (nope)", ProgrammingError, "no such column: nope"),
    ("CREATE INDEX i ON notes (id, id)", ProgrammingError, "stands twice"),
    ("CREATE INDEX i ON notes (v)", ProgrammingError, "vector column"),
    ("CREATE INDEX i ON notes USING hrm2 (n)", ProgrammingError, "n is INTEGER"),
    ("CREATE INDEX i ON notes USING hrm2 (v) WITH (a = 1)", ProgrammingError, "retrain and lists"),
    ("CREATE INDEX i ON notes USING magic (n)", ProgrammingError, "magic"),
    ("DROP INDEX nope", ProgrammingError, "no such index: nope"),
    ("PRAGMA nope", ProgrammingError, "unknown PRAGMA nope"),
    ("PRAGMA synchronous = often", ProgrammingError, "often"),
    ("PRAGMA busy_timeout = -5", ProgrammingError, "-5"),
    ("PRAGMA user_version = -1", ProgrammingError, "-1"),
    ("PRAGMA wal_checkpoint(hard)", ProgrammingError, "hard"),
    ("PRAGMA table_info(nope)", ProgrammingError, "no such collection: nope"),
    ("PRAGMA compute = abacus", ProgrammingError, "abacus"),
    ("COMMIT", ProgrammingError, "no transaction is active"),
    ("ROLLBACK", ProgrammingError, "no transaction is active"),
    ("RELEASE nope", ProgrammingError, "no such savepoint: nope"),
    ("FEEDBACK notes NEAR [1, 2] RELEVANT ('a')", NotSupportedError, "FEEDBACK"),
    ("VACUUM INTO ''", ProgrammingError, "path"),
    ("SELECT id FROM notes AS a, notes AS b", ProgrammingError, "ambiguous column name: id"),
    ("SELEC 1", ProgrammingError, ""),
    ("", ProgrammingError, ""),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "error", "message"), REFUSED)
def test_a_refused_statement_changes_nothing(
    notes: Run, database: Database, statement: str, error: type[Exception], message: str
) -> None:
    def state() -> list[object]:
        rows = [repr(row) for row in notes("SELECT * FROM notes")]
        return [rows, notes("SELECT * FROM m2m_columns"), notes("SELECT * FROM m2m_indexes")]

    before = state()

    with pytest.raises(error) as caught:
        notes(statement)

    assert message in str(caught.value)
    assert isinstance(caught.value, DatabaseError)
    assert not database.in_transaction
    assert state() == before
    notes("INSERT INTO notes (id) VALUES ('usable')")


def test_a_statement_that_fails_in_a_transaction_undoes_itself_alone(
    notes: Run, database: Database
) -> None:
    notes("BEGIN")
    notes("INSERT INTO notes (id) VALUES ('c')")

    with pytest.raises(IntegrityError):
        notes("INSERT INTO notes (id) VALUES ('d'), ('a')")

    assert database.in_transaction
    notes("COMMIT")
    assert notes("SELECT id FROM notes") == [("a",), ("b",), ("c",)]


def test_transactions_and_savepoints(notes: Run) -> None:
    ids = "SELECT group_concat(id) FROM notes"
    notes("BEGIN IMMEDIATE")
    with pytest.raises(ProgrammingError):
        notes("BEGIN")
    notes("DELETE FROM notes WHERE id = 'a'")
    notes("SAVEPOINT one")
    notes("INSERT INTO notes (id) VALUES ('x')")
    notes("SAVEPOINT two")
    notes("INSERT INTO notes (id) VALUES ('y')")
    assert notes(ids) == [("b,x,y",)]
    notes("ROLLBACK TO two")
    assert notes(ids) == [("b,x",)]
    notes("RELEASE one")
    assert notes(ids) == [("b,x",)]
    notes("ROLLBACK")
    assert notes(ids) == [("a,b",)]


def test_plans_follow_the_schema_also_through_rollback(run: Run) -> None:
    run("CREATE TABLE t (a INTEGER)")
    run("INSERT INTO t VALUES (1)")
    assert run("SELECT * FROM t") == [(1,)]

    run("BEGIN")
    run("DROP TABLE t")
    run("CREATE TABLE t (b TEXT, c TEXT)")
    run("INSERT INTO t VALUES ('x', 'y')")
    assert run("SELECT * FROM t") == [("x", "y")]
    run("ROLLBACK")
    assert run("SELECT * FROM t") == [(1,)]

    run("BEGIN")
    run("DROP TABLE t")
    run("CREATE TABLE t (d TEXT)")
    assert run("SELECT * FROM t") == []
    run("COMMIT")
    run("INSERT INTO t VALUES ('z')")
    assert run("SELECT * FROM t") == [("z",)]


def test_an_index_is_used_and_changes_no_answer(run: Run) -> None:
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT UNIQUE, n INTEGER, r REAL, at TIMESTAMP)")
    for number in range(200):
        day = datetime.datetime(2024, 1, 1, tzinfo=UTC) + datetime.timedelta(days=number)
        value = None if number % 20 == 7 else number / 2
        run("INSERT INTO t VALUES (?, ?, ?, ?, ?)", (number, f"k{number}", number % 50, value, day))
    queries = [
        "n = 7", "n = '7'", "n > 47.5", "n >= 48 AND n < 49.5", "n BETWEEN 3 AND 4", "n < 'x'",
        "r > 95 AND r <= 97.25", "r = 3", "n = 7 AND r > 20", "n = NULL", "at > '2024-07-10'",
        "at BETWEEN '2024-03-01' AND '2024-03-05'", "n = 7 OR n = 9", "7 = n",
        "n > 9223372036854775808.0", "n = (SELECT min(n) + 3 FROM t)",
    ]  # fmt: skip
    before = [run(f"SELECT id FROM t WHERE {where}") for where in queries]

    for column in ("n", "r", "at"):
        run(f"CREATE INDEX t_{column} ON t ({column})")

    assert [run(f"SELECT id FROM t WHERE {where}") for where in queries] == before
    details = [run(f"EXPLAIN SELECT id FROM t WHERE {where}")[0][2] for where in queries]
    assert details[0] == "SEARCH t USING INDEX t_n (n=?)"
    assert details[3] == "SEARCH t USING INDEX t_n (n>=? AND n<?)"
    assert details[12] == "SCAN t"
    run("UPDATE t SET n = 1000 WHERE n = 7")
    run("DELETE FROM t WHERE at > '2024-07-10'")
    assert run("SELECT count(*) FROM t WHERE n = 1000") == [(4,)]


def test_explain_tells_the_access(notes: Run) -> None:
    def lines(statement: str) -> list[tuple[int, str]]:
        return [(row[1], row[2]) for row in notes(f"EXPLAIN {statement}")]

    assert lines("SELECT * FROM notes") == [(0, "SCAN notes")]
    assert lines("SELECT * FROM notes WHERE id = ?") == [
        (0, "SEARCH notes USING PRIMARY KEY (id=?)")
    ]
    assert lines("SELECT * FROM notes WHERE rowid IN (1, 2)") == [
        (0, "SEARCH notes USING ROWID (rowid IN (…))")
    ]
    assert lines("SELECT count(*) FROM notes") == [(0, "COUNT notes")]
    assert lines("SELECT n, count(*) FROM notes GROUP BY n ORDER BY 2") == [
        (0, "SCAN notes"), (0, "USE HASH TABLE FOR GROUP BY"), (0, "SORT FOR ORDER BY")
    ]  # fmt: skip
    assert lines("DELETE FROM notes WHERE id = ?") == [
        (0, "DELETE FROM notes"), (1, "SEARCH notes USING PRIMARY KEY (id=?)")
    ]  # fmt: skip
    assert lines("INSERT INTO notes (id) VALUES (?)") == [
        (0, "INSERT INTO notes"), (1, "VALUES of 1 rows")
    ]  # fmt: skip
    assert lines("SELECT * FROM notes WHERE n = (SELECT max(n) FROM notes)") == [
        (0, "SCAN notes"), (0, "SCALAR SUBQUERY"), (2, "SCAN notes")
    ]  # fmt: skip
    analyzed = notes("EXPLAIN ANALYZE UPDATE notes SET n = 9 WHERE id = ?", ("a",))
    assert analyzed[-1][2].startswith("ANALYZE: 1 rows changed in ")
    assert notes("SELECT n FROM notes WHERE id = 'a'") == [(9,)]


def test_pragmas(notes: Run, database: Database) -> None:
    assert notes("PRAGMA integrity_check") == [("ok",)]
    assert notes("PRAGMA page_size") == [(4096,)]
    assert notes("PRAGMA synchronous") == [(2,)]
    for value, level in (("off", 0), (1, 1), ("FULL", 2), ("NORMAL", 1), (2, 2)):
        notes(f"PRAGMA synchronous = {value}")
        assert notes("PRAGMA synchronous") == [(level,)]
    assert notes("PRAGMA busy_timeout = 250") == [(250,)]
    assert database.store.timeout == 0.25
    notes("PRAGMA user_version = 7")
    notes("PRAGMA application_id(77)")
    assert notes("PRAGMA user_version") + notes("PRAGMA application_id") == [(7,), (77,)]
    assert notes("PRAGMA compute") == [("numpy",)]
    info = notes("PRAGMA table_info(NOTES)")
    assert info[0] == (0, "id", "TEXT", 0, None, 1)
    assert info[8][:3] == (8, "v", "VECTOR(2)")
    assert notes("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
    assert len(notes("CHECKPOINT")[0]) == 3
    notes("BEGIN")
    notes("DELETE FROM notes")
    with pytest.raises(OperationalError):
        notes("PRAGMA wal_checkpoint")
    notes("ROLLBACK")


def test_system_tables_show_the_state(notes: Run) -> None:
    notes("CREATE UNIQUE INDEX notes_n ON notes (n)")

    assert notes("SELECT * FROM m2m_collections") == [("notes", 2, 9, 0, 3)]
    assert notes("SELECT name, metric FROM m2m_columns WHERE type LIKE 'vector%'") == [("v", "l2")]
    assert notes("SELECT * FROM m2m_indexes") == [("notes_n", "notes", "n", "btree", True, None)]
    assert notes("SELECT part, rows FROM m2m_segments") == [("delta", 2)]


def test_queries_stand_in_from_in_and_insert(notes: Run) -> None:
    assert notes("SELECT x + 1 FROM (SELECT n AS x FROM notes) WHERE x > 1") == [(3,)]
    assert notes("SELECT id FROM (SEARCH notes NEAR [1, 2] RETURNING id, score)") == [("a",)]
    assert notes("SELECT id FROM notes WHERE id IN (SEARCH notes MATCH 'dark' RETURNING id)") == [
        ("a",)
    ]
    notes("INSERT INTO notes (id, n, v) SELECT id || '2', n, v FROM notes")
    assert notes("SELECT id FROM notes") == [("a",), ("b",), ("a2",), ("b2",)]
    assert notes("SELECT id FROM notes WHERE id IN (SELECT id FROM notes WHERE n = 2)") == [
        ("b",), ("b2",)
    ]  # fmt: skip


def test_execute_many_writes_all_or_nothing(notes: Run, database: Database) -> None:
    insert = "INSERT INTO notes (id, n, r) VALUES (?, ?, 2.5)"

    done = execute_many(database, insert, ((f"k{n}", n) for n in range(1000)))

    assert (done.rowcount, done.lastrowid) == (1000, 1002)
    assert notes("SELECT count(*), sum(n), min(r) FROM notes WHERE id LIKE 'k%'") == [
        (1000, 499500, 2.5)
    ]
    for bad in ([("x", 1), ("a", 2)], [("x", 1), ("y", "many")], [("x", 1), ("y",)]):
        with pytest.raises(DatabaseError):
            execute_many(database, insert, bad)
    assert notes("SELECT count(*) FROM notes") == [(1002,)]
    assert execute_many(database, insert, []).rowcount == 0
    changed = execute_many(database, "UPDATE notes SET n = ? WHERE id = ?", [(5, "a"), (6, "no")])
    assert changed.rowcount == 1
    named = execute_many(database, "DELETE FROM notes WHERE id = :id", [{"id": "a"}, {"id": "b"}])
    assert named.rowcount == 2
    with pytest.raises(ProgrammingError, match="executemany"):
        execute_many(database, "SELECT ?", [(1,)])
    many_types = [("t1", np.int64(4)), ("t2", True)]
    assert execute_many(database, insert, many_types).rowcount == 2


def test_only_so_many_statements_are_kept(run: Run, database: Database) -> None:
    run("SELECT 0")
    for number in range(KEPT_STATEMENTS + 20):
        run("SELECT 0")
        run(f"SELECT {number} + 1")

    assert len(database.plans) == KEPT_STATEMENTS
    assert "SELECT 0" in database.plans


def test_nesting_too_deep_is_an_error_of_ours(run: Run) -> None:
    deep = "SELECT " + "(" * 3000 + "1" + ")" * 3000
    with pytest.raises(ProgrammingError):
        run("SELECT " + "NOT " * 5000 + "1")
    with pytest.raises(ProgrammingError):
        run("SELECT " + "abs(" * 500 + "1" + ")" * 500)
    with contextlib.suppress(ProgrammingError):
        assert run(deep) == [(1,)]
    terms = " OR ".join(f"id = {number}" for number in range(1500))
    run("CREATE TABLE t (id INTEGER)")
    run("INSERT INTO t VALUES (7)")
    try:
        assert run(f"SELECT id FROM t WHERE {terms}") == [(7,)]
    except ProgrammingError as error:
        assert "deep" in str(error)


class Interrupting:
    """A parameter that interrupts the statement to which it is bound."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        self.database.interrupt()
        return np.array([1, 2])


def test_a_running_statement_may_be_interrupted(notes: Run, database: Database) -> None:
    for statement in ("SELECT n FROM notes WHERE n IN ?", "DELETE FROM notes WHERE n IN ?"):
        with pytest.raises(OperationalError, match="interrupted"):
            notes(statement, (Interrupting(database),))

    database.interrupt()
    assert notes("SELECT n FROM notes WHERE n > 0") == [(1,), (2,)]
    assert execute(database, "SELECT 1;").rows == [(1,)]


@pytest.mark.parametrize("condition", ["id = ?", "id IN (?)", "rowid = ?", "rowid IN (?, 1)"])
@pytest.mark.parametrize("value", [["a"], ("a",), {"a": 1}])
@pytest.mark.parametrize(
    "statement", ["SELECT * FROM notes", "DELETE FROM notes", "UPDATE notes SET n = 1"]
)
def test_a_list_is_no_key(notes: Run, condition: str, value: Any, statement: str) -> None:
    """`IN (?)` for `IN ?` is a slip that must not pass as "there is no such row"."""
    with pytest.raises((DataError, InterfaceError), match=r"list|tuple|dict"):
        notes(f"{statement} WHERE {condition}", (value,))
