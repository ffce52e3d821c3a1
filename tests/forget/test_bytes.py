"""FORGET leaves no byte of a row, wherever the row has been (S26)."""

from __future__ import annotations

from typing import Any

import pytest

import m2mdb
from m2mdb.index import maintenance, writer
from m2mdb.pager.btree import BTree
from tests.forget.conftest import Connect
from tests.forget.rows import (
    Row,
    assert_sound,
    delete,
    forget,
    insert,
    insert_in_bulk,
    update,
)
from tests.forget.traces import (
    Needles,
    assert_free_pages_are_zero,
    assert_gone,
    assert_kept,
    files_at,
    text_needles,
    traces,
)


@pytest.fixture
def bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of few rows."""
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 8)


def needles_of(*rows: Row) -> Needles:
    found: Needles = {}
    for row in rows:
        found |= row.needles()
    return found


def assert_forgotten(con: m2mdb.Connection, path: str, *rows: Row) -> None:
    """Gone after a checkpoint, from files and free pages, and after the close as well."""
    con.execute("CHECKPOINT truncate")
    files = files_at(path)
    assert_gone(files, needles_of(*rows))
    database = con.database
    assert database is not None
    with database.reading() as view:
        free = list(BTree(view.pages, view.header().free_root).scan())
    assert_free_pages_are_zero(files[path], database.store.page_size, free)
    con.close()
    assert_gone(files_at(path), needles_of(*rows))


def test_s26_the_search_bites_on_every_needle_of_a_row(con: m2mdb.Connection, path: str) -> None:
    """What the other tests do not find would be found if it were there."""
    row = Row(1)
    insert(con, row)
    insert_in_bulk(con, [Row(number) for number in range(100, 700)])
    for statement in ("OPTIMIZE", "CHECKPOINT truncate"):
        con.execute(statement)

    found = traces(files_at(path), row.needles())

    wanted = ("as given in utf-8", "folded in utf-8", "stored", "key", "hash of", "raw", " little")
    for form in (*wanted, "f4 vector in <f4", "f2 vector in <f2", "i1 vector in i1"):
        assert any(form in trace for trace in found), (form, found)


def test_s26_a_plain_delete_leaves_the_bytes(con: m2mdb.Connection, path: str) -> None:
    row = Row(1)
    insert(con, row, Row(2))
    con.execute("CHECKPOINT truncate")

    delete(con, row)
    con.execute("CHECKPOINT truncate")

    assert len(traces(files_at(path), row.needles())) > 20
    con.close()
    assert traces(files_at(path), row.needles())


def test_s26_a_row_of_the_delta(con: m2mdb.Connection, path: str) -> None:
    rows = [Row(number) for number in range(6)]
    insert(con, *rows)

    receipt = forget(con, rows[2])

    assert (receipt["rows"], receipt["status"], receipt["holders"]) == (1, "done", None)
    assert_gone(files_at(path), rows[2].needles())
    assert_sound(con, [row for row in rows if row is not rows[2]])
    assert_kept(files_at(path), [rows[3].id.encode(), rows[3].values["v"].tobytes()])
    assert_forgotten(con, path, rows[2])


def test_s26_rows_of_a_segment(con: m2mdb.Connection, path: str) -> None:
    rows = [Row(number) for number in range(600)]
    insert_in_bulk(con, rows)
    con.execute("CHECKPOINT truncate")
    gone = rows[::97]

    assert forget(con, *gone)["rows"] == len(gone)

    assert_sound(con, [row for row in rows if row not in gone])
    assert_forgotten(con, path, *gone)


def test_s26_every_row(con: m2mdb.Connection, path: str) -> None:
    rows = [Row(number) for number in range(40)]
    insert(con, *rows[:20])
    con.execute("OPTIMIZE")
    insert(con, *rows[20:])

    con.execute("FORGET FROM notes WHERE true")

    assert_sound(con, [])
    assert_forgotten(con, path, *rows)


def test_s26_older_versions_of_a_row(con: m2mdb.Connection, path: str, bulk: None) -> None:
    first, others = Row(1), [Row(number) for number in range(10, 30)]
    insert_in_bulk(con, [first, *others])
    second, third = first.updated(1), first.updated(2)
    update(con, second)
    con.execute("OPTIMIZE")
    update(con, third)

    assert forget(con, third)["rows"] == 1

    assert_sound(con, others)
    assert_forgotten(con, path, first, second, third)


def test_s26_rows_that_were_deleted_before(con: m2mdb.Connection, path: str, bulk: None) -> None:
    """FORGET of a row that is gone already takes its bytes out, and reports no row."""
    in_segment, in_delta, kept = Row(1), Row(2), [Row(number) for number in range(10, 22)]
    insert_in_bulk(con, [in_segment, *kept])
    insert(con, in_delta)
    delete(con, in_segment)
    delete(con, in_delta)
    assert traces(files_at(path), in_segment.needles())

    receipt = forget(con, in_segment, in_delta)

    assert (receipt["rows"], receipt["status"]) == (0, "done")
    assert_sound(con, kept)
    assert_forgotten(con, path, in_segment, in_delta)


def test_s26_what_was_deleted_merged_and_freed_before(con: m2mdb.Connection, path: str) -> None:
    """The versions lie in free pages only, which no structure knows any more."""
    rows = [Row(number) for number in range(600)]
    insert_in_bulk(con, rows)
    for row in rows[:3]:
        delete(con, row)
    con.execute("OPTIMIZE")
    con.execute("CHECKPOINT truncate")
    assert traces(files_at(path), rows[0].needles())

    forget(con, rows[3])

    assert_forgotten(con, path, *rows[:4])


def test_s26_what_a_rolled_back_transaction_has_written(con: m2mdb.Connection, path: str) -> None:
    """Extents are written in place before anything is committed, behind the last page too."""
    row, undone = Row(1), [Row(number) for number in range(1000, 1600)]
    insert(con, row)
    con.execute("BEGIN")
    insert_in_bulk(con, undone)
    con.rollback()
    assert traces(files_at(path), undone[0].needles())

    forget(con, row)

    assert_forgotten(con, path, row, *undone[:5])


def test_s26_a_replaced_row_and_one_whose_key_was_changed(connect: Connect, path: str) -> None:
    """Their older versions have other rowids than the row that is forgotten."""
    con = connect()
    con.execute("CREATE COLLECTION c (id INTEGER PRIMARY KEY, slug TEXT UNIQUE, body TEXT)")
    needles: Needles = {}
    for word in ("qwrtzpsdfg", "hjklmnbvcx", "zxcvbnmlkj", "gfdsptrzwq"):
        needles |= text_needles(word)
    con.execute("INSERT INTO c VALUES (1, 'one', 'qwrtzpsdfg'), (2, 'two', 'hjklmnbvcx')")
    con.execute("UPDATE c SET id = 7, body = 'zxcvbnmlkj' WHERE id = 1")
    con.collection("c").add({"id": 9, "slug": "two", "body": "gfdsptrzwq"}, on_conflict="replace")

    con.execute("FORGET FROM c WHERE id IN (7, 9)")

    assert con.execute("SELECT count(*) FROM c").fetchall() == [(0,)]
    assert_forgotten(con, path)
    assert_gone(files_at(path), needles)


def test_s26_keys_that_stand_in_branches(connect: Connect, path: str) -> None:
    """Separators are prefixes of keys; those of forgotten and of deleted keys go."""
    con = connect()
    con.execute("CREATE COLLECTION c (topic TEXT, n INTEGER)")
    con.execute("CREATE INDEX by_topic ON c (topic)")
    long = "x" * 30
    for start in range(0, 900, 300):
        rows = [(f"zqwkvj{long}{number:05}", number) for number in range(start, start + 300)]
        con.executemany("INSERT INTO c VALUES (?, ?)", rows)
        con.executemany("INSERT INTO c VALUES (?, ?)", [(f"kept{n:05}", -n) for _, n in rows])
    con.execute("DELETE FROM c WHERE n >= 450")
    con.execute("CHECKPOINT truncate")

    con.execute("FORGET FROM c WHERE n >= 0 AND n < 450")

    con.execute("CHECKPOINT truncate")
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert con.execute("SELECT count(*) FROM c WHERE topic >= 'kept'").fetchall() != [(0,)]
    assert_gone(files_at(path), {"the beginning of a key": b"zqwkvj"})
    assert_forgotten(con, path)


def test_s26_a_long_value_in_overflow_pages(con: m2mdb.Connection, path: str) -> None:
    row, other = Row(1), Row(2)
    row.values["body"] = other.values["body"] = "x" * 20_000
    row.values["body"] += " wxyzwxyzwv"
    insert(con, row, other)

    forget(con, row)

    assert_gone(files_at(path), text_needles("wxyzwxyzwv"))
    assert_sound(con, [other])
    con.close()


def test_s26_kept_commits_are_ended(con: m2mdb.Connection, path: str, bulk: None) -> None:
    """AS OF cannot be asked for what is forgotten; the error says why (S25)."""
    con.execute("PRAGMA keep_commits = 1000")
    row, others = Row(1), [Row(number) for number in range(10, 30)]
    insert_in_bulk(con, [row, *others])
    update(con, row.updated(1))
    con.execute("OPTIMIZE")
    (before,) = con.execute("SELECT oldest_commit FROM m2m_collections").fetchone()

    receipt = forget(con, row)

    (after,) = con.execute("SELECT oldest_commit FROM m2m_collections").fetchone()
    assert before < after == receipt["commit"]
    with pytest.raises(m2mdb.DatabaseError, match=r"(?i)commit"):
        con.execute(f"SELECT id FROM notes AS OF {before}").fetchall()
    assert_sound(con, others)
    assert_forgotten(con, path, row, row.updated(1))


@pytest.mark.parametrize("page_size", [4096, 65536])
def test_s26_other_page_sizes(connect: Connect, path: str, page_size: int) -> None:
    con = connect(page_size=page_size)
    con.execute("CREATE COLLECTION c (body TEXT FULLTEXT)")
    con.execute("INSERT INTO c VALUES ('qwrtzpsdfg here'), ('other')")

    con.execute("FORGET FROM c WHERE body LIKE 'q%'")

    assert_gone(files_at(path), text_needles("qwrtzpsdfg"))
    assert con.execute("SELECT body FROM c").fetchall() == [("other",)]


def test_s26_small_flushes_and_merges_on_the_way(
    con: m2mdb.Connection, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "FLUSH_ROWS", 5)
    monkeypatch.setattr(maintenance, "TIER_FACTOR", 3)
    rows: list[Any] = [Row(number) for number in range(40)]
    for row in rows:
        insert(con, row)
    for row in rows[::5]:
        update(con, row.updated(1))
    for row in rows[1::5]:
        delete(con, row)

    for row in rows[2::5]:
        assert forget(con, row)["status"] == "done"

    left = [row.updated(1) for row in rows[::5]] + rows[3::5] + rows[4::5]
    assert_sound(con, left)
    for row in rows[::5]:
        assert_gone(files_at(path), row.needles_beside_key())
    assert_forgotten(con, path, *rows[1::5], *rows[2::5])
