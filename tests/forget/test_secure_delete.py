"""PRAGMA secure_delete: what a connection frees is zeros after the next checkpoint (S26)."""

from __future__ import annotations

import pytest

import m2mdb
from m2mdb.pager.btree import BTree
from m2mdb.pager.freespace import SCRUB, decode_run
from tests.forget.conftest import Connect
from tests.forget.rows import Row, assert_sound, insert, insert_in_bulk
from tests.forget.traces import (
    Needles,
    assert_free_pages_are_zero,
    assert_gone,
    files_at,
    traces,
)


def free_runs(con: m2mdb.Connection) -> list[tuple[bytes, bytes]]:
    assert con.database is not None
    with con.database.reading() as view:
        return list(BTree(view.pages, view.header().free_root).scan())


def needles_of(rows: list[Row]) -> Needles:
    found: Needles = {}
    for row in rows:
        found |= row.needles()
    return found


def test_s26_the_pragma_is_a_switch_of_the_connection(
    con: m2mdb.Connection, connect: Connect
) -> None:
    def value(connection: m2mdb.Connection) -> object:
        return connection.execute("PRAGMA secure_delete").fetchone()[0]

    assert value(con) == 0
    for word, wanted in (("on", 1), ("off", 0), ("1", 1), ("0", 0), ("TRUE", 1)):
        assert con.execute(f"PRAGMA secure_delete = {word}").fetchone()[0] == wanted
    assert (value(con), value(connect())) == (1, 0)
    with pytest.raises(m2mdb.ProgrammingError, match="on or off"):
        con.execute("PRAGMA secure_delete = fast")


@pytest.mark.parametrize("moment", ["CHECKPOINT", "PRAGMA wal_checkpoint", "close"])
def test_s26_freed_pages_are_overwritten_at_a_checkpoint(
    con: m2mdb.Connection, path: str, moment: str
) -> None:
    gone, kept = [Row(number) for number in range(600)], [Row(9001)]
    insert_in_bulk(con, gone)
    insert(con, *kept)
    con.execute("CHECKPOINT truncate")
    con.execute("PRAGMA secure_delete = on")
    con.execute("DELETE FROM notes WHERE id <> ?", [kept[0].id])
    con.execute("OPTIMIZE")
    assert traces(files_at(path), gone[0].needles())

    if moment == "close":
        con.close()
    else:
        con.execute(moment)
        assert_free_pages_are_zero(files_at(path)[path], 4096, free_runs(con))
        assert_sound(con, kept)

    assert_gone(files_at(path), needles_of(gone[::60]))


def test_s26_pages_to_be_scrubbed_are_not_used_before(
    con: m2mdb.Connection, connect: Connect, path: str
) -> None:
    """Not by other connections either, nor after a restart."""
    insert_in_bulk(con, [Row(number) for number in range(600)])
    con.execute("CHECKPOINT truncate")
    reader = connect()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM notes").fetchall()
    con.execute("PRAGMA secure_delete = on")
    con.execute("DROP COLLECTION notes")
    waiting = {run for run in free_runs(con) if decode_run(*run)[2] & SCRUB}
    assert sum(decode_run(*run)[1] for run in waiting) > 50

    other = connect()
    other.execute("CREATE COLLECTION c (body TEXT)")
    other.executemany("INSERT INTO c VALUES (?)", [("x" * 100,)] * 2000)

    assert waiting <= set(free_runs(other))
    reader.rollback()
    other.execute("CHECKPOINT")
    assert not any(decode_run(*run)[2] & SCRUB for run in free_runs(other))
    assert_free_pages_are_zero(files_at(path)[path], 4096, free_runs(other))
    assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_s26_automatic_checkpoints_scrub_too(con: m2mdb.Connection, path: str) -> None:
    """Else a program that never asks for a checkpoint would never get its pages back."""
    assert con.database is not None
    con.database.store.wal_autocheckpoint = 50
    con.execute("PRAGMA secure_delete = on")
    rows = [Row(number) for number in range(600)]
    insert_in_bulk(con, rows)
    con.execute("DELETE FROM notes")

    for number in range(60):
        con.execute("INSERT INTO notes (id) VALUES (?)", [f"other {number}"])

    assert not any(decode_run(*run)[2] & SCRUB for run in free_runs(con))
    assert_gone(files_at(path), needles_of(rows[::60]))


def test_s26_slack_in_pages_is_zero_always(con: m2mdb.Connection, path: str) -> None:
    """Without secure_delete: a node that lost cells is written with zeros behind its content."""
    rows = [Row(number) for number in range(6)]
    con.execute("CREATE COLLECTION c (topic TEXT)")
    con.execute("CREATE INDEX c_topic ON c (topic)")
    con.executemany("INSERT INTO c VALUES (?)", [(row.values["topic"],) for row in rows])
    assert con.database is not None
    with con.database.reading() as view:
        info = view.collection("c").schema.indexes[0]
    con.execute("DELETE FROM c WHERE topic <> ?", [rows[0].values["topic"]])
    con.execute("CHECKPOINT truncate")

    page = files_at(path)[path][(info.root - 1) * 4096 : info.root * 4096]

    assert rows[0].values["topic"].encode() in page
    used = int.from_bytes(page[20:24], "little")
    assert not any(page[24 + used :])
    assert all(row.values["topic"].encode() not in page for row in rows[1:])
