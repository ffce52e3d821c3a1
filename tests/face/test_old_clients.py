"""Clients written for any DB-API driver, unmodified, beside sqlite3: petl, and JupySQL's magic.

What had to differ: nothing in petl but `create=True`, which asks SQLAlchemy for the table's types
(sqlite3's connections fare alike). JupySQL tells a statement without rows by the words of the
error that PEP 249 asks for; sqlite3 gives an empty list instead.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import petl
import pytest

import m2mdb

ROWS = [
    ("id", "name", "odd name"),
    (1, "x", 1.5),
    (2, None, 2.5),
    (3, "zoë", None),
]  # fmt: skip
CREATE = 'CREATE TABLE "my table" (id INTEGER PRIMARY KEY, name TEXT, "odd name" REAL)'
CONNECT: dict[str, Callable[[], Any]] = {
    "m2mdb": lambda: m2mdb.connect(":memory:", compute="numpy"),
    "sqlite3": lambda: sqlite3.connect(":memory:"),
}


@pytest.fixture(params=sorted(CONNECT))
def con(request: pytest.FixtureRequest) -> Iterator[Any]:
    connection = CONNECT[request.param]()
    connection.execute(CREATE)
    connection.commit()
    yield connection
    connection.close()


DBOS: dict[str, Callable[[Any], Any]] = {
    "connection": lambda con: con,
    "cursor": lambda con: con.cursor(),
    "function": lambda con: con.cursor,
}


@pytest.mark.parametrize("kind", sorted(DBOS))
def test_petl_writes_appends_and_reads(con: Any, kind: str) -> None:
    dbo = DBOS[kind](con)

    petl.todb(ROWS, dbo, "my table")
    petl.appenddb([("id", "name"), (4, "w")], dbo, "my table")

    assert not con.in_transaction
    assert list(petl.fromdb(con, 'SELECT * FROM "my table"')) == [*ROWS, (4, "w", None)]
    petl.todb(ROWS, dbo, "my table")  # which empties it first
    found = petl.fromdb(con.cursor, 'SELECT id FROM "my table" WHERE id > ?', (1,))
    assert list(found) == [("id",), (2,), (3,)]


def test_petl_reads_a_table_as_often_as_it_likes(con: Any) -> None:
    petl.todb(ROWS, con, "my table")
    found = petl.fromdb(con, 'SELECT name, id * 2 AS twice FROM "my table" ORDER BY id')

    assert str(petl.look(found)) == str(petl.look(found))
    assert petl.header(found) == ("name", "twice")
    assert petl.nrows(found.selectnotnone("name").addfield("n", lambda row: row.twice + 1)) == 2
    assert list(petl.dicts(found))[1] == {"name": None, "twice": 4}
    assert list(petl.fromdb(con, 'SELECT id FROM "my table" WHERE 0')) == [("id",)]


def test_petl_undoes_what_fails(con: Any) -> None:
    petl.todb(ROWS, con, "my table")

    with pytest.raises(Exception, match=r"(?i)unique|key") as told:
        petl.appenddb([("id",), (8,), (1,)], con, "my table")
    con.rollback()

    errors = (m2mdb.IntegrityError, sqlite3.IntegrityError)
    assert isinstance(told.value, errors)
    assert petl.nrows(petl.fromdb(con, 'SELECT * FROM "my table"')) == 3


def test_petl_moves_a_table_from_sqlite3_with_an_index_on_it() -> None:
    old = sqlite3.connect(":memory:")
    old.execute("CREATE TABLE notes (id INTEGER, body TEXT)")
    old.executemany("INSERT INTO notes VALUES (?, ?)", [(1, "a cat"), (2, "a dog")])
    con = m2mdb.connect(":memory:", compute="numpy")
    con.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT FULLTEXT)")

    petl.todb(petl.fromdb(old, "SELECT * FROM notes"), con, "notes")

    found = petl.fromdb(con, "SEARCH notes MATCH 'dog' K 5 RETURNING id, body")
    assert list(found) == [("id", "body"), (2, "a dog")]
    con.close()
    old.close()


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A notebook's shell with the magic loaded: `pip install -e '.[test-notebook]'`."""
    pytest.importorskip("sql", reason="JupySQL is not installed")
    monkeypatch.setenv("PLOOMBER_STATS_ENABLED", "false")
    from IPython.core.interactiveshell import InteractiveShell

    found = InteractiveShell.instance()
    found.run_line_magic("load_ext", "sql")
    return found


def test_the_magic_of_jupysql(shell: Any) -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    shell.push({"con": con, "wanted": "y"})

    shell.run_line_magic("sql", "con")
    shell.run_line_magic("sql", "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, v VECTOR(2))")
    shell.run_line_magic("sql", "INSERT INTO t VALUES (1, 'x', [1, 2]), (2, 'y', [2, 1])")
    rows = shell.run_line_magic("sql", "SELECT id, a FROM t WHERE a = '{{wanted}}'")
    hits = shell.run_cell_magic("sql", "", "SEARCH t NEAR [2, 1] K 1\n RETURNING id, score")

    assert list(rows) == [(2, "y")]
    assert rows.DataFrame().to_dict("list") == {"id": [2], "a": ["y"]}
    assert [hit[0] for hit in hits] == [2]
    assert not con.in_transaction
    with pytest.raises(Exception, match="no such column: nope"):
        shell.run_line_magic("sql", "SELECT nope FROM t")
    shell.run_line_magic("sql", "--close Connection")
    with pytest.raises(m2mdb.InterfaceError):
        con.execute("SELECT 1")
