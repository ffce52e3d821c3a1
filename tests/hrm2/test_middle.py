"""Vectors that all lie near one point far from zero: their lists have a middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2 import reference
from m2mdb.compute.hrm2.outliers import FAR_FROM_ZERO, TOO_FAR, middle_far_from_zero
from m2mdb.compute.hrm2.reference import Stop
from m2mdb.compute.hrm2.searcher import Searcher
from m2mdb.index.hrm2 import AROUND, HEAD, IN_PLACE, SEED, VERSION
from m2mdb.index.values import VectorData
from m2mdb.pager.errors import CorruptDatabaseError
from tests.hrm2.conftest import clustered, filled, found, like_stored, recall
from tests.hrm2.test_damage import COLUMN, Parts, cut, made, missing, put

COUNT = 2000
OFF = np.float32(40)
PLAIN = clustered(COUNT)
ROWS = PLAIN + OFF
QUERIES = like_stored(PLAIN, 30) + OFF


def version_of(con: m2mdb.Connection) -> int:
    with con.engine().reading() as view:
        collection = view.collection("notes")
        column = collection.schema.columns[collection.schema.column("v")]
        return int(collection.segments[0].array(HEAD, column.id)[0])


def assert_sound(con: m2mdb.Connection) -> None:
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert version_of(con) == AROUND
    assert recall(con, QUERIES, 10, recall=0.95) > 0.93
    assert recall(con, QUERIES, 10, probes=8) > 0.7


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_lists_serve_through_their_life(metric: str, tmp_path: Path, small: None) -> None:
    """Searches of lists and a delta, merges that absorb, reopening, a copy, VACUUM."""
    con = filled(tmp_path / "m.m2m", ROWS, f"METRIC {metric}")
    assert_sound(con)
    rng = np.random.default_rng(5)
    more = (ROWS[:900] + 0.1 * rng.standard_normal((900, ROWS.shape[1]))).astype(np.float32)
    ids = np.arange(COUNT, COUNT + 900)
    notes = con.collection("notes")
    for start in range(0, 900, 60):
        some = slice(start, start + 60)
        notes.add({"id": ids[some], "n": ids[some], "v": more[some]})
        for each in range(start, start + 60, 20):
            assert found(con, more[each], k=1) == [COUNT + each]
        nearest, _ = notes.search_batch(more[some], k=1)
        assert np.ravel(nearest).tolist() == ids[some].tolist()
    con.execute("DELETE FROM notes WHERE id % 5 = 0")
    assert_sound(con)
    con.execute("OPTIMIZE")
    con.execute("VACUUM")
    assert_sound(con)
    con.close()
    con = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    assert_sound(con)
    con.close()


def test_what_is_said_of_them_is_as_around_zero(tmp_path: Path, small: None) -> None:
    """Signals and drift ask for distances from centroids."""
    cons = [filled(tmp_path / f"{i}.m2m", rows, "METRIC l2") for i, rows in
            enumerate((PLAIN, ROWS))]  # fmt: skip
    assert [version_of(con) for con in cons] == [VERSION, AROUND]
    said = []
    for con, query in zip(cons, (QUERIES[0] - OFF, QUERIES[0]), strict=True):
        signals = con.collection("notes").search(near=query, k=3, signals=True).signals
        assert signals is not None
        drift = con.execute("SELECT baseline FROM m2m_drift").fetchone()
        assert drift is not None
        said.append((signals.qerr, drift[0]))
        con.close()
    assert said[1] == pytest.approx(said[0], rel=0.3)


def test_other_columns_have_none(tmp_path: Path, small: None) -> None:
    for name, rows, metric, version in (
        ("ip", ROWS, "ip", VERSION),
        ("f16", ROWS.astype(np.float16), "l2", IN_PLACE),
    ):
        con = filled(tmp_path / f"{name}.m2m", rows, f"METRIC {metric}")
        assert version_of(con) == version
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        con.close()


def test_only_rows_near_a_point_far_from_zero_have_a_middle() -> None:
    middle = middle_far_from_zero(ROWS)
    assert middle is not None
    assert np.allclose(middle, ROWS.mean(axis=0), atol=0.5)
    spread = float(np.square(PLAIN - PLAIN.mean(axis=0)).sum(axis=1).mean())
    unit = np.float32(np.sqrt(spread / PLAIN.shape[1]))  # as long as rows are apart
    own = PLAIN - PLAIN.mean(axis=0)
    for times, has in ((0, False), (0.8 * FAR_FROM_ZERO, False), (1.3 * FAR_FROM_ZERO, True),
                       (0.5 * TOO_FAR, True), (3 * TOO_FAR, False)):  # fmt: skip
        assert (middle_far_from_zero(own + np.float32(times**0.5) * unit) is not None) == has
    assert middle_far_from_zero(np.full((50, 8), 7, np.float32)) is None
    far = ROWS.copy()
    far[3] = 1e9
    again = middle_far_from_zero(far)
    assert again is not None
    assert np.allclose(again, middle, atol=0.5)


@pytest.fixture
def parts(small: None, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """The parts of the lists of a segment whose vectors lie near a point."""
    from m2mdb.index.hrm2 import lists_parts
    from tests.hrm2 import test_damage

    values = test_damage.values()
    moved = VectorData(values.matrix + OFF, values.norms, values.present)
    monkeypatch.setattr(test_damage, "values", lambda: moved)
    return {name: array.copy() for name, _, array in lists_parts(COLUMN, moved, measured=False)}


def test_kernel_and_twin_take_the_same_steps(parts: Parts) -> None:
    segment_lists = made(parts).lists(COLUMN)
    assert segment_lists is not None
    lists = segment_lists.lists
    assert lists.middle is not None
    searcher, stop = Searcher(lists, "l2", SEED), Stop(5, 3, 0, 3, 0.0)
    for query in clustered(20, COLUMN.dimension, seed=4) + OFF:
        asked = np.zeros(lists.width, np.float32)
        asked[: len(query)] = query
        one = searcher.search(query, stop, wanted=11, epsilon=2.0)
        twin = reference.search(lists, asked, "l2", stop, wanted=11, epsilon=2.0, seed=SEED)
        assert len(set(one.positions[:5].tolist()) & set(twin.positions[:5])) >= 4
        assert np.allclose(one.nearness[:5], twin.nearness[:5], rtol=2e-2, atol=0.05)


@pytest.mark.parametrize(
    "change",
    [put("middle", 0, np.nan), put("middle", 1, np.inf), put("middle", 2, 1e13), cut("middle"),
     missing("middle"), put("head", 0, 2), put("head", 0, 4)],
)  # fmt: skip
def test_a_middle_that_cannot_be_is_refused(parts: Parts, change: Callable[[Parts], None]) -> None:
    made(parts).lists(COLUMN)
    change(parts)
    with pytest.raises((CorruptDatabaseError, m2mdb.Error)):
        made(parts).lists(COLUMN)


def test_another_middle_is_found_by_the_integrity_check(parts: Parts) -> None:
    from m2mdb.index.integrity_lists import list_faults

    assert not [*list_faults(made(parts), COLUMN)]
    parts["h.middle"][0] += 1
    assert [*list_faults(made(parts), COLUMN)]
