"""Searches under a condition asked again and again find what the first of them found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.gathering import Gathered
from m2mdb.compute.loader import LOADER
from m2mdb.compute.ranking import ranking_kernels
from m2mdb.index import costs, hrm2, masks
from m2mdb.index.compiled import CompiledSearch
from m2mdb.index.costs import NO_LIMIT, Size, budgeted
from m2mdb.index.gathered import GATHER_AFTER
from m2mdb.index.masks import KeptMasks
from m2mdb.searching_filtered import FilteredShape
from tests.answers import noted_answers
from tests.index.test_prepared import DTYPES, METRICS, Notes, by_steps, shown

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True, scope="module")
def kernels() -> None:
    assert LOADER.wait(300), LOADER.error


def never() -> None:
    """Nobody interrupts."""


def similarities(rows: Array, query: Array, metric: str) -> Array:
    """Float32 scores as they are shown, from float64; of l2 the distances, negated."""
    wide, asked = rows.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        found: Array = -np.sqrt(((wide - asked) ** 2).sum(axis=1)).astype(np.float32)
        return found
    keys = wide @ asked
    if metric == "cosine":
        lengths = np.sqrt((wide * wide).sum(axis=1)) * np.sqrt(asked @ asked)
        keys = np.divide(keys, lengths, out=np.zeros_like(keys), where=lengths > 0)
    shown_as: Array = keys.astype(np.float32)
    return shown_as


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
@pytest.mark.parametrize("dimension", [1, 2, 19, 64, 385])
def test_codes_lose_none_of_the_best(metric: str, dtype: Any, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    kernels = ranking_kernels()
    assert kernels is not None
    for shape in ("normal", "alike", "lengths", "one point"):
        rows = rng.standard_normal((900, dimension)) * 20
        if shape == "alike":
            rows = np.rint(rows / 30) * 5
        if shape == "lengths":
            rows *= 10.0 ** rng.uniform(-2, 0.5, (900, 1))
        if shape == "one point":
            rows = 60 + rng.standard_normal((900, dimension)) * (1 if dtype is np.int8 else 0.01)
        rows = np.clip(rows, -127, 127)
        rows = (np.rint(rows) if dtype is np.int8 else rows).astype(dtype)
        rows[~rows.any(axis=1), 0] = 1
        passing = np.sort(rng.choice(900, 250, replace=False))
        live = rng.random(900) < 0.8
        codes = Gathered(metric, rows, passing, kernels, never)
        assert codes.ordinals.tolist() == passing.tolist()
        for turn, k in enumerate((1, 10, 100, 249)):
            codes.allow(live if turn % 2 else None)
            may = passing[live[passing]] if turn % 2 else passing
            asked = np.stack((rows[passing[3]], rows[7])).astype(np.float32)
            asked[1] *= np.float32(-1.5)
            for query in asked:
                keys = similarities(rows[may], query, metric)
                edge = np.sort(keys)[-min(k, len(may))]
                best = set(may[keys >= edge].tolist())

                found = codes.reached(query, k)

                if found is None:
                    assert len(best) > k + 64  # so many are alike
                    continue
                assert len(set(found.tolist())) == len(found)
                assert best <= set(found.tolist()) <= set(may.tolist())


@pytest.fixture
def gathering(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were coded, set by set."""
    made: list[int] = []
    before = Gathered.__init__

    def noted(self: Gathered, *arguments: Any) -> None:
        before(self, *arguments)
        made.append(len(self.ordinals))

    monkeypatch.setattr(Gathered, "__init__", noted)
    return made


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether compiled calls answered."""
    return noted_answers(monkeypatch, CompiledSearch)


WHERES: list[dict[str, Any]] = [
    {"where": "n % 3 = 0"}, {"where": "n < ?", "params": (300,)}, {"where": "word = 'w3'"},
    {"where": "word = ? OR n > ?", "params": ["w1", 900]}, {"where": "n < 0"}, {"where": "n >= 0"},
    {"where": "e IS NULL OR n % 2 = 0", "exact": True}, {"where": "n % 3 = 0", "offset": 2},
    {"where": "n < ?", "params": (40,), "k": 100}, {"where": "n % 5 = 1", "min_score": 0.1},
    {"where": "n > ?", "params": (200.5,), "exact": True}, {"where": "n > 3", "probes": 2},
]  # fmt: skip


@pytest.mark.parametrize(("metric", "dtype"), [*zip(METRICS, DTYPES, strict=True)])
def test_repeated_searches_agree_while_two_connections_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gathering: list[int], answers: list[bool],
    metric: str, dtype: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(hrm2, "LEAST_ROWS", 600)
    monkeypatch.setattr(hrm2, "LEAST_MEASURED", 1 << 30)
    notes = Notes(tmp_path, metric, dtype, "INTEGER", 7)
    notes.add(notes.con, 1100)
    mine = notes.con.collection("notes")
    for turn in range(7):
        if turn:
            notes.change(notes.other if turn % 2 else notes.con)
        if turn == 4:
            notes.con.execute("OPTIMIZE notes")
        for options in WHERES:
            for query in [notes.query() for _ in range(4)]:

                def search(query: Array = query, options: Any = options) -> Any:
                    return shown(mine.search(near=query, returning=[], **options))

                expected = by_steps(monkeypatch, search)
                assert [search(), search()] == [expected, expected], (turn, options)
                named = mine.search(near=query, returning="n, score", **options)
                assert named.ids.tolist() == expected[0]
    assert gathering and sum(answers) > 200
    notes.close()


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[m2mdb.Connection]:
    """2,000 rows in one segment, without lists."""
    con = m2mdb.connect(tmp_path / "a.m2m", autocommit=True)
    con.execute("CREATE COLLECTION n (id INTEGER PRIMARY KEY, g INTEGER, t TEXT, e VECTOR(20))")
    rows = np.random.default_rng(3).standard_normal((2000, 20)).astype(np.float32)
    texts = ["a" if i % 3 else "A" for i in range(2000)]
    con.collection("n").add({"id": np.arange(2000), "g": np.arange(2000) % 10, "t": texts,
                             "e": rows})  # fmt: skip
    yield con
    if con.database is not None:
        con.close()


def groups(con: m2mdb.Connection, where: str, params: Any = (), times: int = 9) -> set[Any]:
    """The groups and texts of the rows found, of the last of many searches."""
    query = np.ones(20, np.float32)
    for _ in range(times):
        hits = con.collection("n").search(near=query, where=where, params=params, returning=[])
    ids = ", ".join(map(str, hits.ids.tolist())) or "-1"
    return set(con.execute(f"SELECT g, t FROM n WHERE id IN ({ids})").fetchall())


def test_values_that_equal_each_other_are_not_taken_for_each_other(
    notes: m2mdb.Connection, answers: list[bool]
) -> None:
    assert {g for g, _ in groups(notes, "g = ?", (1,))} == {1}
    assert any(answers)
    assert {g for g, _ in groups(notes, "g = ?", (2,))} == {2}
    assert groups(notes, "typeof(?) = 'real'", (1,)) == set()
    assert groups(notes, "typeof(?) = 'real'", (1.0,)) != set()
    assert {g for g, _ in groups(notes, "g = ?", [1])} == {1}
    assert {g for g, _ in groups(notes, "g = :g", {"g": 4})} == {4}


def test_a_new_collation_is_asked_at_once(notes: m2mdb.Connection, answers: list[bool]) -> None:
    where = "t = 'a' COLLATE nocase"
    assert {t for _, t in groups(notes, where)} == {"a", "A"}
    assert any(answers)

    notes.create_collation("nocase", lambda a, b: (a > b) - (a < b))

    for _ in range(3):
        assert {t for _, t in groups(notes, where, times=1)} == {"a"}
    notes.create_collation("nocase", None)
    for _ in range(3):
        assert {t for _, t in groups(notes, where, times=1)} == {"a", "A"}


def test_a_column_that_may_not_be_read_any_more_is_null_at_once(
    notes: m2mdb.Connection, answers: list[bool]
) -> None:
    assert {g for g, _ in groups(notes, "g = 3")} == {3}
    assert any(answers)

    def ignoring(action: int, table: str | None, column: str | None, *_: str | None) -> int:
        is_hidden = action == m2mdb.SQLITE_READ and column == "g"
        return m2mdb.SQLITE_IGNORE if is_hidden else m2mdb.SQLITE_OK

    notes.set_authorizer(ignoring)
    for _ in range(5):
        near = np.ones(20, np.float32)
        found = notes.collection("n").search(near=near, where="g = 3", returning=[])
        assert not len(found.ids)


def test_what_depends_on_more_than_the_row_is_asked_every_time(
    notes: m2mdb.Connection, answers: list[bool]
) -> None:
    notes.execute("CREATE COLLECTION one (g INTEGER)")
    notes.execute("INSERT INTO one VALUES (3)")
    assert {g for g, _ in groups(notes, "g = (SELECT max(g) FROM one)")} == {3}
    assert not answers
    notes.execute("UPDATE one SET g = 5")
    assert {g for g, _ in groups(notes, "g = (SELECT max(g) FROM one)", times=1)} == {5}


def test_changes_of_any_kind_are_seen(notes: m2mdb.Connection, answers: list[bool]) -> None:
    assert {g for g, _ in groups(notes, "g < 2")} == {0, 1}
    with notes:
        notes.execute("BEGIN")
        notes.execute("UPDATE n SET g = 9 WHERE g = 1")
        assert {g for g, _ in groups(notes, "g < 2")} == {0}
        notes.execute("ROLLBACK")
    assert {g for g, _ in groups(notes, "g < 2")} == {0, 1}
    notes.execute("DELETE FROM n WHERE g = 1")
    assert {g for g, _ in groups(notes, "g < 2")} == {0}
    notes.execute("ALTER COLLECTION n RENAME COLUMN g TO h")
    with pytest.raises(m2mdb.ProgrammingError, match="g"):
        notes.collection("n").search(near=np.ones(20, np.float32), where="g < 2", returning=[])
    assert answers.count(True) > 5


@pytest.mark.parametrize("options", [
    {"where": "g <"}, {"where": "g = ?"}, {"where": "g = ?", "params": (1, 2)},
    {"where": "g = 1", "k": 0}, {"where": "g = 1", "recall": 2.0}, {"where": "nothing = 1"},
    {"where": "g = 1", "returning": ["nothing"]}, {"where": "g = 1", "offset": -1},
])  # fmt: skip
def test_errors_are_those_of_the_first_time(notes: m2mdb.Connection, options: Any) -> None:
    said = []
    for _ in range(4):
        with pytest.raises(m2mdb.Error) as error:
            notes.collection("n").search(near=np.ones(20, np.float32), **options)
        said.append((type(error.value), str(error.value)))
    assert len(set(said)) == 1
    for vector in (np.ones(19, np.float32), np.full(20, np.nan, np.float32), np.zeros(20)):
        for _ in range(7):
            with pytest.raises(m2mdb.DataError):
                notes.collection("n").search(near=vector, where="g = 1", returning=[])


def test_codes_are_made_for_a_mask_that_is_asked_again_and_bounded(
    notes: m2mdb.Connection, gathering: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups(notes, "g = 1", times=GATHER_AFTER - 1)
    assert not gathering
    groups(notes, "g = 1", times=6)
    assert gathering == [200]
    groups(notes, "g >= 0")
    assert gathering == [200, 2000]
    monkeypatch.setattr("m2mdb.index.gathered.MOST_CODES", 20 * 1000)
    groups(notes, "g >= 1")
    assert gathering == [200, 2000]
    monkeypatch.setattr(masks, "MOST_GATHERED", 20_000)
    groups(notes, "g = 2")
    groups(notes, "g = 3")
    with notes.reading() as view:
        kept = view.collection("n").segments[0].masks
        held = [sorted(each.gathered) for each in kept._masks.values()]
    assert sum(map(bool, held)) == 2  # the last, and the one that found that it has too many rows


def test_a_mask_is_known_by_the_array_that_was_given() -> None:
    kept = KeptMasks(10)
    mask, live = np.arange(10) < 5, np.arange(10) % 2 == 0
    kept.keep("a", mask)
    given = kept.under("a", live)
    assert given is not None and given.tolist() == (mask & live).tolist()
    assert kept.under("a", live) is given and kept.of(given) is not None
    assert kept.of(given.copy()) is None
    other = kept.under("a", live.copy())
    assert other is not None and other is not given
    assert kept.of(given) is None and kept.of(other) is not None
    assert kept.under("a", None) is mask and kept.under("b", None) is None
    for key in range(masks.MOST_MASKS):
        kept.keep(key, np.ones(10, bool))
    assert kept.of(mask) is None and len(kept) == masks.MOST_MASKS == len(kept._masks)
    assert len(kept._shown) <= len(kept)


def test_few_rows_are_scanned_at_once_unless_probing_is_much_cheaper() -> None:
    from m2mdb.compute.hrm2.patience import Work
    from m2mdb.compute.hrm2.reference import Stop

    stop, size = Stop(10, 2, 20, NO_LIMIT, 1.5), Size(1000, 384, 100_000, 1536)
    work = Work(300, 120_000, 500)
    few = costs.MOST_CODES // 384 / 100_000
    assert budgeted(stop, size, work, 0.9 * few) is None
    assert budgeted(stop, size, work, 1.5 * few) is not None
    assert budgeted(stop, size, Work(5, 1000, 40), 0.9 * few) is not None


def test_calls_that_leave_their_searches_to_the_steps_are_given_up(
    notes: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups(notes, "g = 1")
    calls: list[int] = []

    def fails(self: CompiledSearch, query: Any) -> None:
        calls.append(1)

    monkeypatch.setattr(CompiledSearch, "answer", fails)
    assert {g for g, _ in groups(notes, "g = 1", times=12)} == {1}
    assert len(calls) == 3
    shapes = [each for each in notes.filtered.values() if isinstance(each, FilteredShape)]
    assert len(shapes) == 1
