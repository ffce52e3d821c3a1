"""COLLATE of a column: comparisons beside sqlite3, keys, indexes, and what is in the file."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.index.collations import FOLDS

TABLES = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE, b TEXT, c TEXT COLLATE RTRIM)",
    "CREATE TABLE k (k TEXT COLLATE NOCASE PRIMARY KEY, u TEXT COLLATE RTRIM UNIQUE, v INTEGER)",
)
ROWS = (
    "INSERT INTO t VALUES (1, 'Abc', 'Abc', 'x '), (2, 'aBC', 'abc', 'x'), (3, 'b', 'B', 'y  '), "
    "(4, NULL, 'z', NULL), (5, '_', '[', ' x'), (6, 'É', 'é', '')"
)
INDEXES = (
    "CREATE INDEX ia ON t (a)",
    "CREATE INDEX ica ON t (c, a)",
    "CREATE UNIQUE INDEX iba ON t (b, a)",
)
QUERIES = (
    "SELECT id FROM t WHERE a = 'ABC' ORDER BY id",
    "SELECT id FROM t WHERE 'ABC' = a ORDER BY id",
    "SELECT id FROM t WHERE a = b ORDER BY id",
    "SELECT id FROM t WHERE b = a ORDER BY id",
    "SELECT id FROM t WHERE a COLLATE BINARY = 'Abc' ORDER BY id",
    "SELECT id FROM t WHERE b COLLATE NOCASE = 'ABC' ORDER BY id",
    "SELECT id FROM t WHERE a = 'ABC' COLLATE BINARY ORDER BY id",
    "SELECT id FROM t WHERE c = 'x    ' AND a >= 'ABC' ORDER BY id",
    "SELECT id FROM t WHERE a IN ('ABC', 'B') ORDER BY id",
    "SELECT id FROM t WHERE a NOT IN ('ABC', 'B') ORDER BY id",
    "SELECT id FROM t WHERE a BETWEEN 'ABB' AND 'ABD' ORDER BY id",
    "SELECT id FROM t WHERE a > 'ABC' ORDER BY id",
    "SELECT id FROM t WHERE a < '_' ORDER BY id",
    "SELECT id FROM t WHERE a IS 'ABC' OR a IS NOT 'b' ORDER BY id",
    "SELECT id FROM t WHERE a <> 'abc' ORDER BY id",
    "SELECT id FROM t WHERE +a = 'ABC' ORDER BY id",
    "SELECT id FROM t WHERE +b IN (SELECT a FROM t) ORDER BY id",
    "SELECT id FROM t WHERE (+b, 1) IN (SELECT a, 1 FROM t) ORDER BY id",
    "SELECT id FROM t WHERE CAST(a AS TEXT) = 'ABC' ORDER BY id",
    "SELECT id FROM t WHERE a || '' = 'ABC' ORDER BY id",
    "SELECT id FROM t WHERE a LIKE 'AB%' AND a GLOB 'A*' ORDER BY id",
    "SELECT id FROM t WHERE (a, c) = ('ABC', 'x') ORDER BY id",
    "SELECT id FROM t WHERE (a, c) IN (SELECT b, c FROM t) ORDER BY id",
    "SELECT id FROM t WHERE a IN (SELECT b FROM t) ORDER BY id",
    "SELECT id FROM t WHERE b IN (SELECT a FROM t) ORDER BY id",
    "SELECT id FROM t WHERE b || '' IN (SELECT a FROM t) ORDER BY id",
    "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM t AS u WHERE u.a = t.b AND u.id <> t.id)",
    "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM t AS u WHERE t.b = u.a AND u.id <> t.id)",
    "SELECT id FROM t ORDER BY a, id",
    "SELECT id FROM t ORDER BY a DESC NULLS LAST, id",
    "SELECT id FROM t ORDER BY a COLLATE BINARY, id",
    "SELECT lower(a), count(*) FROM t GROUP BY a ORDER BY a",
    "SELECT count(*) FROM (SELECT DISTINCT a, c FROM t)",
    "SELECT count(DISTINCT a), count(DISTINCT c), min(a), max(a) FROM t WHERE id <> 2",
    "SELECT max(a, 'B'), min(b, a), nullif(a, 'ABC') FROM t ORDER BY id",
    "SELECT CASE a WHEN 'ABC' THEN 1 ELSE 0 END FROM t ORDER BY id",
    "SELECT x.id, y.id FROM t AS x JOIN t AS y ON x.a = y.b ORDER BY 1, 2",
    "SELECT x.id, y.id FROM t AS x JOIN t AS y ON x.b = y.a ORDER BY 1, 2",
    "SELECT x.id, y.id FROM t AS x LEFT JOIN t AS y ON x.b COLLATE NOCASE = y.b ORDER BY 1, 2",
    "SELECT x.id, y.id FROM t AS x JOIN t AS y ON x.a < y.b ORDER BY 1, 2",
    "SELECT x.id, y.id FROM t AS x JOIN t AS y USING (a) ORDER BY 1, 2",
    "SELECT k.v, t.id FROM t JOIN k ON t.b = k.k ORDER BY 1, 2",
    "SELECT k.v, t.id FROM k JOIN t ON k.k = t.b ORDER BY 1, 2",
    "SELECT id FROM (SELECT id, a AS q FROM t) WHERE q = 'ABC' ORDER BY 1",
    "SELECT id FROM (SELECT id, a COLLATE BINARY AS q FROM t) WHERE q = 'ABC' ORDER BY 1",
    "SELECT id FROM (SELECT id, b COLLATE NOCASE AS q FROM t) WHERE q = 'ABC' ORDER BY 1",
    "SELECT count(*) FROM (SELECT a FROM t UNION SELECT b FROM t)",
    "SELECT count(*) FROM (SELECT b FROM t UNION SELECT a FROM t)",
    "SELECT count(*) FROM (SELECT a FROM t EXCEPT SELECT b FROM t)",
    "SELECT count(*) FROM (SELECT a FROM t INTERSECT SELECT b FROM t)",
    "SELECT count(*) FROM (SELECT a FROM t UNION SELECT id FROM t UNION SELECT b FROM t)",
    "WITH w AS (SELECT a AS q FROM t) SELECT count(*) FROM w WHERE q = 'ABC'",
    "SELECT v FROM k WHERE k = 'A'",
    "SELECT v FROM k WHERE k IN ('A', 'a', 'b')",
    "SELECT v FROM k WHERE u = 'y' ORDER BY v",
)
WRITES = (
    "INSERT INTO k VALUES ('a', 'x', 1), ('B', 'y ', 2)",
    "INSERT INTO k VALUES ('A', 'q', 3)",
    "INSERT INTO k VALUES ('c', 'y', 3)",
    "INSERT INTO k VALUES ('A', 'q', 3) ON CONFLICT (k) DO UPDATE SET v = v + 10",
    "INSERT OR REPLACE INTO k VALUES ('b', 'zz', 9)",
    "INSERT OR IGNORE INTO k VALUES ('b', 'zzz', 9), ('D', 'd', 1), ('d', 'e', 1)",
    "UPDATE k SET k = 'AA' WHERE k = 'A'",
    "UPDATE k SET k = 'aa' WHERE k = 'AA'",
    "UPDATE k SET k = 'Aa' WHERE v = 9",
    "UPDATE OR REPLACE k SET u = 'zz   ' WHERE k = 'd'",
    "INSERT INTO t VALUES (9, 'ABC', 'Abc', '')",
    "INSERT INTO t VALUES (9, 'ABC', 'ABc', '')",
    "DELETE FROM k WHERE k = 'AA'",
)


@pytest.fixture(params=["scans", "indexes"])
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    mine = m2mdb.connect(":memory:", autocommit=True)
    theirs = sqlite3.connect(":memory:", isolation_level=None)
    for con in (mine, theirs):
        for sql in (*TABLES, ROWS, *(INDEXES if request.param == "indexes" else ())):
            con.execute(sql)
    yield mine, theirs
    mine.close()
    theirs.close()


def _outcome(con: Any, sql: str) -> Any:
    try:
        cursor = con.execute(sql)
        return cursor.fetchall() if sql.startswith(("SELECT", "WITH")) else cursor.rowcount
    except (m2mdb.IntegrityError, sqlite3.IntegrityError):
        return "IntegrityError"


def test_queries_give_what_sqlite3_gives(both: tuple[Any, Any]) -> None:
    mine, theirs = both
    for con in both:
        con.execute(WRITES[0])

    for sql in QUERIES:
        assert _outcome(mine, sql) == _outcome(theirs, sql), sql


def test_keys_are_what_they_are_in_sqlite3(both: tuple[Any, Any]) -> None:
    mine, theirs = both
    for sql in WRITES:
        assert _outcome(mine, sql) == _outcome(theirs, sql), sql
        for table in ("SELECT * FROM k ORDER BY k", "SELECT * FROM t ORDER BY id"):
            assert _outcome(mine, table) == _outcome(theirs, table), sql
    assert mine.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_index_of_a_collation_is_used_for_it_alone() -> None:
    con = m2mdb.connect(":memory:", autocommit=True)
    for sql in (*TABLES, *INDEXES):
        con.execute(sql)

    def way(where: str, table: str = "t") -> str:
        return str(con.execute(f"EXPLAIN SELECT * FROM {table} WHERE {where}").fetchall()[0][2])

    assert "INDEX ia" in way("a = 'x'") and "INDEX ia" in way("a > 'x'")
    assert "INDEX ia" in way("a COLLATE NOCASE = 'x'") or "SCAN" in way("a COLLATE NOCASE = 'x'")
    assert "SCAN" in way("a COLLATE BINARY = 'x'") and "SCAN" in way("a = 'x' COLLATE BINARY")
    assert "SCAN" in way("b COLLATE NOCASE = 'x'")
    assert "PRIMARY KEY" in way("k = 'x'", "k") and "UNIQUE" in way("u = 'x'", "k")
    assert "SCAN" in way("k = 'x' COLLATE RTRIM", "k")


def test_a_join_looks_no_key_up_by_another_collation() -> None:
    """Values folded by the comparison's COLLATE were looked up among keys as they stand."""
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute("CREATE TABLE few (x TEXT)")
    con.execute("CREATE TABLE many (y TEXT UNIQUE, z TEXT)")
    con.execute("CREATE INDEX iz ON many (z)")
    con.executemany("INSERT INTO many VALUES (?, ?)", [(f"Key{i}", f"Key{i}") for i in range(2000)])
    con.execute("INSERT INTO few VALUES ('KEY7'), ('key8')")

    for column in ("y", "z"):
        found = con.execute(f"SELECT y FROM few JOIN many ON x COLLATE NOCASE = {column}")
        assert sorted(found.fetchall()) == [("Key7",), ("Key8",)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with keys in the delta, in segments, ended ones, and indexes."""
    path = tmp_path / "c.m2m"
    con = m2mdb.connect(path, autocommit=True)
    for sql in (*TABLES, *INDEXES):
        con.execute(sql)
    rows = [(f"Key{i}", f"U{i}  ", i) for i in range(6000)]
    con.executemany("INSERT INTO k VALUES (?, ?, ?)", rows)
    con.execute("UPDATE k SET k = 'Moved' || v WHERE v < 20")
    con.execute("INSERT INTO k VALUES ('Late', 'late', -1)")
    words = ["Alpha", "ALPHA", "beta", "Beta ", "gamma", None]
    con.executemany("INSERT INTO t VALUES (?, ?, ?, ?)",
                    [(i, words[i % 6], f"b{i}", words[i % 5]) for i in range(3000)])  # fmt: skip
    con.close()
    return path


def _check(con: Any) -> None:
    """What a file of `path` must answer, however it was copied."""
    collection = con.collection("k")
    assert collection.get("KEY77").k == "Key77" and collection.get("key3") is None
    assert collection.get("MOVED3").v == 3 and collection.get("LATE").v == -1
    assert con.execute("SELECT v FROM k WHERE u = 'U4000' AND k = 'kEY4000'").fetchall() == [
        (4000,)
    ]
    for sql in ("INSERT INTO k VALUES ('KEY5000', 'new', 0)",
                "INSERT INTO k VALUES ('fresh', 'U5000', 0)",
                "INSERT INTO t VALUES (-1, 'bETA ', 'b3', '')"):  # fmt: skip
        with pytest.raises(m2mdb.IntegrityError, match="UNIQUE constraint failed"):
            con.execute(sql)
    for where, count in (("a = 'alpha'", 1000), ("a = 'BETA'", 500), ("c = 'Beta'", 600),
                         ("c = 'Beta' AND a = 'GAMMA'", 100)):  # fmt: skip
        found = con.execute(f"SELECT count(*) FROM t WHERE {where}").fetchone()
        assert found == (count,), where
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _v(collection: m2mdb.Collection, key: str) -> int:
    """The column v of a row that is there."""
    row = collection.get(key)
    assert row is not None
    return int(row.v)


def test_a_file_keeps_its_collations(path: Path, tmp_path: Path) -> None:
    with m2mdb.connect(path, autocommit=True) as con:
        _check(con)
        con.execute("OPTIMIZE")
        con.execute("VACUUM")
        _check(con)
        con.execute(f"VACUUM INTO '{tmp_path / 'into.m2m'}'")
        script = "".join(con.iterdump())
        image = con.serialize()
    with m2mdb.connect(tmp_path / "into.m2m", autocommit=True) as con:
        _check(con)
    with m2mdb.connect(path, autocommit=True, untrusted=True) as con:
        _check(con)
    again = m2mdb.connect(":memory:", autocommit=True)
    again.executescript(script)
    _check(again)
    again.deserialize(image)
    _check(again)


def test_a_collation_survives_alter_and_the_past(path: Path) -> None:
    con = m2mdb.connect(path, autocommit=True)
    con.execute("PRAGMA keep_commits = 100")
    con.execute("ALTER TABLE k ADD COLUMN w TEXT DEFAULT 'Abc' COLLATE NOCASE")
    con.execute("ALTER TABLE k RENAME COLUMN k TO name")
    assert con.execute("SELECT count(*) FROM k WHERE w = 'ABC'").fetchone() == (6001,)
    (commit,) = con.execute("SELECT last_commit FROM m2m_stats").fetchone()
    con.execute("DELETE FROM k WHERE name = 'KEY77'")
    con.execute("INSERT INTO k (name, v) VALUES ('kEy77', 1)")

    assert con.execute("SELECT name, v FROM k WHERE name = 'KEY77'").fetchall() == [("kEy77", 1)]
    assert con.execute(f"SELECT name FROM k AS OF {commit} WHERE name = 'key77'").fetchall() == [
        ("Key77",)
    ]
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_rows_are_forgotten_by_keys_in_any_case(path: Path) -> None:
    con = m2mdb.connect(path, autocommit=True)
    collection = con.collection("k")

    receipt = collection.forget(["KEY100", "lATE"])

    assert receipt.rows == 2
    assert collection.get("Key100") is None and collection.get("late") is None
    assert collection.update("KEY101", {"v": -5}) == 1 and collection.delete("KEY102") == 1
    assert _v(collection, "key101") == -5 and collection.get("key102") is None


def test_batches_conflict_as_rows_do(path: Path) -> None:
    con = m2mdb.connect(path, autocommit=True)
    collection = con.collection("k")
    rows = [{"k": f"kEY{i}", "u": f"n{i}", "v": -i} for i in range(5900, 6100)]

    with pytest.raises(m2mdb.IntegrityError, match=r"k\.k = 'kEY5900'"):
        collection.add(rows)
    collection.add(rows, on_conflict="ignore")
    assert collection.count() == 6101 and _v(collection, "key5900") == 5900
    collection.add(rows, on_conflict="replace")
    assert collection.count() == 6101 and _v(collection, "KEY5900") == -5900
    with pytest.raises(m2mdb.IntegrityError):
        collection.add([{"k": "twin", "v": 1}, {"k": "TWIN", "v": 2}])


def test_an_encoder_is_asked_for_texts_that_differ_in_case_alone() -> None:
    """A source with a collation is hashed folded; its vectors are still of the texts themselves."""

    class Lengths:
        dimensions = 2
        model_id = "lengths"
        fingerprint = "1"

        def encode(self, texts: Any) -> Any:
            return np.array([[ord(text[0]), 1] for text in texts], np.float32)

    con = m2mdb.connect(":memory:", autocommit=True, encoders={"x": Lengths()})
    con.execute(
        "CREATE TABLE g (id INTEGER PRIMARY KEY, body TEXT COLLATE NOCASE, "
        "e VECTOR(2) METRIC l2 FROM body ENCODER 'x')"
    )
    for some in ([(1, "a"), (2, "A")], [(3, "a"), (4, "A")]):
        con.executemany("INSERT INTO g (id, body) VALUES (?, ?)", some)

    found = con.execute("SELECT e FROM g ORDER BY id").fetchall()

    assert [int(row[0][0]) for row in found] == [97, 65, 97, 65]


def test_an_index_that_is_not_folded_is_damage() -> None:
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute("CREATE TABLE d (a TEXT)")
    con.execute("CREATE INDEX ia ON d (a)")
    con.execute("INSERT INTO d VALUES ('Abc')")
    database: Any = con.database
    with database.reading() as view:
        view.collection("d").schema.columns[0].collation = "NOCASE"

    told = str(con.execute("PRAGMA integrity_check").fetchall())

    assert "index ia" in told and told != "[('ok',)]"


@pytest.mark.parametrize(
    ("declared", "error"),
    [
        ("a TEXT COLLATE german", "no such collation: GERMAN; a column has one of BINARY, NOCASE"),
        ("a VECTOR(3) COLLATE NOCASE", "a vector has no COLLATE NOCASE"),
    ],
)
def test_collations_that_cannot_be_are_refused(declared: str, error: str) -> None:
    con = m2mdb.connect(":memory:", autocommit=True)
    con.create_collation("german", lambda one, other: (one > other) - (one < other))

    with pytest.raises(m2mdb.ProgrammingError, match=error):
        con.execute(f"CREATE TABLE t ({declared})")
    con.execute("CREATE TABLE t (a INTEGER COLLATE nocase, b JSON COLLATE RTRIM, c COLLATE BINARY)")
    con.execute("INSERT INTO t VALUES (1, '[]', x'00')")
    assert con.execute("SELECT * FROM t WHERE a = 1 AND b = '[]  '").fetchall() == [
        (1, "[]", b"\0")
    ]


def test_an_older_reader_is_told_that_the_file_is_newer(path: Path) -> None:
    """The field of a column is one that it does not know (docs/format.md)."""
    from m2mdb.index import catalog_check

    known = dict(catalog_check._COLUMN_TYPES)
    del catalog_check._COLUMN_TYPES["collation"]
    try:
        with pytest.raises(m2mdb.NotSupportedError, match="the field 'collation' of a column"):
            m2mdb.connect(path).execute("SELECT 1 FROM k")
    finally:
        catalog_check._COLUMN_TYPES.clear()
        catalog_check._COLUMN_TYPES.update(known)


def test_a_column_s_collation_is_not_a_program_s(path: Path) -> None:
    """CO2: a program that calls something else NOCASE reads keys and indexes as they are."""
    con = m2mdb.connect(path, autocommit=True)
    con.create_collation("NOCASE", lambda one, other: (one > other) - (one < other))

    _check(con)
    assert con.execute("SELECT 'a' = 'A' COLLATE NOCASE").fetchone() == (False,)


@pytest.mark.parametrize("name", list(FOLDS))
def test_a_fold_orders_texts_as_sqlite3_does(name: str) -> None:
    choose = random.Random(3)
    letters = "aAbBzZ[_` é\t"
    texts = ["".join(choose.choices(letters, k=choose.randint(0, 4))) for _ in range(300)]
    fold = FOLDS[name] or str
    theirs = sqlite3.connect(":memory:")
    theirs.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
    theirs.executemany("INSERT INTO t (a) VALUES (?)", [(text,) for text in texts])

    expected = theirs.execute(f"SELECT a FROM t ORDER BY a COLLATE {name}, id").fetchall()

    assert [row[0] for row in expected] == sorted(texts, key=fold)
    assert all(fold(fold(text)) == fold(text) for text in texts)
