"""Cursor: PEP 249's semantics, checked as its compliance suite does, and sqlite3's habits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.pager import errors

BEERS = ["Carlton Cold", "Carlton Draft", "Mountain Goat", "Redback", "Victoria Bitter", "XXXX"]


@pytest.fixture
def cursor(con: m2mdb.Connection) -> m2mdb.Cursor:
    found = con.cursor()
    found.execute("create table booze (name varchar(20))")
    return found


def fill(cursor: m2mdb.Cursor) -> None:
    for beer in BEERS:
        cursor.execute(f"insert into booze values ('{beer}')")


@pytest.mark.parametrize(
    "given",
    [{1, 2}, frozenset([1, 2]), {1: 0, 2: 0}.keys(), {1: 1, 2: 2}.values(), bytearray(b"ab")],
    ids=lambda given: type(given).__name__,
)
def test_what_has_no_order_or_is_one_value_is_no_list_of_parameters(given: Any) -> None:
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute("CREATE TABLE t (a INTEGER, b INTEGER)")
    with pytest.raises(m2mdb.InterfaceError, match=type(given).__name__):
        con.execute("SELECT ?, ?", given)
    for statement in ("INSERT INTO t VALUES (?, ?)", "DELETE FROM t WHERE a = ? AND b = ?"):
        with pytest.raises(m2mdb.InterfaceError, match=type(given).__name__):
            con.executemany(statement, [(1, 2), given])
    assert con.execute("SELECT * FROM t").fetchall() == []
    con.execute("INSERT INTO t VALUES (1, 2)")
    assert con.execute("SELECT b FROM t WHERE a IN ?", ({1, 5},)).fetchall() == [(2,)]


def test_module_globals() -> None:
    assert (m2mdb.apilevel, m2mdb.threadsafety, m2mdb.paramstyle) == ("2.0", 2, "qmark")


@pytest.mark.parametrize("name", [n for n in dir(errors) if n.endswith(("Error", "Warning"))])
def test_errors_are_the_module_s_and_the_connection_s(name: str) -> None:
    error = getattr(m2mdb, name)

    assert error is getattr(errors, name)
    if name != "StatementInterruptedError":
        assert getattr(m2mdb.Connection, name) is error


def test_error_hierarchy() -> None:
    assert issubclass(m2mdb.Warning, Exception)
    assert issubclass(m2mdb.InterfaceError, m2mdb.Error)
    assert not issubclass(m2mdb.InterfaceError, m2mdb.DatabaseError)
    for error in (
        m2mdb.DataError,
        m2mdb.OperationalError,
        m2mdb.IntegrityError,
        m2mdb.InternalError,
        m2mdb.ProgrammingError,
        m2mdb.NotSupportedError,
        m2mdb.CorruptDatabaseError,
    ):
        assert issubclass(error, m2mdb.DatabaseError)
    assert issubclass(m2mdb.DatabaseBusyError, m2mdb.OperationalError)


def test_constructors() -> None:
    assert m2mdb.Date(2002, 12, 25).isoformat() == "2002-12-25"
    assert m2mdb.Time(13, 45, 30).isoformat() == "13:45:30"
    assert m2mdb.Timestamp(2002, 12, 25, 13, 45, 30).isoformat() == "2002-12-25T13:45:30"
    ticks = 1_040_000_000.0
    assert m2mdb.DateFromTicks(ticks) == m2mdb.TimestampFromTicks(ticks).date()
    assert m2mdb.TimeFromTicks(ticks) == m2mdb.TimestampFromTicks(ticks).time()
    assert m2mdb.Binary(b"x") == b"x"


def test_type_objects_compare_with_type_codes() -> None:
    assert m2mdb.STRING == "TEXT"
    assert m2mdb.NUMBER == "INTEGER"
    assert m2mdb.NUMBER != "TEXT"
    assert m2mdb.STRING != m2mdb.BINARY
    assert hash(m2mdb.STRING) == hash(m2mdb.dbapi.TypeObject("OTHER", "JSON", "TEXT"))
    assert repr(m2mdb.DATETIME) == "m2mdb.DATETIME"


def test_description_and_rowcount(cursor: m2mdb.Cursor) -> None:
    assert cursor.description is None
    assert cursor.rowcount == -1

    cursor.execute("insert into booze values ('Redback')")
    assert cursor.description is None
    assert cursor.rowcount == 1

    cursor.execute("select name from booze")
    assert cursor.description is not None
    assert len(cursor.description) == 1
    assert cursor.description[0][0] == "name"
    assert cursor.description[0][1] == m2mdb.STRING
    assert len(cursor.description[0]) == 7


def test_fetching_needs_a_result_set(con: m2mdb.Connection) -> None:
    cursor = con.cursor()
    for prepare in (
        lambda: None,
        lambda: cursor.execute("create table booze (name varchar(20))"),
        lambda: cursor.execute("insert into booze values ('Redback')"),
    ):
        prepare()
        for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall):
            with pytest.raises(m2mdb.InterfaceError, match="no results to fetch"):
                fetch()


def test_fetchone(cursor: m2mdb.Cursor) -> None:
    cursor.execute("select name from booze")
    assert cursor.fetchone() is None

    cursor.execute("insert into booze values ('Redback')")
    cursor.execute("select name from booze")
    assert cursor.fetchone() == ("Redback",)
    assert cursor.fetchone() is None
    assert cursor.fetchone() is None


def test_fetchmany_and_fetchall(cursor: m2mdb.Cursor) -> None:
    fill(cursor)
    cursor.execute("select name from booze")
    assert [len(cursor.fetchmany(n)) for n in (1, 4, 4, 4)] == [1, 4, 1, 0]

    cursor.execute("select name from booze")
    assert len(cursor.fetchmany()) == 1
    cursor.arraysize = 3
    assert (len(cursor.fetchmany()), len(cursor.fetchmany())) == (3, 2)

    cursor.execute("select name from booze")
    rows = [cursor.fetchone(), *cursor.fetchmany(2), *cursor.fetchall()]
    assert sorted(row[0] for row in rows) == BEERS
    assert cursor.fetchall() == []
    with pytest.raises(m2mdb.ProgrammingError, match="size -1"):
        cursor.fetchmany(-1)


def test_iteration_and_rownumber(cursor: m2mdb.Cursor) -> None:
    fill(cursor)
    assert cursor.rownumber is None

    cursor.execute("select name from booze")
    assert cursor.rownumber == 0
    assert sorted(name for (name,) in cursor) == BEERS
    assert cursor.rownumber == len(BEERS)


def test_parameters_by_position_and_by_name(cursor: m2mdb.Cursor) -> None:
    cursor.execute("insert into booze values (?)", ("Redback",))
    cursor.execute("insert into booze values (:beer)", {"beer": "Carlton Cold"})
    cursor.execute("insert into booze values (?)", ["it's"])

    cursor.execute("select name from booze order by name")
    assert cursor.fetchall() == [("Carlton Cold",), ("Redback",), ("it's",)]


def test_executemany(cursor: m2mdb.Cursor) -> None:
    cursor.executemany("insert into booze values (?)", [("Redback",), ("XXXX",)])
    assert cursor.rowcount == 2

    cursor.executemany("insert into booze values (:beer)", ({"beer": b} for b in BEERS[:3]))
    assert cursor.rowcount == 3

    cursor.executemany("insert into booze values (?)", [])
    assert cursor.execute("select count(*) from booze").fetchone() == (5,)
    with pytest.raises(m2mdb.ProgrammingError):
        cursor.executemany("select name from booze where name = ?", [("XXXX",)])


def test_executemany_of_update_and_delete(cursor: m2mdb.Cursor) -> None:
    fill(cursor)
    cursor.executemany("update booze set name = ? where name = ?", [("A", "XXXX"), ("B", "none")])
    assert cursor.rowcount == 1
    cursor.executemany("delete from booze where name = ?", [("A",), ("Redback",)])
    assert cursor.rowcount == 2


def test_null_comes_back_as_none(cursor: m2mdb.Cursor) -> None:
    cursor.execute("insert into booze values (NULL)")
    cursor.execute("select name from booze")

    assert cursor.fetchone() == (None,)


def test_executescript(con: m2mdb.Connection) -> None:
    cursor = con.executescript(
        """CREATE TABLE t (a INTEGER, b TEXT); -- a comment; with a semicolon
           INSERT INTO t VALUES (1, 'x;y'); INSERT INTO t VALUES (2, 'z');"""
    )

    assert cursor.description is None
    assert con.execute("SELECT a, b FROM t ORDER BY a").fetchall() == [(1, "x;y"), (2, "z")]


def test_two_cursors_of_a_connection_see_each_other_s_rows(con: m2mdb.Connection) -> None:
    one, other = con.cursor(), con.cursor()
    one.execute("create table booze (name varchar(20))")
    one.execute("insert into booze values ('Redback')")
    other.execute("select name from booze")

    assert other.fetchall() == [("Redback",)]


def test_lastrowid(cursor: m2mdb.Cursor) -> None:
    assert cursor.lastrowid is None
    cursor.execute("insert into booze values ('a')")
    first = cursor.lastrowid
    cursor.execute("insert into booze values ('b')")

    assert first is not None
    assert cursor.lastrowid == first + 1


def test_a_closed_cursor_refuses(cursor: m2mdb.Cursor) -> None:
    cursor.execute("select name from booze")
    cursor.close()

    assert repr(cursor) == "<m2mdb.Cursor closed>"
    for use in (
        cursor.fetchone,
        cursor.fetchall,
        cursor.close,
        lambda: cursor.execute("select 1"),
        lambda: cursor.connection,
        lambda: next(cursor),
    ):
        with pytest.raises(m2mdb.InterfaceError, match="the cursor is closed"):
            use()


def test_a_cursor_of_a_closed_connection_refuses(cursor: m2mdb.Cursor) -> None:
    cursor.execute("select name from booze")
    cursor.connection.close()

    for use in (cursor.fetchall, lambda: cursor.execute("select 1"), lambda: list(cursor)):
        with pytest.raises(m2mdb.InterfaceError, match="is closed"):
            use()


def test_setsizes_are_taken(cursor: m2mdb.Cursor) -> None:
    cursor.setinputsizes([25])
    cursor.setoutputsize(1000)
    cursor.setoutputsize(1000, 0)


def test_row_factory(con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    con.row_factory = m2mdb.Row
    cursor = con.execute("SELECT id, body FROM notes ORDER BY id LIMIT 3")
    con.row_factory = None

    first = cursor.fetchone()
    assert (first["id"], first.body, first[0]) == ("a", "red apple", "a")
    assert [row["id"] for row in cursor] == ["b", "c"]
    cursor = con.cursor()
    cursor.row_factory = lambda cursor, row: {
        d[0]: v for d, v in zip(cursor.description or (), row, strict=True)
    }
    assert cursor.execute("SELECT id FROM notes LIMIT 1").fetchall() == [{"id": "a"}]


def test_a_failed_statement_leaves_no_result_set(cursor: m2mdb.Cursor) -> None:
    cursor.execute("select name from booze")
    with pytest.raises(m2mdb.ProgrammingError):
        cursor.execute("select nothing from nowhere")

    with pytest.raises(m2mdb.InterfaceError, match="no results to fetch"):
        cursor.fetchall()
    assert cursor.description is None


def test_vectors_come_back_as_read_only_arrays(
    con: m2mdb.Connection, notes: m2mdb.Collection
) -> None:
    vector = con.execute("SELECT embedding FROM notes WHERE id = 'c'").fetchone()[0]

    np.testing.assert_array_equal(vector, np.array([0.8, 0.6], np.float32))
    assert not vector.flags.writeable
    con.execute("DELETE FROM notes")
    con.commit()
    np.testing.assert_array_equal(vector, np.array([0.8, 0.6], np.float32))


@pytest.mark.parametrize("statement", [17, None, b"SELECT 1"])
def test_a_statement_is_a_str(con: m2mdb.Connection, statement: Any) -> None:
    with pytest.raises(m2mdb.InterfaceError, match="a statement is a str"):
        con.execute(statement)


def test_pandas_reads_queries(con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    import pandas as pd

    with pytest.warns(UserWarning, match="SQLAlchemy"):
        frame = pd.read_sql_query("SELECT id, stars FROM notes ORDER BY id", con)

    assert frame["id"].tolist() == ["a", "b", "c", "d"]
