"""ALTER: columns come, go and are renamed without a segment being written anew."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.index.absent import AlteredSegment
from m2mdb.index.database import Database
from m2mdb.pager.errors import DatabaseError, IntegrityError, ProgrammingError
from m2mdb.query.executor import execute
from m2mdb.recovering import recover
from tests.query.conftest import Run, opened

ROWS = 1500  # more than a bulk add needs to become a segment


@pytest.fixture
def notes(database: Database, run: Run) -> Run:
    """A collection with a segment and a few rows in the delta."""
    run("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT, n INTEGER)")
    rows = ", ".join(f"({i}, 'body {i}', {i % 7})" for i in range(ROWS))
    run(f"INSERT INTO notes VALUES {rows}")
    run("INSERT INTO notes VALUES (9001, 'late', 3), (9002, NULL, NULL)")
    return run


def extents(database: Database) -> set[tuple[int, int]]:
    """Where the rows' extents lie."""
    with database.reading() as view:
        entry = view.collection(view.names()[0]).entry
        return {(e.start_page, e.page_count) for r in entry.records.values() for e in r.extents}


def is_sound(database: Database) -> bool:
    return execute(database, "PRAGMA integrity_check").rows == [("ok",)]


ADDED = [
    ("i INTEGER", None),
    ("i INTEGER DEFAULT 7", 7),
    ("i INTEGER NOT NULL DEFAULT -3", -3),
    ("r REAL DEFAULT 2", 2.0),
    ("t TEXT DEFAULT 'früh'", "früh"),
    ("t TEXT DEFAULT ''", ""),
    ("b BLOB DEFAULT x'00ff'", b"\0\xff"),
    ("o BOOLEAN DEFAULT true", True),
    ("j JSON DEFAULT '[1, \"x\"]'", '[1, "x"]'),
    ("w TIMESTAMP DEFAULT '2024-05-06'", datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC)),
    ("v VECTOR(3)", None),
]


@pytest.mark.parametrize(("definition", "expected"), ADDED)
def test_rows_that_are_there_have_the_default_of_a_new_column(
    database: Database, notes: Run, definition: str, expected: Any
) -> None:
    name = definition.split()[0]
    before = extents(database)

    notes(f"ALTER TABLE notes ADD COLUMN {definition}")

    assert before <= extents(database), "no segment was written anew"
    assert notes(f"SELECT {name} FROM notes WHERE id IN (0, 77, 9001)") == [(expected,)] * 3
    assert notes(f"SELECT DISTINCT {name} FROM notes") == [(expected,)] or name == "v"
    null = "IS NULL" if expected is None else "IS NOT NULL"
    assert notes(f"SELECT count(*), count(id) FROM notes WHERE {name} {null}") == [
        (ROWS + 2, ROWS + 2)
    ]
    notes("INSERT INTO notes (id) VALUES (9100)")
    assert notes(f"SELECT {name} FROM notes WHERE id = 9100") == [(expected,)]
    assert is_sound(database)
    notes("DELETE FROM notes WHERE n = 3")
    notes("OPTIMIZE notes")
    assert notes(f"SELECT {name} FROM notes WHERE id IN (0, 77)") == [(expected,)] * 2
    assert is_sound(database)


def test_a_new_column_is_filled_filtered_indexed_and_sorted(database: Database, notes: Run) -> None:
    notes("ALTER TABLE notes ADD COLUMN mark TEXT DEFAULT 'none'")
    notes("UPDATE notes SET mark = 'red' WHERE id < 10")
    notes("CREATE INDEX by_mark ON notes (mark)")

    assert notes("SELECT mark, count(*) FROM notes GROUP BY mark") == [
        ("none", ROWS - 8),
        ("red", 10),
    ]
    assert notes("SELECT count(*) FROM notes WHERE mark = 'red'") == [(10,)]
    assert notes("SELECT id FROM notes ORDER BY mark DESC, id LIMIT 2") == [(0,), (1,)]
    assert is_sound(database)


def test_a_new_fulltext_column_is_searched_at_once(database: Database, notes: Run) -> None:
    notes("ALTER TABLE notes ADD COLUMN extra TEXT DEFAULT 'quiet words' FULLTEXT")
    notes("UPDATE notes SET extra = 'loud words' WHERE id = 5")

    assert notes("SEARCH notes MATCH 'loud' RETURNING id") == [(5,)]
    assert len(notes("SEARCH notes MATCH 'quiet' K 5000 RETURNING id")) == ROWS + 1
    assert is_sound(database)


def test_a_new_vector_column_is_searched_and_gets_lists(database: Database, notes: Run) -> None:
    notes("ALTER TABLE notes ADD COLUMN v VECTOR(4) METRIC l2")
    assert notes("SEARCH notes NEAR [1, 0, 0, 0] RETURNING id") == []
    notes("UPDATE notes SET v = [1, 0, 0, 0] WHERE id IN (3, 9001)")
    notes("UPDATE notes SET v = [0, 1, 0, 0] WHERE id = 4")

    assert notes("SEARCH notes NEAR [1, 0, 0, 0] RETURNING id") == [(3,), (9001,), (4,)]
    notes("CREATE INDEX lists ON notes USING hrm2 (v)")
    notes("OPTIMIZE notes")
    assert notes("SEARCH notes NEAR [1, 0, 0, 0] K 2 RETURNING id") == [(3,), (9001,)]
    assert is_sound(database)


def test_a_dropped_column_is_gone_and_its_name_is_free(database: Database, notes: Run) -> None:
    before = extents(database)

    notes("ALTER TABLE notes DROP COLUMN n")

    assert before <= extents(database)
    assert notes("SELECT * FROM notes WHERE id = 9001") == [(9001, "late")]
    with pytest.raises(ProgrammingError, match="no such column: n"):
        notes("SELECT n FROM notes")
    notes("ALTER TABLE notes ADD COLUMN n TEXT DEFAULT 'new'")
    assert notes("SELECT n FROM notes WHERE id IN (1, 9001)") == [("new",), ("new",)]
    notes("INSERT INTO notes VALUES (9200, 'b', 'given')")
    assert notes("SELECT * FROM notes WHERE id = 9200") == [(9200, "b", "given")]
    assert is_sound(database)


def test_names_change_and_indexes_follow(database: Database, notes: Run) -> None:
    notes("CREATE INDEX by_n ON notes (n)")
    notes("CREATE INDEX words ON notes USING bm25 (body)")
    before = extents(database)

    notes("ALTER TABLE notes RENAME COLUMN n TO size")
    notes("ALTER TABLE notes RENAME COLUMN body TO text")
    notes("ALTER TABLE notes RENAME TO pages")

    assert extents(database) == before
    assert notes("SELECT count(*) FROM pages WHERE size = 3") == [(ROWS // 7 + 1,)]
    assert "by_n (size=?)" in notes("EXPLAIN SELECT id FROM pages WHERE size = 3")[0][2]
    assert notes("SEARCH pages MATCH 'late' RETURNING id, text") == [(9001, "late")]
    assert notes("SELECT name, collection, column_name FROM m2m_indexes") == [
        ("by_n", "pages", "size"), ("words", "pages", "text")
    ]  # fmt: skip
    with pytest.raises(ProgrammingError, match="no such collection: notes"):
        notes("SELECT * FROM notes")
    notes("INSERT INTO pages (text, size) VALUES ('more', 3)")
    notes("CREATE TABLE notes (a INTEGER)")
    assert is_sound(database)


def test_a_change_is_undone_with_its_transaction(database: Database, notes: Run) -> None:
    before = notes("SELECT * FROM notes")
    for change in ("ADD COLUMN x INTEGER DEFAULT 5", "DROP COLUMN n", "RENAME COLUMN n TO m",
                   "RENAME TO pages"):  # fmt: skip
        notes("BEGIN")
        notes(f"ALTER TABLE notes {change}")
        notes("ROLLBACK")

        assert notes("SELECT * FROM notes") == before
    notes("BEGIN")
    notes("ALTER TABLE notes ADD COLUMN x INTEGER DEFAULT 5")
    notes("ROLLBACK")
    notes("ALTER TABLE notes ADD COLUMN y TEXT DEFAULT 'five'")  # under the id that x had
    assert notes("SELECT y FROM notes WHERE id = 1") == [("five",)]
    notes("BEGIN")
    notes("SAVEPOINT s")
    notes("ALTER TABLE notes ADD COLUMN x INTEGER DEFAULT 5")
    notes("INSERT INTO notes (id, x) VALUES (9300, 6)")
    notes("ROLLBACK TO s")
    notes("COMMIT")
    assert notes("SELECT * FROM notes") == [(*row, "five") for row in before]
    assert is_sound(database)


REFUSED = [
    ("nope ADD COLUMN x TEXT", ProgrammingError, "no such collection: nope"),
    ("notes ADD COLUMN body TEXT", ProgrammingError, "duplicate column name: body"),
    ("notes ADD COLUMN score REAL", ProgrammingError, "computed name"),
    ("notes ADD COLUMN x TEXT UNIQUE", ProgrammingError, "cannot add a UNIQUE column"),
    ("notes ADD COLUMN x TEXT PRIMARY KEY", ProgrammingError, "cannot add a PRIMARY KEY column"),
    ("notes ADD COLUMN x TEXT NOT NULL", IntegrityError, "NOT NULL column with default value NULL"),
    ("notes ADD COLUMN x INTEGER DEFAULT 'many'", DatabaseError, "many"),
    ("notes ADD COLUMN x TEXT DEFAULT (id)", ProgrammingError, "not constant"),
    ("notes ADD COLUMN x VECTOR(0)", ProgrammingError, "dimension 0"),
    ("notes ADD COLUMN x TEXT FULLTEXT (nonsense = 1)", DatabaseError, "nonsense"),
    ("notes DROP COLUMN id", ProgrammingError, "PRIMARY KEY"),
    ("notes DROP COLUMN k", ProgrammingError, "UNIQUE"),
    ("notes DROP COLUMN n", ProgrammingError, "index by_n is on it"),
    ("notes DROP COLUMN bdy", ProgrammingError, "did you mean body?"),
    ("alone DROP COLUMN a", ProgrammingError, "no other columns exist"),
    ("notes RENAME COLUMN body TO id", ProgrammingError, "duplicate column name: id"),
    ("notes RENAME COLUMN body TO rank", ProgrammingError, "computed name"),
    ("notes RENAME COLUMN nope TO x", ProgrammingError, "no such column: nope"),
    ("notes RENAME TO alone", ProgrammingError, "collection alone already exists"),
    ("notes RENAME TO m2m_notes", ProgrammingError, "the system's"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
def test_a_refused_change_changes_nothing(
    database: Database, run: Run, change: str, error: type[Exception], message: str
) -> None:
    run("CREATE TABLE notes (id INTEGER PRIMARY KEY, k TEXT UNIQUE, n INTEGER, body TEXT)")
    run("CREATE INDEX by_n ON notes (n)")
    run("INSERT INTO notes VALUES (1, 'a', 5, 'words')")
    run("CREATE TABLE alone (a TEXT)")
    before = run("SELECT * FROM m2m_columns"), run("SELECT * FROM notes")

    with pytest.raises(error) as caught:
        run(f"ALTER COLLECTION {change}")

    assert message in str(caught.value)
    assert (run("SELECT * FROM m2m_columns"), run("SELECT * FROM notes")) == before
    assert is_sound(database)


def test_an_empty_collection_takes_a_not_null_column(run: Run) -> None:
    run("CREATE TABLE t (a INTEGER)")

    run("ALTER TABLE t ADD COLUMN b TEXT NOT NULL")

    with pytest.raises(IntegrityError, match="NOT NULL"):
        run("INSERT INTO t (a) VALUES (1)")


def test_the_past_begins_with_a_change_of_columns_and_not_of_names(run: Run) -> None:
    run("CREATE TABLE t (a INTEGER, b TEXT)")
    run("PRAGMA keep_commits = 100")
    run("INSERT INTO t VALUES (1, 'x')")
    ((commit,),) = run("SELECT last_commit FROM m2m_stats")
    run("UPDATE t SET b = 'y'")
    run("ALTER TABLE t RENAME COLUMN b TO c")
    run("ALTER TABLE t RENAME TO u")
    assert run(f"SELECT a, c FROM u AS OF {commit}") == [(1, "x")]

    run("ALTER TABLE u ADD COLUMN d INTEGER")

    with pytest.raises(DatabaseError, match="oldest"):
        run(f"SELECT a, c FROM u AS OF {commit}")
    ((commit,),) = run("SELECT last_commit FROM m2m_stats")
    run("UPDATE u SET d = 4")
    assert run(f"SELECT * FROM u AS OF {commit}") == [(1, "y", None)]


# ------------------------------------------------------------------------- files


@pytest.fixture
def altered(tmp_path: Path) -> Iterator[Callable[[], m2mdb.Connection]]:
    """A file whose segments lack columns, and opens it."""
    path = tmp_path / "altered.m2m"
    con = m2mdb.connect(path)
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, gone TEXT, n INTEGER)")
    con.executemany("INSERT INTO t VALUES (?, ?, ?)", [(i, f"gone {i}", i) for i in range(ROWS)])
    con.commit()
    con.execute("ALTER TABLE t ADD COLUMN word TEXT DEFAULT 'old'")
    con.execute("ALTER TABLE t ADD COLUMN v VECTOR(2)")
    con.execute("ALTER TABLE t DROP COLUMN gone")
    con.execute("ALTER TABLE t RENAME COLUMN n TO number")
    con.commit()
    con.execute("INSERT INTO t VALUES (?, ?, ?, ?)", (5000, 1, "new", [1, 0]))
    con.commit()
    con.close()
    yield lambda: m2mdb.connect(path)


EXPECTED = [*[(i, i, "old") for i in range(ROWS)], (5000, 1, "new")]
SELECT = "SELECT id, number, word FROM t"


def read(con: m2mdb.Connection) -> Any:
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    near = con.execute("SEARCH t NEAR [1, 0] RETURNING id").fetchall()
    assert near == [(5000,)]
    return con.execute(SELECT).fetchall()


def test_a_reopened_file_and_its_copies_have_the_same_rows(
    altered: Callable[[], m2mdb.Connection], tmp_path: Path
) -> None:
    with altered() as con:
        assert read(con) == EXPECTED
        con.execute("VACUUM INTO ?", (str(tmp_path / "into.m2m"),))
        with m2mdb.connect(tmp_path / "copy.m2m") as copy:
            con.backup(copy)
        with m2mdb.connect(tmp_path / "script.m2m") as copy:
            copy.executescript("\n".join(con.iterdump()))
    for name in ("into.m2m", "copy.m2m", "script.m2m"):
        with m2mdb.connect(tmp_path / name) as copy:
            assert read(copy) == EXPECTED, name
    with altered() as con:
        con.execute("VACUUM")
        assert read(con) == EXPECTED
        con.execute("FORGET FROM t WHERE id = 7")
        con.commit()
        assert read(con) == [row for row in EXPECTED if row[0] != 7]


def test_another_connection_sees_the_change_when_it_is_committed(
    altered: Callable[[], m2mdb.Connection],
) -> None:
    with altered() as writer, altered() as reader:
        assert reader.execute("SELECT max(number) FROM t").fetchall() == [(ROWS - 1,)]
        writer.execute("ALTER TABLE t ADD COLUMN late REAL DEFAULT 0.5")
        with pytest.raises(m2mdb.ProgrammingError, match="no such column: late"):
            reader.execute("SELECT late FROM t")
        writer.commit()
        assert reader.execute("SELECT DISTINCT late FROM t").fetchall() == [(0.5,)]
        writer.execute("ALTER TABLE t DROP COLUMN late")
        writer.execute("ALTER TABLE t ADD COLUMN late TEXT DEFAULT 'text'")
        writer.commit()
        assert reader.execute("SELECT DISTINCT late FROM t").fetchall() == [("text",)]


def test_arrays_of_an_absent_column_are_those_that_a_segment_would_have() -> None:
    database = opened()
    execute(database, "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    rows = ", ".join(f"({i})" for i in range(700))
    execute(database, f"INSERT INTO t VALUES {rows}")
    for definition, _ in ADDED:
        name = definition.split()[0]
        execute(database, f"ALTER TABLE t ADD COLUMN {definition.replace(name, 'x', 1)}")
        with database.reading() as view:
            collection = view.collection("t")
            column = collection.schema.columns[-1]
            (absent,) = collection.segments
            assert isinstance(absent, AlteredSegment)
        written = opened()
        execute(written, f"CREATE TABLE t (id INTEGER PRIMARY KEY, {definition})")
        execute(written, f"INSERT INTO t (id) VALUES {rows}")
        with written.reading() as view:
            (whole,) = view.collection("t").segments
            there = view.collection("t").schema.columns[-1]
            parts = [part for part, id_ in whole.names() if id_ == there.id]
            for part in parts:
                assert absent.has(part, column.id), (definition, part)
                mine, theirs = absent.array(part, column.id), whole.array(part, there.id)
                assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs), definition
                assert not mine.flags.writeable
        written.close()
        execute(database, "ALTER TABLE t DROP COLUMN x")
    database.close()


CHANGES = st.one_of(
    st.sampled_from(["ADD COLUMN {} INTEGER DEFAULT 4", "ADD COLUMN {} TEXT", "DROP COLUMN {}",
                     "ADD COLUMN {} TEXT DEFAULT 'd'", "ADD COLUMN {} REAL DEFAULT 1.5"]),
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(CHANGES, st.sampled_from("pqr")).map(
            lambda pair: "ALTER TABLE t " + pair[0].format(pair[1])
        ),
        st.tuples(st.sampled_from("pqr"), st.sampled_from("pqr")).map(
            lambda pair: f"ALTER TABLE t RENAME COLUMN {pair[0]} TO {pair[1]}"
        ),
        st.sampled_from(
            ["INSERT INTO t (a) VALUES (1), (2), (3)", "UPDATE t SET a = a + 10 WHERE a % 2 = 0",
             "DELETE FROM t WHERE a = 2", "UPDATE t SET p = q", "UPDATE t SET r = 7 WHERE a > 5",
             "OPTIMIZE", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s",
             "SELECT p, count(*) FROM t GROUP BY p ORDER BY p"]
        ),
    ),
    min_size=3,
    max_size=14,
)  # fmt: skip


@settings(max_examples=120, deadline=None, derandomize=True)
@given(STEPS)
def test_scripts_of_changes_agree_with_sqlite(script: list[str]) -> None:
    twin = sqlite3.connect(":memory:", isolation_level=None)
    database = opened()
    twin.execute("CREATE TABLE t (a INTEGER) STRICT")
    execute(database, "CREATE TABLE t (a INTEGER)")
    many = "INSERT INTO t VALUES " + ", ".join(f"({i})" for i in range(600))
    for statement in [many, *script, "SELECT * FROM t"]:
        if statement == "OPTIMIZE":
            if not database.in_transaction:
                execute(database, statement)
            continue
        try:
            theirs: Any = [tuple(row) for row in twin.execute(statement).fetchall()]
        except sqlite3.Error:
            theirs = "error"
        try:
            mine: Any = execute(database, statement).rows
        except DatabaseError:
            mine = "error"

        assert mine == theirs, ";\n".join(script) + "\n" + statement
    assert is_sound(database)
    database.close()
    twin.close()


def test_recovery_knows_columns_that_segments_lack(
    altered: Callable[[], m2mdb.Connection], tmp_path: Path
) -> None:
    altered().close()

    recover(str(tmp_path / "altered.m2m"), str(tmp_path / "saved.m2m"))

    with m2mdb.connect(tmp_path / "saved.m2m") as con:
        assert read(con) == EXPECTED


def test_kept_segments_that_lack_a_column_are_read_after_reopening(tmp_path: Path) -> None:
    path, columns = tmp_path / "a.m2m", ("i INTEGER DEFAULT 7", "s TEXT", "v VECTOR(2)")
    with m2mdb.connect(path, autocommit=True) as con:
        con.execute("PRAGMA keep_commits = 30")
        con.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER)")
        con.execute("INSERT INTO t (b) VALUES (1), (2)")
        for column in columns:
            con.execute(f"ALTER TABLE t ADD COLUMN {column}")
        (commit,) = con.execute("SELECT last_commit FROM m2m_stats").fetchone()
        con.execute("UPDATE t SET b = 5, i = 8")
        con.execute("OPTIMIZE")
        assert con.execute("SELECT count(*) FROM m2m_segments WHERE part LIKE 'kept%'").fetchone()
    con.close()
    with m2mdb.connect(path) as con:
        rows = con.execute("SELECT * FROM t AS OF ?", (commit,)).fetchall()
        assert rows == [(1, 1, 7, None, None), (2, 2, 7, None, None)]
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
