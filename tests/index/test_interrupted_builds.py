"""S12: a long statement of the index layer that is interrupted at any look leaves nothing behind.

Each statement is run once to count its looks, then again and again on the same file, interrupted at
the first, at the last and at some looks between. Behind each interrupt all rows, the indexes and
the answers of searches are what they were, the integrity check finds nothing, and another
connection sees the same; at the end the statement goes through.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.index import (
    column_parts,
    dictionary,
    integrity_rows,
    merged,
    slices,
    statistics,
)
from m2mdb.index.text import packed, postings
from m2mdb.pager import btree

ROWS = 2000
MOMENTS = 4
SMALL = 256
SIZES = ("SLICE_VALUES", "SLICE_NUMBERS", "SORTED_NUMBERS", "SORTED_VALUES", "WATCHED_VALUES",
         "SLICE_TEXTS")  # fmt: skip
STATEMENTS = {
    "ANALYZE": "ANALYZE",
    "text index": "CREATE INDEX i ON t USING bm25 (word)",
    "number index": "CREATE INDEX i ON t (n)",
    "text tree": "CREATE INDEX i ON t (word)",
    "unique tree": "CREATE UNIQUE INDEX i ON t (k, n)",
    "drop a tree": "DROP INDEX t_x",
    "lists": "CREATE INDEX i ON v USING hrm2 (e)",
    "drop a table": "DROP TABLE t",
    "forget": "FORGET FROM t WHERE n < 40",
    "forget vectors": "FORGET FROM v WHERE id < 40",
    "integrity_check": "PRAGMA integrity_check",
    "copy in": "COPY u FROM 'FOLDER/rows.csv'",
    "copy out": "COPY t TO 'FOLDER/out.jsonl'",
    "optimize": "OPTIMIZE",
    "vacuum": "VACUUM",
}
STEPWISE = {"optimize", "vacuum"}  # steps that are done stay: rows and answers are the same
STEPS = 30  # looks of their first run, at least


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = (column_parts, dictionary, integrity_rows, merged, packed, postings, slices,
               statistics)  # fmt: skip
    monkeypatch.setattr(btree, "LOOKED_PAGES", 2)
    for module in modules:
        for name in SIZES:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, SMALL)


@pytest.fixture
def con(tmp_path: Path) -> Iterator[m2mdb.Connection]:
    generator = np.random.default_rng(5)
    with m2mdb.connect(tmp_path / "x.m2m") as con:
        con.execute("CREATE TABLE t (k TEXT PRIMARY KEY, word TEXT, body TEXT, n INTEGER, x REAL)")
        con.execute("CREATE TABLE u (k TEXT UNIQUE, word TEXT, body TEXT, n INTEGER, x REAL)")
        con.execute("CREATE TABLE v (id INTEGER PRIMARY KEY, e VECTOR(16))")
        con.execute("CREATE INDEX t_body ON t USING bm25 (body)")
        con.execute("CREATE INDEX t_x ON t (x)")
        for part in range(2):
            count = ROWS // 2
            bodies = generator.integers(0, 60, (count, 6))
            con.collection("t").add({
                "k": [f"{part} {number}" for number in range(count)],
                "word": [None if n % 50 == 3 else f"word {n}"
                         for n in generator.integers(0, ROWS, count).tolist()],
                "body": [" ".join(f"w{n}" for n in row) for row in bodies.tolist()],
                "n": generator.integers(0, ROWS, count), "x": generator.standard_normal(count),
            })  # fmt: skip
        con.collection("v").add({"e": generator.standard_normal((2100, 16), np.float32)})
        con.execute("DELETE FROM t WHERE n % 5 = 0")
        con.execute(f"COPY t TO '{tmp_path}/rows.csv'")
        con.commit()
        yield con
    con.close()


def content(con: m2mdb.Connection) -> list[Any]:
    """All rows, and what searches by the text index and the vectors answer."""
    tables = sorted(con.execute("SELECT name FROM m2m_collections").fetchall())
    indexes = sorted(con.execute("SELECT name FROM m2m_indexes").fetchall())
    found: list[Any] = [tables, indexes]
    for (name,) in tables:
        if name != "v":
            found.append(con.execute(f"SELECT rowid, * FROM {name} ORDER BY rowid").fetchall())
    query = np.linspace(-1, 1, 16, dtype=np.float32)
    found.append(con.execute("SEARCH t MATCH 'w3 w7' K 9 RETURNING k").fetchall())
    found.append(con.execute("SELECT count(*) FROM v").fetchall())
    hits = con.collection("v").search(near=query, k=5, exact=True)
    found.append([hit.id for hit in hits])
    con.rollback()
    return found


class Looks:
    """Counts looks, and interrupts at one of them."""

    def __init__(self, con: m2mdb.Connection, at: int = 0) -> None:
        assert con.database is not None
        self.database = con.database
        self.given = con.database.check_interrupted
        self.at = at
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.at:
            self.database.interrupt()
        self.given()


def looked(
    con: m2mdb.Connection, statement: str, at: int, patch: pytest.MonkeyPatch
) -> tuple[int, bool]:
    """Run, interrupted at a look: how many looks there were, and whether it was interrupted."""
    looks, interrupted = Looks(con, at), False
    with patch.context() as patched:
        patched.setattr(looks.database, "check_interrupted", looks)
        try:
            con.execute(statement)
        except m2mdb.StatementInterruptedError:
            interrupted = True
    return looks.count, interrupted


@pytest.mark.parametrize("name", STATEMENTS)
def test_an_interrupt_at_any_look_leaves_what_was_there(
    con: m2mdb.Connection, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = STATEMENTS[name].replace("FOLDER", str(tmp_path))
    before, looks = content(con), STEPS
    for _ in range(0 if name in STEPWISE else 2):  # the first one fills caches
        con.execute("BEGIN IMMEDIATE")
        looks, _ = looked(con, statement, 0, monkeypatch)
        con.rollback()
        assert looks > 4

    moments = {1, looks, *random.Random(name).sample(range(1, looks + 1), min(looks, MOMENTS))}
    for at in sorted(moments):
        _, interrupted = looked(con, statement, at, monkeypatch)
        con.rollback()
        assert interrupted or (name in STEPWISE and at > 1), at
        assert content(con) == before, at
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)], at
    with m2mdb.connect(tmp_path / "x.m2m") as other:
        assert content(other) == before
    other.close()

    con.execute(statement)
    con.commit()
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("name", ["ANALYZE", "text index", "lists", "forget", "copy in"])
@pytest.mark.parametrize("by", ["Ctrl-C", "progress handler"])
def test_ctrl_c_and_progress_handlers_come_there_too(
    con: m2mdb.Connection, name: str, by: str, tmp_path: Path
) -> None:
    statement = STATEMENTS[name].replace("FOLDER", str(tmp_path))
    before, calls = content(con), [0]

    def stop() -> bool:
        calls[0] += 1
        if calls[0] == 12 and by == "Ctrl-C":
            raise KeyboardInterrupt
        return calls[0] == 12

    assert con.database is not None
    con.database.progress = stop  # which passes KeyboardInterrupt on, as a signal would come
    with pytest.raises(KeyboardInterrupt if by == "Ctrl-C" else m2mdb.StatementInterruptedError):
        con.execute(statement)
    con.database.progress = None

    con.rollback()
    assert content(con) == before
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.execute(statement)
