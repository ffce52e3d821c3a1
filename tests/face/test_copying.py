"""COPY: every format there and back, its errors, and what it may touch."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import m2mdb

COLUMNS = (
    "id INTEGER PRIMARY KEY, s TEXT, x REAL, b BOOLEAN, ts TIMESTAMP, z BLOB, j JSON, "
    "v VECTOR(3), h VECTOR(2, f16), q VECTOR(2, i8)"
)
COUNT = 10_011


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator[m2mdb.Connection]:
    """Rows in two segments and the delta, some changed and deleted: rowids of parts interleave."""
    connection = m2mdb.connect(tmp_path_factory.mktemp("copy") / "a.m2m", compute="numpy")
    connection.execute(f"CREATE TABLE t ({COLUMNS})")
    table = connection.collection("t")
    rng = np.random.default_rng(1)
    for start, stop in ((0, 6000), (6000, 10_000), (10_000, COUNT)):
        ids = np.arange(start, stop)
        table.add(
            {
                "id": ids,
                "s": [
                    (None, "", "plain", 'a "quoted", one', "two\nlines\r\n", "é")[i % 6]
                    for i in ids
                ],
                "x": [(None, 0.1, -1e300, float("inf"), 3.0)[i % 5] for i in ids],
                "b": [(None, True, False)[i % 3] for i in ids],
                "ts": [None if i % 4 == 0 else int(i) * 10**12 + 1 for i in ids],
                "z": [(None, b"", b"\x00\xff")[i % 3] for i in ids],
                "j": [
                    (None, {"a": [1, "x"]}, "text", 5)[i % 4] if i % 4 != 2 else '"text"'
                    for i in ids
                ],
                "v": [None if i % 7 == 0 else rng.random(3, np.float32) for i in ids],
                "h": [None if i % 7 == 1 else rng.random(2).astype(np.float16) for i in ids],
                "q": rng.integers(1, 100, (len(ids), 2)).astype(np.int8),
            }
        )
    connection.execute("UPDATE t SET s = 'changed' WHERE id % 1000 = 4")
    connection.execute("DELETE FROM t WHERE id % 10 = 3")
    connection.commit()
    yield connection
    connection.close()


def plain(row: Any) -> tuple[Any, ...]:
    return tuple(value.tolist() if hasattr(value, "tolist") else value for value in row)


def rows(con: m2mdb.Connection, query: str = "SELECT * FROM t") -> list[tuple[Any, ...]]:
    return [plain(row) for row in con.execute(query).fetchall()]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.tsv", "a.ndjson"])
def test_there_and_back_gives_the_same_rows(
    con: m2mdb.Connection, tmp_path: Path, name: str
) -> None:
    path = str(tmp_path / name)
    other = m2mdb.connect(":memory:", compute="numpy")
    other.execute(f"CREATE TABLE t ({COLUMNS})")

    written = con.execute("COPY t TO ?", (path,))
    assert written.fetchall() == [(len(con.collection("t")),)]
    read = other.execute(f"COPY t FROM '{path}'")

    assert read.rowcount == len(con.collection("t"))
    assert rows(other) == rows(con)
    assert other.in_transaction
    assert os.listdir(tmp_path) == [name]
    other.close()


@pytest.mark.parametrize(("name", "column"), [("a.npy", "v"), ("a.fvecs", "v"), ("a.npy", "q")])
def test_matrices_there_and_back(
    con: m2mdb.Connection, tmp_path: Path, name: str, column: str
) -> None:
    path = str(tmp_path / name)
    kinds = {"v": "VECTOR(3)", "q": "VECTOR(2, i8)"}
    other = m2mdb.connect(":memory:", compute="numpy")
    other.execute(f"CREATE TABLE t (n INTEGER DEFAULT 7, {column} {kinds[column]})")
    query = f"SELECT {column} FROM t WHERE {column} IS NOT NULL ORDER BY id LIMIT 9000"
    source = m2mdb.connect(":memory:", compute="numpy")
    source.execute(f"CREATE TABLE t ({column} {kinds[column]})")
    matrix = con.execute(query).fetchnumpy()[column]
    source.collection("t").add({column: matrix})

    source.execute(f"COPY t TO '{path}'")
    other.execute(f"COPY t FROM '{path}'")

    assert np.array_equal(other.execute(f"SELECT {column} FROM t").fetchnumpy()[column], matrix)
    assert other.execute("SELECT min(n), max(n) FROM t").fetchone() == (7, 7)
    if name.endswith("npy"):
        assert np.array_equal(np.load(path), matrix)
    with pytest.raises(m2mdb.DataError, match="v is NULL in a row"):
        con.execute("COPY t TO ? (column = 'v')", (str(tmp_path / name),))
    with pytest.raises(m2mdb.ProgrammingError, match="3 VECTOR columns"):
        con.execute("COPY t TO ?", (str(tmp_path / name),))
    source.close()
    other.close()


def test_other_programs_read_the_files(con: m2mdb.Connection, tmp_path: Path) -> None:
    for name in ("a.parquet", "a.csv", "a.jsonl"):
        con.execute("COPY t TO ?", (str(tmp_path / name),))

    table = pq.read_table(tmp_path / "a.parquet")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        records = list(csv.reader(file))
    lines = (tmp_path / "a.jsonl").read_text("utf-8").splitlines()

    expected = rows(con)
    assert [plain(row.values()) for row in table.to_pylist()] == expected
    assert records[0] == ["id", "s", "x", "b", "ts", "z", "j", "v", "h", "q"]
    assert [record[1] for record in records[1:]] == [row[1] or "" for row in expected]
    assert [json.loads(line)["v"] for line in lines if line] == [row[7] for row in expected]


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
            st.none() | st.floats(allow_nan=False),
            st.none() | st.binary(max_size=5),
            st.none() | st.integers(-(2**63), 2**63 - 1),
        ),
        max_size=12,
    ),
    st.sampled_from(["jsonl", "csv", "tsv"]),
)
def test_any_values_come_back(tmp_path: Path, values: list[tuple[Any, ...]], name: str) -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    for table in ("t", "u"):
        con.execute(f"CREATE TABLE {table} (s TEXT, x REAL, z BLOB, n INTEGER)")
    con.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", values)
    path = str(tmp_path / f"a.{name}")

    con.execute("COPY t TO ?", (path,))
    con.execute("COPY u FROM ?", (path,))

    assert rows(con, "SELECT * FROM u") == rows(con)
    con.close()


def table(schema: str = "id INTEGER PRIMARY KEY, s TEXT NOT NULL DEFAULT 'd'") -> m2mdb.Connection:
    con = m2mdb.connect(":memory:", compute="numpy")
    con.execute(f"CREATE TABLE t ({schema})")
    con.execute("INSERT INTO t (id) VALUES (2)")
    con.commit()
    return con


FAULTS = [
    ("a.jsonl", '{"id": 1}\n{"id": \n', m2mdb.DataError, "line 2"),
    ("a.jsonl", '{"id": 1}\n[2]\n', m2mdb.DataError, "line 2: list"),
    ("a.jsonl", '{"id": 1, "t": 5}\n', m2mdb.ProgrammingError, "line 1: no such column: t"),
    ("a.jsonl", '{"id": 1}\n{"id": 3, "t": 5}\n', m2mdb.ProgrammingError, "line 2: no such"),
    ("a.jsonl", '{"id": "x"}\n', m2mdb.DataError, "line 1: column id of t: "),
    ("a.jsonl", '{"id": 1}\n{"id": 2}\n', m2mdb.IntegrityError, r"a.jsonl, line 2: UNIQUE .* = 2$"),
    ("a.jsonl", '{"id": 1}\n\n{"id": 2}\n', m2mdb.IntegrityError, r"a.jsonl, line 3: UNIQUE"),
    ("a.csv", "id,nope\r\n", m2mdb.ProgrammingError, "a.csv, line 1: no such column: nope"),
    ("a.csv", "id,s\r\n1,x\r\n3,\r\n", m2mdb.IntegrityError, r"a.csv, line 3: NOT NULL"),
    ("a.csv", "id,s\r\n1,x,y\r\n", m2mdb.DataError, "line 2: 3 fields"),
    ("a.csv", 'id,s\r\n1,"x\r\n', m2mdb.DataError, "line 2: a quoted field does not end"),
    ("a.csv", 'id,s\r\n1,x"y"\r\n', m2mdb.DataError, "line 2: a quote stands in the midst"),
    ("a.csv", 'id,s\r\n1,""\r\n1,b\r\n', m2mdb.IntegrityError, r"a.csv, line 3: UNIQUE"),
    ("a.csv", "id,id\r\n1,2\r\n", m2mdb.DataError, "line 1: expected the names"),
    ("a.parquet", "PAR1 no", m2mdb.DataError, "no Parquet file"),
    ("a.csv.gz", "no", m2mdb.DataError, "a.csv.gz"),
    ("a.txt", "x", m2mdb.ProgrammingError, "format 'txt' is none of"),
]


@pytest.mark.parametrize(("name", "text", "error", "message"), FAULTS)
def test_a_faulty_file_leaves_nothing(
    tmp_path: Path, name: str, text: str, error: type[Exception], message: str
) -> None:
    con = table()
    (tmp_path / name).write_text(text, newline="")

    with pytest.raises(error, match=message):
        con.execute("COPY t FROM ?", (str(tmp_path / name),))

    assert rows(con) == [(2, "d")]
    assert not con.in_transaction
    con.close()


def test_matrices_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    con.execute("CREATE TABLE t (v VECTOR(3))")
    np.save(tmp_path / "a.npy", np.zeros((2, 4), np.float32))
    (tmp_path / "b.npy").write_bytes(b"no array")
    np.array([[3, 1, 1, 1], [2, 1, 1, 1]], "<i4").tofile(tmp_path / "c.fvecs")
    (tmp_path / "d.fvecs").write_bytes(b"123")
    for name, message in (
        ("a.npy", r"expected \(rows, 3"),
        ("b.npy", "is no .npy file"),
        ("c.fvecs", "row 2: dimension 2, expected 3"),
        ("d.fvecs", "no whole rows"),
    ):
        with pytest.raises(m2mdb.DataError, match=message):
            con.execute("COPY t FROM ?", (str(tmp_path / name),))
    assert rows(con) == []
    con.close()


def test_options(tmp_path: Path) -> None:
    con = table()
    path = tmp_path / "a.data"
    path.write_text("id;s\n2;new\n5;five\n", newline="")
    read = "COPY t FROM ? (format = 'csv', delimiter = ';', on_conflict = {})"

    assert con.execute(read.format("ignore"), (str(path),)).rowcount == 1
    assert rows(con) == [(2, "d"), (5, "five")]
    assert con.execute(read.format("'replace'"), (str(path),)).rowcount == 2
    assert rows(con) == [(2, "new"), (5, "five")]
    con.execute("COPY t TO :to (format = :as)", {"to": str(path), "as": "jsonl"})
    assert json.loads(path.read_text().splitlines()[0]) == {"id": 2, "s": "new"}
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"id": 9}\n'))
    assert con.execute("COPY t FROM ?", (str(packed),)).rowcount == 1
    for statement, message in (
        ("COPY t FROM 'x.csv' (colour = 1)", "unknown option 'colour'"),
        ("COPY t FROM 'x.csv' (delimiter = 'ab')", "delimiter 'ab'"),
        ("COPY t FROM 'x.csv' (on_conflict = 'no')", "on_conflict is 'no'"),
        ("COPY t TO 'x.csv' (on_conflict = 'ignore')", "option of COPY … FROM"),
        ("COPY t TO 'x.csv.gz'", "read, not written"),
        ("COPY none TO 'x.csv'", "no such collection"),
        ("COPY t TO ''", "expected the path"),
    ):
        with pytest.raises(m2mdb.ProgrammingError, match=message):
            con.execute(statement)
    con.close()


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m", compute="numpy")
    con.execute("CREATE TABLE t (v VECTOR(2))")
    con.execute("INSERT INTO t VALUES ([1, 2]), (NULL)")
    con.commit()
    path = tmp_path / "a.npy"
    path.write_bytes(b"before")

    with pytest.raises(m2mdb.DataError):
        con.execute("COPY t TO ?", (str(path),))
    assert path.read_bytes() == b"before"
    with pytest.raises(m2mdb.OperationalError, match="cannot write"):
        con.execute("COPY t TO ?", (str(tmp_path / "none" / "a.csv"),))
    with pytest.raises(m2mdb.OperationalError, match="cannot read"):
        con.execute("COPY t FROM ?", (str(tmp_path / "none.csv"),))
    for own in ("a.m2m", "a.m2m-wal"):
        with pytest.raises(m2mdb.OperationalError, match="the database itself"):
            con.execute("COPY t TO ? (format = 'csv')", (str(tmp_path / own),))
    assert [name for name in os.listdir(tmp_path) if "part" in name] == []
    con.close()


def test_progress_is_told_and_may_stop(con: m2mdb.Connection, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    told: list[Any] = []
    total = len(con.collection("t"))

    assert con.collection("t").copy_to(path, progress=lambda *each: told.append(each)) == total
    assert told[-1] == (total, total)
    assert len(told) == -(-total // 8192)

    other = m2mdb.connect(":memory:", compute="numpy")
    other.execute(f"CREATE TABLE t ({COLUMNS})")
    other.commit()

    def stop(done: int, total: int | None) -> None:
        if done > 8192:
            raise KeyError(done, total)

    with pytest.raises(KeyError):
        other.collection("t").copy_from(path, progress=stop)
    assert other.collection("t").count() == 0
    assert other.collection("t").copy_from(path) == total
    assert not other.in_transaction
    assert other.total_changes == total
    other.close()


def test_file_access_may_be_forbidden(tmp_path: Path) -> None:
    path = tmp_path / "a.m2m"
    con = m2mdb.connect(path, compute="numpy")
    con.execute("CREATE TABLE t (a TEXT)")
    con.commit()
    con.set_authorizer(lambda action, *rest: 1 if action == m2mdb.SQLITE_ATTACH else 0)
    (tmp_path / "a.csv").write_text("a\nx\n")
    for statement in ("COPY t TO ?", "COPY t FROM ?"):
        with pytest.raises(m2mdb.OperationalError, match="not authorized: ATTACH"):
            con.execute(statement, (str(tmp_path / "a.csv"),))
    con.set_authorizer(lambda action, *rest: 1 if action == m2mdb.SQLITE_READ else 0)
    with pytest.raises(m2mdb.OperationalError, match=r"not authorized: READ t\.a"):
        con.execute("COPY t TO ?", (str(tmp_path / "b.csv"),))
    con.close()

    untrusted = m2mdb.connect(path, untrusted=True, compute="numpy")
    for statement in ("COPY t TO ?", "COPY t FROM ?"):
        with pytest.raises(m2mdb.OperationalError, match="touches no other file"):
            untrusted.execute(statement, (str(tmp_path / "a.csv"),))
    untrusted.close()
    assert (tmp_path / "a.csv").read_text() == "a\nx\n"


def test_copy_takes_part_in_a_transaction(tmp_path: Path) -> None:
    con = table()
    path = tmp_path / "a.csv"
    con.execute("INSERT INTO t (id) VALUES (3)")
    con.execute("COPY t TO ?", (str(path),))
    con.rollback()

    con.execute("DELETE FROM t")
    con.execute("COPY t FROM ?", (str(path),))
    assert rows(con) == [(2, "d"), (3, "d")]
    con.rollback()

    assert rows(con) == [(2, "d")]
    con.close()


@pytest.mark.parametrize(
    "text", ["1e400", '{"a": 1e400}', "1.10", "-0", '{"a":1,"a":2}', "[1,\n2]"]
)
def test_jsonl_holds_the_text_of_a_json_column(tmp_path: Path, text: str) -> None:
    """1e400 was ValueError, 1.10 became 1.1 and of equal keys only the last was written."""
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute("CREATE TABLE t (j JSON, id INTEGER)")
    con.execute("INSERT INTO t VALUES (?, 1), (NULL, 2)", (text,))
    path = tmp_path / "a.jsonl"

    con.execute("COPY t TO ?", (str(path),))

    first, second = path.read_text().splitlines()
    assert first == '{"j": ' + text.replace("\n", " ") + ', "id": 1}'
    assert second == '{"j": null, "id": 2}'
    before = con.execute("SELECT replace(j, char(10), ' ') FROM t").fetchall()
    con.execute("DELETE FROM t")
    con.execute("COPY t FROM ?", (str(path),))
    assert con.execute("SELECT j FROM t").fetchall() == before
    con.close()


@pytest.mark.parametrize(
    "line",
    [
        '{"id": 1, "j": {"a": 1}',
        '{"id": 1, "j": }',
        '{"id": 1, "j": 1,}',
        '{"id": 1, j: 1}',
        '{"id" 1}',
        '{"id": 1} 2',
        '{"id": 1 "j": 2}',
        '{"id": 1, "id": 2}',
        '{"id": 1, "j": "a}',
        "{",
        "[1]",
        '{"j": ' + "[" * 100_000,
    ],
)
def test_jsonl_that_is_malformed_beside_a_json_column(tmp_path: Path, line: str) -> None:
    con = table("id INTEGER, j JSON")
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{}}\n {{ "id" : 5 , "j" : [1.50, null] }} \n{line}\n')

    with pytest.raises(m2mdb.DataError, match=r"a\.jsonl, line 3: "):
        con.execute("COPY t FROM ?", (str(path),))

    path.write_text('{}\n { "id" : 5 , "j" : [1.50, null] } \n')
    con.execute("COPY t FROM ?", (str(path),))
    assert rows(con) == [(2, None), (None, None), (5, "[1.50, null]")]
    con.close()


@pytest.mark.parametrize("value", ["NaN", "[1, -Infinity]"])
def test_jsonl_with_a_constant_of_python_is_refused(tmp_path: Path, value: str) -> None:
    """A JSON column was given the text Infinity, which is no JSON."""
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute("CREATE TABLE t (j JSON)")
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"j": "NaN"}}\n{{"j": {value}}}\n')

    with pytest.raises(m2mdb.DataError, match=r"a\.jsonl, line 2, j: is no JSON"):
        con.execute("COPY t FROM ?", (str(path),))

    assert con.execute("SELECT count(*) FROM t").fetchone() == (0,)
    con.close()


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_generated_vectors_are_written_and_made_again(tmp_path: Path, name: str) -> None:
    """They were written, and the file was then refused."""
    con = m2mdb.connect(":memory:", compute="numpy", autocommit=True)
    con.execute("CREATE TABLE t (s TEXT, e VECTOR(8) FROM s ENCODER 'hashing', n INTEGER)")
    con.execute("INSERT INTO t (s, n) VALUES ('one text', 1), (NULL, 2), ('another', 3)")
    before = rows(con)
    path = tmp_path / name

    con.execute("COPY t TO ?", (str(path),))
    con.execute("DELETE FROM t")
    con.execute("COPY t FROM ?", (str(path),))

    assert rows(con) == before
    assert before[0][1] is not None
    con.close()


def test_a_file_of_generated_vectors_alone_is_refused(tmp_path: Path) -> None:
    con = m2mdb.connect(":memory:", compute="numpy", autocommit=True)
    con.execute("CREATE TABLE t (s TEXT, e VECTOR(2) FROM s ENCODER 'hashing')")
    (tmp_path / "a.jsonl").write_text('{"e": [1, 0]}\n')
    np.save(tmp_path / "a.npy", np.ones((2, 2), np.float32))

    for name in ("a.jsonl", "a.npy"):
        with pytest.raises(m2mdb.ProgrammingError, match="is generated from s"):
            con.execute("COPY t FROM ?", (str(tmp_path / name),))

    assert rows(con) == []
    con.close()


def test_the_hidden_column_of_a_reembed_is_not_copied(tmp_path: Path) -> None:
    class Stops:
        model_id, fingerprint, dimensions = "stops", "1", 3

        def encode(self, texts: list[str]) -> np.ndarray[Any, Any]:
            if "last" in texts:
                raise RuntimeError("no more")
            return np.ones((len(texts), 3), np.float32)

    con = m2mdb.connect(":memory:", encoders={"stops": Stops()}, compute="numpy", autocommit=True)
    con.execute("CREATE TABLE t (s TEXT, e VECTOR(2) FROM s ENCODER 'hashing')")
    con.execute("INSERT INTO t (s) VALUES ('first'), ('last')")
    with pytest.raises(m2mdb.Error):
        con.execute("REEMBED t USING 'stops'")
    assert len(con.collection("t").schema.columns) == 3

    for name in ("a.csv", "a.parquet", "a.npy"):
        con.execute("COPY t TO ?", (str(tmp_path / name),))

    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "s,e"
    assert pq.read_table(tmp_path / "a.parquet").column_names == ["s", "e"]
    assert np.load(tmp_path / "a.npy").shape == (2, 2)
    con.close()
