"""A build of lists and an OPTIMIZE tell how far they are, and what is told of may stop them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb.index import hrm2, work
from tests.hrm2.conftest import clustered

ROWS, WIDTH = 2100, 24
Told = list[tuple[str, int, int]]
LISTS = "lists of notes.e, segment 1"


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[m2mdb.Connection]:
    """A connection to rows in one segment without lists."""
    con = m2mdb.connect(str(tmp_path / "work.m2m"), autocommit=True)
    con.execute(f"CREATE TABLE notes (id INTEGER PRIMARY KEY, e VECTOR({WIDTH}))")
    con.collection("notes").add({"id": range(ROWS), "e": clustered(ROWS, WIDTH)})
    yield con
    con.close()


def heard(con: m2mdb.Connection) -> Told:
    told: Told = []
    con.set_work_handler(lambda *each: told.append(each))
    return told


def has_lists(con: m2mdb.Connection) -> bool:
    return bool(con.execute("SELECT * FROM m2m_lists").fetchall())


@pytest.mark.parametrize("statement", ["CREATE INDEX i ON notes USING hrm2 (e)", "OPTIMIZE"])
def test_stages_are_told_in_their_order_with_rows_of_rows(
    notes: m2mdb.Connection, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hrm2, "LEAST_MEASURED", 2000)
    told = heard(notes)

    notes.execute(statement)

    stages = list(dict.fromkeys(task for task, _, _ in told))
    assert stages == [*(f"{LISTS}: {stage}" for stage in work.STAGES), LISTS]
    done = [each for _, each, _ in told]
    assert done == sorted(done) and done[0] == 0
    assert told[-1] == (LISTS, ROWS, ROWS)
    assert {total for _, _, total in told} == {ROWS}
    assert has_lists(notes)


def test_a_stage_that_lasts_is_told_again(
    notes: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "AGAIN_SECONDS", 0.0)
    told = heard(notes)

    notes.execute("CREATE INDEX i ON notes USING hrm2 (e)")

    assert told.count((f"{LISTS}: training", 0, ROWS)) > 5


def test_merges_are_told_as_segments(notes: m2mdb.Connection) -> None:
    notes.collection("notes").add(
        {"id": range(ROWS, ROWS + 600), "e": clustered(600, WIDTH, seed=3)}
    )
    notes.execute("DELETE FROM notes WHERE id % 3 = 0")
    told = heard(notes)

    notes.execute("OPTIMIZE notes")

    merges = [each for each in told if each[0].startswith("segments of notes")]
    assert merges == [("segments of notes: merging", 0, 1), ("segments of notes", 1, 1)]


def test_what_the_handler_raises_ends_the_statement(notes: m2mdb.Connection) -> None:
    def stop(task: str, done: int, total: int) -> None:
        if task.endswith("coding"):
            raise ValueError("enough")

    notes.set_work_handler(stop)
    with pytest.raises(m2mdb.OperationalError, match=r"work handler raised .* enough"):
        notes.execute("CREATE INDEX i ON notes USING hrm2 (e)")

    assert not has_lists(notes)
    assert notes.execute("SELECT * FROM m2m_indexes").fetchall() == []
    notes.set_work_handler(None)
    notes.execute("CREATE INDEX i ON notes USING hrm2 (e)")
    assert has_lists(notes)
    assert notes.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_handler_may_not_use_its_connection(notes: m2mdb.Connection) -> None:
    notes.set_work_handler(lambda *_: notes.execute("SELECT 1"))

    with pytest.raises(m2mdb.OperationalError, match="its work handler is running"):
        notes.execute("OPTIMIZE")

    assert not has_lists(notes)


@pytest.mark.parametrize("handler", [5, "told"])
def test_what_cannot_be_called_is_refused(notes: m2mdb.Connection, handler: Any) -> None:
    with pytest.raises(m2mdb.InterfaceError, match="work handler"):
        notes.set_work_handler(handler)
