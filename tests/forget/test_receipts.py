"""The receipt of FORGET: what it says, when it is done, and who is waited for (S26)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb.index import scrubbing
from tests.forget.conftest import Connect
from tests.forget.rows import Row, forget, insert, insert_in_bulk
from tests.forget.traces import assert_gone, files_at, traces


def receipts(con: m2mdb.Connection) -> list[tuple[Any, ...]]:
    return con.execute("SELECT receipt, rows, status, holders FROM m2m_receipts").fetchall()


@pytest.fixture
def rows(con: m2mdb.Connection) -> list[Row]:
    found = [Row(number) for number in range(8)]
    insert(con, *found)
    return found


def test_s26_a_receipt_is_one_row(con: m2mdb.Connection, rows: list[Row]) -> None:
    cursor = con.execute("FORGET FROM notes WHERE id = :id", {"id": rows[0].id})

    names = [column[0] for column in cursor.description or ()]
    (found,) = cursor.fetchall()
    assert names == ["rows", "commit", "digest", "status", "holders", "receipt"]
    assert (found[0], found[3:]) == (1, ("done", None, 1))
    assert len(bytes.fromhex(found[2])) == 32
    assert cursor.rowcount == 1


def test_s26_an_older_snapshot_is_waited_for_and_named(
    con: m2mdb.Connection, connect: Connect, path: str, rows: list[Row]
) -> None:
    reader = connect()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM notes").fetchall()

    receipt = forget(con, rows[0])

    assert receipt["status"] == "pending"
    assert f"process {os.getpid()} reads commit" in receipt["holders"]
    assert reader.execute("SELECT id FROM notes WHERE id = ?", [rows[0].id]).fetchall()
    con.execute("CHECKPOINT")
    assert receipts(con)[0][2] == "pending"
    assert traces(files_at(path), rows[0].needles())
    reader.rollback()
    con.execute("CHECKPOINT")
    assert receipts(con) == [(1, 1, "done", None)]
    assert_gone(files_at(path), rows[0].needles())


@pytest.mark.parametrize("moment", ["close of the reader", "commit", "another forget", "reopen"])
def test_s26_every_next_moment_completes_it(
    con: m2mdb.Connection, connect: Connect, path: str, rows: list[Row], moment: str
) -> None:
    reader = connect()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM notes").fetchall()
    assert forget(con, rows[0])["status"] == "pending"

    if moment == "close of the reader":
        reader.close()
    elif moment == "commit":
        reader.rollback()
        con.execute("INSERT INTO notes (id) VALUES ('another one')")
    elif moment == "another forget":
        reader.rollback()
        assert forget(con, rows[1])["status"] == "done"
    else:
        con.close()
        reader.close()
        con = connect()

    assert {status for _, _, status, _ in receipts(con)} == {"done"}
    assert_gone(files_at(path), rows[0].needles())


def test_s26_a_reader_of_the_newest_commit_that_reads_the_log_is_waited_for(
    con: m2mdb.Connection, connect: Connect, path: str, rows: list[Row]
) -> None:
    """The log cannot be overwritten under it."""
    old = connect()
    old.execute("BEGIN")
    old.execute("SELECT count(*) FROM notes").fetchall()
    forget(con, rows[0])
    newest = connect()
    newest.execute("BEGIN")
    newest.execute("SELECT count(*) FROM notes").fetchall()
    old.rollback()

    con.execute("CHECKPOINT")
    assert receipts(con)[0][2] == "pending"
    assert len(newest.execute("SELECT id FROM notes").fetchall()) == len(rows) - 1

    newest.rollback()
    con.execute("CHECKPOINT")
    assert receipts(con)[0][2] == "done"


def test_s26_it_is_pending_inside_a_transaction(
    con: m2mdb.Connection, path: str, rows: list[Row]
) -> None:
    con.execute("BEGIN")
    receipt = forget(con, rows[0])
    assert (receipt["status"], receipt["holders"]) == (
        "pending", "the open transaction of this connection",
    )  # fmt: skip
    con.commit()

    assert receipts(con) == [(1, 1, "done", None)]
    assert_gone(files_at(path), rows[0].needles())


def test_s26_the_same_without_autocommit(connect: Connect, path: str) -> None:
    con = connect(autocommit=False)
    con.execute("CREATE COLLECTION c (body TEXT)")
    con.execute("INSERT INTO c VALUES ('zqwkvjhgfd')")
    con.commit()

    status = con.execute("FORGET FROM c WHERE true").fetchone()[3]
    assert status == "pending"
    con.commit()

    assert con.execute("SELECT status FROM m2m_receipts").fetchall() == [("done",)]
    assert_gone(files_at(path), {"text": b"zqwkvjhgfd"})


def test_s26_what_is_rolled_back_is_not_forgotten(con: m2mdb.Connection, rows: list[Row]) -> None:
    con.execute("BEGIN")
    con.execute("SAVEPOINT s")
    forget(con, rows[0])
    con.execute("ROLLBACK TO s")
    con.execute("COMMIT")
    con.execute("BEGIN")
    forget(con, rows[1])
    con.rollback()

    assert receipts(con) == []
    assert con.execute("SELECT count(*) FROM notes").fetchall() == [(len(rows),)]
    con.execute("CHECKPOINT truncate")
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_s26_receipts_persist(con: m2mdb.Connection, connect: Connect, rows: list[Row]) -> None:
    first, second = forget(con, rows[0]), forget(con, rows[1], rows[2])
    con.close()

    con = connect()

    found = con.execute("SELECT rows, commit, digest, status, holders, receipt, collection "
                        "FROM m2m_receipts").fetchall()  # fmt: skip
    assert found == [(*first.values(), "notes"), (*second.values(), "notes")]
    con.execute("DROP COLLECTION notes")
    assert len(receipts(con)) == 2


def test_s26_the_digest_is_keyed_and_over_the_ids(con: m2mdb.Connection, rows: list[Row]) -> None:
    notes = con.collection("notes")

    receipt = notes.forget([rows[1].id, rows[0].id])

    assert notes.has_forgotten(receipt, [rows[0].id, rows[1].id])
    assert not notes.has_forgotten(receipt, [rows[0].id])
    assert not notes.has_forgotten(receipt, [rows[0].id, rows[2].id])
    assert not notes.has_forgotten(receipt, [])
    other = m2mdb.connect(":memory:", autocommit=True)
    other.execute("CREATE COLLECTION notes (id TEXT PRIMARY KEY)")
    other.collection("notes").add({"id": [rows[0].id, rows[1].id]})
    same = other.collection("notes").forget([rows[0].id, rows[1].id])
    assert same.digest != receipt.digest
    assert not other.collection("notes").has_forgotten(receipt, [rows[0].id, rows[1].id])
    other.close()


def test_s26_a_collection_forgets_by_ids_and_by_where(
    con: m2mdb.Connection, path: str, rows: list[Row]
) -> None:
    notes = con.collection("notes")

    one = notes.forget(rows[0].id)
    two = notes.forget(where="topic = ?", params=(rows[1].values["topic"],))
    none = notes.forget("no such id")

    assert [(each.rows, each.done) for each in (one, two, none)] == [
        (1, True),
        (1, True),
        (0, True),
    ]
    assert isinstance(one, m2mdb.Receipt)
    assert con.total_changes == len(rows) + 2
    assert_gone(files_at(path), rows[0].needles() | rows[1].needles())


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("INTEGER", 3, 4),
        ("REAL", 1.5, 2.5),
        ("TEXT", "a", "ab"),
        ("BLOB", b"a", b"ab"),
        ("TIMESTAMP", "2024-05-06 07:08:09", "2024-05-06 07:08:10"),
    ],
)
def test_s26_digests_are_over_keys_of_every_type(
    connect: Connect, kind: str, first: object, second: object
) -> None:
    con = connect()
    con.execute(f"CREATE COLLECTION c (id {kind} PRIMARY KEY)")
    con.executemany("INSERT INTO c VALUES (?)", [(first,), (second,)])
    keys = [row[0] for row in con.execute("SELECT id FROM c ORDER BY id").fetchall()]
    collection = con.collection("c")

    receipt = collection.forget(keys[:1])

    assert receipt.rows == 1
    assert collection.has_forgotten(receipt, keys[:1])
    assert not collection.has_forgotten(receipt, keys)
    assert not collection.has_forgotten(receipt, keys[1:])
    for wrong in ([object()], ["x", object()]):
        with pytest.raises(m2mdb.DataError):
            collection.has_forgotten(receipt, wrong)


def test_s26_an_untrusted_file_may_have_receipts_and_pages_to_be_scrubbed(
    con: m2mdb.Connection, connect: Connect, rows: list[Row]
) -> None:
    reader = connect()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM notes").fetchall()
    forget(con, rows[0])
    assert con.database is not None
    con.database.store.wal_autocheckpoint = 0
    reader.rollback()
    for connection in (reader, con):
        assert connection.database is not None
        connection.database.store.close()  # as it is, without the scrub
        connection.database = None

    stranger = connect(untrusted=True)

    assert stranger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    stranger.execute("INSERT INTO notes (id) VALUES ('x')")
    assert receipts(stranger) == [(1, 1, "done", None)]


def test_s26_rowids_are_the_ids_where_there_is_no_key(connect: Connect) -> None:
    con = connect()
    con.execute("CREATE COLLECTION c (body TEXT)")
    ids = con.collection("c").add({"body": ["a", "b", "c"]})

    receipt = con.collection("c").forget(ids[:2])

    assert con.collection("c").has_forgotten(receipt, ids[:2])
    assert con.execute("SELECT body FROM c").fetchall() == [("c",)]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("FORGET FROM notes", m2mdb.ProgrammingError),
        ("FORGET FROM nowhere WHERE true", m2mdb.ProgrammingError),
        ("FORGET FROM m2m_receipts WHERE true", m2mdb.ProgrammingError),
        ("FORGET FROM notes WHERE no_such_column = 1", m2mdb.ProgrammingError),
        ("FORGET FROM notes WHERE count(*) > 1", m2mdb.ProgrammingError),
        ("FORGET FROM notes WHERE id = ?", m2mdb.ProgrammingError),
        ("FORGET FROM notes WHERE true RETURNING id", m2mdb.ProgrammingError),
    ],
)
def test_s26_what_is_refused(
    con: m2mdb.Connection, rows: list[Row], statement: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        con.execute(statement)

    assert con.execute("SELECT count(*) FROM notes").fetchall() == [(len(rows),)]
    assert receipts(con) == []


def test_s26_a_python_call_needs_ids_or_where(con: m2mdb.Connection, rows: list[Row]) -> None:
    with pytest.raises(m2mdb.ProgrammingError):
        con.collection("notes").forget()
    with pytest.raises(m2mdb.ProgrammingError):
        con.collection("notes").forget(["a"], where="true")
    with pytest.raises(m2mdb.ProgrammingError):
        con.executemany("FORGET FROM notes WHERE id = ?", [("a",)])


def test_s26_explain_says_how_the_rows_are_found(con: m2mdb.Connection, rows: list[Row]) -> None:
    statement = "FORGET FROM notes WHERE topic = ?"
    plan = con.execute(f"EXPLAIN {statement}").fetchall()
    assert [detail for _, _, detail in plan] == [
        "FORGET FROM notes", "SEARCH notes USING INDEX by_topic (topic=?)",
    ]  # fmt: skip
    assert con.execute("SELECT count(*) FROM notes").fetchall() == [(len(rows),)]

    found = con.execute(f"EXPLAIN ANALYZE {statement}", [rows[0].values["topic"]]).fetchall()

    assert any("1 rows changed" in detail for _, _, detail in found)
    assert receipts(con) == [(1, 1, "done", None)]


def test_s26_a_reader_only_connection_sees_receipts_and_forgets_nothing(
    con: m2mdb.Connection, connect: Connect, rows: list[Row]
) -> None:
    forget(con, rows[0])
    reader = connect(read_only=True)

    assert receipts(reader) == [(1, 1, "done", None)]
    with pytest.raises(m2mdb.OperationalError):
        reader.execute("FORGET FROM notes WHERE true")


def test_s26_a_database_in_memory(row: Any) -> None:
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute("CREATE COLLECTION c (body TEXT)")
    con.execute("INSERT INTO c VALUES ('zqwkvjhgfd')")

    assert con.execute("FORGET FROM c WHERE true").fetchone()[3] == "done"
    con.close()


def test_s26_an_ordinary_commit_scrubs_nothing(con: m2mdb.Connection, path: str) -> None:
    """Without FORGET and secure_delete, nothing waits and nothing is overwritten."""
    insert_in_bulk(con, [Row(number) for number in range(600)])
    con.execute("DELETE FROM notes")
    con.execute("CHECKPOINT truncate")

    assert receipts(con) == []
    assert any(Row(0).values["raw"] in raw for raw in files_at(path).values())


def test_s26_a_commit_looks_for_receipts_only_where_the_catalog_has_changed(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other one compares a number: nobody pays for FORGET who does not use it."""
    insert(con, Row(0))
    looks: list[bool] = []
    look = scrubbing._is_pending

    def counted(database: Any) -> bool:
        looks.append(look(database))
        return looks[-1]

    monkeypatch.setattr(scrubbing, "_is_pending", counted)

    for number in range(1, 30):
        insert(con, Row(number))
    before = len(looks)
    assert before <= 1

    forget(con, Row(3))
    assert len(looks) > before


def test_s26_a_receipt_can_be_used_by_its_number_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "a.m2m"
    con = m2mdb.connect(path, autocommit=True)
    con.execute("CREATE TABLE t (id TEXT PRIMARY KEY, body TEXT)")
    con.execute("INSERT INTO t VALUES ('a', 'x'), ('b', 'y')")
    number = con.execute("FORGET FROM t WHERE id = 'a'").fetchone()[-1]
    con.close()
    again = m2mdb.connect(path)
    notes = again.collection("t")
    assert notes.has_forgotten(number, ["a"])
    assert not notes.has_forgotten(number, ["b"])
    with pytest.raises(m2mdb.ProgrammingError, match="no receipt 7"):
        notes.has_forgotten(7, ["a"])
    for wrong in (None, "1", (1,), True):
        with pytest.raises(m2mdb.InterfaceError, match="its number"):
            notes.has_forgotten(wrong, ["a"])  # type: ignore[arg-type]
    again.close()
