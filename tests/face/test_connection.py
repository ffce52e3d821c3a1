"""Connection: transactions, closing, forks, threads and what it says of itself."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import m2mdb

ROOT = Path(__file__).parent.parent.parent


def count(con: m2mdb.Connection) -> int:
    return int(con.execute("SELECT count(*) FROM notes").fetchone()[0])


def test_the_first_writing_statement_opens_a_transaction(
    con: m2mdb.Connection, notes: m2mdb.Collection
) -> None:
    con.execute("SELECT * FROM notes")
    assert not con.in_transaction

    con.execute("INSERT INTO notes (id) VALUES ('e')")
    assert con.in_transaction
    assert count(con) == 5

    con.rollback()
    assert not con.in_transaction
    assert count(con) == 4


def test_commit_is_seen_by_others_and_rollback_never(
    con: m2mdb.Connection, notes: m2mdb.Collection, path: Path
) -> None:
    other = m2mdb.connect(path)
    con.execute("INSERT INTO notes (id) VALUES ('e')")
    assert count(other) == 4

    con.commit()
    assert count(other) == 5

    con.execute("INSERT INTO notes (id) VALUES ('f')")
    con.rollback()
    assert count(other) == 5
    other.close()


def test_with_commits_or_rolls_back_and_does_not_close(
    con: m2mdb.Connection, notes: m2mdb.Collection
) -> None:
    with con as same:
        con.execute("INSERT INTO notes (id) VALUES ('e')")
    assert same is con
    assert not con.in_transaction

    with pytest.raises(ZeroDivisionError), con:
        con.execute("INSERT INTO notes (id) VALUES ('f')")
        _ = 1 / 0
    assert count(con) == 5


def test_commit_and_rollback_without_a_transaction_do_nothing(con: m2mdb.Connection) -> None:
    con.commit()
    con.rollback()

    assert not con.in_transaction


def test_autocommit_commits_each_statement(path: Path, notes: m2mdb.Collection) -> None:
    con = m2mdb.connect(path, autocommit=True)
    con.execute("INSERT INTO notes (id) VALUES ('e')")
    assert not con.in_transaction
    assert notes.count() == 5

    con.execute("BEGIN")
    con.execute("INSERT INTO notes (id) VALUES ('f')")
    assert con.in_transaction
    con.execute("ROLLBACK")
    assert notes.count() == 5
    con.close()


def test_turning_autocommit_on_commits(con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    assert con.autocommit is False
    con.execute("INSERT INTO notes (id) VALUES ('e')")

    con.autocommit = True

    assert not con.in_transaction
    assert count(con) == 5
    con.autocommit = False
    con.execute("INSERT INTO notes (id) VALUES ('f')")
    assert con.in_transaction


def test_a_failed_statement_undoes_itself_only(
    con: m2mdb.Connection, notes: m2mdb.Collection
) -> None:
    con.execute("INSERT INTO notes (id) VALUES ('e')")
    with pytest.raises(m2mdb.IntegrityError):
        con.execute("INSERT INTO notes (id) VALUES ('f'), ('a')")

    assert con.in_transaction
    con.commit()
    assert count(con) == 5


def test_ddl_is_transactional(con: m2mdb.Connection) -> None:
    con.execute("CREATE COLLECTION t (a INTEGER)")
    con.rollback()

    assert con.collections() == []
    with pytest.raises(m2mdb.ProgrammingError, match="t"):
        con.collection("t")


def test_savepoints(con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    con.execute("INSERT INTO notes (id) VALUES ('e')")
    con.execute("SAVEPOINT s")
    con.execute("INSERT INTO notes (id) VALUES ('f')")
    con.execute("ROLLBACK TO s")
    con.execute("RELEASE s")
    con.commit()

    assert count(con) == 5


def test_close_rolls_back(path: Path, con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    con.execute("INSERT INTO notes (id) VALUES ('e')")
    con.close()

    con = m2mdb.connect(path)
    assert count(con) == 4
    con.close()


def test_a_closed_connection_refuses(con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    con.close()

    assert "closed" in repr(con)
    for use in (
        con.close,
        con.commit,
        con.rollback,
        con.cursor,
        con.interrupt,
        con.collections,
        notes.count,
        lambda: con.execute("SELECT 1"),
        lambda: con.in_transaction,
        lambda: con.autocommit,
        con.__enter__,
        lambda: notes.search(match="red"),
    ):
        with pytest.raises(m2mdb.InterfaceError, match=r"memory\.m2m is closed"):
            use()


def test_total_changes(con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    before = con.total_changes
    con.execute("UPDATE notes SET stars = 9")
    con.execute("SELECT * FROM notes")
    notes.delete("a")
    con.executemany("INSERT INTO notes (id) VALUES (?)", [("e",), ("f",)])

    assert con.total_changes - before == 4 + 1 + 2


def test_a_dropped_connection_with_an_open_transaction_warns(
    path: Path, notes: m2mdb.Collection
) -> None:
    notes.connection.close()
    con = m2mdb.connect(path)
    con.execute("INSERT INTO notes (id) VALUES ('e')")
    with pytest.warns(ResourceWarning, match="dropped with an open transaction"):
        del con
        gc.collect()

    con = m2mdb.connect(path)
    assert count(con) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del con
        gc.collect()


KEEPERS = (
    "pass",
    "sys.kept = con",
    "import builtins; builtins.kept = con",
    "class Node: pass\nnode = Node(); node.self, node.con = node, con",
    "m2mdb.cursor.kept = con",
)


@pytest.mark.parametrize("keeper", KEEPERS)
def test_a_connection_left_open_at_the_end_of_the_program_warns(path: Path, keeper: str) -> None:
    program = (
        f"import sys; sys.path.append({str(ROOT)!r})\nimport m2mdb\n"
        f"con = m2mdb.connect({str(path)!r}, compute='numpy')\n"
        f"con.execute('CREATE COLLECTION t (a INTEGER)')\n{keeper}\n"
    )

    found = subprocess.run(
        [sys.executable, "-W", "default", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == 0
    assert found.stderr.count("ResourceWarning: the connection to ") == 1
    assert "ImportError" not in found.stderr
    assert "Traceback" not in found.stderr


def test_repr_says_where_and_what(path: Path, con: m2mdb.Connection) -> None:
    assert repr(con) == f"<m2mdb.Connection '{path}' idle>"
    con.execute("CREATE COLLECTION t (a INTEGER)")
    assert repr(con) == f"<m2mdb.Connection '{path}' in a transaction>"


def test_check_same_thread(path: Path) -> None:
    con = m2mdb.connect(path, check_same_thread=True)
    errors: list[Exception] = []

    def use() -> None:
        try:
            con.execute("SELECT 1")
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()

    assert isinstance(errors[0], m2mdb.ProgrammingError)
    assert "check_same_thread" in str(errors[0])
    con.close()


def test_threads_share_a_connection(con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(20):
                notes.add({"id": f"{number}-{i}", "body": f"thread {number}", "stars": i})
                assert len(notes.search(match="red", k=2)) == 2
                con.execute("SELECT count(*) FROM notes").fetchone()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert notes.count() == 4 + 80


def test_interrupt_stops_a_running_statement(
    con: m2mdb.Connection, notes: m2mdb.Collection
) -> None:
    con.interrupt()  # nothing runs

    def parameters() -> Iterator[tuple[str, str]]:
        yield ("x", "a")
        other = threading.Thread(target=con.interrupt)
        other.start()
        other.join()
        yield ("y", "b")

    with pytest.raises(m2mdb.StatementInterruptedError):
        con.executemany("UPDATE notes SET topic = ? WHERE id = ?", parameters())
    con.commit()
    assert notes.count("topic IN ('x', 'y')") == 0


def _use_after_fork(con: m2mdb.Connection, notes: m2mdb.Collection) -> None:
    for use in (con.commit, notes.count, con.close, lambda: con.execute("SELECT 1")):
        try:
            use()
        except m2mdb.InterfaceError as error:
            if "fork" not in str(error):
                os._exit(3)
        else:
            os._exit(4)
    repr(con)
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_refused_and_the_parent_goes_on(
    con: m2mdb.Connection, notes: m2mdb.Collection
) -> None:
    con.execute("INSERT INTO notes (id) VALUES ('e')")
    child = multiprocessing.get_context("fork").Process(target=_use_after_fork, args=(con, notes))
    child.start()
    child.join(60)

    assert child.exitcode == 0
    con.commit()
    assert count(con) == 5


def test_a_busy_writer_is_named(path: Path, notes: m2mdb.Collection) -> None:
    other = m2mdb.connect(path, timeout=0.0)
    notes.connection.execute("INSERT INTO notes (id) VALUES ('e')")

    with pytest.raises(m2mdb.DatabaseBusyError, match=str(os.getpid())):
        other.execute("INSERT INTO notes (id) VALUES ('f')")
    notes.connection.commit()
    other.execute("INSERT INTO notes (id) VALUES ('f')")
    other.commit()

    assert notes.count() == 6
    other.close()


def test_collections_are_listed_and_described(
    con: m2mdb.Connection, notes: m2mdb.Collection
) -> None:
    con.create_collection("b; drop", [("a b", "INTEGER"), ('q"', "TEXT")])

    assert [collection.name for collection in con.collections()] == ["b; drop", "notes"]
    assert repr(con.collection("NOTES")) == (
        "<m2mdb.Collection notes (id TEXT, body TEXT, topic TEXT, stars INTEGER, "
        "embedding VECTOR(2)), 4 rows>"
    )
    con.create_collection("notes", "a INTEGER", if_not_exists=True)
    with pytest.raises(m2mdb.ProgrammingError, match="notes"):
        con.create_collection("notes", "a INTEGER")


def test_encoders_are_found_by_name(path: Path) -> None:
    mine = m2mdb.HashingEncoder(16)
    con = m2mdb.connect(path, encoders={"mine": mine})

    assert con.encoder("mine") is mine
    assert con.encoder("hashing").dimensions == 384
    assert con.encoder("hashing", 8).dimensions == 8
    with pytest.raises(m2mdb.ProgrammingError, match="unknown encoder 'minilm'"):
        con.encoder("minilm")
    with pytest.raises(m2mdb.DataError, match="dimension 16, wanted is 8"):
        con.encoder("mine", 8)
    con.close()


def test_a_stale_snapshot_has_a_name_that_a_retry_can_catch(tmp_path: Path) -> None:
    path = tmp_path / "a.m2m"
    one, other = m2mdb.connect(path), m2mdb.connect(path)
    one.execute("CREATE TABLE t (n INTEGER)")
    one.commit()
    one.execute("BEGIN")
    one.execute("SELECT * FROM t").fetchall()
    other.execute("INSERT INTO t VALUES (1)")
    other.commit()
    with pytest.raises(m2mdb.StaleSnapshotError, match="begin it again") as caught:
        one.execute("INSERT INTO t VALUES (2)")
    assert isinstance(caught.value, m2mdb.DatabaseBusyError)
    one.rollback()
    one.execute("INSERT INTO t VALUES (2)")
    one.commit()
    assert one.execute("SELECT count(*) FROM t").fetchone() == (2,)
