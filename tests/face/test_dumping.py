"""Dump and load: the statements build an equal database, bit for bit, or nothing."""

from __future__ import annotations

import io
import json
import random
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.cli import run
from m2mdb.loading import load, split

Capture = pytest.CaptureFixture[str]
NAMES = ["notes", "order", "a b", 'q"q', "Straße", "select", "x;y", "--", "n\nl", "key"]
TYPES = ["INTEGER", "REAL", "TEXT", "BLOB", "BOOLEAN", "TIMESTAMP", "JSON", "VARCHAR(20)",
         "DOUBLE PRECISION", "DECIMAL(10, 2)", '"odd-int"', '"KEY INT"', '"odd BLOB"']  # fmt: skip
INTEGERS = [0, 1, -1, 2**63 - 1, -(2**63), 10**15]
REALS = [0.0, -0.0, 1.5, 1 / 3, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), 1e22]
TEXTS = ["", "it's", "a\r\nb\rc\n", "\0", "x;y -- z /* */", '"', "é 東京 🎈\u2028", "e\u0301", "\\"]


def value_of(rng: random.Random, declared: str) -> Any:
    if rng.random() < 0.15:
        return None
    if declared in ("INTEGER", "TIMESTAMP", '"odd-int"', '"KEY INT"'):
        return rng.choice([*INTEGERS, rng.randrange(-(2**63), 2**63)])
    if declared in ("REAL", "DOUBLE PRECISION", "DECIMAL(10, 2)"):
        return rng.choice([*REALS, rng.gauss(0, 1e9)])
    if declared in ("TEXT", "VARCHAR(20)"):
        return rng.choice(TEXTS) + str(rng.random())
    if declared in ("BLOB", '"odd BLOB"'):
        return rng.randbytes(rng.randrange(9))
    if declared == "BOOLEAN":
        return rng.random() < 0.5
    return rng.choice(['{"a": [1, "é\'"]}', "null", '"x"', " [1.50]  "])


def vectors_of(rng: random.Random, dtype: str, count: int) -> list[Any]:
    kinds = {"f32": np.float32, "f16": np.float16, "i8": np.int8}
    array = np.random.default_rng(rng.randrange(2**32)).standard_normal((count, 5)) * 20
    found: list[Any] = list(array.astype(kinds[dtype]))
    if dtype != "i8":
        kind: Any = kinds[dtype]
        tiny = np.finfo(kind).smallest_subnormal
        found[0] = np.array([-0.0, tiny, -tiny, 1, np.finfo(kind).eps], kind)
    return [None if rng.random() < 0.1 else vector for vector in found]


def build(con: m2mdb.Connection, rng: random.Random) -> None:
    """Collections of random columns, with rows in the delta and in segments, some of them ended."""
    for number in range(rng.randrange(1, 4)):
        name = f"{rng.choice(NAMES)}{number}"
        declared: dict[str, str] = {f"{rng.choice(NAMES)}{i}": rng.choice(TYPES) for i in range(4)}
        dtype = rng.choice(["f32", "f16", "i8"])
        metric = rng.choice(["l2", "ip"])
        schema = dict(declared)
        schema["text"] = "TEXT DEFAULT 'it''s' NOT NULL" + rng.choice(
            ["", " FULLTEXT", " FULLTEXT (variant = 'plus', weight = 2.5)"]
        )
        schema["default"] = rng.choice(
            [
                "BLOB DEFAULT x'00ff'",
                "BLOB DEFAULT NULL",
                "REAL DEFAULT -1e999",
                "INT DEFAULT -1",
            ]
        )
        schema["vector"] = f"VECTOR(5, {dtype}) METRIC {metric}"
        key = rng.choice(["", "INTEGER PRIMARY KEY", "TEXT PRIMARY KEY", "TEXT UNIQUE"])
        if key:
            schema["id"] = key
        collection = con.create_collection(name, schema)
        for batch in range(3):
            count = rng.choice([1, 40, 600])
            rows: dict[str, Any] = {
                column: [value_of(rng, kind) for _ in range(count)]
                for column, kind in declared.items()
            }
            rows["text"] = [f"word{rng.randrange(50)} '{i}'" for i in range(count)]
            rows["vector"] = vectors_of(rng, dtype, count)
            if key.startswith("INTEGER"):
                rows["id"] = [batch * 10_000 + 7 * i - 5000 for i in range(count)]
            elif key:
                rows["id"] = [f"{batch}:{i}" for i in range(count)]
            collection.add(rows)
            collection.delete(where="rowid % 5 = ?", params=(batch,))
        quoted = name.replace('"', '""')
        con.execute(f"UPDATE \"{quoted}\" SET text = 'changed' WHERE rowid % 7 = 1")
        if rng.random() < 0.6:
            con.execute(f'CREATE INDEX "by text {number}" ON "{quoted}" (text)')
        if "FULLTEXT" not in schema["text"]:
            con.execute(f'CREATE INDEX ft{number} ON "{quoted}" USING bm25 (text) WITH (k1 = 1.5)')
    con.execute(f"PRAGMA user_version = {rng.randrange(2**31)}")
    con.execute(f"PRAGMA keep_commits = {rng.choice([0, 9])}")


def contents(con: m2mdb.Connection) -> dict[str, Any]:
    """Everything that can be seen of a database, vectors as bytes."""
    found: dict[Any, Any] = {"version": con.execute("PRAGMA user_version").fetchone()}
    for collection in con.collections():
        name = collection.name.replace('"', '""')
        rows = con.execute(f'SELECT rowid, * FROM "{name}" ORDER BY rowid').fetchall()
        found[collection.name] = [
            [repr(v) if not isinstance(v, np.ndarray) else (v.dtype.str, v.tobytes()) for v in row]
            for row in rows
        ]
        hits = con.execute(
            f"SEARCH \"{name}\" MATCH text 'word1 word2' K 9999 RETURNING rowid"
        ).fetchall()
        found[collection.name, "hits"] = sorted(hits)  # scores count dead rows until a merge (S24)
    for table in ("m2m_columns", "m2m_indexes"):
        found[table] = sorted(con.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_dump_is_read_back_as_an_equal_database(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    con = m2mdb.connect(tmp_path / "a.m2m", autocommit=True, compute="numpy")
    build(con, rng)

    assert run(["dump", str(tmp_path / "a.m2m"), "--output", str(tmp_path / "a.sql")]) == 0
    assert run(["load", str(tmp_path / "b.m2m"), str(tmp_path / "a.sql"), "--json"]) == 0
    other = m2mdb.connect(tmp_path / "b.m2m", autocommit=True, compute="numpy")
    script = m2mdb.connect(":memory:", autocommit=True, compute="numpy")
    script.executescript("\n".join(con.iterdump()))

    for each in (other, script):
        assert contents(each) == contents(con)
        assert list(each.iterdump()) == list(con.iterdump())
        assert each.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for collection in con.collections():
        columns = ["text"] + ["id"] * ("id" in [c.name for c in collection.schema.columns])
        name, marks = collection.name.replace('"', '""'), ", ".join("?" * len(columns))
        given = ["new"] * len(columns) if collection.schema.rowid_alias is None else ["new", None]
        insert = f'INSERT INTO "{name}" ({", ".join(columns)}) VALUES ({marks})'
        ids = {each.execute(insert, given).lastrowid for each in (con, other, script)}
        assert len(ids) == 1, "no rowid is given out again"
    for each in (con, other, script):
        each.close()


def test_every_code_point_and_long_values_survive(tmp_path: Path) -> None:
    every = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    rows = [every, "'" * 1_500_000, "x" * 3_000_000]
    con = m2mdb.connect(tmp_path / "a.m2m", autocommit=True)
    con.execute("CREATE TABLE t (a TEXT, b BLOB, j JSON)")
    values = [(row, row.encode()[:2_000_000], json.dumps(row[:9999])) for row in rows]
    con.executemany("INSERT INTO t VALUES (?, ?, ?)", values)

    script = "\n".join(con.iterdump())
    (tmp_path / "a.sql").write_text(script, "utf-8", newline="")
    load(str(tmp_path / "b.m2m"), str(tmp_path / "a.sql"))

    other = m2mdb.connect(tmp_path / "b.m2m")
    again = m2mdb.connect(":memory:", autocommit=True)
    again.executescript(script)
    wanted = con.execute("SELECT * FROM t").fetchall()
    assert other.execute("SELECT * FROM t").fetchall() == wanted
    assert again.execute("SELECT * FROM t").fetchall() == wanted
    for each in (con, other, again):
        each.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
def test_statements_are_split_wherever_the_file_is_cut(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = [
        "SELECT 1;",
        "\n/* ; ' */ SELECT ';''', x'00', \";\"\"\";",
        "\n-- ; '\n\nSELECT 2;",
        " SELECT a-1/2*3 -- '\n;",
        "\nSELECT '\n;\n'",
    ]
    monkeypatch.setattr("m2mdb.loading.CHUNK", size)

    found = list(split(io.StringIO("".join(statements), newline="")))

    assert [text for text, _ in found] == [statement.lstrip() for statement in statements]
    assert [place for _, place in found] == [(1, 1), (2, 1), (3, 1), (5, 11), (7, 1)]


def test_iterdump_shows_the_database_as_it_was_at_the_first_statement(
    con: m2mdb.Connection, path: Path
) -> None:
    con.autocommit = True
    con.execute("CREATE TABLE t (a INTEGER)")
    con.executemany("INSERT INTO t VALUES (?)", [(i,) for i in range(5000)])
    wanted = list(con.iterdump())
    dump = con.iterdump()
    first = next(dump)

    other = m2mdb.connect(path, autocommit=True)
    other.execute("DELETE FROM t WHERE a < 4990")
    con.execute("INSERT INTO t VALUES (-1)")
    con.execute("CREATE TABLE u (a)")

    assert [first, *dump] == wanted
    assert list(con.iterdump(filter="u%"))[1].startswith("CREATE COLLECTION u (")
    other.close()


def test_iterdump_in_a_transaction_shows_its_changes_and_says_when_they_move(
    con: m2mdb.Connection,
) -> None:
    con.execute("CREATE TABLE t (a INTEGER)")
    con.execute("INSERT INTO t VALUES (1)")
    assert "(1,1);" in "".join(con.iterdump())

    dump = con.iterdump()
    next(dump)
    con.execute("INSERT INTO t VALUES (2)")
    with pytest.raises(m2mdb.OperationalError, match="changed while it was dumped"):
        list(dump)
    con.rollback()
    with pytest.raises(m2mdb.InterfaceError, match="filter"):
        list(con.iterdump(filter=b"t"))  # type: ignore[arg-type]


def test_a_dump_takes_little_memory(tmp_path: Path) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m", autocommit=True, compute="numpy")
    con.execute("CREATE TABLE t (a TEXT, v VECTOR(1024))")
    vectors = np.random.default_rng(1).standard_normal((6000, 1024)).astype(np.float32)
    con.collection("t").add({"a": ["x" * 2000] * 6000, "v": vectors})
    next(con.iterdump())

    tracemalloc.start()
    size = sum(len(statement) for statement in con.iterdump())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert size > 60_000_000
    assert peak < size / 2
    con.close()


def test_rowids_are_taken_from_an_insert(con: m2mdb.Connection) -> None:
    con.autocommit = True
    con.execute("CREATE TABLE t (a TEXT) WITH (next_rowid = 50)")
    con.execute("INSERT INTO t (RowId, a) VALUES (7, 'x'), (NULL, 'y'), (-3, 'z')")
    con.execute("CREATE TABLE u (id INTEGER PRIMARY KEY, a)")
    con.execute("INSERT INTO u (rowid, a) VALUES (5, x'00')")

    assert con.execute("SELECT rowid, a FROM t").fetchall() == [(-3, "z"), (7, "x"), (50, "y")]
    assert con.execute("SELECT id, rowid FROM u").fetchall() == [(5, 5)]
    with pytest.raises(m2mdb.IntegrityError, match=r"t\.rowid = 7"):
        con.execute("INSERT INTO t (rowid, a) VALUES (7, 'again')")
    with pytest.raises(m2mdb.DataError, match="rowid"):
        con.execute("INSERT INTO t (rowid, a) VALUES ('seven', 'x')")
    con.execute("INSERT OR REPLACE INTO t (rowid, a) VALUES (7, 'new')")
    con.execute("INSERT OR IGNORE INTO t (rowid, a) VALUES (7, 'newer')")
    assert con.execute("SELECT a FROM t WHERE rowid = 7").fetchall() == [("new",)]
    with pytest.raises(m2mdb.ProgrammingError, match="next_rowid"):
        con.execute("CREATE TABLE v (a) WITH (next_rowid = 0)")


def test_a_number_that_the_header_cannot_hold_is_refused(con: m2mdb.Connection) -> None:
    """It was accepted, and the commit failed with an error of struct."""
    con.execute("PRAGMA user_version = 2147483647")
    with pytest.raises(m2mdb.ProgrammingError, match="2147483648"):
        con.execute("PRAGMA user_version = 2147483648")
    con.commit()


# ------------------------------------------------------------------------- wrong input

WRONG: list[tuple[str, str]] = [
    ("", "holds no statement"),
    ("-- nothing\n;;", "holds no statement"),
    ("BEGIN;\nCREATE TABLE t (a INT);\nINSERT INTO t VALUES (1);", "cut short"),
    ("CREATE TABLE t (a INTEGER);\n\nINSERT INTO t\nVALUES (1,, 2);", "line 4, column 11"),
    ("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1; ", "line 1, column 52"),
    (
        "CREATE TABLE t (a INTEGER);\nINSERT INTO u VALUES (1);",
        "line 2, column 13: no such collection: u",
    ),
    (
        "CREATE TABLE t (a INTEGER UNIQUE);\nINSERT INTO t VALUES (1);\n"
        "INSERT INTO t VALUES (2), (1);",
        "line 3: UNIQUE constraint failed: t.a = 1, row 2 of VALUES",
    ),
    ("CREATE TABLE t (a INTEGER);\nINSERT INTO t VALUES ('x');", "line 2: column a of t"),
    ("SELECT 1;", "SELECT does not belong in a dump"),
    ("CREATE TABLE t (a);\nVACUUM INTO '/tmp/stolen';", "VACUUM"),
    ("CREATE TABLE t (a TEXT);\nINSERT INTO t VALUES ('x", "line 2"),
    ("hello", "line 1, column 1"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_a_wrong_dump_is_named_and_leaves_nothing(
    tmp_path: Path, capsys: Capture, text: str, words: str
) -> None:
    (tmp_path / "a.sql").write_text(text, "utf-8")

    assert run(["load", str(tmp_path / "b.m2m"), str(tmp_path / "a.sql")]) == 1

    printed = capsys.readouterr().err
    assert words in printed and len(printed.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.sql"]


def test_wrong_files_are_one_line(file: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.sql").write_text("CREATE TABLE t (a);")
    (tmp_path / "latin.sql").write_bytes(b"CREATE TABLE t (a); -- \xe9")
    (tmp_path / "text").write_text("no database" * 999)
    commands = [
        (["dump", str(tmp_path / "absent")], "no such file"),
        (["dump", str(tmp_path)], "directory"),
        (["dump", str(tmp_path / "text")], "is not a database"),
        (["dump", file, "nots"], "did you mean notes?"),
        (["dump", file, "--output", file], "is the database itself"),
        (["dump", file, "--output", str(tmp_path / "no" / "x.sql")], "no such file"),
        (["load", file, str(tmp_path / "a.sql")], "exists"),
        (["load", str(tmp_path / "new"), str(tmp_path / "absent")], "No such file"),
        (["load", str(tmp_path / "new"), str(tmp_path)], "directory"),
        (["load", str(tmp_path / "new"), str(tmp_path / "latin.sql")], "not UTF-8"),
        (["load", str(tmp_path / "no" / "new"), str(tmp_path / "a.sql")], "no such file"),
        (["check", str(tmp_path / "absent")], "no such file"),
    ]
    before = sorted(path.name for path in tmp_path.iterdir())

    for arguments, words in commands:
        assert run(arguments) == (2 if arguments[0] == "check" else 1), arguments
        printed = capsys.readouterr().err
        assert words in printed and len(printed.splitlines()) == 1, (arguments, printed)

    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert run(["load", str(tmp_path / "new")]) == 2


def test_an_interrupted_load_leaves_nothing(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.sql").write_text("CREATE TABLE t (a);\nINSERT INTO t VALUES (x'00');")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(m2mdb.Connection, "executemany", interrupted)
    assert run(["load", str(tmp_path / "b.m2m"), str(tmp_path / "a.sql")]) == 1

    assert "interrupted" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.sql"]


def test_an_interrupted_dump_leaves_the_old_file(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.sql").write_text("old")

    def interrupted(*_: object) -> Iterator[str]:
        yield "BEGIN;"
        raise KeyboardInterrupt

    monkeypatch.setattr("m2mdb.loading.statements", interrupted)
    assert run(["dump", file, "--output", str(tmp_path / "a.sql")]) == 1

    assert (tmp_path / "a.sql").read_text() == "old"
    assert not list(tmp_path.glob("*.part"))


def test_a_dump_goes_through_a_pipe(
    file: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["dump", file, "notes"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("BEGIN TRANSACTION;\nCREATE COLLECTION notes (")

    stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run(["load", str(tmp_path / "b.m2m"), "-"]) == 0

    assert run(["query", str(tmp_path / "b.m2m"), "SELECT count(*) FROM notes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"count(*)": 4}]


def test_a_dump_changes_nothing_of_a_file_that_was_left_with_its_log(tmp_path: Path) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m", autocommit=True)
    con.execute("CREATE TABLE t (a TEXT)")
    con.execute("INSERT INTO t VALUES ('x')")
    for name in ("a.m2m", "a.m2m-wal"):
        (tmp_path / f"left-{name}").write_bytes((tmp_path / name).read_bytes())
    (tmp_path / "left-a.m2m-wal").rename(tmp_path / "left-a.m2m-wal")
    con.close()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("left-*")}

    assert run(["dump", str(tmp_path / "left-a.m2m"), "--output", str(tmp_path / "x.sql")]) == 0
    assert run(["check", str(tmp_path / "left-a.m2m")]) == 0

    assert "'x'" in (tmp_path / "x.sql").read_text()
    assert {path.name: path.read_bytes() for path in tmp_path.glob("left-*")} == before


@pytest.fixture
def file(path: Path, notes: m2mdb.Collection) -> str:
    notes.connection.close()
    return str(path)
