"""A hybrid search as one compiled call says what the steps say, and nothing of an older commit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.loader import LOADER
from m2mdb.compute.numba_backend import NumbaBackend
from m2mdb.index.compiled_hybrid import CompiledHybrid
from tests.answers import noted_answers
from tests.hrm2.conftest import make_small
from tests.index.test_prepared_hybrid import DIMENSION, WORDS, Notes

Array = np.ndarray[Any, Any]
OPTIONS: list[dict[str, Any]] = [
    {}, {"k": 3}, {"k": 7, "offset": 4}, {"recall": 0.8}, {"min_score": 0.0125}, {"exact": True},
    {"match_body": True}, {"k": 200},
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def loaded() -> None:
    assert LOADER.wait(300), LOADER.error


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Notes]:
    found = Notes(tmp_path, "INTEGER")
    found.add(2100)
    found.delete(60)
    found.add(30)
    yield found
    found.con.close()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each attempt at one call, whether it was answered."""
    return noted_answers(monkeypatch, CompiledHybrid)


def search(notes: Notes, near: Any, text: str, options: dict[str, Any]) -> tuple[Any, bytes]:
    given = dict(options)
    match: Any = {"body": text} if given.pop("match_body", False) else text
    hits = notes.notes.search(near=near, match=match, returning=[], **given)
    return hits.ids.tolist(), hits.scores.tobytes()


def check(
    notes: Notes, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, text: str | None = None
) -> None:
    near = notes.rng.standard_normal(DIMENSION).astype(np.float32)
    text = notes.text() if text is None else text
    found = search(notes, near, text, options)
    with monkeypatch.context() as patch:
        patch.setattr(NumbaBackend, "ranking", lambda self: None)
        patch.setattr(CompiledHybrid, "answer", lambda self, *given: None)
        assert search(notes, near, text, options) == found, (text, options)


def test_one_call_says_what_the_steps_say(
    notes: Notes, answers: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After reopening, while rows are added and deleted, with words that nobody has."""
    for turn in range(6):
        if turn % 2 == 1:
            notes.add(15)
            notes.delete(5)
        if turn == 4:
            notes.con.close()
            notes.con = m2mdb.connect(notes.path, autocommit=True)
            notes.notes = notes.con.collection("notes")
        for options in OPTIONS:
            check(notes, options, monkeypatch)
            check(notes, options, monkeypatch, "nobody has " + notes.text())
            check(notes, options, monkeypatch, "w0 w0 w1 W2 w0")
            check(notes, options, monkeypatch, ['"w0 w1"', "+w1 -w2", "", "...", "w1^2"][turn % 5])
    assert sum(answers) > 30, (sum(answers), len(answers))


def test_whatever_comes_between_two_searches_is_seen(
    notes: Notes, answers: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = np.full(DIMENSION, 9, np.float32)

    def best(*, times: int = 4, **given: Any) -> list[Any]:
        for _ in range(times):
            hits = notes.notes.search(near=vector, match="w0 unheard", k=1, returning=[], **given)
        return list(hits.ids.tolist())

    before = best()
    assert answers and answers[-1]
    notes.notes.add({"id": 900_001, "body": "unheard of", "e": vector})
    assert best(times=1) == [900_001] == best()
    assert answers[-1]
    with m2mdb.connect(notes.path, autocommit=True) as other:
        other.collection("notes").forget(900_001)
        assert best(times=1) == before == best()
        other.execute("OPTIMIZE notes")
        other.execute("VACUUM")
        assert best(times=1) == before == best()
    assert answers[-1]
    notes.con.execute("BEGIN")
    notes.notes.add({"id": 900_002, "body": "unheard of", "e": vector})
    assert best() == [900_002]
    notes.con.execute("ROLLBACK")
    assert best(times=1) == before == best()
    program = (
        "import sys, os, signal, numpy as np, m2mdb\n"
        "con = m2mdb.connect(sys.argv[1], autocommit=True)\n"
        f"row = {{'id': 900_003, 'body': 'unheard', 'e': np.full({DIMENSION}, 9, np.float32)}}\n"
        "con.collection('notes').add(row)\n"
        "con.execute('BEGIN')\n"
        "con.collection('notes').delete(900_003)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, notes.path], check=False, timeout=60)
    assert best(times=1) == [900_003] == best()
    assert answers[-1]
    notes.con.execute("ALTER COLLECTION notes ADD COLUMN more TEXT")
    assert best(times=1) == [900_003] == best()
    with pytest.raises(m2mdb.Error):
        notes.notes.search(near=vector[:3], match="w0 unheard", k=1, returning=[])
    with pytest.raises(m2mdb.Error):
        notes.notes.search(near=vector * np.nan, match="w0 unheard", k=1, returning=[])
    assert best() == [900_003]


def test_the_past_is_not_answered_from_the_present(notes: Notes, answers: list[bool]) -> None:
    notes.con.execute("PRAGMA keep_commits = 5")
    vector = np.full(DIMENSION, 9, np.float32)
    notes.notes.add({"id": 900_001, "body": "unheard of", "e": vector})
    for _ in range(4):
        now = notes.notes.search(near=vector, match="unheard", k=2, returning=[])
    assert answers[-1]
    commit = notes.con.commit_number
    notes.notes.delete(900_001)
    then = notes.notes.search(near=vector, match="unheard", k=2, as_of=commit, returning=[])
    assert then.ids.tolist() == now.ids.tolist()
    after = notes.notes.search(near=vector, match="unheard", k=2, returning=[])
    assert 900_001 not in after.ids.tolist()


def test_lists_that_lie_in_the_file_go_by_steps(
    notes: Notes, answers: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    from m2mdb.index.text import compiled

    monkeypatch.setattr(compiled, "FLAT", 2)  # as if these segments were of the first version
    for _ in range(4):
        check(notes, {}, monkeypatch, " ".join(WORDS[:3]))
    assert not answers
