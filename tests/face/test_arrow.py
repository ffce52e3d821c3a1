"""Arrow, data frames and arrays out of results, and tables bound to statements."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import m2mdb

COUNT = 9000
QUERIES = [
    "SELECT * FROM t",
    "SELECT id, s, v FROM t ORDER BY x DESC",
    "SELECT z, ts, b FROM t WHERE id % 2 = 0",
    "SELECT s, id + 1 AS n, x * 2 AS y FROM t ORDER BY s, id LIMIT 5000 OFFSET 7",
    "SELECT id, x, s, b, ts, z, v FROM t WHERE id < 40",
    "SELECT rowid, count FROM (SELECT rowid, id AS count FROM t)",
    "SELECT b, count(*) AS n, avg(x) AS m FROM t GROUP BY b",
    "SELECT s FROM t WHERE id < 0",
]


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator[m2mdb.Connection]:
    """Rows in two segments and in the delta, with NULLs, some of them deleted or changed."""
    connection = m2mdb.connect(tmp_path_factory.mktemp("arrow") / "a.m2m", compute="numpy")
    connection.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x REAL, s TEXT, b BOOLEAN, ts TIMESTAMP, "
        "z BLOB, v VECTOR(3), j JSON)"
    )
    rng = np.random.default_rng(1)
    table = connection.collection("t")
    for start, count in ((0, 5000), (5000, 4000), (9000, 5)):
        ids = np.arange(start, start + count)
        table.add(
            {
                "id": ids,
                "x": [None if i % 11 == 0 else float(i) / 7 for i in ids],
                "s": [None if i % 7 == 0 else f"tëxt {i % 1000}" for i in ids],
                "b": [None if i % 5 == 0 else bool(i & 1) for i in ids],
                "ts": [None if i % 3 == 0 else int(i) * 10**9 for i in ids],
                "z": [bytes([i % 256]) * (i % 4) for i in ids],
                "v": [None if i % 13 == 0 else rng.random(3, np.float32) for i in ids],
                "j": [{"n": int(i)} for i in ids],
            }
        )
    connection.execute("DELETE FROM t WHERE id % 10 = 3")
    connection.execute("UPDATE t SET s = 'changed', x = NULL WHERE id % 1000 = 4")
    connection.commit()
    yield connection
    connection.close()


def plain(value: Any) -> Any:
    """A value as it is compared: arrays as lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def rows_of(con: m2mdb.Connection, query: str) -> list[tuple[Any, ...]]:
    return [tuple(map(plain, row)) for row in con.execute(query).fetchall()]


@pytest.mark.parametrize("query", QUERIES)
def test_an_arrow_table_has_the_rows_of_the_cursor(con: m2mdb.Connection, query: str) -> None:
    cursor = con.execute(query)
    table = cursor.arrow()

    table.validate(full=True)
    names = [column[0] for column in con.execute(query).description or ()]
    found = [tuple(row.values()) for row in table.to_pylist()]
    assert table.column_names == names
    assert found == rows_of(con, query)
    assert cursor.fetchall() == []


@pytest.mark.parametrize("query", QUERIES)
def test_arrays_have_the_rows_of_the_cursor(con: m2mdb.Connection, query: str) -> None:
    arrays = con.execute(query).fetchnumpy()

    moments = {name: each for name, each in arrays.items() if each.dtype.kind == "M"}
    for name, each in moments.items():
        arrays[name] = np.ma.masked_array(each.astype(object), np.ma.getmaskarray(each))
    found = []
    for row in zip(*arrays.values(), strict=True):
        values = [
            None if np.ma.getmaskarray(each).all() and np.size(each) else each for each in row
        ]
        found.append(tuple(map(plain, values)))
    expected = [
        tuple(v.replace(tzinfo=None) if isinstance(v, datetime.datetime) else v for v in row)
        for row in rows_of(con, query)
    ]
    assert found == expected


def test_types_of_an_arrow_table(con: m2mdb.Connection) -> None:
    for limit in (10, COUNT):  # a few rows, and a result in columns
        schema = con.execute("SELECT * FROM t WHERE id > 0 LIMIT ?", (limit,)).arrow().schema
        assert {field.name: str(field.type) for field in schema} == {
            "id": "int64",
            "x": "double",
            "s": "string",
            "b": "bool",
            "ts": "timestamp[us, tz=UTC]",
            "z": "binary",
            "v": "fixed_size_list<item: float>[3]",
            "j": "string",
        }


@pytest.mark.parametrize(("dtype", "kind"), [("f16", "halffloat"), ("i8", "int8")])
def test_vectors_of_other_types(dtype: str, kind: str) -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    con.execute(f"CREATE TABLE t (v VECTOR(2, {dtype}))")
    rows = np.arange(1, 10_001).reshape(-1, 2) % 100 + 1
    con.collection("t").add({"v": rows.astype(np.int8 if dtype == "i8" else np.float16)})

    column = con.execute("SELECT v FROM t").arrow().column("v")

    assert str(column.type) == f"fixed_size_list<item: {kind}>[2]"
    assert column.to_pylist() == rows.tolist()
    con.close()


def test_rows_and_arrays_of_one_cursor_follow_each_other(con: m2mdb.Connection) -> None:
    query = "SELECT id FROM t ORDER BY id"
    ids = [row[0] for row in con.execute(query).fetchall()]
    cursor = con.execute(query)

    assert cursor.rownumber == 0
    assert cursor.fetchone() == (ids[0],)
    assert cursor.fetchmany(2) == [(ids[1],), (ids[2],)]
    assert cursor.arrow().column("id").to_pylist() == ids[3:]
    assert cursor.fetchone() is None

    cursor = con.execute(query)
    assert repr(cursor) == f"<m2mdb.Cursor row 0 of {len(ids)}>"
    assert [row[0] for row in cursor] == ids
    with pytest.raises(m2mdb.InterfaceError, match="no results to fetch"):
        con.cursor().arrow()
    with pytest.raises(m2mdb.InterfaceError, match="no results to fetch"):
        con.execute("PRAGMA user_version = 3").df()


def test_a_result_outlives_its_snapshot(tmp_path: Path) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m", compute="numpy")
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, v VECTOR(2))")
    con.collection("t").add(
        {
            "id": np.arange(6000),
            "s": [f"old {i}" for i in range(6000)],
            "v": np.ones((6000, 2), np.float32),
        }
    )
    con.commit()
    cursor, rows = con.execute("SELECT * FROM t"), con.execute("SELECT * FROM t")
    con.execute("DELETE FROM t")
    con.commit()
    con.execute("VACUUM")
    con.collection("t").add({"id": [1], "s": ["new"], "v": [[2.0, 2.0]]})
    con.close()
    with pytest.raises(m2mdb.InterfaceError):
        rows.fetchall()

    other = m2mdb.connect(tmp_path / "a.m2m", compute="numpy")
    assert other.execute("SELECT count(*) FROM t").fetchone() == (1,)
    kept = cursor._result
    assert kept is not None
    assert kept.rows[5999][:2] == (5999, "old 5999")
    other.close()


def test_duckdb_and_polars_query_a_result(con: m2mdb.Connection) -> None:
    wanted = con.execute("SELECT count(*), sum(id), max(s) FROM t").fetchone()
    result = con.execute("SELECT id, s, x, v FROM t")

    sql: Any = duckdb.sql
    found = sql("SELECT count(*), sum(id), max(s) FROM result").fetchall()
    again = sql("SELECT count(*), sum(id), max(s) FROM result").fetchall()
    frame = pl.DataFrame(result)

    assert found == again == [wanted]
    assert frame.select(pl.len(), pl.col("id").sum(), pl.col("s").max()).row(0) == wanted
    assert str(frame.schema["v"]) == "Array(Float32, shape=(3,))"
    assert con.execute("SELECT id, v FROM t").pl().shape == (frame.height, 2)


def test_a_collection_is_an_arrow_stream(con: m2mdb.Connection) -> None:
    collection = con.collection("t")

    table = pa.RecordBatchReader.from_stream(collection).read_all()

    assert table.num_rows == len(collection)
    assert table.column_names[0] == "id"


def test_a_data_frame_has_the_rows_of_the_cursor(con: m2mdb.Connection) -> None:
    for query in QUERIES[:2]:
        frame = con.execute(query).df()
        rows = rows_of(con, query)
        assert len(frame) == len(rows)
        for name, position in (("id", 0), ("s", frame.columns.get_loc("s"))):
            values = [None if pd.isna(value) else value for value in frame[name]]
            assert values == [row[position] for row in rows]
    frame = con.execute("SELECT id, id, ts FROM t").df()
    assert list(frame.columns) == ["id", "id", "ts"]
    assert str(frame["ts"].dtype) == "datetime64[us, UTC]"


def test_pandas_reads_a_connection_as_it_does_sqlite3(con: m2mdb.Connection) -> None:
    with pytest.warns(UserWarning, match="pandas only supports SQLAlchemy"):
        frame = pd.read_sql("SELECT id, s FROM t WHERE id < ? ORDER BY id", con, params=(9,))
    with pytest.warns(UserWarning, match="pandas only supports SQLAlchemy"):
        chunks = list(pd.read_sql("SELECT id FROM t ORDER BY id", con, chunksize=4000))

    assert frame["id"].tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert sum(map(len, chunks)) == len(con.collection("t"))


def test_a_computed_column_of_several_types_is_told(con: m2mdb.Connection) -> None:
    query = "SELECT CASE WHEN id % 2 THEN 'a' ELSE 1 END AS odd FROM t"

    with pytest.raises(m2mdb.DataError, match="column odd has values of several types"):
        con.execute(query).arrow()


# Tables bound to statements


TABLES: dict[str, Callable[[], Any]] = {
    "arrow": lambda: pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]}),
    "reader": lambda: pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]}).to_reader(),
    "pandas": lambda: pd.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]}),
    "polars": lambda: pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]}),
    "columns": lambda: {"a": np.array([1, 2, 3]), "b": ["x", None, "z"]},
    "rows": lambda: [{"a": 1, "b": "x"}, {"a": 2}, {"a": 3, "b": "z"}],
    "duckdb": lambda: duckdb.sql("SELECT * FROM (VALUES (1, 'x'), (2, NULL), (3, 'z')) AS q(a, b)"),
}


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_a_bound_table_is_read_as_a_table(kind: str) -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    con.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")

    assert (
        con.execute("INSERT INTO t SELECT * FROM :table", {"table": TABLES[kind]()}).rowcount == 3
    )
    assert con.execute("SELECT * FROM t").fetchall() == [(1, "x"), (2, None), (3, "z")]
    found = con.execute(
        "SELECT a * 2, b FROM ? AS q WHERE q.a > 1 ORDER BY a DESC", (TABLES[kind](),)
    )
    assert found.fetchall() == [(6, "z"), (4, None)]
    joined = con.execute("SELECT t.b, q.b FROM t JOIN ? AS q ON q.a = t.a + 1", (TABLES[kind](),))
    assert joined.fetchall() == [("x", None), (None, "z")]
    con.close()


def test_a_statement_s_columns_are_those_of_the_table_of_each_run() -> None:
    con = m2mdb.connect(":memory:", compute="numpy")

    first = con.execute("SELECT * FROM ?", ({"a": [1]},))
    second = con.execute("SELECT * FROM ?", ({"b": ["x"], "c": [2.5]},))

    assert [column[0] for column in first.description or ()] == ["a"]
    assert [column[0] for column in second.description or ()] == ["b", "c"]
    assert second.fetchall() == [("x", 2.5)]
    con.close()


def test_a_large_bound_table_is_inserted_by_columns() -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, v VECTOR(4))")
    matrix = np.random.default_rng(2).random((20_000, 4), np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), 4)
    table = pa.table({"id": np.arange(20_000), "s": ["x", None] * 10_000, "v": vectors})

    con.execute("INSERT INTO t (id, s, v) SELECT id, s, v FROM :table", {"table": table})

    assert np.array_equal(con.execute("SELECT v FROM t ORDER BY id").fetchnumpy()["v"], matrix)
    assert con.execute("SELECT count(*), count(s) FROM t").fetchone() == (20_000, 10_000)
    con.close()


def test_what_is_no_table_is_refused() -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    for value in (5, "x", None, [1, 2], np.zeros(3)):
        with pytest.raises(m2mdb.InterfaceError, match="wanted is a dict"):
            con.execute("SELECT * FROM ?", (value,))
    with pytest.raises(m2mdb.DataError, match="differ in length"):
        con.execute("SELECT * FROM ?", ({"a": [1], "b": [1, 2]},))
    with pytest.raises(m2mdb.ProgrammingError, match="is not bound"):
        con.execute("EXPLAIN SELECT * FROM ?")
    with pytest.raises(m2mdb.InterfaceError, match="Table is a table and goes"):
        con.execute("SELECT ?", (pa.table({"a": [1]}),))
    for parameters in ((), ({"a": [1]}, 5), {"t": {"a": [1]}}):
        with pytest.raises(m2mdb.ProgrammingError):
            con.execute("SELECT * FROM ?", parameters)
    with pytest.raises(m2mdb.ProgrammingError, match=":t"):
        con.execute("SELECT * FROM :t", {})
    con.close()


def failing_reader() -> pa.RecordBatchReader:
    """A reader whose second batch never comes."""
    schema = pa.schema([("t", pa.string())])

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"t": ["one"]}, schema)
        raise ValueError("midway")

    return pa.RecordBatchReader.from_batches(schema, batches())


BYTES = [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
REFUSED: dict[str, Callable[[], Any]] = {
    "a time behind datetime's": lambda: pa.table({"t": pa.array([2**62], pa.timestamp("s"))}),
    "bytes that are no text": lambda: pa.table({"t": pa.Array.from_buffers(pa.string(), 1, BYTES)}),
    "a name twice": lambda: pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["t", "t"]),
    "a reader that fails": failing_reader,
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_arrow_that_cannot_be_taken_is_a_data_error(make: Callable[[], Any]) -> None:
    """They were OverflowError, UnicodeDecodeError, ArrowInvalid; of two columns one was lost."""
    con = m2mdb.connect(":memory:", autocommit=True)
    collection = con.create_collection("c", {"t": "TEXT"})

    with pytest.raises(m2mdb.DataError):
        collection.add(make())
    with pytest.raises(m2mdb.DataError):
        con.execute("SELECT * FROM ?", (make(),))

    assert collection.count() == 0
    con.close()


@pytest.mark.parametrize(
    "table", [pa.table({"x": [1.0, float("nan")]}), {"x": np.array([1.0, np.nan])}]
)
def test_a_bound_table_holds_no_nan(table: object) -> None:
    """max(x) was nan, and each NaN a group of its own; a NaN alone was refused before."""
    con = m2mdb.connect(":memory:", autocommit=True)
    with pytest.raises(m2mdb.DataError, match=r"column x of .*, row 1: NaN is no value"):
        con.execute("SELECT max(x) FROM ?", (table,))
    con.close()
