"""CHECK and computed DEFAULT, beside sqlite3's."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb.index.catalog import collection_key
from m2mdb.index.schema import MAX_RULE_CHARACTERS, Column
from m2mdb.pager.errors import CorruptDatabaseError, IntegrityError, ProgrammingError
from m2mdb.pager.vfs import Vfs
from m2mdb.recovering import recover

T = (
    "CREATE TABLE t (a INTEGER CHECK (a > 0), b TEXT, c REAL, "
    "CONSTRAINT short CHECK (length(b) < 5), CHECK (c < a OR b = 'free'))"
)


@pytest.fixture
def con() -> Any:
    with m2mdb.connect(":memory:", autocommit=True) as con:
        yield con


def is_sound(con: m2mdb.Connection) -> bool:
    return con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize(
    ("sql", "title"),
    [
        ("INSERT INTO t VALUES (0, 'x', -1)", "a > 0"),
        ("INSERT INTO t VALUES (1, 'x', 0), (2, 'long text', 0)", "short"),
        ("INSERT INTO t VALUES (1, 'x', 1)", "c < a OR b = 'free'"),
        ("UPDATE t SET a = a - 10", "a > 0"),
        ("UPDATE t SET b = b || 'xxxxx' WHERE a = 7", "short"),
        ("INSERT INTO t VALUES (-1, 'x', 0) ON CONFLICT DO NOTHING", "a > 0"),
        ("INSERT OR REPLACE INTO t VALUES (-1, 'x', 0)", "a > 0"),
        ("INSERT INTO t SELECT a - 100, b, c FROM t", "a > 0"),
    ],
)
def test_a_row_that_fails_is_refused_and_nothing_is_written(
    con: m2mdb.Connection, sql: str, title: str
) -> None:
    twin = sqlite3.connect(":memory:", isolation_level=None)
    for each in (con, twin):
        each.execute(T)
        each.execute("INSERT INTO t VALUES (7, 'x', 1), (NULL, NULL, NULL), (3, 'free', 99)")

    for each, error in ((con, IntegrityError), (twin, sqlite3.IntegrityError)):
        with pytest.raises(error) as raised:
            each.execute(sql)
        assert str(raised.value).startswith(f"CHECK constraint failed: {title}")

    assert con.execute("SELECT count(*) FROM t").fetchall() == [(3,)]
    assert is_sound(con)


def test_or_ignore_leaves_failing_rows_out(con: m2mdb.Connection) -> None:
    con.execute(T)
    con.execute(
        "INSERT OR IGNORE INTO t VALUES (0, 'x', -1), (1, 'x', 0), (2, 'long text', 0), (4, 'y', 9)"
    )

    assert con.execute("SELECT a FROM t").fetchall() == [(1,)]


def test_collections_and_bulk_rows_are_checked(con: m2mdb.Connection) -> None:
    con.execute(T)
    notes = con.collection("t")
    rows: dict[str, Any] = {"a": list(range(1, 3001)), "b": ["x"] * 3000, "c": [0.5] * 3000}
    notes.add(rows)
    rows["a"][2222] = -5

    with pytest.raises(IntegrityError, match=r"CHECK constraint failed: a > 0 \(row 2222\)"):
        notes.add(rows)
    with pytest.raises(IntegrityError, match="short"):
        notes.update(1, {"b": "much too long"})

    assert len(notes) == 3000


CONDITIONS = [
    "a > 0", "a IS NOT NULL", "b LIKE 'a%'", "b IN ('a', 'ab', 'b')", "a BETWEEN 1 AND 9",
    "NOT (a = 3)", "a", "b", "c + a < 20", "coalesce(b, 'x') <> 'x'", "typeof(a) = 'integer'",
    "CASE WHEN a > 5 THEN c > 0 ELSE b IS NULL END", "a > 2 AND (b > 'a' OR c IS NULL)",
    "length(b) = 2", "b = 'AB' COLLATE NOCASE", "a % 2 = 0 OR NULL", "c <> 0.5", "a IN (1, NULL)",
]  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("count", [1, 200])
def test_conditions_hold_as_in_sqlite(condition: str, count: int) -> None:
    """Single rows and columns at once, each refused where SQLite refuses it."""
    choose = random.Random(condition)
    rows = [
        (choose.choice([None, *range(-2, 12)]), choose.choice([None, "", "a", "ab", "AB", "b"]),
         choose.choice([None, 0.5, -1.25, 30.0]))
        for _ in range(250)
    ]  # fmt: skip
    table = f"CREATE TABLE t (a INTEGER, b TEXT, c REAL, CHECK ({condition}))"
    twin = sqlite3.connect(":memory:", isolation_level=None)
    twin.execute(table)
    passing = []
    for row in rows:
        try:
            twin.execute("INSERT INTO t VALUES (?, ?, ?)", row)
            passing.append(row)
        except sqlite3.IntegrityError:
            pass
    with m2mdb.connect(":memory:", autocommit=True) as con:
        con.execute(table)
        if count == 1:
            for row in rows:
                con.execute("INSERT OR IGNORE INTO t VALUES (?, ?, ?)", row)
        else:
            con.executemany("INSERT OR IGNORE INTO t VALUES (?, ?, ?)", rows)
        assert con.execute("SELECT a, b, c FROM t").fetchall() == passing
        assert is_sound(con)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("CHECK (a > ?)", "parameters prohibited in CHECK"),
        ("CHECK (a > (SELECT 1))", "subqueries prohibited in CHECK"),
        ("CHECK (a IN (SELECT 1))", "subqueries prohibited in CHECK"),
        ("CHECK (random() > a)", "non-deterministic"),
        ("CHECK (b > CURRENT_DATE)", "non-deterministic"),
        ("CHECK (date('now') > b)", "non-deterministic"),
        ("CHECK (date() > b)", "non-deterministic"),
        ("CHECK (q > 1)", "no such column: q"),
        ("CHECK (apple > 1 AND aple > 2)", "did you mean apple"),
        ("CHECK (count(a) > 1)", "misuse of aggregate"),
        ("CHECK (nosuch(a))", "no such function"),
        ("CHECK (other.a > 1)", "no such column"),
        ("CHECK (v > 1)", "cannot be compared"),
    ],
)
def test_what_is_no_condition_of_a_row_is_refused(
    con: m2mdb.Connection, inside: str, message: str
) -> None:
    with pytest.raises(ProgrammingError, match=message):
        con.execute(
            f"CREATE TABLE t (a INTEGER, b TEXT, apple INTEGER, v VECTOR(2), {inside})",
            (1,) if "?" in inside else (),
        )

    assert con.execute("SELECT count(*) FROM m2m_collections").fetchall() == [(0,)]


def test_functions_of_the_program_do_not_count(con: m2mdb.Connection) -> None:
    con.create_function("own", 1, lambda value: 1, deterministic=True)
    con.create_function("length", 1, lambda value: 1, deterministic=True)

    with pytest.raises(ProgrammingError, match="no such function: own"):
        con.execute("CREATE TABLE t (a INTEGER, CHECK (own(a)))")
    con.execute("CREATE TABLE t (a TEXT, CHECK (length(a) < 3))")
    with pytest.raises(IntegrityError):
        con.execute("INSERT INTO t VALUES ('four')")


def test_a_date_that_is_now_by_its_value_is_refused(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (b TEXT, CHECK (date(b) IS NOT NULL))")
    con.execute("INSERT INTO t VALUES ('2024-05-06')")

    with pytest.raises(ProgrammingError, match="non-deterministic"):
        con.execute("INSERT INTO t VALUES ('now')")


def test_upsert_checks_the_row_that_it_gives_and_the_row_that_it_makes(
    con: m2mdb.Connection,
) -> None:
    con.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, n INTEGER CHECK (n < 10))")
    con.execute("INSERT INTO t VALUES (1, 5)")
    upsert = "INSERT INTO t VALUES (1, ?) ON CONFLICT (k) DO UPDATE SET n = n + excluded.n"

    con.execute(upsert, (4,))
    with pytest.raises(IntegrityError):
        con.execute(upsert, (4,))
    with pytest.raises(IntegrityError):
        con.execute(upsert, (11,))

    assert con.execute("SELECT n FROM t").fetchall() == [(9,)]


# ------------------------------------------------------------------------- ALTER


def test_rename_follows_into_conditions(con: m2mdb.Connection) -> None:
    con.execute(
        'CREATE TABLE t (a INTEGER, b TEXT, CHECK (a > 0 AND t.a < 9 OR "A" = 10), '
        "CHECK (b <> 'a' /* a */))"
    )
    con.execute('ALTER TABLE t RENAME COLUMN a TO "select"')
    con.execute('ALTER TABLE t RENAME TO "group by"')
    con.execute('ALTER TABLE "group by" RENAME COLUMN b TO a')

    (dump,) = [line for line in con.iterdump() if line.startswith("CREATE")]
    assert (
        'CHECK ("select" > 0 AND "group by"."select" < 9 OR "select" = 10)' in dump
        and "CHECK (a <> 'a')" in dump
    )
    with pytest.raises(IntegrityError):
        con.execute("INSERT INTO \"group by\" VALUES (9, 'x')")
    con.execute("INSERT INTO \"group by\" VALUES (10, 'x')")
    with pytest.raises(IntegrityError):
        con.execute("INSERT INTO \"group by\" VALUES (10, 'a')")


def test_columns_that_a_condition_reads_are_not_dropped(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (a INTEGER CHECK (a > 0), b INTEGER CHECK (b > c), c INTEGER)")
    con.execute("INSERT INTO t VALUES (1, 2, 1)")

    with pytest.raises(ProgrammingError, match=r"CHECK \(b > c\) reads it"):
        con.execute("ALTER TABLE t DROP COLUMN c")
    con.execute("ALTER TABLE t DROP COLUMN a")
    con.execute("ALTER TABLE t DROP COLUMN b")
    con.execute("INSERT INTO t VALUES (-5)")
    assert is_sound(con)


def test_a_new_column_brings_its_condition(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (a INTEGER)")
    con.execute("INSERT INTO t VALUES (1), (7)")

    with pytest.raises(IntegrityError, match="CHECK constraint failed: b > a"):
        con.execute("ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 5 CHECK (b > a)")
    with pytest.raises(ProgrammingError, match="no such column: z"):
        con.execute("ALTER TABLE t ADD COLUMN b INTEGER CHECK (z > a)")
    with pytest.raises(ProgrammingError, match="non-constant default"):
        con.execute("ALTER TABLE t ADD COLUMN b TEXT DEFAULT CURRENT_DATE")
    assert [row[1] for row in con.execute("PRAGMA table_info(t)")] == ["a"]
    con.execute("ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 9 CHECK (b > a)")
    with pytest.raises(IntegrityError):
        con.execute("INSERT INTO t VALUES (9, 9)")


# ------------------------------------------------------------------------- files


def test_conditions_outlive_everything(tmp_path: Path) -> None:
    path = str(tmp_path / "t.m2m")
    with m2mdb.connect(path, autocommit=True) as con:
        con.execute(T)
        con.execute("ALTER TABLE t ADD COLUMN d TEXT DEFAULT 'd'")
        con.executemany("INSERT INTO t (a, b, c) VALUES (?, 'x', 0)", [(i,) for i in range(1, 900)])
        con.execute("CREATE INDEX i ON t (a)")
        con.execute("VACUUM")
        con.execute(f"VACUUM INTO '{tmp_path / 'copy.m2m'}'")
        dump = "\n".join(con.iterdump())
    with m2mdb.connect(str(tmp_path / "loaded.m2m"), autocommit=True) as con:
        con.executescript(dump)
        assert "\n".join(con.iterdump()) == dump
    recover(path, str(tmp_path / "saved.m2m"))
    for name in ("t.m2m", "copy.m2m", "loaded.m2m", "saved.m2m"):
        for untrusted in (False, True):
            with m2mdb.connect(str(tmp_path / name), untrusted=untrusted, autocommit=True) as con:
                assert is_sound(con)
                with pytest.raises(IntegrityError, match="short"):
                    con.execute("INSERT INTO t (a, b, c) VALUES (5, 'too long', 0)")
                with pytest.raises(IntegrityError, match="a > 0"):
                    con.collection("t").add({"a": [-5], "b": ["x"], "c": [-9.0]})


HOSTILE = [
    {"text": "a > 0) FROM t WHERE (1"},
    {"text": "a > 0) AS b, (1"},
    {"text": "(SELECT count(*) FROM t)"},
    {"text": "a > ?"},
    {"text": "random() > 0"},
    {"text": "a >"},
    {"text": "a > 0); DROP TABLE t; SELECT (1"},
    {"text": "a > 0 /*"},
    {"text": "(" * 50_000 + "a" + ")" * 50_000},
    {"text": "-" * 90_000 + "a"},
    {"text": "nosuch > 0"},
    {"text": "x" * (MAX_RULE_CHARACTERS + 1)},
    {"text": 5},
    {"name": "no text"},
    {"text": "a > 0", "column": "nosuch"},
    {"text": "a > 0", "more": 1},
    "text",
]


@pytest.mark.parametrize("check", HOSTILE, ids=range(len(HOSTILE)))
def test_a_made_description_is_refused_and_never_run(con: m2mdb.Connection, check: Any) -> None:
    con.execute("CREATE TABLE t (a INTEGER CHECK (a > 0))")
    con.execute("INSERT INTO t VALUES (1)")
    _describe(con, "checks", [check])

    with pytest.raises(CorruptDatabaseError):
        con.execute("INSERT INTO t VALUES (2)")
        pytest.fail("it was run")


@pytest.mark.parametrize("text", ["a", "(SELECT 1)", "abs(1), 2", "abs(?)", "1) FROM t WHERE (1"])
def test_a_made_default_is_refused(con: m2mdb.Connection, text: str) -> None:
    con.execute("CREATE TABLE t (a INTEGER, b INTEGER)")
    columns = [{"name": "a", "type": "INTEGER", "id": 1}]
    columns.append({"name": "b", "type": "INTEGER", "id": 2, "default_text": text})
    _describe(con, "columns", columns)

    with pytest.raises(CorruptDatabaseError):
        con.execute("INSERT INTO t (a) VALUES (2)")


def test_the_check_of_a_file_finds_rows_that_fail(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (a INTEGER CHECK (a > 0))")
    con.execute("INSERT INTO t VALUES (1), (2)")
    _describe(con, "checks", [{"text": "a > 1", "name": "more"}])

    ((found,),) = con.execute("PRAGMA integrity_check").fetchall()

    assert "CHECK constraint failed: more (the row with rowid 1)" in found


def test_readers_that_know_no_check_refuse_the_file(con: m2mdb.Connection) -> None:
    """They would write rows that a CHECK refuses, and forget it with the next ALTER."""
    con.execute("CREATE TABLE t (a INTEGER CHECK (a > 0), b TEXT)")
    described = json.loads(_raw(con, "t"))["columns"]

    with pytest.raises(ProgrammingError, match="unknown options checked"):
        [Column.decode(column) for column in described]  # as they do

    con.execute("ALTER TABLE t ADD COLUMN c INTEGER")
    con.execute("INSERT INTO t VALUES (1, 'x', 2)")
    with pytest.raises(IntegrityError, match="CHECK constraint failed"):
        con.execute("INSERT INTO t VALUES (0, 'x', 2)")
    con.execute("CREATE TABLE u (a INTEGER)")
    assert b"checked" in _raw(con, "t") and b"checked" not in _raw(con, "u")


def test_a_description_that_lost_its_conditions_is_refused(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (a INTEGER CHECK (a > 0))")
    _describe(con, "checks", [])

    with pytest.raises(CorruptDatabaseError, match="its CHECKs are gone"):
        con.execute("INSERT INTO t VALUES (2)")


def test_a_file_of_the_first_readers_with_check_is_opened(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (a INTEGER CHECK (a > 0))")
    _describe(con, "columns", [{"name": "a", "type": "INTEGER", "id": 1}])  # no `checked`

    con.execute("INSERT INTO t VALUES (2)")
    with pytest.raises(IntegrityError, match="CHECK constraint failed"):
        con.execute("INSERT INTO t VALUES (0)")


def _raw(con: m2mdb.Connection, name: str) -> bytes:
    """The description of a collection."""
    with con.engine().reading() as view:
        return view.catalog.by_name[name].raw


def _describe(con: m2mdb.Connection, key: str, value: Any) -> None:
    """Change the description of the only collection as another program could."""
    database = con.engine()
    with database.writing() as write:
        (entry,) = write.catalog.by_id.values()
        fields = json.loads(entry.raw)
        fields[key] = value
        raw = json.dumps(fields).encode()
        write.catalog_tree().put(collection_key(b"C", entry.id), raw)
        entry.raw = raw
        from m2mdb.index.description import put_description

        put_description(write.transaction, entry)
        header = write.transaction.change_header()
        header.catalog_number += 1
        header.schema_number += 1
    database._catalog = None
    database._own_catalog = None
    database._view = None
    database.plans.clear()


# ------------------------------------------------------------------------- DEFAULT


def test_defaults_are_computed_for_each_row(con: m2mdb.Connection) -> None:
    con.execute(
        "CREATE TABLE t (k INTEGER PRIMARY KEY, r INTEGER DEFAULT (random()), "
        "day TEXT DEFAULT CURRENT_DATE, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, "
        "tag TEXT DEFAULT (lower('A') || 'b'), n INTEGER DEFAULT (1 + 2))"
    )
    con.execute("INSERT INTO t (k) VALUES (1), (2), (3)")
    con.execute("INSERT INTO t DEFAULT VALUES")
    con.collection("t").add({"k": [5, 6]})
    con.executemany("INSERT INTO t (k) VALUES (?)", [(7,), (8,)])
    con.execute("INSERT INTO t (k) VALUES (8) ON CONFLICT (k) DO UPDATE SET n = 4")

    rows = con.execute(
        "SELECT count(DISTINCT r), count(DISTINCT tag), min(tag), count(*), "
        "sum(day = date(at)), sum(n) FROM t"
    ).fetchall()
    assert rows == [(8, 1, "ab", 8, 8, 25)]
    info = [row[4] for row in con.execute("PRAGMA table_info(t)")]
    assert info == [None, "random()", "CURRENT_DATE", "CURRENT_TIMESTAMP", "lower('A') || 'b'", "3"]


def test_defaults_stand_in_for_null_under_replace(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (a INTEGER, b TEXT NOT NULL DEFAULT (upper('x')))")
    con.execute("INSERT OR REPLACE INTO t VALUES (1, NULL), (2, 'y')")
    con.execute("INSERT OR IGNORE INTO t VALUES (3, NULL)")

    assert con.execute("SELECT b FROM t").fetchall() == [("X",), ("y",)]


@pytest.mark.parametrize(
    ("default", "message"),
    [("(a)", "not constant"), ("(abs(a))", "not constant"), ("(abs(?))", "parameter"),
     ("(abs((SELECT 1)))", "subqueries"), ("(nosuch())", "no such function"),
     ("(count(*))", "misuse of aggregate")],
)  # fmt: skip
def test_what_is_no_default_is_refused(con: m2mdb.Connection, default: str, message: str) -> None:
    with pytest.raises(ProgrammingError, match=message):
        con.execute(
            f"CREATE TABLE t (a INTEGER, b INTEGER DEFAULT {default})",
            (1,) if "?" in default else (),
        )


def test_random_comes_from_the_vfs(monkeypatch: pytest.MonkeyPatch, con: m2mdb.Connection) -> None:
    vfs: Vfs = con.engine().store.vfs
    monkeypatch.setattr(type(vfs), "random", lambda self, size: b"\x01" * size)

    rows = con.execute("SELECT random(), hex(randomblob(3))").fetchall()

    assert rows == [(0x0101010101010101, "010101")]
