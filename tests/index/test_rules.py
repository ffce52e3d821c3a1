"""The rules of docs/reliability.md that are the index layer's: S15, S16, S20 to S24, by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.index import delta, maintenance
from m2mdb.index.collection import SegmentPart, deletion_key
from m2mdb.index.database import Database
from m2mdb.pager import btree

DIMENSION = 6


def make(path: Path) -> m2mdb.Connection:
    con = m2mdb.connect(path)
    con.execute(
        "CREATE COLLECTION notes (id TEXT PRIMARY KEY, body TEXT FULLTEXT, n INTEGER, "
        f"a VECTOR({DIMENSION}), b VECTOR({DIMENSION}, f16), c VECTOR({DIMENSION}, i8))"
    )
    con.commit()
    return con


def rows(first: int, count: int, seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, DIMENSION)).astype(np.float32)
    return {
        "id": [f"k{i}" for i in range(first, first + count)],
        "body": [f"dark w{i % 7}" for i in range(count)],
        "n": list(range(count)),
        "a": vectors,
        "b": vectors.astype(np.float16),
        "c": rng.integers(-128, 127, (count, DIMENSION)).astype(np.int8) | 1,
    }


def database_of(con: m2mdb.Connection) -> Database:
    assert con.database is not None
    return con.database


def vectors_of(con: m2mdb.Connection) -> dict[str, list[bytes]]:
    found = con.execute("SELECT id, a, b, c FROM notes").fetchall()
    return {row[0]: [row[i].tobytes() for i in (1, 2, 3)] for row in found}


@pytest.fixture
def con(tmp_path: Path) -> Iterator[m2mdb.Connection]:
    connection = make(tmp_path / "notes.m2m")
    yield connection
    if connection.database is not None:
        connection.close()


def test_s15_ids_that_come_again_after_a_rollback_bring_nothing_back(con: m2mdb.Connection) -> None:
    """Collections, segments and plans of an undone transaction share ids with those made next."""
    text = "SELECT body FROM x WHERE id = 1"
    con.execute("CREATE COLLECTION x (id INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
    con.collection("x").add({"id": list(range(600)), "body": ["undone"] * 600})
    assert con.execute(text).fetchall() == [("undone",)]
    con.rollback()
    con.execute("CREATE COLLECTION x (body TEXT FULLTEXT, id INTEGER PRIMARY KEY)")
    con.collection("x").add({"id": list(range(600)), "body": ["kept"] * 600})
    con.commit()
    assert con.execute(text).fetchall() == [("kept",)]
    assert con.execute("SEARCH x MATCH 'undone'").fetchall() == []
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_s16_the_tree_of_the_pager_reads_a_transaction_as_it_reads_a_snapshot(
    con: m2mdb.Connection,
) -> None:
    """`Pages` is all that a B+tree knows: snapshot, transaction and damaged file alike."""
    con.collection("notes").add(rows(0, 20))
    with database_of(con).reading() as view:
        root = view.collection("notes").entry.delta_root
        outside = list(btree.BTree(view.pages, root).scan())
    with database_of(con).writing() as write:
        inside = list(btree.BTree(write.transaction, root).scan())
    con.rollback()
    assert outside == inside
    assert outside


def test_s20_vectors_come_back_bit_for_bit_from_wherever_they_lie(
    con: m2mdb.Connection, tmp_path: Path
) -> None:
    """As given, through delta, flush, bulk segment, merge, update of another column and reopen."""
    given: dict[str, list[bytes]] = {}
    for first, count in ((0, 5), (100, 600), (2000, 600), (5, 30)):
        batch = rows(first, count, first + 1)
        con.collection("notes").add(batch)
        for i, key in enumerate(batch["id"]):
            given[key] = [batch[name][i].tobytes() for name in "abc"]
        assert vectors_of(con) == given
    con.execute("UPDATE notes SET n = n + 1 WHERE n % 3 = 0")
    con.commit()
    assert vectors_of(con) == given
    con.execute("OPTIMIZE")
    assert vectors_of(con) == given
    con.close()
    again = m2mdb.connect(tmp_path / "notes.m2m")
    assert vectors_of(again) == given
    again.close()


def test_s21_an_update_keeps_the_rowid_and_ends_the_place(con: m2mdb.Connection) -> None:
    con.collection("notes").add(rows(0, 600))
    before = dict(con.execute("SELECT id, rowid FROM notes").fetchall())
    con.execute("UPDATE notes SET body = 'light' WHERE id = 'k300'")
    con.execute("DELETE FROM notes WHERE id = 'k301'")
    con.collection("notes").add(rows(301, 1))
    con.commit()
    after = dict(con.execute("SELECT id, rowid FROM notes").fetchall())
    again = after.pop("k301")
    assert again > max(before.values()), "a rowid is never given twice"
    del before["k301"]
    assert after == before
    with database_of(con).reading() as view:
        notes = view.collection("notes")
        (segment,) = notes.segments
        ordinal = segment.ordinal(after["k300"])
        assert ordinal is not None
        part, place = notes.place(after["k300"]) or (None, None)
        assert part == 0, "the new version lies in the delta"
        stored = notes.parts()[1]
        assert isinstance(stored, SegmentPart)
        assert not stored.is_live(ordinal)
        assert place is not None


def test_s21_deletions_are_chunks_of_a_tree(con: m2mdb.Connection) -> None:
    """A delete rewrites one chunk, not one bitmap of the segment."""
    con.collection("notes").add(rows(0, 2000))
    for low in (0, 700, 1990):
        con.execute("DELETE FROM notes WHERE n >= ? AND n < ?", (low, low + 5))
    con.commit()
    with database_of(con).writing() as write:
        maintenance.flush(write, write.collection("notes"))
    con.commit()
    with database_of(con).reading() as view:
        entry = view.collection("notes").entry
        tree = btree.BTree(view.pages, entry.deletes_root)
        chunks = list(tree.scan(deletion_key(1, 0), deletion_key(2, 0)))
        assert len(chunks) == 3
        assert max(len(value) for _, value in chunks) < 200
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (1985,)


def test_s22_a_commit_merges_at_most_so_many_bytes(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    real = maintenance.merge_step

    def step(write: Any, view: Any, most: int) -> int:
        assert most <= limit
        taken.append(real(write, view, most))
        return taken[-1]

    limit = 600_000
    monkeypatch.setattr(maintenance, "MERGE_BYTES", limit)
    monkeypatch.setattr(maintenance, "merge_step", step)
    for batch in range(20):
        taken.clear()
        con.collection("notes").add(rows(batch * 600, 600, batch))
        assert sum(taken) <= limit
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (12_000,)


def test_s22_what_others_delete_while_a_merge_waits_stays_deleted(
    con: m2mdb.Connection, tmp_path: Path
) -> None:
    """Merges run in the writer's transaction: none is prepared outside and published later."""
    con.collection("notes").add(rows(0, 600))
    con.collection("notes").add(rows(600, 600))
    other = m2mdb.connect(tmp_path / "notes.m2m")
    other.execute("DELETE FROM notes WHERE n < 10")
    other.commit()
    con.execute("OPTIMIZE")
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (1180,)
    assert other.execute("SELECT count(*) FROM notes WHERE n < 10").fetchone() == (0,)
    other.close()


def test_s23_the_delta_is_flushed_at_its_limit_and_mirrored_by_its_new_entries(
    con: m2mdb.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "FLUSH_ROWS", 50)
    assert delta.FLUSH_ROWS == 4096
    assert delta.FLUSH_BYTES == 8 << 20
    reader = m2mdb.connect(tmp_path / "notes.m2m")
    for number in range(60):
        con.collection("notes").add(rows(number, 1, number))
        assert reader.execute("SELECT count(*) FROM notes").fetchone() == (number + 1,)
        with database_of(reader).reading() as view:
            notes = view.collection("notes")
            read = notes.mirror.end - notes.mirror.base
            assert read == (number + 1 if number < 49 else number - 49)
    assert vectors_of(reader) == vectors_of(con)
    reader.close()


def test_s24_statistics_count_dead_rows_until_they_are_merged(con: m2mdb.Connection) -> None:
    con.collection("notes").add(rows(0, 600))
    con.commit()
    text = "SEARCH notes MATCH 'w3' K 1 RETURNING score"
    with_all = con.execute(text).fetchone()[0]
    con.execute("DELETE FROM notes WHERE n >= 300 AND n % 7 <> 3")
    con.commit()
    assert con.execute(text).fetchone()[0] == with_all
    con.execute("OPTIMIZE")
    assert con.execute(text).fetchone()[0] < with_all, "w3 is no rare word any more"
