"""What a compiled search reads is there for as long as it reads: forks, closes, moved files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.loader import LOADER
from m2mdb.index import hrm2
from m2mdb.index.compiled import CompiledSearch
from tests.hrm2.conftest import make_small
from tests.index.test_prepared import SEED, Notes, shown
from tests.wal.test_fork import in_child

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LOADER.wait(300), LOADER.error
    make_small(monkeypatch)
    monkeypatch.setattr(hrm2, "LEAST_ROWS", 600)


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Notes]:
    """900 rows with lists."""
    found = Notes(tmp_path, "cosine", "f32", "INTEGER", SEED)
    found.add(found.con, 900)
    yield found
    found.close()


def compiled(notes: Notes, query: Array, monkeypatch: pytest.MonkeyPatch) -> m2mdb.Collection:
    """The collection, whose next search is seen to be a compiled call that answers."""
    mine = notes.con.collection("notes")
    answered = []
    answer = CompiledSearch.answer

    def watched(search: CompiledSearch, vector: Any) -> Any:
        found = answer(search, vector)
        answered.append(found is not None)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(CompiledSearch, "answer", watched)
        for _ in range(4):
            mine.search(near=query, returning=[])
    assert answered and answered[-1]
    return mine


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_not_search_and_its_parent_may(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = notes.query()
    mine = compiled(notes, query, monkeypatch)
    before = shown(mine.search(near=query, returning=[]))

    def search() -> None:
        for _ in range(3):
            with pytest.raises(m2mdb.Error, match="fork"):
                mine.search(near=query, returning=[])
        with m2mdb.connect(notes.path) as own:
            again = own.collection("notes")
            for _ in range(4):
                assert shown(again.search(near=query, returning=[])) == before

    assert in_child(search) == 0
    assert shown(mine.search(near=query, returning=[])) == before
    notes.add(notes.other, 5)
    assert len(mine.search(near=query, returning=[], k=905)) == len(
        notes.other.collection("notes").search(near=query, returning=[], k=905)
    )


@pytest.mark.skipif(sys.platform == "win32", reason="an open file keeps its name there")
def test_a_file_that_lost_its_name_is_searched_as_it_was(
    notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = notes.query()
    mine = compiled(notes, query, monkeypatch)
    before = shown(mine.search(near=query, returning=[]))
    copy = tmp_path / "copy.m2m"
    notes.con.execute("VACUUM INTO ?", (str(copy),))
    with m2mdb.connect(copy, autocommit=True) as con:
        con.execute("DELETE FROM notes")
    con.close()
    os.replace(copy, notes.path)
    for _ in range(5):
        assert shown(mine.search(near=query, returning=[])) == before
    with m2mdb.connect(notes.path) as new:
        assert len(new.collection("notes").search(near=query, returning=[])) == 0
    with pytest.raises(m2mdb.Error):
        notes.con.execute("DELETE FROM notes WHERE id = 1")


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.004, 0.01, 0.03])
def test_a_connection_closed_in_the_midst_of_searches_refuses_the_next(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    queries = [notes.query() for _ in range(8)]
    mine = compiled(notes, queries[0], monkeypatch)
    wanted = [shown(mine.search(near=query, returning=[])) for query in queries]
    wrong: list[object] = []
    refused: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while True:
                at = int(rng.integers(len(queries)))
                if shown(mine.search(near=queries[at], returning=[])) != wanted[at]:
                    wrong.append(at)
        except m2mdb.InterfaceError as error:
            refused.append(str(error))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    threading.Event().wait(delay)
    notes.con.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not wrong
    assert len(refused) == 3 and all("closed" in text for text in refused)
    notes.con = m2mdb.connect(notes.path)


DYING = """
import sys, threading
import numpy as np
import m2mdb
from m2mdb.compute.loader import LOADER

assert LOADER.wait(300), LOADER.error
con = m2mdb.connect(sys.argv[1])
mine = con.collection("notes")
query = np.ones(int(sys.argv[2]), np.float32)

def work():
    while True:
        mine.search(near=query, returning=[])

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
threading.Event().wait(0.05)
"""


def test_an_interpreter_may_end_while_others_search(notes: Notes) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", DYING, notes.path, str(len(notes.query()))],
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
    with m2mdb.connect(notes.path) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
