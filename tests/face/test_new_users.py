"""What new users tried first: each is right, or an error that says what is wanted."""

from __future__ import annotations

import datetime
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import m2mdb
from m2mdb import aio, cli

UTC = datetime.UTC
DOCS = Path(m2mdb.__file__).parents[1] / "docs"


@pytest.fixture
def con() -> m2mdb.Connection:
    return m2mdb.connect(":memory:", autocommit=True)


# COPY


def test_copy_names_a_line_or_row_beyond_the_first_batch(
    con: m2mdb.Connection, tmp_path: Path
) -> None:
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT NOT NULL, n INTEGER CHECK (n < 9))")
    count, wrong = 9000, 8500
    for name, row, kind, message in (
        ("null", {"s": None}, m2mdb.IntegrityError, "NOT NULL constraint failed: t.s"),
        ("twice", {"id": 3}, m2mdb.IntegrityError, "UNIQUE constraint failed: t.id = 3"),
        ("check", {"n": 10}, m2mdb.IntegrityError, "CHECK constraint failed: n < 9"),
        ("type", {"n": "x"}, m2mdb.DataError, "column n of t: "),
    ):
        rows: list[dict[str, Any]] = [{"id": each, "s": "a", "n": 1} for each in range(count)]
        rows[wrong].update(row)
        lines = [json.dumps(each) for each in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n\n".join(lines))
        with pytest.raises(kind) as caught:
            con.execute("COPY t FROM ?", (str(tmp_path / f"{name}.jsonl"),))
        assert f"{name}.jsonl, line {2 * wrong + 1}: {message}" in str(caught.value)
        assert "row" not in str(caught.value).split(f"{name}.jsonl")[1]
        fields = ["" if v is None else str(v) for each in rows for v in each.values()]
        records = [",".join(fields[at : at + 3]) for at in range(0, 3 * count, 3)]
        (tmp_path / f"{name}.csv").write_text("\r\n".join(["id,s,n", *records]))
        with pytest.raises(kind) as caught:
            con.execute("COPY t FROM ?", (str(tmp_path / f"{name}.csv"),))
        assert f"{name}.csv, line {wrong + 2}: {message}" in str(caught.value)
        if name != "type":
            table = pa.Table.from_pylist(rows)
            pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
            with pytest.raises(kind) as caught:
                con.execute("COPY t FROM ?", (str(tmp_path / f"{name}.parquet"),))
            assert f"{name}.parquet, row {wrong + 1}: {message}" in str(caught.value)
    assert con.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_copy_names_the_row_of_a_matrix(con: m2mdb.Connection, tmp_path: Path) -> None:
    con.execute("CREATE TABLE t (v VECTOR(2))")
    np.save(tmp_path / "v.npy", np.array([[1, 0], [0, 1], [0, 0]], np.float32))
    with pytest.raises(m2mdb.DataError, match=r"v.npy, row 3: column v of t: a zero vector"):
        con.execute("COPY t FROM ?", (str(tmp_path / "v.npy"),))


# TIMESTAMP


def test_integers_are_microseconds_in_comparisons_too(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at TIMESTAMP, n INTEGER)")
    con.executemany("INSERT INTO t VALUES (?, ?, ?)", [(i, i * 1000, i * 1000) for i in range(200)])
    con.execute("INSERT INTO t VALUES (900, NULL, 5)")

    def ids(condition: str, *parameters: Any) -> list[int]:
        statement = f"SELECT id FROM t WHERE {condition} ORDER BY id"
        return [row[0] for row in con.execute(statement, parameters)]

    for _ in range(2):  # scanned, then by an index
        assert ids("at = 5000") == ids("at = ?", 5000) == ids("5000 = at") == [5]
        assert ids("at < ?", 3000) == [0, 1, 2]
        assert ids("at BETWEEN 3000 AND ?", 5000) == [3, 4, 5]
        assert ids("at NOT BETWEEN 1000 AND 1000000") == [0]
        assert ids("at IN (1000, 2000, 2500)") == ids("at IN ?", [1000, 2000]) == [1, 2]
        assert ids("at >= ?", np.int64(198_000)) == [198, 199]
        assert len(ids("at = n")) == 200
        assert len(ids("at IN (SELECT n FROM t)")) == 200
        assert ids("at = ?", datetime.datetime(1970, 1, 1, 0, 0, 0, 5000, UTC)) == [5]
        assert ids("at > -1 AND at < 1") == [0]
        joined = con.execute("SELECT count(*) FROM t AS a JOIN t AS b ON a.at = b.n").fetchone()
        assert joined == (200,)
        con.execute("CREATE INDEX IF NOT EXISTS by_at ON t (at)")
    assert con.collection("t").count("at < ?", (3000,)) == 3
    with pytest.raises(m2mdb.DataError, match=r"5\.5 is not a time"):
        con.execute("SELECT id FROM t WHERE at > 5.5").fetchall()
    with pytest.raises(m2mdb.DataError, match="outside the years 1 to 9999"):
        con.execute("SELECT id FROM t WHERE at > ?", (2**62,)).fetchall()


# search


def test_fusion_takes_options(con: m2mdb.Connection) -> None:
    notes = con.create_collection("notes", "id TEXT PRIMARY KEY, body TEXT FULLTEXT, v VECTOR(2)")
    bodies = ["dark mode", "dark", "light", "dark dark chocolate"]
    notes.add({"id": list("abcd"), "body": bodies, "v": [[1, 0], [0, 1], [1, 1], [1, 2]]})
    cases: list[tuple[Any, str]] = [
        (("weighted", {"vector": 0.3, "text": 0.7}), "weighted (vector = 0.3, text = 0.7)"),
        (["RRF", {"K": 10, "depth": np.int64(50)}], "rrf (k = 10, depth = 50)"),
        (("adaptive", {"vector": 2}), "adaptive (vector = 2)"),
        ("weighted", "weighted"),
    ]
    for fusion, clause in cases:
        found = notes.search(near=[1, 0], match="dark", fusion=fusion, returning="id, score")
        wanted = con.execute(
            f"SEARCH notes NEAR ? MATCH 'dark' FUSION {clause} RETURNING id, score", ([1, 0],)
        ).fetchall()
        assert [tuple(row) for row in found] == wanted
    wrong: list[tuple[Any, type[Exception], str]] = [
        ({"vector": 0.3}, m2mdb.InterfaceError, "fusion is"),
        (("weighted", 0.3), m2mdb.InterfaceError, "fusion is"),
        (5, m2mdb.InterfaceError, "fusion is 5"),
        (("weighted", {"vector": "x"}), m2mdb.ProgrammingError, "vector = 'x'"),
        (("weighted", {"nope": 1}), m2mdb.ProgrammingError, "unknown option 'nope'"),
        (("nope", {}), m2mdb.ProgrammingError, "nope"),
    ]
    for given, kind, message in wrong:
        with pytest.raises(kind, match=message):
            notes.search(near=[1, 0], match="dark", fusion=given)


def test_the_documented_signature_is_the_call_s() -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    shown = text[text.index("search(query=None") :].split(")\n\n")[0]
    parts = [str(each).split(":")[0].split(" ")[0] for each in _parameters(m2mdb.Collection.search)]
    assert [each.split("=")[0].strip() for each in shown[7:].replace("\n", " ").split(", ")] == [
        parts[0], "*", *parts[1:]
    ]  # fmt: skip


@pytest.mark.parametrize("call", ["search", "search_batch"])
def test_the_table_of_calls_names_all_arguments(call: str) -> None:
    text = (DOCS / "language.md").read_text(encoding="utf-8")
    shown = text[text.index(f"| `{call}(") + len(call) + 4 :].split(")`")[0]
    wanted = [each.name for each in _parameters(getattr(m2mdb.Collection, call))]
    assert [each.split("=")[0] for each in shown.split(", ")] == wanted


def _parameters(call: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(call).parameters.values())[1:]


# errors


def test_wrong_arguments_are_the_module_s_errors(con: m2mdb.Connection) -> None:
    notes = con.create_collection("notes", "a TEXT, b TEXT, body TEXT, category TEXT, c TIMESTAMP, "
                                  "v VECTOR(2), PRIMARY KEY (a, b)")  # fmt: skip
    categories: Any = {"ui": ["dark"]}
    nothing: Any = None
    text: Any = "x"
    number: Any = 5
    decay: Any = {"c": "30 days"}
    calls: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: con.collection(nothing), m2mdb.InterfaceError, "name is None"),
        (lambda: con.collection(number), m2mdb.InterfaceError, "name is 5"),
        (lambda: con.create_collection(nothing, {"a": "TEXT"}), m2mdb.InterfaceError, "is None"),
        (lambda: notes.categorise(nothing), m2mdb.InterfaceError, "are NoneType"),
        (lambda: notes.add({"a": "x"}, categories=categories), m2mdb.InterfaceError, "are dict"),
        (lambda: m2mdb.HashingEncoder(text), m2mdb.InterfaceError, "dimensions is 'x'"),
        (lambda: notes.get("p"), m2mdb.DataError, r"a tuple of \(a, b\)"),
        (lambda: notes.search(near=[1, 0], decay=decay), m2mdb.ProgrammingError, "'30 days'"),
        (lambda: notes.add({"a": "x", "b": "y", "v": [[1, None]]}), m2mdb.DataError, "None"),
        (lambda: con.execute("INSERT INTO notes (v) VALUES (?)", ([1, None],)), m2mdb.DataError,
         "None"),
        (lambda: notes.search(near=[1, None]), m2mdb.DataError, "None"),
        (lambda: con.execute("PRAGMA cache_siez"), m2mdb.ProgrammingError, "known are"),
        (lambda: con.execute("PRAGMA user_versoin"), m2mdb.ProgrammingError,
         r"did you mean user_version\? known are"),
        (lambda: con.backup("/nonexist/a.m2m"), m2mdb.OperationalError, r"/nonexist/a\.m2m(?!-)"),
    ]  # fmt: skip
    for call, kind, message in calls:
        with pytest.raises(kind, match=message):
            call()
    assert len(notes) == 0


def test_an_unknown_name_in_a_rule_is_a_plain_error(con: m2mdb.Connection) -> None:
    con.execute("CREATE TABLE t (a INTEGER)")
    for statement in (
        "CREATE TABLE u (a INTEGER, CHECK (b > 1))",
        "CREATE TABLE u (a INTEGER CHECK (nofunction(a) > 1))",
        "CREATE TABLE u (a INTEGER DEFAULT (nofunction(1)))",
        "CREATE TABLE u (a INTEGER CHECK (sum(a) > 1))",
        "ALTER COLLECTION t ADD COLUMN c INTEGER CHECK (b > 1)",
    ):
        with pytest.raises(m2mdb.ProgrammingError) as caught:
            con.execute(statement)
        assert type(caught.value) is m2mdb.ProgrammingError, statement
    with pytest.raises(m2mdb.ProgrammingError) as caught:
        con.collection("t").count("b > 1")
    assert type(caught.value) is m2mdb.ProgrammingError


def test_learning_an_unknown_class_is_refused() -> None:
    categories = m2mdb.Categories({"ui": ["dark"], "food": []})
    with pytest.raises(m2mdb.ProgrammingError, match="unknown class 'iu'; known are ui, food"):
        categories.learn({"iu": ["a font"]}, m2mdb.HashingEncoder(16))
    assert categories.learned == {}


def test_an_update_of_nothing_finds_its_row(con: m2mdb.Connection) -> None:
    notes = con.create_collection("notes", "id INTEGER PRIMARY KEY, a TEXT")
    notes.add({"id": 1, "a": "x"})
    assert (notes.update(1, {}), notes.update(2, {})) == (1, 0)


# connect


@pytest.mark.parametrize(
    ("level", "autocommit"),
    [(None, True), ("", False), ("DEFERRED", False), ("immediate", False), ("EXCLUSIVE", False)],
)
def test_isolation_level_says_autocommit(level: str | None, autocommit: bool) -> None:
    con = m2mdb.connect(":memory:", isolation_level=level, cached_statements=5)
    assert con.autocommit is autocommit
    con.close()


def test_isolation_level_that_cannot_be() -> None:
    for options, message in (
        ({"isolation_level": "", "autocommit": True}, "differ"),
        ({"isolation_level": "SERIALIZABLE"}, "SERIALIZABLE"),
        ({"isolation_level": 5}, "5"),
        ({"cached_statements": "x"}, "cached_statements"),
    ):
        given: dict[str, Any] = options
        with pytest.raises(m2mdb.InterfaceError, match=message):
            m2mdb.connect(":memory:", **given)
    assert m2mdb.connect(":memory:", autocommit=True, isolation_level=None).autocommit
    assert inspect.signature(aio.connect).parameters["isolation_level"].default is ...


# command line


def test_query_takes_encoders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.m2m")
    with m2mdb.connect(path, encoders={"words": "hashing"}) as con:
        notes = con.create_collection("notes", "body TEXT, e VECTOR(64) FROM body ENCODER 'words'")
        notes.add({"body": ["dark mode", "chocolate"]})
    con.close()
    search = ["query", path, "SEARCH notes FOR 'dark' K 1 RETURNING body", "--json"]
    assert cli.run([*search, "--encoder", "words=hashing"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"body": "dark mode"}]
    assert cli.run(search) == 1
    assert "words" in capsys.readouterr().err
    assert cli.run([*search, "--encoder", "hashing"]) == 1
    assert "expected NAME=WHAT" in capsys.readouterr().err
    assert cli.run([*search, "--encoder", "words=nope:x"]) == 1
    assert "nope:x" in capsys.readouterr().err


def test_a_half_life_is_named_in_the_unit_in_which_it_was_given() -> None:
    with m2mdb.connect(":memory:", autocommit=True) as con:
        notes = con.create_collection("notes", "created TIMESTAMP, body TEXT FULLTEXT")
        with pytest.raises(m2mdb.ProgrammingError, match="HALF LIFE is -3 DAYS; expected more"):
            con.execute("SEARCH notes MATCH 'dog' DECAY HALF LIFE -3 DAYS ON created")
        with pytest.raises(m2mdb.ProgrammingError, match="HALF LIFE is -1 days; expected more"):
            notes.search(match="dog", decay={"created": -1})


def test_a_batch_of_one_vector_without_its_list_is_told_so() -> None:
    with m2mdb.connect(":memory:", autocommit=True) as con:
        notes = con.create_collection("notes", "e VECTOR(2)")
        notes.add({"e": [[1, 0]]})
        for near in (np.ones(2), [1.0, 0.0], {"e": (1, 0)}):
            with pytest.raises(m2mdb.DataError, match="one vector; wanted is a matrix"):
                notes.search_batch(near=near, k=1)
        assert notes.search_batch(near=[np.ones(2)], k=1)[0].tolist() == [[1]]


def test_an_unknown_option_of_rrf_is_told_all_that_there_are() -> None:
    with m2mdb.connect(":memory:") as con:
        con.execute("CREATE COLLECTION t (body TEXT FULLTEXT, e VECTOR(2))")
        with pytest.raises(m2mdb.ProgrammingError, match="expected depth, k, vector, text"):
            con.execute("SEARCH t NEAR [1, 0] MATCH 'dog' FUSION rrf (kk = 3)")
