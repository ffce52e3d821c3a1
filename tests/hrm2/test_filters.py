"""Filters: every row that passes is found where it has to be, whatever the filter leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.compute.hrm2.patience import Work
from m2mdb.compute.hrm2.reference import Stop
from m2mdb.index import costs
from m2mdb.index.costs import NO_LIMIT, Size, budgeted, is_spent
from tests.hrm2.conftest import ROWS, clustered, found, like_stored, recall, unlike_stored

ROWS_AT = clustered(ROWS)
UNIT = ROWS_AT / np.linalg.norm(ROWS_AT, axis=1, keepdims=True)
NEAR, FAR = like_stored(ROWS_AT, 40), unlike_stored(ROWS_AT, 40)
SIZE = Size(lists=1000, width=384, rows=100_000, row_bytes=1536)
STOP = Stop(10, 2, 20, NO_LIMIT, 1.5)


def numbered(con: m2mdb.Connection, order: np.ndarray) -> None:
    """Give the rows numbers of which `n < ?` takes the first ones of an order."""
    ranks = np.empty(ROWS, int)
    ranks[order] = np.arange(ROWS)
    con.executemany("UPDATE notes SET n = ? WHERE id = ?", [
        (int(rank), row) for row, rank in enumerate(ranks)
    ])  # fmt: skip
    con.execute("OPTIMIZE")


@pytest.fixture(params=["toward", "away", "random"])
def filtered(con: m2mdb.Connection, request: pytest.FixtureRequest) -> Iterator[m2mdb.Connection]:
    """Rows nearest to the first query come first, or last, or anywhere."""
    keys = UNIT @ (FAR[0] / np.linalg.norm(FAR[0]))
    orders = {
        "toward": np.argsort(-keys, kind="stable"),
        "away": np.argsort(keys, kind="stable"),
        "random": np.random.default_rng(5).permutation(ROWS),
    }
    numbered(con, orders[request.param])
    yield con


def nearest_of(con: m2mdb.Connection, query: np.ndarray, passing: int, k: int) -> list[int]:
    """The answer by NumPy, in float64."""
    rows = con.execute("SELECT id FROM notes WHERE n < ?", (passing,)).fetchall()
    ids = np.array(sorted(row[0] for row in rows))
    keys = UNIT[ids].astype(np.float64) @ query.astype(np.float64)
    best: list[int] = ids[np.argsort(-keys, kind="stable")[:k]].tolist()
    return best


@pytest.mark.parametrize("passing", [1, 60, 400, ROWS])
def test_any_filter_leaves_as_many_rows_as_there_are(
    filtered: m2mdb.Connection, passing: int
) -> None:
    for k in (1, 10, 100):
        for query in (FAR[0], FAR[1], NEAR[0]):
            ids = found(filtered, query, k=k, where="n < ?", params=(passing,))
            assert len(ids) == min(k, passing)
            exact = found(filtered, query, k=k, where="n < ?", params=(passing,), exact=True)
            assert set(exact) == set(nearest_of(filtered, query, passing, k))


@pytest.mark.parametrize("passing", [60, 400, 1500])
def test_the_recall_is_kept_under_filters(filtered: m2mdb.Connection, passing: int) -> None:
    for queries in (NEAR, FAR):
        got = recall(filtered, queries, 10, recall=0.95, where="n < ?", params=(passing,))
        assert got >= 0.92


@given(
    query=st.integers(0, 39),
    passing=st.integers(0, ROWS),
    k=st.sampled_from([1, 3, 10, 50, 300]),
    other=st.sampled_from(["", " AND id % 3 = 1", " OR id < 20", " AND NOT id BETWEEN 9 AND 900"]),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_exact_is_the_exact_search_of_the_rows_that_pass(
    con: m2mdb.Connection, query: int, passing: int, k: int, other: str
) -> None:
    where = f"n < ?{other}"
    rows = con.execute(f"SELECT id FROM notes WHERE {where}", (passing,)).fetchall()
    ids = np.array(sorted(row[0] for row in rows), int)
    exact = found(con, FAR[query], k=k, where=where, params=(passing,), exact=True)
    keys = UNIT[ids].astype(np.float64) @ FAR[query].astype(np.float64)
    assert set(exact) == set(ids[np.argsort(-keys, kind="stable")[:k]].tolist())
    some = found(con, FAR[query], k=k, where=where, params=(passing,))
    assert len(some) == len(exact) == min(k, len(ids))
    assert set(some) <= set(ids.tolist())


def test_answers_depend_on_file_and_query_alone(filtered: m2mdb.Connection, tmp_path: Path) -> None:
    def answers(con: m2mdb.Connection) -> list[list[int]]:
        return [
            found(con, query, k=10, where="n < ?", params=(passing,), recall=0.8)
            for query in (*NEAR[:10], *FAR[:10])
            for passing in (60, 300, 1000)
        ]

    before = answers(filtered)
    assert answers(filtered) == before
    again = m2mdb.connect(str(tmp_path / "m.m2m"))
    assert answers(again)[::-1] == before[::-1]
    again.close()


def test_explain_says_when_probing_was_given_up(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = "EXPLAIN ANALYZE SEARCH notes NEAR ? WHERE n >= 1000 K 10"
    said = [str(line) for line in con.execute(search, (FAR[0],))]
    assert not any("given up" in line for line in said)
    monkeypatch.setattr("m2mdb.index.hrm2.budgeted", lambda stop, *rest: stop._replace(most=3))
    con.execute("UPDATE notes SET n = n WHERE id = 0")
    con.execute("OPTIMIZE")
    said = [str(line) for line in con.execute(search, (FAR[0],))]
    assert sum("3 of" in line and "given up for a scan" in line for line in said) == 1
    assert sum("1000 rows compared" in line for line in said) == 1
    exact = found(con, FAR[0], where="n >= 1000", exact=True)
    assert found(con, FAR[0], where="n >= 1000") == exact


# ------------------------------------------------------------------------- costs


def most(work: Work, share: float) -> int | None:
    stop = budgeted(STOP, SIZE, work, share)
    return None if stop is None else stop.most


def test_probing_that_is_much_cheaper_may_cost_as_much_as_the_scan() -> None:
    few = Work(40, 10_000, 70)
    assert most(few, 1.0) == NO_LIMIT
    limit = most(few, 0.05)
    assert limit is not None
    spent = (
        costs.starting_cost(SIZE)
        + limit
        * (costs.probing_cost(SIZE, 10, few, masked=True) - costs.starting_cost(SIZE))
        / few.probed
    )
    scan = costs.scanning_cost(SIZE, 5000, masked=True)
    assert 0.9 * scan < spent <= scan


def test_probing_that_is_not_is_tried_before_a_long_scan_alone() -> None:
    many = Work(300, 400_000, 80)
    assert costs.probing_cost(SIZE, 10, many, masked=True) > costs.scanning_cost(
        SIZE, 12_000, masked=True
    )
    tried = most(many, 0.12)
    assert tried is not None
    assert 2 < tried < 100
    assert most(many, 0.005) is None


def test_a_budget_is_spent_when_its_last_list_was_probed() -> None:
    limited = STOP._replace(most=50)
    assert [is_spent(limited, probed) for probed in (2, 49, 50)] == [False, False, True]
    assert not is_spent(STOP, 1000)
    assert not is_spent(Stop(10, 30, 0, 30, 0.0), 30), "PROBES has no budget"
