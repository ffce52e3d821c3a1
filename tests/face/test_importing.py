"""Importing: types from all rows, all or nothing before the first batch, batches that stay."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.cli import run
from m2mdb.collection import Collection
from m2mdb.documents import csv_value
from m2mdb.importing import ColumnFacts

Capture = pytest.CaptureFixture[str]
DOCS: list[dict[str, Any]] = [
    {"id": "a", "text": "a red apple", "n": 1, "tags": ["fruit", "red"], "x": 1, "score": 0.5},
    {"id": "b", "text": "a green pear", "n": 2, "tags": [], "x": 1.5, "ok": True},
    {"id": "c", "text": "a red cherry", "n": None, "tags": ["red"], "x": None, "ok": False},
]


def write_jsonl(path: Path, docs: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    return str(path)


@pytest.fixture
def docs(tmp_path: Path) -> str:
    return write_jsonl(tmp_path / "docs.jsonl", DOCS)


def opened(path: Path) -> m2mdb.Connection:
    return m2mdb.connect(path, compute="numpy")


@pytest.mark.parametrize(
    ("values", "type"),
    [
        ([1, 2, None], "INTEGER"),
        ([1, 2.5], "REAL"),
        ([2**60, 2.5], "TEXT"),
        ([2**63], "TEXT"),
        ([-(2**63)], "INTEGER"),
        ([True, False], "BOOLEAN"),
        ([True, 1], "TEXT"),
        (["a", None], "TEXT"),
        (["a", 1], "TEXT"),
        ([["a"], "b"], "JSON"),
        ([{}], "JSON"),
        ([None], "TEXT"),
    ],
)
def test_types_come_from_all_values(values: list[Any], type: str) -> None:
    facts = ColumnFacts("c")
    for value in values:
        facts.see(value)

    assert facts.type == type


def test_jsonl_becomes_a_collection(path: Path, docs: str, capsys: Capture) -> None:
    code = run(
        ["import", str(path), "things", docs, "--key", "id", "--fulltext", "text"]
        + ["--fulltext", "tags", "--json"]
    )

    assert code == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["added"] == 3
    assert "'score' cannot be a column's name here; it became 'score_2'" in captured.err
    con = opened(path)
    things = con.collection("things")
    types = {column.name: column.type for column in things.schema.columns}
    assert types == {
        "id": "TEXT", "text": "TEXT", "n": "INTEGER", "tags": "JSON", "x": "REAL",
        "score_2": "REAL", "ok": "BOOLEAN",
    }  # fmt: skip
    assert sorted(things.search(match="red").ids) == ["a", "c"]
    assert things.search(match="tags:fruit").ids.tolist() == ["a"]
    row = things.get("b")
    assert row is not None
    assert (row.n, row.tags, row.x, row.ok, row.score_2) == (2, "[]", 1.5, True, None)
    con.close()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
def test_vectors_come_from_npy(path: Path, docs: str, tmp_path: Path, dtype: str) -> None:
    vectors = np.array([[1, 0], [0, 1], [3, 4]], dtype)
    np.save(tmp_path / "v.npy", vectors)

    code = run(
        ["import", str(path), "things", docs, "--vectors", str(tmp_path / "v.npy")]
        + ["--key", "id", "--metric", "l2", "--vector-column", "v", "--batch", "2"]
    )

    assert code == 0
    con = opened(path)
    column = con.collection("things").schema.columns[-1]
    expected = {"float16": "f16", "float32": "f32", "float64": "f32", "int8": "i8"}[dtype]
    assert (column.name, column.dtype, column.metric) == ("v", expected, "l2")
    row = con.collection("things").get("c")
    assert row is not None
    assert row.v.tolist() == [3, 4]
    con.close()


def test_texts_are_encoded(path: Path, docs: str) -> None:
    code = run(
        ["import", str(path), "things", docs, "--key", "id", "--fulltext", "text"]
        + ["--encoder", "hashing", "--dimensions", "64"]
    )

    assert code == 0
    con = opened(path)
    query = con.encoder("hashing", 64).encode(["a red apple"])[0]
    hits = con.collection("things").search(near=query, k=1)
    assert (hits[0].id, round(hits[0].score, 5)) == ("a", 1.0)
    con.close()


def test_csv_and_gzip(path: Path, tmp_path: Path) -> None:
    text = 'id,name,n,when\n1,"Smith, J",007,\n2,"two\nlines",8,x\n'
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))

    assert run(["import", str(path), "t", str(tmp_path / "t.csv.gz"), "--key", "id"]) == 0

    con = opened(path)
    rows = con.execute("SELECT * FROM t ORDER BY id").fetchall()
    assert rows == [(1, "Smith, J", "007", None), (2, "two\nlines", "8", "x")]
    con.close()


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("-7", -7), ("1.5", 1.5), ("", None), ("07", "07"), ("1_000", "1_000"),
     ("1e5", "1e5"), ("1e+16", 1e16), ("nan", "nan"), ("x1", "x1"), ("-", "-"), ("1.50", "1.50")],
)  # fmt: skip
def test_csv_values_are_numbers_where_nothing_is_lost(text: str, value: object) -> None:
    assert csv_value(text) == value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": 1}\n{"a": ', "line 2"),
        ('{"a": 1}\n[1]\n', "line 2: list"),
        ("", "holds no documents"),
        ("\n\n", "holds no documents"),
        ("\ufffd", "line 1"),
        ("[" * 100_000, "line 1"),
    ],
)
def test_a_malformed_line_is_named_and_nothing_is_written(
    path: Path, tmp_path: Path, capsys: Capture, content: str, words: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(content)

    assert run(["import", str(path), "t", str(tmp_path / "bad.jsonl")]) == 1

    assert words in capsys.readouterr().err
    con = opened(path)
    assert con.collections() == []
    con.close()


def test_other_wrong_input(path: Path, docs: str, tmp_path: Path, capsys: Capture) -> None:
    np.save(tmp_path / "short.npy", np.ones((2, 2), np.float32))
    np.save(tmp_path / "flat.npy", np.ones(3, np.float32))
    np.save(tmp_path / "int.npy", np.ones((3, 2), np.int64))
    np.save(tmp_path / "object.npy", np.array([None] * 3), allow_pickle=True)
    (tmp_path / "utf8.jsonl").write_bytes(b'{"a": "\xff"}')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}' * 100)[:20])
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3\n")
    base = ["import", str(path), "t"]
    for arguments, words in (
        ([str(tmp_path / "absent.jsonl")], "absent.jsonl"),
        ([str(tmp_path / "utf8.jsonl")], "utf8.jsonl"),
        ([str(tmp_path / "cut.jsonl.gz")], "cut.jsonl.gz"),
        ([str(tmp_path / "ragged.csv")], "line 3: 1 fields"),
        ([docs, "--vectors", str(tmp_path / "short.npy")], "(2, 2)"),
        ([docs, "--vectors", str(tmp_path / "flat.npy")], "(3,)"),
        ([docs, "--vectors", str(tmp_path / "int.npy")], "int64"),
        ([docs, "--vectors", str(tmp_path / "object.npy")], "object.npy"),
        ([docs, "--vectors", str(tmp_path / "absent.npy")], "absent.npy"),
        ([docs, "--key", "key"], "'key'"),
        ([docs, "--fulltext", "body"], "'body'"),
        ([docs, "--encoder", "hashing"], "--encode NAME"),
        ([docs, "--encoder", "minilm", "--encode", "text"], "minilm"),
    ):
        assert run([*base, *arguments]) == 1, arguments
        assert words in capsys.readouterr().err
    con = opened(path)
    assert con.collections() == []
    con.close()


def test_an_existing_collection_is_added_to_only_when_asked(
    path: Path, docs: str, capsys: Capture
) -> None:
    arguments = ["import", str(path), "t", docs, "--key", "id"]
    assert run(arguments) == 0
    assert run(arguments) == 1
    assert "--append" in capsys.readouterr().err
    assert run([*arguments, "--append"]) == 1
    assert run([*arguments, "--append", "--on-conflict", "ignore", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == 0


def test_an_interrupt_keeps_committed_batches_and_says_how_many(
    path: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = write_jsonl(tmp_path / "many.jsonl", [{"id": i} for i in range(10)])
    add, calls = Collection.add, []

    def interrupted_add(self: Collection, rows: Any, on_conflict: Any = "error") -> Any:
        calls.append(len(rows["id"]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return add(self, rows, on_conflict)

    monkeypatch.setattr(Collection, "add", interrupted_add)

    code = run(["import", str(path), "t", docs, "--key", "id", "--batch", "3"])

    assert code == 1
    assert "interrupted; 6 rows are committed" in capsys.readouterr().err
    con = opened(path)
    assert con.collection("t").count() == 6
    con.close()


@pytest.mark.parametrize("fault", ["duplicate", "null", "vector"])
@pytest.mark.parametrize("at", [2, 7])
def test_a_refused_row_is_named_by_its_line(
    path: Path, tmp_path: Path, capsys: Capture, fault: str, at: int
) -> None:
    rows: list[dict[str, Any]] = [{"id": i, "body": "x"} for i in range(10)]
    vectors = np.ones((10, 2), np.float32)
    if fault == "duplicate":
        rows[at]["id"] = at - 1
    elif fault == "null":
        del rows[at]["id"]
        rows[0]["id"] = "text"
    else:
        vectors[at] = 0
    docs = write_jsonl(tmp_path / "docs.jsonl", rows)
    np.save(tmp_path / "v.npy", vectors)

    code = run(
        ["import", str(path), "t", docs, "--vectors", str(tmp_path / "v.npy")]
        + ["--key", "id", "--batch", "4"]
    )

    printed = capsys.readouterr()
    assert code == 1
    assert printed.err.startswith(f"m2mdb: {docs}, line {at + 1}: ")
    assert "row " not in printed.err.replace("rows before", "")
    assert printed.out == ""
    con = opened(path)
    if at < 4:
        assert con.collections() == []
    else:
        assert "; 4 rows before it are committed" in printed.err
        assert con.collection("t").count() == 4
    con.close()


def test_an_interrupted_first_batch_leaves_nothing(
    path: Path, docs: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted_add(self: Collection, rows: Any, on_conflict: Any = "error") -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Collection, "add", interrupted_add)

    assert run(["import", str(path), "t", docs]) == 1

    assert "interrupted; 0 rows are committed" in capsys.readouterr().err
    con = opened(path)
    assert con.collections() == []
    con.close()


def test_a_csv_row_is_named_by_its_last_line(path: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "t.csv").write_text('id,name\n1,"two\nlines"\n1,x\n')

    assert run(["import", str(path), "t", str(tmp_path / "t.csv"), "--key", "id"]) == 1

    assert "t.csv, line 4: UNIQUE constraint failed" in capsys.readouterr().err


def test_vectors_are_not_lost_without_a_word(
    path: Path, docs: str, tmp_path: Path, capsys: Capture
) -> None:
    np.save(tmp_path / "v.npy", np.eye(3, 2, dtype=np.float32) + 1)
    base = ["import", str(path), "t", docs, "--key", "id"]
    assert run([*base, "--vectors", str(tmp_path / "v.npy")]) == 0
    capsys.readouterr()

    assert run([*base, "--append", "--on-conflict", "replace"]) == 1
    assert "would delete the vectors in embedding" in capsys.readouterr().err
    assert run([*base, "--append", "--on-conflict", "ignore"]) == 0
    assert "have no embedding: NEAR does not find them" in capsys.readouterr().err

    con = opened(path)
    assert len(con.collection("t").search(near=[1, 0])) == 3
    con.close()


def test_columns_that_a_replacement_clears_are_named(
    path: Path, docs: str, tmp_path: Path, capsys: Capture
) -> None:
    assert run(["import", str(path), "t", docs, "--key", "id"]) == 0
    short = write_jsonl(tmp_path / "short.jsonl", [{"id": "a", "text": "new"}])
    capsys.readouterr()

    code = run(
        ["import", str(path), "t", short, "--key", "id", "--append", "--on-conflict", "replace"]
    )

    assert code == 0
    assert "replaced rows lose n, tags, x, score_2, ok" in capsys.readouterr().err
