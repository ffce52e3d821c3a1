"""Drift: new vectors are measured against the lists that are there, and an alarm is raised."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.index import absorbing, drift
from m2mdb.index.drift import ALARM, ETA, Drift, averaged
from m2mdb.index.routing import routing
from m2mdb.pager.errors import CorruptDatabaseError, ProgrammingError
from m2mdb.query.list_figures import gini
from m2mdb.recovering import recover
from tests.hrm2.conftest import ROWS, clustered, filled, found, lists_of

POOL = clustered(2 * ROWS)
THERE, ALIKE = POOL[:ROWS], POOL[ROWS:]


def figures(con: m2mdb.Connection) -> dict[str, Any]:
    """The one row of m2m_drift."""
    cursor = con.execute("SELECT * FROM m2m_drift")
    names = [column[0] for column in cursor.description or ()]
    (row,) = cursor.fetchall()
    return dict(zip(names, row, strict=True))


def other_rows(count: int, seed: int = 9) -> np.ndarray:
    """Rows far from all of `clustered`."""
    rng = np.random.default_rng(seed)
    out: np.ndarray = 4 * rng.standard_normal((count, ALIKE.shape[1]))
    return out.astype(np.float32)


def add(con: m2mdb.Connection, first: int, rows: np.ndarray) -> None:
    numbers = np.arange(first, first + len(rows))
    con.collection("notes").add({"id": numbers, "n": numbers, "v": rows})


@pytest.fixture
def con(tmp_path: Path, small: None) -> Any:
    connection = filled(tmp_path / "l2.m2m", THERE, "METRIC l2")
    yield connection
    if connection.database is not None:
        connection.close()


# ------------------------------------------------------------------------- figures


def test_the_moving_average_is_that_of_one_row_after_the_other() -> None:
    errors = np.random.default_rng(1).random(300)
    recent = 0.4
    for error in errors.tolist():
        recent = (1 - ETA) * recent + ETA * error
    assert averaged(0.4, errors) == pytest.approx(recent, rel=1e-12)
    assert averaged(0.4, errors[:0]) == 0.4


def test_gini_of_even_and_of_uneven_lists() -> None:
    assert gini(np.full(10, 7)) == pytest.approx(0)
    assert gini(np.array([0] * 9 + [5])) == pytest.approx(0.9)
    sizes = np.array([3, 1, 9, 4])
    pairs = np.abs(sizes[:, None] - sizes[None]).sum()
    assert gini(sizes) == pytest.approx(pairs / (2 * len(sizes) * sizes.sum()))
    assert gini(np.zeros(4, int)) == 0


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.usefixtures("small")
def test_the_baseline_is_the_mean_squared_distance_of_rows_from_centroids(
    tmp_path: Path, metric: str
) -> None:
    rows = THERE
    con = filled(tmp_path / "m.m2m", rows, f"METRIC {metric}")
    with con.engine().reading() as view:
        collection = view.collection("notes")
        column = collection.schema.columns[collection.schema.column("v")]
        there = routing(collection.segments[0], column)
    assert there is not None
    searched = rows / np.linalg.norm(rows, axis=1)[:, None] if metric == "cosine" else rows
    distances = there.squared_distances(searched.astype(np.float32))
    naive = ((searched[:5, None] - unrotated(there, rows.shape[1])[None]) ** 2).sum(axis=2)
    assert np.allclose(distances[:5], naive, atol=2e-3 * naive.max())
    assert there.error == pytest.approx(float(distances.min(axis=1).mean()), rel=0.03)
    assert figures(con)["baseline"] == there.error
    con.close()


def unrotated(there: Any, dimension: int) -> np.ndarray:
    from m2mdb.compute.hrm2.rotation import matrix

    out: np.ndarray = (there.centers @ matrix(there.width, there.seed).T)[:, :dimension]
    return out


# ------------------------------------------------------------------------- life


def test_rows_like_those_there_raise_no_alarm(con: m2mdb.Connection) -> None:
    before = figures(con)
    assert (before["rows"], before["alarm"], before["alarms"]) == (0, False, 0)
    assert before["recent"] == before["baseline"] > 0
    add(con, ROWS, ALIKE[:700])
    after = figures(con)
    assert after["rows"] == drift.MEASURED
    assert after["recent"] != after["baseline"]
    assert 0.8 < after["ratio"] < ALARM
    assert after["alarm_commit"] is None
    assert after["baseline"] == before["baseline"]
    assert after["part"] == "segment 3"  # has absorbed them, around the same centroids


def test_rows_from_elsewhere_raise_an_alarm_that_optimize_ends(
    con: m2mdb.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absorbing, "GROWN", 4.0)  # nothing but OPTIMIZE trains anew
    add(con, ROWS, other_rows(600))
    raised = figures(con)
    assert raised["alarm"]
    assert raised["alarms"] == 1
    assert raised["alarm_commit"] > raised["since_commit"]
    assert raised["ratio"] == pytest.approx(raised["recent"] / raised["baseline"])
    add(con, 9000, other_rows(600, 3))
    assert figures(con)["alarms"] == 1  # the same one
    con.close()
    again = m2mdb.connect(str(tmp_path / "l2.m2m"), autocommit=True)
    assert figures(again)["alarm"]
    again.execute("OPTIMIZE")
    ended = figures(again)
    assert (ended["alarm"], ended["rows"], ended["alarms"]) == (False, 0, 1)
    assert ended["alarm_commit"] == raised["alarm_commit"]
    assert ended["baseline"] > raised["baseline"]
    mixed = ALIKE[:600].copy()
    mixed[np.arange(600) % 8 < 3] = other_rows(225, 4)
    add(again, 20_000, mixed)
    assert not figures(again)["alarm"]
    assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    again.close()


def test_a_flush_measures_what_the_delta_had(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2mdb.index.maintenance.FLUSH_ROWS", 100)
    rows = other_rows(120)
    for number in range(90):
        con.execute("INSERT INTO notes VALUES (?, ?, ?)", (8000 + number, 1, rows[number]))
    assert figures(con)["rows"] == 0
    for number in range(90, 120):
        con.execute("INSERT INTO notes VALUES (?, ?, ?)", (8000 + number, 1, rows[number]))
    assert figures(con)["rows"] == 100
    assert figures(con)["alarm"]


def test_a_search_writes_nothing(con: m2mdb.Connection) -> None:
    before = con.execute("SELECT last_commit FROM m2m_stats").fetchone(), figures(con)
    for query in other_rows(20):
        found(con, query, k=5)
    assert (con.execute("SELECT last_commit FROM m2m_stats").fetchone(), figures(con)) == before


def test_what_is_undone_was_never_measured(con: m2mdb.Connection) -> None:
    before = figures(con)
    con.execute("BEGIN")
    add(con, ROWS, other_rows(600))
    assert figures(con)["alarm"]
    con.execute("ROLLBACK")
    assert figures(con) == before
    with pytest.raises(m2mdb.IntegrityError):
        add(con, ROWS - 100, other_rows(600))
    assert figures(con) == before


def test_state_goes_with_the_lists(con: m2mdb.Connection) -> None:
    con.execute("DROP INDEX by_v")
    assert con.execute("SELECT * FROM m2m_drift").fetchall() == []
    con.execute("CREATE INDEX by_v ON notes USING hrm2 (v)")
    assert figures(con)["rows"] == 0
    con.execute("DELETE FROM notes")
    con.execute("OPTIMIZE")
    assert con.execute("SELECT * FROM m2m_drift").fetchall() == []
    add(con, 1, ALIKE)
    assert figures(con)["rows"] == 0
    con.execute("DROP COLLECTION notes")
    assert con.execute("SELECT * FROM m2m_drift").fetchall() == []
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_another_largest_segment_becomes_the_reference(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2mdb.index.merge_policy.ABSORB_BYTES", 100_000)
    monkeypatch.setattr("m2mdb.index.merge_policy.FLUSHED", 512)
    add(con, ROWS, other_rows(ROWS + 500))
    after = figures(con)
    assert after["part"] == "segment 2"
    assert (after["rows"], after["alarm"], after["alarms"]) == (0, False, 1)


def test_nulls_are_not_measured(con: m2mdb.Connection) -> None:
    numbers = np.arange(ROWS, ROWS + 600)
    con.collection("notes").add({"id": numbers, "n": numbers, "v": [None] * 600})
    assert figures(con)["rows"] == 0
    rows: list[np.ndarray | None] = [None] * 600
    rows[5:600:6] = list(ALIKE[:100])
    con.collection("notes").add({"id": numbers + 600, "n": numbers, "v": rows})
    assert figures(con)["rows"] == 100


def test_rows_that_are_all_alike_have_a_ratio(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absorbing, "GROWN", 4.0)
    con = filled(tmp_path / "m.m2m", np.ones((600, 24), np.float32), "METRIC l2")
    assert figures(con)["ratio"] == pytest.approx(1, abs=0.2) or figures(con)["baseline"] < 1e-6
    add(con, 5000, other_rows(600))
    assert figures(con)["alarm"]
    con.close()


# ------------------------------------------------------------------------- retraining


@pytest.mark.usefixtures("small")
def test_an_index_may_retrain_by_itself(tmp_path: Path) -> None:
    con = filled(tmp_path / "m.m2m", THERE, "METRIC l2", index=False)
    con.execute("CREATE INDEX by_v ON notes USING hrm2 (v) WITH (retrain = 'auto')")
    add(con, ROWS, other_rows(600))
    assert len(lists_of(con)) == 1
    assert lists_of(con)[0] > 10
    after = figures(con)
    assert (after["alarm"], after["alarms"], after["rows"]) == (False, 1, 0)
    for query in (ALIKE[3], other_rows(600)[5]):
        assert found(con, query, k=1) == found(con, query, k=1, exact=True)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    script = list(con.iterdump())
    assert any("WITH (retrain = 'auto')" in statement for statement in script)
    con.close()
    again = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    add(again, 20_000, 9 * other_rows(600, 5))
    assert figures(again)["alarms"] == 2
    assert len(lists_of(again)) == 1
    again.close()


@pytest.mark.usefixtures("small")
def test_what_is_too_large_to_retrain_waits_for_optimize(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2mdb.index.maintenance.MERGE_BYTES", 100_000)
    monkeypatch.setattr("m2mdb.index.merge_policy.ABSORB_BYTES", 100_000)
    monkeypatch.setattr("m2mdb.index.merge_policy.FLUSHED", 512)
    con = filled(tmp_path / "m.m2m", THERE, "METRIC l2", index=False)
    con.execute("CREATE INDEX by_v ON notes USING hrm2 (v) WITH (retrain = 'auto')")
    add(con, ROWS, other_rows(600))
    assert len(lists_of(con)) == 2
    assert figures(con)["alarm"]
    con.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("retrain = 'often'", "'auto' or 'manual'"),
        ("cells = 5", "options retrain and lists, not cells"),
    ],
)
def test_other_options_are_refused(con: m2mdb.Connection, options: str, message: str) -> None:
    con.execute("DROP INDEX by_v")
    with pytest.raises(ProgrammingError, match=message):
        con.execute(f"CREATE INDEX by_v ON notes USING hrm2 (v) WITH ({options})")
    con.execute("CREATE INDEX by_v ON notes USING hrm2 (v) WITH (retrain = 'manual')")


# ------------------------------------------------------------------------- the rest of the file


def test_copies_know_the_state(con: m2mdb.Connection, tmp_path: Path) -> None:
    add(con, ROWS, other_rows(600))
    before = figures(con)
    con.execute("VACUUM")
    con.execute("VACUUM INTO ?", (str(tmp_path / "into.m2m"),))
    con.backup(str(tmp_path / "backup.m2m"))
    target = m2mdb.connect(str(tmp_path / "target.m2m"), autocommit=True)
    con.backup(target)
    for copy in (
        con,
        m2mdb.connect(str(tmp_path / "into.m2m")),
        m2mdb.connect(str(tmp_path / "backup.m2m")),
        target,
    ):
        now = figures(copy)
        assert {**now, "since_commit": 0, "alarm_commit": 0} == {
            **before, "since_commit": 0, "alarm_commit": 0
        }  # fmt: skip
        newest = copy.execute("SELECT last_commit FROM m2m_stats").fetchone()[0]
        assert now["since_commit"] <= now["alarm_commit"] <= newest
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if copy is not con:
            copy.close()


def test_recover_keeps_rows_and_the_option(tmp_path: Path, small: None) -> None:
    con = filled(tmp_path / "m.m2m", THERE, index=False)
    con.execute("CREATE INDEX by_v ON notes USING hrm2 (v) WITH (retrain = 'auto')")
    add(con, ROWS, ALIKE[:600])
    con.close()
    recover(str(tmp_path / "m.m2m"), str(tmp_path / "new.m2m"))
    saved = m2mdb.connect(str(tmp_path / "new.m2m"), autocommit=True)
    assert saved.execute("SELECT count(*) FROM notes").fetchone() == (ROWS + 600,)
    assert any("WITH (retrain = 'auto')" in statement for statement in saved.iterdump())
    saved.close()


def test_a_state_that_cannot_be_is_refused() -> None:
    good = Drift(1, 0, 1.0, 2.0, 60, 5, 0)
    assert Drift.decode(good.encode(), "x") == good
    assert good.is_alarm
    with pytest.raises(CorruptDatabaseError, match="drift of 3 bytes"):
        Drift.decode(b"abc", "x")
    for wrong in (good._replace(recent=float("nan")), good._replace(baseline=-1.0)):
        with pytest.raises(CorruptDatabaseError, match="drift from"):
            Drift.decode(wrong.encode(), "x")


def test_a_file_without_baselines_gets_them_by_measuring(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of an older file have no part that says the error, and no state."""
    from m2mdb.index import hrm2

    parts = hrm2.parts_of
    with monkeypatch.context() as patch:
        patch.setattr(hrm2, "parts_of", lambda *a: [p for p in parts(*a) if p[0] != "h.error"])
        patch.setattr(drift, "settle", lambda *a, **k: None)
        filled(tmp_path / "m.m2m", THERE, "METRIC l2").close()
    shutil.copy(tmp_path / "m.m2m", tmp_path / "old.m2m")
    con = m2mdb.connect(str(tmp_path / "old.m2m"), autocommit=True)
    assert con.execute("SELECT * FROM m2m_drift").fetchall() == []
    assert con.execute("SELECT error FROM m2m_lists").fetchall() == [(None,)]
    add(con, ROWS, ALIKE[:600])
    fresh = filled(tmp_path / "fresh.m2m", THERE, "METRIC l2")
    assert figures(con)["baseline"] == pytest.approx(figures(fresh)["baseline"], rel=0.1)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
    fresh.close()


def test_lists_are_a_table(con: m2mdb.Connection) -> None:
    cursor = con.execute("SELECT * FROM m2m_lists")
    names = [column[0] for column in cursor.description or ()]
    row = dict(zip(names, cursor.fetchall()[0], strict=True))
    sizes = [size for (size,) in con.execute("SELECT rows FROM m2m_clusters")]
    assert row["lists"] == len(sizes) == lists_of(con)[0]
    assert row["rows"] == ROWS
    assert row["codes"] == sum(sizes)
    assert row["longest"] == max(sizes)
    assert row["p99"] <= 4 * row["mean"]
    assert row["gini"] == pytest.approx(gini(np.array(sizes)))
    weights, dead = zip(*con.execute("SELECT weight, is_dead FROM m2m_clusters"), strict=True)
    assert sum(weights) == pytest.approx(1)
    assert sum(dead) == row["dead"] == sum(8 * size < row["mean"] for size in sizes)
    width = 64
    assert row["routing_bytes"] >= row["lists"] * width
    assert row["code_bytes"] >= row["codes"] * (width // 8 + 16)
    assert row["refine_bytes"] == ROWS * (width + 12)
    assert row["error"] == figures(con)["baseline"]


def test_integrity_check_tells_of_a_wrong_state(
    con: m2mdb.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from m2mdb.index import hrm2

    add(con, ROWS, ALIKE[:600])
    with con.engine().writing() as write:
        entry = write.collection("notes").entry.copy()
        ((id_, state),) = entry.drift.items()
        drift._set(write, entry, id_, state._replace(reference=77))
        write.replace_entry(write.collection("notes"), entry)
    con.commit()
    (fault,) = con.execute("PRAGMA integrity_check").fetchall()
    assert "drift: v is measured by segment 77, which has no lists of it" in fault[0]
    mean = hrm2.mean_error
    monkeypatch.setattr(hrm2, "mean_error", lambda *a: 1.5 * mean(*a))
    wrong = filled(tmp_path / "wrong.m2m", THERE)
    (fault,) = wrong.execute("PRAGMA integrity_check").fetchall()
    assert "the quantisation error is said to be" in fault[0]
    wrong.close()
