"""OPTIMIZE: fewer segments, the same answers, one step a commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb import OperationalError, ProgrammingError
from m2mdb.index import optimize as optimize_module
from m2mdb.index.database import Database

CREATE = (
    "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT FULLTEXT, n INTEGER, e VECTOR(6))"
)
WORDS = ("red", "green", "blue", "dark", "light")


def fill(con: Any, seed: int = 1) -> None:
    """Three segments with dead rows, and some rows in the delta."""
    rng = np.random.default_rng(seed)
    con.execute(CREATE)
    con.execute("CREATE INDEX by_n ON notes (n)")
    con.commit()
    for start in (0, 600, 1200, 1800):
        count = 600 if start < 1800 else 40
        con.collection("notes").add(
            {
                "id": list(range(start, start + count)),
                "body": [" ".join(rng.choice(WORDS, 3)) for _ in range(count)],
                "n": rng.integers(0, 50, count).tolist(),
                "e": rng.standard_normal((count, 6)).astype(np.float32),
            }
        )
    con.execute("DELETE FROM notes WHERE n = 7")
    con.execute("UPDATE notes SET n = 100 WHERE n = 9")
    con.commit()


def answers(con: Any) -> list[Any]:
    query = np.linspace(-1, 1, 6, dtype=np.float32)
    statements: list[tuple[str, tuple[Any, ...]]] = [
        ("SELECT id, body, n FROM notes ORDER BY id", ()),
        ("SELECT id FROM notes WHERE n = 100 ORDER BY id", ()),
        ("SEARCH notes NEAR ? K 20 RETURNING id, score", (query,)),
        ("SELECT rowid, e FROM notes ORDER BY rowid LIMIT 50", ()),
    ]
    found: list[Any] = []
    for text, parameters in statements:
        for row in con.execute(text, parameters):
            found.append([v.tobytes() if isinstance(v, np.ndarray) else v for v in row])
    return found


def database_of(con: m2mdb.Connection) -> Database:
    assert con.database is not None
    return con.database


def counts(con: m2mdb.Connection) -> tuple[int, int]:
    """(segments, dead row versions in them and in the delta)."""
    with database_of(con).reading() as view:
        notes = view.collection("notes")
        stored = sum(part.size for part in notes.parts())
        return len(notes.segments), stored - notes.count()


def test_all_rows_in_one_segment_and_the_same_answers(tmp_path: Path) -> None:
    path = tmp_path / "a.m2m"
    con = m2mdb.connect(path)
    fill(con)
    before = answers(con)
    segments, dead = counts(con)
    assert segments == 3
    assert dead
    report = con.execute("OPTIMIZE notes").fetchall()
    live = con.execute("SELECT count(*) FROM notes").fetchone()[0]
    assert [tuple(row) for row in report] == [("notes", 3, 1, live)]
    assert counts(con) == (1, 0)
    assert answers(con) == before
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
    with m2mdb.connect(path) as again:
        assert answers(again) == before
        assert counts(again) == (1, 0)


def test_dead_rows_leave_the_statistics_of_text(tmp_path: Path) -> None:
    """S24: dead rows count until they are merged."""
    con = m2mdb.connect(tmp_path / "a.m2m")
    fill(con)
    con.execute("OPTIMIZE")
    fresh = m2mdb.connect(tmp_path / "b.m2m")
    fresh.execute(CREATE)
    fresh.collection("notes").add(
        [{"id": row[0], "body": row[1]} for row in con.execute("SELECT id, body FROM notes")]
    )
    text = "SEARCH notes MATCH 'red dark' K 30 RETURNING id, score"
    assert con.execute(text).fetchall() == fresh.execute(text).fetchall()


def test_a_clean_segment_is_not_written_again(tmp_path: Path) -> None:
    """O2"""
    con = m2mdb.connect(tmp_path / "a.m2m")
    fill(con)
    con.execute("OPTIMIZE")
    with database_of(con).reading() as view:
        ids = [segment.id for segment in view.collection("notes").segments]
    con.execute("OPTIMIZE")
    with database_of(con).reading() as view:
        assert [segment.id for segment in view.collection("notes").segments] == ids


def test_groups_keep_to_the_segment_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m")
    fill(con)
    before = answers(con)
    monkeypatch.setattr(optimize_module, "SEGMENT_BYTES", 100_000)
    con.execute("OPTIMIZE")
    assert counts(con)[0] > 1
    assert answers(con) == before


def test_refused_inside_a_transaction_and_for_unknown_names(tmp_path: Path) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m")
    fill(con)
    con.execute("UPDATE notes SET n = 3 WHERE id = 1")
    with pytest.raises(OperationalError, match="inside a transaction"):
        con.execute("OPTIMIZE")
    con.commit()
    with pytest.raises(ProgrammingError, match="nowhere"):
        con.execute("OPTIMIZE nowhere")
    assert counts(con)[0] == 3
    con.close()
    reader = m2mdb.connect(tmp_path / "a.m2m", read_only=True)
    with pytest.raises(OperationalError, match="reading only"):
        reader.execute("OPTIMIZE")


def test_an_interrupt_between_steps_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m")
    fill(con)
    before = answers(con)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(optimize_module, "merge", stop)
    with pytest.raises(KeyboardInterrupt):
        con.execute("OPTIMIZE")
    monkeypatch.undo()
    assert not con.in_transaction
    assert answers(con) == before
    con.execute("OPTIMIZE")
    assert counts(con) == (1, 0)
