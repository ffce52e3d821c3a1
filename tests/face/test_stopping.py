"""Statements that are stopped: at each of their checks, and by another thread while they scan."""

from __future__ import annotations

import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import m2mdb

COUNT = 20_000
STATEMENTS = [
    "SELECT count(*) FROM t WHERE abs(x) > 0.5",
    "SELECT count(*) FROM t WHERE s LIKE '%9%'",
    "SELECT upper(s), x + 1 FROM t",
    "SELECT * FROM t ORDER BY s",
    "UPDATE t SET x = x + 1, s = upper(s) WHERE id % 3 > 0",
    "UPDATE t SET id = id + 1000000",
    "DELETE FROM t WHERE abs(x) < 0.5",
    "INSERT INTO t SELECT id + 1000000, lower(s), x, v FROM t",
    "COPY t TO 'PATH.csv'",
]


@pytest.fixture
def con(tmp_path: Path) -> m2mdb.Connection:
    """Rows in a segment, and some in the delta."""
    connection = m2mdb.connect(tmp_path / "a.m2m", compute="numpy")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, x REAL, v VECTOR(2))")
    rng = np.random.default_rng(1)
    connection.collection("t").add(
        {
            "id": np.arange(COUNT),
            "s": [f"text {number}" for number in range(COUNT)],
            "x": rng.random(COUNT),
            "v": rng.random((COUNT, 2), np.float32),
        }
    )
    connection.execute("UPDATE t SET s = 'changed' WHERE id < 200")
    connection.commit()
    return connection


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_stopped_at_any_of_its_checks_changes_nothing(
    con: m2mdb.Connection, tmp_path: Path, statement: str
) -> None:
    statement = statement.replace("PATH", str(tmp_path / "copy"))
    sums = "SELECT count(*), sum(id), sum(x), sum(length(s)) FROM t"
    before = con.execute(sums).fetchall()
    files = sorted(path.name for path in tmp_path.iterdir())
    asked = 0

    def count() -> bool:
        nonlocal asked
        asked += 1
        return False

    con.execute(statement)  # what it may keep for the next time is kept
    con.rollback()
    con.set_progress_handler(count)
    con.execute(statement)
    con.rollback()
    (tmp_path / "copy.csv").unlink(missing_ok=True)
    total = asked

    assert total >= 1
    for stop_at in sorted({*range(1, min(total, 8) + 1), *range(8, total, total // 8 + 1), total}):
        left = stop_at

        def stop() -> bool:
            nonlocal left
            left -= 1
            return bool(left == 0)

        con.set_progress_handler(stop)
        with pytest.raises(m2mdb.StatementInterruptedError, match="progress handler"):
            con.execute(statement)
        con.set_progress_handler(None)
        assert con.execute(sums).fetchall() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == files
        assert not con.in_transaction
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()


def test_scans_ask_often_enough(con: m2mdb.Connection) -> None:
    """A slice of 2,048 rows of a closure, of 65,536 texts that are decoded, of a column copied."""
    for statement, least in (
        ("SELECT count(*) FROM t WHERE abs(x) > 0.5", COUNT // 2048),
        ("SELECT upper(s) FROM t", COUNT // 2048),
        ("SELECT count(*) FROM t WHERE s = 'text 7'", 2),
        ("SELECT id, s, x FROM t", 3),
    ):
        asked: list[int] = []
        con.set_progress_handler(partial(asked.append, 1))
        con.execute(statement).fetchall()
        assert len(asked) >= least, statement
    con.close()


def test_another_thread_stops_a_scan(con: m2mdb.Connection) -> None:
    started = threading.Event()

    def slow(value: float) -> float:
        started.set()
        time.sleep(0.00001)
        return value

    con.create_function("slow", 1, slow)
    took: list[float] = []

    def interrupt() -> None:
        started.wait(20)
        took.append(time.monotonic())
        con.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(m2mdb.StatementInterruptedError):
        con.execute("SELECT sum(slow(x)), sum(slow(x + 1)), sum(slow(x + 2)) FROM t")
    took.append(time.monotonic())
    thread.join()

    assert took[1] - took[0] < 2  # some 0.2 s of it is the slice; the whole would be many
    assert con.execute("SELECT count(*) FROM t").fetchone() == (COUNT,)
    con.close()


def test_an_interrupt_that_came_too_late_is_not_for_the_next_call(con: m2mdb.Connection) -> None:
    database = con.engine()
    for call in (
        lambda: con.execute("SELECT upper(s) FROM t"),
        lambda: con.collection("t").search(near=[1.0, 0.0], where="s LIKE '%7'"),
        lambda: con.collection("t").add({"id": np.arange(COUNT, 2 * COUNT)}),
        lambda: con.collection("t").update(COUNT, {"s": "x"}),
        lambda: con.collection("t").delete([COUNT]),
    ):
        database.interrupt()
        call()
    con.close()


def test_a_handler_of_a_signal_stops_the_statement_of_its_own_thread(
    con: m2mdb.Connection,
) -> None:
    """The handler runs in the thread that holds the connection's lock; it did nothing there."""
    slow = "SELECT count(*) FROM t AS a, t AS b WHERE upper(a.s) || b.s LIKE '%none%'"
    before = signal.signal(signal.SIGALRM, lambda *_: con.interrupt())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        started = time.monotonic()
        with pytest.raises(m2mdb.StatementInterruptedError):
            con.execute(slow)
        assert time.monotonic() - started < 5  # the whole takes minutes
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    con.interrupt()  # nothing runs
    assert con.execute("SELECT count(*) FROM t").fetchone() == (COUNT,)
    con.close()
