"""ANALYZE counts what is there, keeps it with the file, and REINDEX writes indexes anew."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.index.database import Database
from m2mdb.index.statistics import ColumnStatistics
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, ProgrammingError
from m2mdb.query.executor import execute
from tests.query.conftest import Run, opened

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "INTEGER": st.integers(-5, 5) | st.sampled_from([2**62, -(2**62)]),
    "REAL": st.sampled_from([0.5, -1.5, 1e300, 3.0]),
    "TEXT": st.sampled_from(["a", "b", "é", "", "long " * 30]),
    "BOOLEAN": st.booleans(),
    "BLOB": st.sampled_from([b"", b"\0", b"abc", b"\xff\x80"]),
}


def of(database: Database, column: int = 0, name: str = "t") -> ColumnStatistics:
    with database.reading() as view:
        collection = view.collection(name)
        return collection.entry.statistics[collection.schema.columns[column].id]


@pytest.mark.parametrize("kind", sorted(VALUES))
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_counts_are_those_of_the_live_rows(kind: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=30))
    repeats = data.draw(st.sampled_from([1, 40]))
    database = opened()
    execute(database, f"CREATE TABLE t (a {kind}, keep BOOLEAN)")
    rows = [(value, number % 3 > 0) for number, value in enumerate(values * repeats)]
    if rows:
        with database.writing() as write:
            write.insert("t", {"a": [r[0] for r in rows], "keep": [r[1] for r in rows]}, len(rows))
    execute(database, "DELETE FROM t WHERE NOT keep")
    left = [value for value, keep in rows if keep]

    execute(database, "ANALYZE t")

    found, counts = of(database), Counter(value for value in left if value is not None)
    assert (found.rows, found.nulls) == (len(left), len(left) - sum(counts.values()))
    assert found.distinct == len(counts)
    if counts and kind != "BLOB":
        low, high = min(counts), max(counts)
        assert found.low == low[:80] if isinstance(low, str) else found.low == low
        assert found.high >= high
        short = {v: n for v, n in counts.items() if n > 1 and len(str(v)) <= 80}
        assert dict(found.common) == short
        assert [n for _, n in found.common] == sorted(short.values(), reverse=True)
    assert ColumnStatistics.decode(found.encode(), "here") == found
    database.close()


def test_blobs_that_are_no_text_are_counted() -> None:
    database = opened()
    execute(database, "CREATE TABLE t (a BLOB)")
    blobs = [b"\xff\x80", b"\xff\x80", None, b"abc"] * 500  # short and few, in a segment
    with database.writing() as write:
        write.insert("t", {"a": blobs}, len(blobs))

    execute(database, "ANALYZE t")

    found = of(database)
    assert (found.rows, found.nulls, found.distinct) == (2000, 500, 2)


def test_statistics_are_shown_and_go_with_their_column(database: Database, run: Run) -> None:
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, topic TEXT, v VECTOR(2))")
    run("INSERT INTO t VALUES (1, 'b', [1, 0]), (2, 'a', NULL), (3, 'b', [0, 1])")
    assert run("SELECT * FROM m2m_statistics") == []

    run("ANALYZE")

    assert run("SELECT * FROM m2m_statistics") == [
        ("t", "id", 3, 0, 3, "1", "3"), ("t", "topic", 3, 0, 2, "'a'", "'b'"),
        ("t", "v", 3, 1, 2, "NULL", "NULL"),
    ]  # fmt: skip
    run("ALTER TABLE t DROP COLUMN topic")
    assert [row[1] for row in run("SELECT * FROM m2m_statistics")] == ["id", "v"]
    run("FORGET FROM t WHERE id = 1")
    assert run("SELECT * FROM m2m_statistics") == []
    run("ANALYZE t")
    run("DROP TABLE t")
    assert run("SELECT * FROM m2m_statistics") == []
    assert run("PRAGMA integrity_check") == [("ok",)]


def test_a_name_that_is_none_is_told(run: Run) -> None:
    run("CREATE TABLE notes (a INTEGER)")
    with pytest.raises(ProgrammingError, match="no such collection: note; did you mean notes"):
        run("ANALYZE note")
    with pytest.raises(ProgrammingError, match="no such collection or index: note"):
        run("REINDEX note")


def test_statistics_stay_with_the_file_its_copies_and_transactions(tmp_path: Path) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m")
    con.execute("CREATE TABLE t (a INTEGER)")
    con.executemany("INSERT INTO t VALUES (?)", [(i % 10,) for i in range(1000)])
    con.execute("ANALYZE")
    con.commit()
    shown = con.execute("SELECT * FROM m2m_statistics").fetchall()
    con.execute("DELETE FROM t WHERE a < 5")
    con.execute("ANALYZE")
    con.rollback()
    assert con.execute("SELECT * FROM m2m_statistics").fetchall() == shown
    con.execute("VACUUM INTO ?", (str(tmp_path / "b.m2m"),))
    con.close()

    for name in ("a.m2m", "b.m2m"):
        with m2mdb.connect(tmp_path / name) as again:
            assert again.execute("SELECT * FROM m2m_statistics").fetchall() == shown
            assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


DAMAGED = [b"", b"[]", b'{"rows":1}', b"x" * 50,
           b'{"rows":-1,"nulls":0,"distinct":0,"low":null,"high":null,"common":[]}',
           b'{"rows":1,"nulls":2,"distinct":0,"low":null,"high":null,"common":[]}',
           b'{"rows":1,"nulls":0,"distinct":1,"low":[1],"high":null,"common":[]}',
           b'{"rows":1,"nulls":0,"distinct":1,"low":1,"high":1,"common":[[1]]}']  # fmt: skip


@pytest.mark.parametrize("raw", DAMAGED)
def test_damaged_statistics_are_found(raw: bytes) -> None:
    with pytest.raises(CorruptDatabaseError, match="here: damaged statistics"):
        ColumnStatistics.decode(raw, "here")


# ruff: noqa: E501  # a list of cases a line
SHARES = [
    ("equal", (3,), 0.1), ("equal", (77,), 0.0), ("equal", (None,), 0.1), ("range", (None, None), 1.0),
    ("range", (5, None), 0.5), ("range", (None, -1), 0.0), ("range", (2, 5), 0.4),
]  # fmt: skip


@pytest.mark.parametrize(("what", "bounds", "expected"), SHARES)
def test_estimates_are_near(what: str, bounds: tuple[Any, ...], expected: float) -> None:
    common = tuple((value, 100) for value in range(10))
    known = ColumnStatistics(1000, 0, 10, 0, 9, common)

    share = known.equal_share(*bounds) if what == "equal" else known.range_share(*bounds)

    assert share == pytest.approx(expected)


def test_a_range_of_rare_values_is_estimated_by_its_width() -> None:
    known = ColumnStatistics(1000, 100, 700, 0, 100, ((50, 200),))

    assert known.range_share(40, 60) == pytest.approx((200 + 700 / 5) / 1000)
    assert known.range_share(90, None) == pytest.approx(70 / 1000)
    assert known.range_share(100, 100) == pytest.approx(1 / 1000)


# ------------------------------------------------------------------------- REINDEX


@pytest.fixture
def indexed(run: Run) -> Run:
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, body TEXT FULLTEXT, x TEXT)")
    rows = ", ".join(f"({i}, {i % 50}, 'word{i % 7} text', 'x{i}')" for i in range(1200))
    run(f"INSERT INTO t VALUES {rows}")
    run("CREATE INDEX by_n ON t (n)")
    run("CREATE UNIQUE INDEX by_x ON t (x)")
    run("CREATE INDEX words ON t USING bm25 (x)")
    run("DELETE FROM t WHERE n = 3")
    return run


@pytest.mark.parametrize("statement", ["REINDEX", "REINDEX t", "REINDEX by_n", "REINDEX words"])
def test_answers_are_the_same_after_reindex(indexed: Run, statement: str) -> None:
    asked = (
        "SELECT id FROM t WHERE n = 7",
        "SEARCH t MATCH body 'word5' K 9 RETURNING id, score",
        "SEARCH t MATCH x 'x77' RETURNING id",
        "SELECT id FROM t WHERE x = 'x99'",
        "SELECT name, collection, column_name, kind, is_unique FROM m2m_indexes ORDER BY 1",
    )
    before = [indexed(each) for each in asked]
    ((pages,),) = indexed("SELECT page_count - free_pages FROM m2m_stats")

    for _ in range(3):
        indexed(statement)

    assert [indexed(each) for each in asked] == before
    assert indexed("PRAGMA integrity_check") == [("ok",)]
    ((after,),) = indexed("SELECT page_count - free_pages FROM m2m_stats")
    assert after <= pages + 60, "what was there before is freed"


def test_a_damaged_index_is_mended(database: Database, indexed: Run) -> None:
    with database.writing() as write:
        info = write.collection("t").schema.index("by_n")
        assert info is not None
        tree = BTree(write.transaction, info.root)
        for key, _ in list(tree.scan())[100:200]:
            tree.delete(key)
    assert indexed("PRAGMA integrity_check") != [("ok",)]

    indexed("REINDEX by_n")

    assert indexed("PRAGMA integrity_check") == [("ok",)]
    assert len(indexed("SELECT id FROM t WHERE n = 7")) == 24
