"""PRAGMA recall_audit: what searches really find, and lists that are calibrated by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.index import audit, hrm2, query_log
from m2mdb.index.audit import MOST_SAMPLES
from m2mdb.index.effort import Effort
from m2mdb.index.query_log import stored_queries
from tests.hrm2.conftest import (
    ROWS,
    clustered,
    filled,
    found,
    like_stored,
    make_small,
    recall,
    unlike_stored,
)

ROWS_AT = clustered(ROWS)
QUERIES = unlike_stored(ROWS_AT, 90)


def audited(con: m2mdb.Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in con.execute("PRAGMA recall_audit")]


def stored(con: m2mdb.Connection) -> list[np.ndarray]:
    """The queries of every segment."""
    with con.engine().reading() as view:
        collection = view.collection("notes")
        column = collection.schema.columns[collection.schema.column("v")]
        return [stored_queries(segment, column) for segment in collection.segments]


def extents(con: m2mdb.Connection) -> list[object]:
    with con.engine().reading() as view:
        return [segment.record.extents for segment in view.collection("notes").segments]


def search_all(con: m2mdb.Connection, queries: np.ndarray = QUERIES, **options: object) -> None:
    for query in queries:
        found(con, query, **options)


def test_without_it_nothing_is_counted(con: m2mdb.Connection) -> None:
    search_all(con)
    assert audited(con) == []
    con.execute("PRAGMA recall_audit = 5")
    assert audited(con) == []


@pytest.mark.parametrize("interval", [1, 4])
def test_it_tells_what_searches_find(con: m2mdb.Connection, interval: int) -> None:
    con.execute(f"PRAGMA recall_audit = {interval}")
    search_all(con, recall=0.8)
    ((collection, column, searches, count, mean, asked, lower),) = audited(con)
    assert (collection, column, searches, count) == ("notes", "v", 90, 90 // interval)
    con.execute("PRAGMA recall_audit = 0")
    expected = recall(con, QUERIES[interval - 1 :: interval], 10, recall=0.8)
    assert mean == pytest.approx(expected)
    assert asked == pytest.approx(0.8)
    assert isinstance(lower, float)
    assert 0 < lower < expected


def test_a_batch_counts_as_many_searches(con: m2mdb.Connection) -> None:
    con.execute("PRAGMA recall_audit = 2")
    con.collection("notes").search_batch(QUERIES[:20], k=5)
    con.execute("SEARCH notes NEAR ? K 5", (QUERIES[0],))
    assert audited(con)[0][2:4] == (21, 10)


def test_searches_that_ask_for_no_recall_are_not_measured(con: m2mdb.Connection) -> None:
    con.execute("PRAGMA recall_audit = 1")
    search_all(con, QUERIES[:5], exact=True)
    assert audited(con) == []
    search_all(con, QUERIES[:5], probes=2)
    assert audited(con) == [("notes", "v", 5, 0, None, None, None)]


def test_a_search_finds_the_same_with_it(con: m2mdb.Connection) -> None:
    before = [found(con, query, recall=0.8) for query in QUERIES]
    con.execute("PRAGMA recall_audit = 1")
    assert before == [found(con, query, recall=0.8) for query in QUERIES]
    count = audited(con)[0][2]
    assert audited(con)[0][2] == count, "measuring counts as no search"


def test_the_sample_is_bounded_and_the_latest(con: m2mdb.Connection) -> None:
    con.execute("PRAGMA recall_audit = 1")
    queries = like_stored(ROWS_AT, MOST_SAMPLES + 40)
    search_all(con, queries, k=1)
    kept = con.engine().audit.queries(1, 3)
    assert len(kept) == MOST_SAMPLES
    assert np.array_equal(np.stack(kept), queries[: -MOST_SAMPLES - 1 : -1])


def test_measuring_is_bounded_in_time(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    con.execute("PRAGMA recall_audit = 1")
    search_all(con)
    monkeypatch.setattr(audit, "SECONDS", 0.0)
    assert audited(con)[0][2:4] == (90, 1)


@pytest.mark.parametrize("value", ["-1", "1.5", "'often'", "4294967296"])
def test_other_values_are_refused(con: m2mdb.Connection, value: str) -> None:
    with pytest.raises(m2mdb.ProgrammingError, match="recall_audit"):
        con.execute(f"PRAGMA recall_audit = {value}")


def test_a_collection_that_is_gone_is_not_told_of(con: m2mdb.Connection) -> None:
    con.execute("PRAGMA recall_audit = 1")
    search_all(con, QUERIES[:3])
    con.execute("DROP COLLECTION notes")
    assert audited(con) == []


def test_optimize_calibrates_by_the_sample_and_stores_it(
    con: m2mdb.Connection, tmp_path: Path
) -> None:
    con.execute("OPTIMIZE")
    assert [len(each) for each in stored(con)] == [0]
    con.execute("PRAGMA recall_audit = 1")
    search_all(con)
    con.execute("OPTIMIZE notes")
    (kept,) = stored(con)
    assert len(kept) == len(QUERIES)
    unit = QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)
    assert np.abs(kept - unit[::-1]).max() <= np.abs(unit).max() / 127
    for k in (1, 10):
        assert recall(con, QUERIES, k, recall=0.95) >= 0.93
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.execute("OPTIMIZE notes")
    before = extents(con)
    con.execute("OPTIMIZE notes")  # there is no query that the last one did not know
    assert extents(con) == before
    con.close()
    again = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    assert len(stored(again)[0]) == len(QUERIES)
    again.close()


def test_later_lists_take_the_queries_over(con: m2mdb.Connection, tmp_path: Path) -> None:
    con.execute("PRAGMA recall_audit = 1")
    search_all(con)
    con.execute("OPTIMIZE")
    con.close()
    other = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    ids = np.arange(ROWS, ROWS + 500)
    other.collection("notes").add({"id": ids, "n": ids, "v": clustered(500, seed=9)})
    other.execute("OPTIMIZE")
    assert [len(each) for each in stored(other)] == [90]
    other.execute("VACUUM")
    assert [len(each) for each in stored(other)] == [90]
    other.collection("notes").forget([3, 5])
    other.execute("CHECKPOINT truncate")
    assert [len(each) for each in stored(other)] == [90], "a query is no row"
    assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    other.close()


def test_the_end_of_the_audit_and_optimize_drop_them(con: m2mdb.Connection, tmp_path: Path) -> None:
    con.execute("PRAGMA secure_delete = on")
    con.execute("PRAGMA recall_audit = 1")
    search_all(con)
    con.execute("OPTIMIZE")
    with con.engine().reading() as view:
        segment = view.collection("notes").segments[0]
        raw = segment.array(query_log.QUERIES, 3).tobytes()[:200]
    con.execute("PRAGMA recall_audit = 0")
    assert [len(each) for each in stored(con)] == [90]
    con.execute("OPTIMIZE")
    assert [len(each) for each in stored(con)] == [0]
    con.execute("CHECKPOINT truncate")
    con.close()
    assert raw not in (tmp_path / "m.m2m").read_bytes()


def test_without_compiled_kernels_nothing_is_measured_anew(con: m2mdb.Connection) -> None:
    con.execute("PRAGMA recall_audit = 1")
    search_all(con)
    con.execute("PRAGMA compute = numpy")
    con.execute("OPTIMIZE")
    assert [len(each) for each in stored(con)] == [0]
    con.execute("PRAGMA compute = numba")
    con.execute("OPTIMIZE")


@pytest.mark.parametrize("what", ["cut", "scale"])
def test_queries_that_cannot_be_are_refused(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    usual = query_log.query_parts

    def damaged(column: Any, queries: Any) -> list[object]:
        codes, scales = usual(column, queries)
        if what == "cut":
            return [(*codes[:2], codes[2][:-1]), scales]
        return [codes, (*scales[:2], np.full(len(scales[2]), np.nan, np.float32))]

    con.execute("PRAGMA recall_audit = 1")
    search_all(con)
    monkeypatch.setattr(hrm2, "query_parts", damaged)
    con.execute("OPTIMIZE")
    monkeypatch.setattr(hrm2, "query_parts", usual)
    with pytest.raises(m2mdb.CorruptDatabaseError, match=r"h\.queries"):
        stored(con)


def test_a_search_by_steps_is_sampled_too(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2mdb.index.nearest.MOST_INSERTED", 0)
    con.execute("PRAGMA recall_audit = 1")
    con.execute("SEARCH notes NEAR ? K 5 OFFSET 5000", (QUERIES[0],))
    with con.engine().reading() as view:
        collection = view.collection("notes")
        collection.nearest(2, QUERIES[0], 5, view.database.kernels, effort=Effort(0.9))
    assert audited(con)[0][2] == 2


def test_a_column_of_its_own_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two columns are sampled each for itself; zero vectors calibrate nothing."""
    make_small(monkeypatch)
    con = filled(tmp_path / "m.m2m", ROWS_AT, "METRIC l2")
    con.execute("PRAGMA recall_audit = 1")
    search_all(con, np.zeros((3, ROWS_AT.shape[1]), np.float32))
    search_all(con, QUERIES[:7])
    con.execute("OPTIMIZE")
    assert [len(each) for each in stored(con)] == [10 - 3]
    con.close()
