"""Lists that absorb rows: against a build of the same rows; undone, in the past, forgotten."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2 import absorbing as absorbing_lists
from m2mdb.compute.hrm2 import following
from m2mdb.compute.hrm2.absorbing import Coming, Staying, absorb, decoded_centers, mean_square
from m2mdb.compute.hrm2.lists import BLOCK, SLOTS, Lists, build
from m2mdb.compute.hrm2.training import assign, train
from m2mdb.compute.loader import LOADER
from m2mdb.index import absorbing, clustering, merge_policy
from m2mdb.index.quiet import maintaining
from m2mdb.pager.errors import CorruptDatabaseError
from tests.hrm2.conftest import (
    DIMENSION,
    ROWS,
    clustered,
    filled,
    found,
    like_stored,
    lists_of,
    recall,
)

WIDTH = 64


def padded_rows(count: int, seed: int) -> np.ndarray:
    rows = np.zeros((count, WIDTH), np.float32)
    rows[:, :DIMENSION] = clustered(count, seed=seed)
    return rows


def coded(rows: np.ndarray, ordinals: np.ndarray, lists: int, metric: str) -> Lists:
    router = train(rows, lists)
    first, second = assign(router, rows, spill=True)
    return build(rows, ordinals, router.centers, first, second, metric)


def as_it_is(rows: np.ndarray) -> np.ndarray:
    return rows


def codes_of(lists: Lists) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    """By list and row: the 1-bit code, and its factors."""
    owners = np.repeat(np.arange(len(lists.starts) - 1), np.diff(lists.starts))
    raw = lists.codes.reshape(-1, WIDTH // 4, 16)
    factors = lists.factors.reshape(-1, 3, BLOCK)
    out = {}
    for block, slot in np.argwhere(lists.positions >= 0).tolist():
        lane = int(SLOTS[slot])
        nibbles = raw[block, :, lane % 16] >> 4 * (lane // 16) & 15
        row = int(lists.ordinals[lists.positions[block, slot]])
        key = int(owners[block]), row
        assert key not in out, "a row stands in one list twice"
        out[key] = nibbles.tobytes(), factors[block, :, slot].tobytes()
    return out


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_rows_that_stay_keep_their_codes_and_others_get_those_of_a_build(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2mdb.compute.hrm2.absorbing.MOST_RENEWED", 1000)  # none
    monkeypatch.setattr(following, "SHARE", 2.0)  # nor does any centroid move
    rows, rng = padded_rows(900, 1), np.random.default_rng(3)
    old = coded(rows[:600], np.arange(600, dtype=np.int32), 12, metric)
    numbers = np.full(600, -1, np.int32)
    stays = np.sort(rng.choice(600, 450, replace=False))
    numbers[stays] = np.arange(450) * 2  # and the new ones between them
    came = np.arange(1, 601, 2, dtype=np.int32)
    now = absorb(
        old,
        Staying(numbers, lambda each: rows[:0], as_it_is),
        Coming(rows[600:900], came),
        1e9,
        metric,
    )
    before, after = codes_of(old), codes_of(now)
    kept = {
        (at, int(numbers[row])): code for (at, row), code in before.items() if numbers[row] >= 0
    }
    assert kept.items() <= after.items()
    every = np.concatenate((rows[stays], rows[600:900]))
    called = np.concatenate((numbers[stays], came))
    assert sorted(now.ordinals.tolist()) == sorted(called.tolist())
    centers = decoded_centers(old)
    first = np.full(len(every), -1, np.int32)
    second = first.copy()
    by_row: dict[int, list[int]] = {}
    for at, row in after:
        by_row.setdefault(row, []).append(at)
    for each, name in enumerate(called.tolist()):
        first[each], *more = by_row[name]
        if more:
            (second[each],) = more
    monkeypatch.setattr(LOADER, "module", None)  # compiled coding rounds factors otherwise (CO1)
    expected = build(every, called.astype(np.int32), centers, first, second, metric)
    again = codes_of(expected)
    assert again.keys() == after.keys()
    new = {key for key in after if key[1] in set(came.tolist())}
    assert {key: again[key] for key in new} == {key: after[key] for key in new}
    at_now, at_then = np.argsort(now.ordinals), np.argsort(expected.ordinals)
    for one, other in (
        (now.bytes8.reshape(-1, WIDTH)[at_now], expected.bytes8.reshape(-1, WIDTH)[at_then]),
        (now.scales[at_now], expected.scales[at_then]),
        (now.squares[at_now], expected.squares[at_then]),
    ):
        assert np.array_equal(one, other)
    nearest = ((rows[600:900, None] - centers[None]) ** 2).sum(axis=2).argmin(axis=1)
    for name, at in zip(came.tolist(), nearest.tolist(), strict=True):
        assert at in by_row[name]


def test_an_alarm_keeps_rows_that_lie_elsewhere_apart(con: m2mdb.Connection) -> None:
    add = clustered(600, seed=77) * 3
    ids = np.arange(5000, 5600)
    con.collection("notes").add({"id": ids, "n": ids, "v": add})
    assert con.execute("SELECT alarm FROM m2m_drift").fetchall() == [(True,)]
    assert len(lists_of(con)) == 2
    assert all(lists_of(con))
    assert not is_absorbed(con)
    assert_sound(con)
    con.execute("OPTIMIZE")
    assert len(lists_of(con)) == 1
    assert_sound(con)


def test_long_lists_are_split_and_empty_ones_given_up() -> None:
    rows = padded_rows(4000, 5)
    old = coded(rows[:400], np.arange(400, dtype=np.int32), 8, "l2")
    numbers = np.arange(400, dtype=np.int32)
    names = np.arange(400, 4000, dtype=np.int32)
    now = old
    for _ in range(12):
        there = Staying(numbers, lambda each: rows[each], as_it_is)
        now = absorb(now, there, Coming(rows[names], names), 50.0, "l2")
        numbers, names = np.arange(4000, dtype=np.int32), names[:0]
    assert len(now.center_scales) > 30
    assert sorted(now.ordinals.tolist()) == list(range(4000))
    assert mean_square(now) < 0.8 * mean_square(
        absorb(old, Staying(np.arange(400, dtype=np.int32), lambda each: rows[each], as_it_is),
               Coming(rows[400:], np.arange(400, 4000, dtype=np.int32)), 1e9, "l2")
    )  # fmt: skip


# ------------------------------------------------------------------------- in the file


def change(con: m2mdb.Connection, start: int, count: int) -> None:
    """Replace the first rows by others of their kind, and add as many."""
    rng = np.random.default_rng(start)
    rows = clustered(ROWS)[rng.integers(0, ROWS, 2 * count)]
    rows += 0.1 * rng.standard_normal(rows.shape).astype(np.float32)
    ids = np.concatenate((np.arange(count), np.arange(start, start + count)))
    con.collection("notes").add({"id": ids, "n": ids, "v": rows}, on_conflict="replace")


def is_absorbed(con: m2mdb.Connection) -> bool:
    with con.engine().reading() as view:
        collection = view.collection("notes")
        column = collection.schema.columns[collection.schema.column("v")]
        return any(absorbing.is_changed(each, column) for each in collection.segments)


def content(con: m2mdb.Connection) -> list[tuple[object, ...]]:
    rows = con.execute("SELECT id, n, v FROM notes ORDER BY id").fetchall()
    return [(id_, n, np.asarray(v).tobytes()) for id_, n, v in rows]


def assert_sound(con: m2mdb.Connection) -> None:
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert recall(con, like_stored(clustered(ROWS), 30), 10) >= 0.93


def test_a_rollback_gives_the_lists_of_before_back(con: m2mdb.Connection, tmp_path: Path) -> None:
    before, lists = content(con), lists_of(con)
    con.execute("BEGIN")
    change(con, 5000, 400)
    con.execute("SAVEPOINT s")
    change(con, 7000, 500)
    assert is_absorbed(con)
    con.execute("ROLLBACK TO s")
    assert len(content(con)) == ROWS + 400
    con.execute("ROLLBACK")
    assert (content(con), lists_of(con), is_absorbed(con)) == (before, lists, False)
    assert_sound(con)
    change(con, 5000, 400)
    after = content(con)
    con.close()
    again = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    assert is_absorbed(again)
    assert content(again) == after
    assert_sound(again)
    again.execute("OPTIMIZE")
    assert not is_absorbed(again)
    assert content(again) == after
    assert_sound(again)
    again.close()


def test_a_crash_before_the_commit_leaves_the_lists_of_before(
    con: m2mdb.Connection, tmp_path: Path
) -> None:
    before = content(con)
    con.execute("BEGIN")
    change(con, 5000, 600)
    for name in tmp_path.glob("m.m2m*"):
        shutil.copy(name, tmp_path / name.name.replace("m.m2m", "crashed.m2m"))
    con.execute("COMMIT")
    after = content(con)
    for name in tmp_path.glob("m.m2m*"):
        shutil.copy(name, tmp_path / name.name.replace("m.m2m", "killed.m2m"))
    for copied, expected in (("crashed", before), ("killed", after)):
        left = m2mdb.connect(str(tmp_path / f"{copied}.m2m"), autocommit=True)
        assert content(left) == expected
        assert_sound(left)
        left.close()


def test_the_past_and_copies_of_what_was_absorbed(con: m2mdb.Connection, tmp_path: Path) -> None:
    con.execute("PRAGMA keep_commits = 1000")
    (commit,) = con.execute("SELECT last_commit FROM m2m_stats").fetchone()
    query = clustered(3, seed=9)[0]
    before = found(con, query, k=20, exact=True)
    change(con, 5000, 700)
    change(con, 9000, 600)
    assert found(con, query, k=20, exact=True, as_of=commit) == before
    assert recall(con, clustered(10, seed=9), 10, as_of=commit) >= 0.9
    con.execute("VACUUM INTO ?", (str(tmp_path / "into.m2m"),))
    con.backup(str(tmp_path / "backup.m2m"))
    for name in ("into", "backup"):
        copy = m2mdb.connect(str(tmp_path / f"{name}.m2m"), autocommit=True)
        assert is_absorbed(copy)
        assert content(copy) == content(con)
        assert_sound(copy)
        copy.close()
    con.execute("VACUUM")
    assert_sound(con)


def test_forgetting_trains_lists_anew_that_have_seen_rows_that_went(con: m2mdb.Connection) -> None:
    change(con, 5000, 400)
    con.collection("notes").add({"id": [20_000], "n": [1], "v": clustered(2)[:1]})
    assert is_absorbed(con)
    con.execute("FORGET FROM notes WHERE id = 20000")
    assert not is_absorbed(con)
    assert_sound(con)


def test_lists_that_are_measured_anew_know_that_they_have_absorbed(con: m2mdb.Connection) -> None:
    """Between two steps of OPTIMIZE another writer may merge; FORGET counts on it all the same."""
    change(con, 5000, 400)
    database = con.engine()
    with maintaining(database) as write:
        view = write.collection("notes")
        entry = view.entry.copy()
        wanted = [(segment, view.schema.column("v")) for segment in view.segments]
        write.replace_entry(view, entry, clustering.recalibrate(write, view, entry, wanted))
    assert is_absorbed(con)
    assert_sound(con)
    con.execute("FORGET FROM notes WHERE id = 5000")
    assert not is_absorbed(con)


@pytest.mark.usefixtures("small")
def test_rows_without_vectors_are_no_reason_to_train(tmp_path: Path) -> None:
    con = filled(tmp_path / "m.m2m", clustered(900), "METRIC l2")
    lists = lists_of(con)
    ids = np.arange(2000, 3500)
    con.collection("notes").add({"id": ids, "n": ids, "v": [None] * len(ids)})
    assert len(lists_of(con)) == 1
    assert abs(lists_of(con)[0] - lists[0]) <= 2
    assert_sound(con)
    con.close()


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, -1.0, 0.0, 0.0], [np.nan] * 4])
def test_what_lists_were_trained_for_is_checked(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, values: list[float]
) -> None:
    con = filled(tmp_path / "m.m2m", clustered(ROWS)[:900])
    real = absorbing.absorbed_parts

    def wrong(*given: Any, **how: Any) -> list[Any]:
        parts = [part for part in real(*given, **how) if part[0] != absorbing.TRAINED]
        return [*parts, (absorbing.TRAINED, 3, np.array(values))]

    with con.engine().reading() as view:
        schema = view.collection("notes").schema
        assert schema.columns[schema.column("v")].id == 3
    with monkeypatch.context() as patch:
        patch.setattr(absorbing, "absorbed_parts", wrong)
        change(con, 5000, 300)
    with pytest.raises(CorruptDatabaseError, match=r"part h\.trained"):
        is_absorbed(con)
    con.close()


def test_no_more_rows_move_for_long_lists_than_a_change_pays_for() -> None:
    sizes = np.array([100, 900, 50, 400, 3, 300, 2, 60])
    of_first = np.repeat(np.arange(8), sizes)
    lists = np.concatenate((of_first, np.arange(8, 96).repeat(60)))
    for most, expected in ((0, [1]), (1302, [1, 3, 6]), (2000, [1, 3, 4, 5, 6])):
        renewed = absorbing_lists._renewed(lists, np.zeros(0, np.int32), 96, 60.0, most)
        assert np.flatnonzero(renewed).tolist() == expected, most


def parts_of(con: m2mdb.Connection) -> tuple[int, list[int]]:
    """Rows of the delta, and of each segment."""
    with con.engine().reading() as view:
        collection = view.collection("notes")
        return len(collection.mirror), [segment.rows for segment in collection.segments]


def test_a_batch_beside_lists_waits_in_the_delta(
    con: m2mdb.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment of its own would make each search half as long again."""
    monkeypatch.setattr(merge_policy, "LEAST_CHANGED", 100_000)
    rows, notes = clustered(2 * ROWS, seed=4), con.collection("notes")
    ids = np.arange(5000, 5700)
    notes.add({"id": ids, "n": ids, "v": rows[:700]})
    notes.add({"id": ids[:600], "n": ids[:600], "v": rows[700:1300]}, on_conflict="replace")
    assert parts_of(con) == (1300, [ROWS])
    expected = content(con)
    assert_sound(con)
    con.close()
    again = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    assert content(again) == expected
    monkeypatch.setattr(merge_policy, "FLUSHED", 1800)  # more than the delta holds
    ids = np.arange(8000, 8600)
    again.collection("notes").add({"id": ids, "n": ids, "v": rows[-600:]})
    assert parts_of(again)[1] == [ROWS, 600]
    assert_sound(again)
    again.close()


def test_a_delta_that_is_nearly_full_goes_into_the_largest_segment(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_policy, "amplification", lambda schema: 1)
    monkeypatch.setattr(merge_policy, "LATE", 720)
    rows, notes = clustered(ROWS) + np.float32(0.01), con.collection("notes")
    for start in range(0, 780, 60):
        ids = np.arange(5000 + start, 5060 + start)
        notes.add({"id": ids, "n": ids, "v": rows[start : start + 60]})
    assert parts_of(con) == (60, [ROWS + 720])
    assert is_absorbed(con)
    assert_sound(con)


def test_the_file_does_not_grow_with_the_changes(con: m2mdb.Connection, tmp_path: Path) -> None:
    """Places that merges leave are used again, and given back where they are at the end."""
    path = tmp_path / "m.m2m"
    lengths = []
    for number in range(36):
        change(con, 5000, 300 + 10 * (number % 5))
        (pages,) = con.execute("SELECT page_count FROM m2m_stats").fetchone()
        lengths.append(pages)
    expected = content(con)
    con.execute("VACUUM INTO ?", (str(tmp_path / "into.m2m"),))
    least = (tmp_path / "into.m2m").stat().st_size / 4096
    assert float(np.median(lengths[6:])) <= 3.0 * least
    assert max(lengths) <= 3.4 * least
    con.close()
    assert path.stat().st_size <= lengths[-1] * 4096
    again = m2mdb.connect(str(path), autocommit=True)
    assert content(again) == expected
    assert_sound(again)
    again.close()


def test_one_row_may_have_so_many_copied() -> None:
    con = m2mdb.connect(":memory:")
    con.execute("CREATE COLLECTION a (v VECTOR(384))")
    con.execute("CREATE COLLECTION b (v VECTOR(4096), t TEXT)")
    con.execute("CREATE COLLECTION c (v VECTOR(8, i8))")
    with con.engine().reading() as view:
        rates = [merge_policy.amplification(view.collection(name).schema) for name in "abc"]
    assert rates == [39, 5, 40]
    con.close()
