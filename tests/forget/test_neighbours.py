"""FORGET beside what copies and moves pages: VACUUM, backups, and other connections (S26)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import m2mdb
from m2mdb.index import writer
from tests.forget.conftest import Connect
from tests.forget.rows import Row, assert_sound, delete, forget, insert, insert_in_bulk
from tests.forget.traces import Needles, assert_gone, files_at


@pytest.fixture
def rows(con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 50)
    found = [Row(number) for number in range(130)]
    insert_in_bulk(con, found[:120])
    insert(con, *found[120:])
    return found


def pending(con: m2mdb.Connection, reader: m2mdb.Connection, rows: list[Row]) -> list[Row]:
    """Forget rows of a segment and of the delta while somebody reads; those that are left."""
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM notes").fetchall()
    assert forget(con, *rows[::20])["status"] == "pending"
    return [row for row in rows if row not in rows[::20]]


def needles_of(rows: list[Row]) -> Needles:
    found: Needles = {}
    for row in rows[::20]:
        found |= row.needles()
    return found


def test_s26_vacuum_while_it_is_pending_and_afterwards(
    con: m2mdb.Connection, connect: Connect, path: str, rows: list[Row]
) -> None:
    reader = connect()
    left = pending(con, reader, rows)

    con.execute("VACUUM")
    assert len(reader.execute("SELECT id FROM notes").fetchall()) == len(rows)
    assert_sound(con, left)
    reader.close()
    size = os.path.getsize(path)
    con.execute("VACUUM")

    assert con.execute("SELECT status FROM m2m_receipts").fetchall() == [("done",)]
    assert_sound(con, left)
    assert_gone(files_at(path), needles_of(rows))
    assert os.path.getsize(path) < size


def test_s26_vacuum_leaves_no_byte_of_what_it_moved_for_a_later_forget(
    con: m2mdb.Connection, path: str, rows: list[Row]
) -> None:
    """Copies of rows lie in the places that VACUUM has left."""
    for row in rows[1:60]:
        delete(con, row)
    con.execute("VACUUM")

    forget(con, rows[0], rows[80])

    assert_gone(files_at(path), rows[0].needles() | rows[80].needles() | rows[7].needles())
    assert_sound(con, [row for row in rows[60:] if row is not rows[80]])


@pytest.mark.parametrize("way", ["VACUUM INTO", "backup"])
def test_s26_a_copy_made_while_it_is_pending_has_no_byte(
    con: m2mdb.Connection, connect: Connect, tmp_path: Path, rows: list[Row], way: str
) -> None:
    left = pending(con, connect(), rows)
    target = str(tmp_path / "copy.m2m")

    if way == "backup":
        con.backup(target)
    else:
        con.execute("VACUUM INTO ?", [target])

    assert_gone(files_at(target), needles_of(rows))
    copy = m2mdb.connect(target, autocommit=True)
    assert_sound(copy, left)
    copy.execute("CHECKPOINT")
    assert copy.execute("SELECT rows, status FROM m2m_receipts").fetchall() == [(7, "done")]
    assert copy.collection("notes").has_forgotten(
        copy.collection("notes").forget(left[0].id), [left[0].id]
    )
    copy.close()
    assert_gone(files_at(target), left[0].needles())


def test_s26_it_is_forgotten_by_whoever_comes_next(
    con: m2mdb.Connection, connect: Connect, path: str, rows: list[Row]
) -> None:
    """A connection that knew the catalog from before finds out at its next commit."""
    reader, other = connect(), connect()
    other.execute("UPDATE notes SET n = 1 WHERE id = ?", [rows[5].id])
    pending(con, reader, rows)
    con.close()
    reader.rollback()

    other.execute("UPDATE notes SET n = ? WHERE id = ?", [rows[5].values["n"], rows[5].id])

    assert other.execute("SELECT status FROM m2m_receipts").fetchall() == [("done",)]
    assert_gone(files_at(path), needles_of(rows))
