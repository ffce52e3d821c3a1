"""Receipts in a database that is backed up into again and again (S26)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import m2mdb
from tests.forget.conftest import Connect
from tests.forget.rows import Row, assert_sound, forget, insert_in_bulk
from tests.forget.traces import assert_gone, files_at, traces

STATUSES = "SELECT receipt, rows, digest, status FROM m2m_receipts ORDER BY receipt"


def receipts(con: m2mdb.Connection) -> list[tuple[Any, ...]]:
    return con.execute(STATUSES).fetchall()


def test_s26_a_done_receipt_in_a_backup_is_true_of_its_file(
    con: m2mdb.Connection, tmp_path: Path
) -> None:
    """The night before, the row was copied; its bytes were left in free pages."""
    rows = [Row(number) for number in range(700)]
    insert_in_bulk(con, rows)
    target = str(tmp_path / "copy.m2m")
    con.backup(target)
    assert traces(files_at(target), rows[0].needles())
    forget(con, rows[0])

    con.backup(target)

    assert_gone(files_at(target), rows[0].needles())
    copy = m2mdb.connect(target, autocommit=True, compute="numpy")
    assert receipts(copy) == receipts(con)
    assert receipts(copy)[0][3] == "done"
    assert_sound(copy, rows[1:])
    copy.close()


def test_s26_a_receipt_in_a_backup_is_pending_while_a_reader_is_in_the_way(
    con: m2mdb.Connection, tmp_path: Path
) -> None:
    rows = [Row(number) for number in range(700)]
    insert_in_bulk(con, rows)
    target = str(tmp_path / "copy.m2m")
    con.backup(target)
    reader = m2mdb.connect(target, autocommit=True, compute="numpy")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM notes").fetchall()
    forget(con, rows[0])

    con.backup(target)

    with m2mdb.connect(target, autocommit=True, compute="numpy") as copy:
        assert [row[3] for row in receipts(copy)] == ["pending"]
    reader.rollback()
    copy.execute("CHECKPOINT")
    assert receipts(copy) == receipts(con)
    assert_gone(files_at(target), rows[0].needles())
    copy.close()
    reader.close()


def test_s26_each_backup_brings_the_receipts_since(con: m2mdb.Connection, tmp_path: Path) -> None:
    rows = [Row(number) for number in range(20)]
    insert_in_bulk(con, rows)
    target = str(tmp_path / "copy.m2m")
    for row in rows[:3]:
        forget(con, row)
        con.backup(target)

        copy = m2mdb.connect(target, autocommit=True, compute="numpy")
        assert receipts(copy) == receipts(con)
        copy.close()
        assert_gone(files_at(target), row.needles())
    copy = m2mdb.connect(target, autocommit=True, compute="numpy")
    found = forget(copy, rows[5])
    assert found["receipt"] == 4
    forget(con, rows[6])
    forget(con, rows[7])
    con.backup(copy)
    own = (4, 1, found["digest"], "done")
    theirs = receipts(con)[3:]
    assert receipts(copy) == [
        *receipts(con)[:3], own, *[(number + 1, *rest) for number, *rest in theirs],
    ]  # fmt: skip
    assert_gone(files_at(target), rows[6].needles() | rows[7].needles())
    for _ in range(2):  # of no row: equal digests
        con.execute("FORGET FROM notes WHERE id = 'nobody'")
    for _ in range(2):
        con.backup(copy)
        assert len(receipts(copy)) == 8
    copy.close()


def test_s26_receipts_of_another_database_stay_and_are_true(
    con: m2mdb.Connection, connect: Connect, tmp_path: Path
) -> None:
    """Whose digests have another key cannot be taken over; what is freed goes all the same."""
    rows = [Row(number) for number in range(700)]
    insert_in_bulk(con, rows)
    forget(con, rows[0])
    before = receipts(con)
    other = m2mdb.connect(tmp_path / "other.m2m", autocommit=True, compute="numpy")
    other.execute("CREATE COLLECTION c (body TEXT)")
    other.execute("INSERT INTO c VALUES ('zqwkvjhgfd')")
    other.execute("FORGET FROM c WHERE true")

    other.backup(con)

    assert receipts(con) == before
    assert_gone(files_at(con.path), rows[1].needles() | rows[0].needles())
    other.close()
