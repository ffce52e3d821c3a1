"""An unknown name is told with its place, in every statement that has one."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb.query.ast import Insert
from m2mdb.query.parser import parse
from m2mdb.query.placed_names import PlacedName

# What is unknown is `zz`, at the last place where it stands.
STATEMENTS = [
    "SELECT * FROM zz",
    "SELECT * FROM t JOIN zz AS u ON true",
    "SEARCH zz NEAR [1, 0]",
    "SEARCH t NEAR zz [1, 0]",
    "SEARCH t MATCH zz 'word'",
    "SEARCH t NEAR [1, 0] WHERE zz = 1",
    "SEARCH t NEAR [1, 0] DECAY HALF LIFE 3 days ON zz",
    "SEARCH t NEAR [1, 0] RETURNING zz",
    "INSERT INTO zz VALUES (1)",
    "INSERT INTO t (a, zz) VALUES (1, 2)",
    "INSERT INTO t (a) VALUES (zz)",
    "INSERT INTO t (a) SELECT a FROM zz",
    "INSERT INTO t (a) VALUES (1) RETURNING zz",
    "INSERT INTO t (a) VALUES (1) ON CONFLICT (zz) DO NOTHING",
    "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET zz = 1",
    "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET (x, zz) = (1, 2)",
    "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET x = zz",
    "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET x = 1 WHERE zz",
    "REPLACE INTO zz VALUES (1)",
    "UPDATE zz SET a = 1",
    "UPDATE OR IGNORE zz SET a = 1",
    "UPDATE t SET zz = 1",
    "UPDATE t SET x = 1, zz = 1",
    "UPDATE t SET (x, zz) = (1, 2)",
    "UPDATE t SET x = zz",
    "UPDATE t SET x = 1 WHERE zz = 1",
    "UPDATE t SET x = 1 RETURNING zz",
    "DELETE FROM zz",
    "DELETE FROM t WHERE zz = 1",
    "DELETE FROM t RETURNING zz",
    "FORGET FROM zz WHERE true",
    "FORGET FROM t WHERE zz",
    "DROP TABLE zz",
    "DROP COLLECTION zz",
    "DROP INDEX zz",
    "ALTER TABLE zz RENAME TO q",
    "ALTER TABLE t RENAME COLUMN zz TO q",
    "ALTER TABLE zz ADD COLUMN q",
    "ALTER TABLE t DROP COLUMN zz",
    "CREATE INDEX i ON zz (a)",
    "CREATE INDEX i ON t (a, zz)",
    "CREATE INDEX i ON t (zz DESC)",
    "OPTIMIZE zz",
    "ANALYZE zz",
    "REINDEX zz",
    "REEMBED zz USING 'x'",
    "REEMBED t (zz) USING 'x'",
    "COPY zz TO 'f.csv'",
    "COPY zz FROM 'f.csv'",
    "WITH q AS (SELECT 1 AS v) DELETE FROM zz",
    "WITH q AS (SELECT 1 AS v) INSERT INTO t (zz) SELECT v FROM q",
    "EXPLAIN DELETE FROM zz",
    "EXPLAIN UPDATE t SET zz = 1",
    "EXPLAIN SEARCH t NEAR [1, 0] RETURNING zz",
    "EXPLAIN ANALYZE SEARCH zz NEAR [1, 0]",
    "EXPLAIN SELECT zz FROM t",
]


@pytest.fixture
def con() -> Iterator[m2mdb.Connection]:
    connection = m2mdb.connect(":memory:", autocommit=True)
    connection.execute(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, x TEXT, b TEXT FULLTEXT, e VECTOR(2))"
    )
    connection.execute("INSERT INTO t VALUES (1, 'x', 'word', [1, 0])")
    yield connection
    connection.close()


def place_of(con: m2mdb.Connection, statement: str) -> tuple[int, int]:
    """The line and column that an error tells, which is the class that programs know."""
    with pytest.raises(m2mdb.ProgrammingError) as caught:
        con.execute(statement).fetchall()
    assert type(caught.value) is m2mdb.ProgrammingError
    assert caught.value.__cause__ is None
    found = re.search(r"\(line (\d+), column (\d+)\)$", str(caught.value))
    assert found is not None, str(caught.value)
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("quote", ["zz", '"zz"', "[zz]", '"é\n zz"'])
def test_an_unknown_name_is_told_with_its_place(
    con: m2mdb.Connection, statement: str, quote: str
) -> None:
    line, column = place_of(con, f"  {statement}".replace("zz", quote))

    assert (line, column) == (1, f"  {statement}".rindex("zz") + 1)
    assert con.execute("SELECT count(*) FROM t").fetchone() == (1,)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_lines_are_counted(con: m2mdb.Connection, statement: str) -> None:
    assert place_of(con, statement.replace("zz", "\n\n   zz")) == (3, 4)


@pytest.mark.parametrize(
    ("statement", "column"),
    [
        ("INSERT INTO t (a, x, A) VALUES (1, 2, 3)", 22),
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT (x, b) DO NOTHING", 43),
        ("INSERT INTO m2m_segments VALUES (1)", 13),
        ("UPDATE m2m_segments SET part = 1", 8),
        ("DELETE FROM m2m_segments", 13),
        ("SEARCH t NEAR x [1, 0]", 15),
        ("SEARCH t MATCH x 'word'", 16),
        ("ALTER TABLE t DROP COLUMN a", 27),
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET x = excluded.zz", 64),
    ],
)
def test_what_a_name_cannot_be_used_for_is_told_with_its_place(
    con: m2mdb.Connection, statement: str, column: int
) -> None:
    assert place_of(con, statement) == (1, column)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_an_authorizer_changes_no_place(con: m2mdb.Connection, statement: str) -> None:
    con.set_authorizer(lambda *about: 0)

    assert place_of(con, statement) == (1, statement.rindex("zz") + 1)


def test_executemany_tells_the_place_too(con: m2mdb.Connection) -> None:
    with pytest.raises(m2mdb.ProgrammingError, match=r"\(line 1, column 16\)"):
        con.executemany("INSERT INTO t (zz) VALUES (?)", [(1,), (2,)])
    with pytest.raises(m2mdb.ProgrammingError, match=r"\(line 1, column 8\)"):
        con.executemany("UPDATE zz SET x = ?", [(1,), (2,)])


def test_a_script_counts_in_its_statement(con: m2mdb.Connection) -> None:
    with pytest.raises(
        m2mdb.ProgrammingError, match=r"no such collection: zz \(line 1, column 13\)"
    ):
        con.executescript("INSERT INTO t (a) VALUES (2);\nDELETE FROM zz;")


def test_what_is_not_there_and_need_not_be_is_no_error(con: m2mdb.Connection) -> None:
    con.execute("DROP TABLE IF EXISTS zz")
    con.execute("DROP INDEX IF EXISTS zz")


def test_places_get_into_no_schema(tmp_path: Path) -> None:
    path = str(tmp_path / "x.m2m")
    with m2mdb.connect(path, autocommit=True) as con:
        con.execute("CREATE TABLE t (a INTEGER, x TEXT, PRIMARY KEY (a))")
        con.execute("CREATE INDEX i ON t (X DESC, a)")
        con.execute("ALTER TABLE t RENAME COLUMN x TO y")
        told: Any = con.execute("SELECT * FROM m2m_indexes").fetchall()
        with con.engine().reading() as view:
            info = view.collection("t").schema
        names = [name for index in info.indexes for name in index.columns]
        assert all(type(each) is str for each in [*names, *(c.name for c in info.columns)])
    with m2mdb.connect(path) as con:
        assert con.execute("SELECT * FROM m2m_indexes").fetchall() == told


def test_a_placed_name_is_its_text() -> None:
    name = PlacedName("notes", 12)

    assert name == "notes"
    assert hash(name) == hash("notes")
    assert (repr(name), str(name), type(str(name))) == ("'notes'", "notes", str)
    assert name.position == 12
    assert copy.deepcopy(name).position == 12
    statement = parse("INSERT INTO  notes (a) VALUES (1)")
    assert isinstance(statement, Insert)
    assert isinstance(statement.collection, PlacedName)
    assert statement.collection.position == 13
