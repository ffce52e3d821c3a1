"""Words of live codes say what a mask by ordinal says; compiled searches never find the dead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2.lists import BLOCK
from m2mdb.compute.hrm2.living import Living
from m2mdb.compute.hrm2.reference import Stop
from m2mdb.compute.hrm2.searcher import Scratch, Searcher
from m2mdb.compute.loader import LOADER
from m2mdb.index import merge_policy
from tests.compute.hrm2.conftest import SEED, Coded, clustered, coded
from tests.hrm2.conftest import make_small
from tests.index.test_prepared import Notes, by_steps, shown

Array = np.ndarray[Any, Any]
ROWS = 700


@pytest.fixture(autouse=True, scope="module")
def kernels() -> None:
    assert LOADER.wait(300), LOADER.error


@pytest.fixture(scope="module", params=[True, False], ids=["two codes", "one code"])
def built(request: pytest.FixtureRequest) -> Coded:
    return coded(clustered(ROWS, 24), "cosine", 20, spill=request.param)


def expected(built: Coded, live: Array) -> Array:
    """Words of live codes, code by code; lanes without one are free."""
    positions = built.lists.positions
    alive = np.where(positions >= 0, live[built.lists.ordinals[positions]], True)
    return np.packbits(alive, axis=1, bitorder="little").view(np.uint32).ravel()


def test_words_say_which_codes_are_of_live_rows(built: Coded) -> None:
    rng = np.random.default_rng(3)
    living, live = Living(built.lists, ROWS), np.ones(ROWS, bool)
    given = []
    for turn in range(12):
        live = live.copy()
        live[rng.choice(ROWS, int(rng.integers(0, 60)))] = turn in (5, 9)  # an older snapshot
        words = living.words(live)
        assert words is not None
        assert living.words(live) is words
        given.append((words, words.copy()))
        assert np.array_equal(words, expected(built, live))

    for words, before in given:  # LV1
        assert np.array_equal(words, before)


def test_words_are_refused_where_a_row_has_three_codes_or_no_ordinal(built: Coded) -> None:
    positions = built.lists.positions.copy()
    lanes = np.argwhere(positions >= 0)
    for block, slot in lanes[:3]:
        positions[block, slot] = positions[tuple(lanes[0])]
    live = np.ones(ROWS, bool)

    assert Living(built.lists._replace(positions=positions), ROWS).words(live) is None
    assert Living(built.lists, ROWS - 1).words(live[1:]) is None
    assert Living(built.lists, ROWS).words(live[1:]) is None


def test_rows_without_a_code_change_no_word(built: Coded) -> None:
    live = np.ones(ROWS + 40, bool)
    live[ROWS:] = False

    words = Living(built.lists, ROWS + 40).words(live)

    assert words is not None and (words == 2**BLOCK - 1).all()


def test_a_search_by_words_finds_what_one_under_a_mask_finds(built: Coded) -> None:
    from m2mdb.compute.hrm2 import kernels as compiled
    from m2mdb.compute.hrm2.searcher import NO_MASK, tell_hardness

    rng = np.random.default_rng(4)
    searcher, stop = Searcher(built.lists, "cosine", SEED), Stop(10, 6, 0, 6, 0.0)
    live = rng.random(ROWS) < 0.6
    scratch = searcher.own_scratch(12, live)
    assert scratch.knows_live
    for query in built.rows[rng.choice(ROWS, 40)]:
        scratch.rotated[:24], scratch.rotated[24:] = query, 0
        tell_hardness(scratch, stop)
        compiled.search(scratch.plan, NO_MASK, stop.limits, stop.factor, 1.3)
        masked = searcher.search(query, stop, wanted=12, epsilon=1.3, mask=live)
        found = scratch.best[: scratch.counts[0]]

        assert np.array_equal(found, masked.positions)
        assert np.array_equal(scratch.nearness[: len(found)], masked.nearness)
        assert live[masked.ordinals].all()


def test_the_dead_stay_dead_and_what_was_rolled_back_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    monkeypatch.setattr(merge_policy, "LEAST_CHANGED", 10**6)
    made: list[bool] = []
    own = Searcher.own_scratch

    def watched(self: Searcher, wanted: int, live: Array | None = None) -> Scratch:
        scratch = own(self, wanted, live)
        made.append(scratch.knows_live)
        return scratch

    monkeypatch.setattr(Searcher, "own_scratch", watched)
    notes = Notes(tmp_path, "cosine", "f32", "INTEGER", SEED)
    notes.add(notes.con, 900)
    notes.con.execute("OPTIMIZE")
    gone: set[int] = set()
    rng = np.random.default_rng(8)

    def check(con: m2mdb.Connection, away: set[int]) -> None:
        mine = con.collection("notes")
        for _ in range(4):
            query = notes.query()
            for options in ({"probes": 10_000}, {}):

                def search(query: Array = query, options: Any = options) -> Any:
                    return shown(mine.search(near=query, k=20, returning=[], **options))

                found = [search() for _ in range(3)][-1]
                assert found == by_steps(monkeypatch, search)
                assert away.isdisjoint(found[0])

    for turn in range(6):
        some = set(rng.choice(900, 20, replace=False).tolist()) - gone
        before = notes.con.commit_number
        if turn % 3 == 1:
            with pytest.raises(ZeroDivisionError), notes.con:
                notes.con.execute("BEGIN")
                notes.con.collection("notes").delete(sorted(some))
                check(notes.con, gone | some)
                check(notes.other, gone)
                raise ZeroDivisionError
        else:
            (notes.con if turn % 2 else notes.other).collection("notes").delete(sorted(some))
            past = notes.con.collection("notes")
            query = notes.query()
            old = past.search(near=query, k=900, exact=True, as_of=before).ids
            assert some & set(old.tolist()) == some - set(_without_vector(notes, before))
            gone |= some
        for con in (notes.con, notes.other):
            check(con, gone)
        if turn == 3:
            notes.close()
            notes.con = m2mdb.connect(notes.path, autocommit=True)
            notes.other = m2mdb.connect(notes.path, autocommit=True)
    assert sum(made) > 10
    notes.close()


def _without_vector(notes: Notes, commit: int) -> list[int]:
    found = notes.con.execute(f"SELECT id FROM notes AS OF {commit} WHERE e IS NULL")
    return [id_ for (id_,) in found]
