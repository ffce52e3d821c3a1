"""Tables of patience where rows come that lie otherwise: looked at, and measured anew."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2 import checking
from m2mdb.compute.hrm2.lists import build
from m2mdb.compute.hrm2.patience import KS, RECALLS, Table, plain_table, unmeasured_table
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.compute.hrm2.searcher import Searcher
from m2mdb.compute.hrm2.training import assign, train
from m2mdb.index import hrm2, recalibration
from tests.hrm2.conftest import filled, found, recall, segment_lists

COUNT, STEP, WIDTH = 1800, 150, 48


def tight(count: int, seed: int) -> np.ndarray:
    """Rows of a few clusters: two lists of fifty hold what is sought."""
    centers = 3 * np.random.default_rng(1).standard_normal((60, WIDTH))
    rng = np.random.default_rng(seed)
    noise = 0.5 * rng.standard_normal((count, WIDTH))
    rows: np.ndarray = centers[rng.integers(0, len(centers), count)] + noise
    return rows.astype(np.float32)


def even(count: int, seed: int) -> np.ndarray:
    """One cloud, as far from centroids as those are: what is sought stands in many lists."""
    noise = np.random.default_rng(seed).standard_normal((count, WIDTH))
    rows: np.ndarray = 0.5 * noise + tight(1, 1)
    return rows.astype(np.float32)


def tables(con: m2mdb.Connection) -> list[bytes]:
    return [each.table.patience.tobytes() for each in segment_lists(con)]


def replaced(con: m2mdb.Connection, rows: np.ndarray, first: int) -> None:
    """The oldest rows go, so many come."""
    notes = con.collection("notes")
    for at in range(0, len(rows), STEP):
        some = rows[at : at + STEP]
        ids = np.arange(first + at + COUNT, first + at + COUNT + len(some))
        con.execute("BEGIN")
        notes.add({"id": ids, "n": ids, "v": some})
        notes.delete(list(range(first + at, first + at + len(some))))
        con.execute("COMMIT")


def hasty(*_: object, **__: object) -> Table:
    """A table that promises what two lists do not hold."""
    return plain_table(np.ones((len(KS), len(RECALLS)), np.float32))


@pytest.mark.usefixtures("tiny")
def test_a_table_that_promises_too_much_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows may come to lie otherwise without drift: 0.65 was found where 0.95 was asked."""
    with monkeypatch.context() as patch:
        patch.setattr(hrm2, "table_of", hasty)
        con = filled(tmp_path / "m.m2m", even(COUNT, 2), "METRIC l2")
    queries = even(40, 8)
    old = tables(con)
    assert recall(con, queries, 10) < 0.8
    replaced(con, even(COUNT // 3, 3), 0)
    before = tables(con)
    assert before != old
    assert con.execute("SELECT alarms FROM m2m_drift").fetchone() == (0,)
    assert recall(con, queries, 10) >= 0.9
    answers = [found(con, query, k=10) for query in queries[:5]]
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
    con = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    assert tables(con) == before
    assert [found(con, query, k=10) for query in queries[:5]] == answers
    con.close()


@pytest.mark.usefixtures("tiny")
def test_the_table_stays_where_rows_come_that_lie_as_before(tmp_path: Path) -> None:
    con = filled(tmp_path / "m.m2m", tight(COUNT, 2), "METRIC l2")
    before = tables(con)
    replaced(con, tight(COUNT // 3, 3), 0)
    assert tables(con) == before
    assert recall(con, tight(60, 8), 10) >= 0.94
    con.close()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(("metric", "dtype"), [("cosine", np.float32), ("ip", np.float16)])
def test_all_metrics_and_rows_in_place_are_looked_at(
    tmp_path: Path, metric: str, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NULLs among the rows, too: they are numbered on without them."""
    looks = []
    keeps = checking.keeps

    def watched(searcher: Searcher, rows: np.ndarray, *rest: Any) -> bool:
        looks.append((len(rows), bool(np.isfinite(rows).all())))
        return keeps(searcher, rows, *rest)

    monkeypatch.setattr(checking, "keeps", watched)
    con = filled(tmp_path / "m.m2m", tight(COUNT, 2).astype(dtype), f"METRIC {metric}")
    con.execute("UPDATE notes SET v = NULL WHERE n % 9 = 0")
    replaced(con, even(COUNT // 3, 7).astype(dtype), 0)
    assert looks
    assert all(count <= COUNT and finite for count, finite in looks)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_rows_and_real_queries_are_searched_for_by_the_table(metric: str) -> None:
    middle = tight(1, 1)  # from which 8-bit codes tell rows apart
    rows = even(2000, 3) - middle
    router = train(rows, 40)
    first, second = assign(router, rows, spill=True)
    turned, centers = rotate(rows, 64, 5), rotate(router.centers, 64, 5)
    every = np.arange(len(rows), dtype=np.int32)
    searcher = Searcher(build(turned, every, centers, first, second, metric), metric, 5)
    own, none = np.arange(0, 2000, 7), np.zeros(0, np.int64)
    asked = even(90, 9) - middle

    def keeps(table: Table, own: np.ndarray, queries: np.ndarray | None) -> bool:
        return checking.keeps(searcher, rows, table, own, queries, lambda: None)

    everywhere = plain_table(np.full((len(KS), len(RECALLS)), 40, np.float32))
    everywhere.epsilon[:] = 4  # bounds leave nothing out
    assert keeps(unmeasured_table(), own, asked)  # every row is compared
    assert keeps(everywhere, own, None)
    assert keeps(everywhere, own[:3], asked)
    assert keeps(hasty(), none, None)  # nothing came
    assert not keeps(hasty(), own, None)
    assert not keeps(hasty(), none, asked)


def test_it_is_looked_again_whenever_a_quarter_has_come() -> None:
    came = [0, 100, 240, 260, 400, 499, 500, 2000, 2010]
    due = [recalibration.is_due(a, b, 1000) for a, b in itertools.pairwise(came)]
    assert due == [False, False, True, False, False, True, True, False]
