"""What a busy handler, a signal handler or a progress callback may do with its own connection."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import m2mdb
from m2mdb.wal.checkpoint import reset

ROWS = [1, 2, 3]


def rows(con: m2mdb.Connection) -> list[int]:
    return [x for (x,) in con.execute("SELECT x FROM t ORDER BY x").fetchall()]


@pytest.fixture
def connect(path: Path) -> Iterator[Callable[[], m2mdb.Connection]]:
    """Opens connections that commit each statement, and closes them."""
    opened: list[m2mdb.Connection] = []

    def another() -> m2mdb.Connection:
        opened.append(m2mdb.connect(path, timeout=5, autocommit=True))
        return opened[-1]

    yield another
    for con in opened:
        if con.database is not None:
            con.close()


def hold_back(con: m2mdb.Connection, reader: m2mdb.Connection) -> None:
    """A log that is copied and cannot be begun anew: a reader lives by its frames."""
    con.execute("INSERT INTO t VALUES (4, NULL)")
    reader.execute("BEGIN")
    assert rows(reader) == [*ROWS, 4]
    con.execute("PRAGMA wal_checkpoint")


@pytest.mark.parametrize("use", ["read", "write", "close", "rollback", "checkpoint"])
def test_s10_a_busy_handler_cannot_use_its_own_waiting_connection(
    path: Path, connect: Callable[[], m2mdb.Connection], use: str
) -> None:
    """Its use gave the locks of the waiting checkpoint up, which then lost the commit of another
    connection by beginning the log anew (S10)."""
    con, reader, writer = connect(), connect(), connect()
    hold_back(con, reader)
    uses: dict[str, Callable[[], object]] = {
        "read": lambda: rows(con),
        "write": lambda: con.execute("INSERT INTO t VALUES (99, NULL)"),
        "close": con.close,
        "rollback": con.rollback,
        "checkpoint": lambda: con.execute("PRAGMA wal_checkpoint(restart)"),
    }
    refused: list[str] = []
    writer.execute("PRAGMA busy_timeout=0")

    def handler(count: int) -> bool:
        if not count:
            with pytest.raises(m2mdb.ProgrammingError, match="inside one of its own calls"):
                uses[use]()
            with pytest.raises(m2mdb.DatabaseBusyError):  # the checkpoint still holds WRITER
                writer.execute("INSERT INTO t VALUES (5, NULL)")
            con.interrupt()  # which needs no lock
            refused.append(use)
            reader.execute("COMMIT")
        return count < 50

    con.set_busy_handler(handler)
    assert con.execute("PRAGMA wal_checkpoint(restart)").fetchone()[0] == 0
    con.set_busy_handler(None)
    assert refused == [use]
    writer.execute("INSERT INTO t VALUES (5, NULL)")
    assert rows(con) == rows(writer) == [*ROWS, 4, 5]
    for each in (con, reader, writer):
        each.close()
    with m2mdb.connect(path) as again:
        assert rows(again) == [*ROWS, 4, 5]
        assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    again.close()


def test_s10_a_busy_handler_may_use_other_connections(
    path: Path, connect: Callable[[], m2mdb.Connection]
) -> None:
    con, reader = connect(), connect()
    hold_back(con, reader)
    seen: list[list[int]] = []

    def handler(count: int) -> bool:
        seen.append(rows(reader))
        reader.execute("COMMIT")
        with m2mdb.connect(path) as third:
            seen.append(rows(third))
        third.close()
        return True

    con.set_busy_handler(handler)
    assert con.execute("PRAGMA wal_checkpoint(restart)").fetchone()[0] == 0
    assert seen == [[*ROWS, 4]] * 2


def test_s10_a_signal_handler_cannot_use_a_waiting_connection(
    path: Path, connect: Callable[[], m2mdb.Connection]
) -> None:
    con, reader, writer = connect(), connect(), connect()
    hold_back(con, reader)
    told: list[str] = []

    def handler(*_: object) -> None:
        try:
            rows(con)
        except m2mdb.ProgrammingError as error:
            told.append(str(error))
        finally:
            writer.execute("PRAGMA busy_timeout=0")
            with pytest.raises(m2mdb.DatabaseBusyError):
                writer.execute("INSERT INTO t VALUES (5, NULL)")
            reader.execute("COMMIT")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert con.execute("PRAGMA wal_checkpoint(restart)").fetchone()[0] == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(told) == 1
    writer.execute("INSERT INTO t VALUES (5, NULL)")
    assert rows(con) == [*ROWS, 4, 5]


def test_st3_an_interrupt_that_is_still_handled_does_not_count_as_a_running_call(
    connect: Callable[[], m2mdb.Connection],
) -> None:
    """What was stopped is over, even while its exception keeps its frames."""
    con, reader = connect(), connect()
    hold_back(con, reader)

    def stop(count: int) -> bool:
        raise KeyboardInterrupt

    con.set_busy_handler(stop)
    try:
        con.execute("PRAGMA wal_checkpoint(restart)")
    except KeyboardInterrupt:
        assert rows(con) == [*ROWS, 4]
        reader.execute("INSERT INTO t VALUES (5, NULL)")
        reader.execute("COMMIT")
    else:
        pytest.fail("not interrupted")
    assert rows(con) == [*ROWS, 4, 5]


def test_s10_a_log_that_has_moved_on_is_not_begun_anew(
    connect: Callable[[], m2mdb.Connection],
) -> None:
    """CP3 is judged by what is published, and holds where assertions are switched off."""
    con, writer = connect(), connect()
    con.execute("INSERT INTO t VALUES (4, NULL)")
    con.execute("PRAGMA wal_checkpoint")
    assert con.database is not None
    store = con.database.store
    writer.execute("PRAGMA wal_autocheckpoint=0")
    writer.execute("PRAGMA wal_checkpoint")
    before = store.end
    writer.execute("INSERT INTO t VALUES (5, NULL)")
    assert store.end == before
    with pytest.raises(m2mdb.OperationalError, match="not begun anew"):
        reset(store)
    assert rows(con) == rows(writer) == [*ROWS, 4, 5]


@pytest.mark.parametrize(
    "use", ["COMMIT", "ROLLBACK", "CREATE TABLE mine (x INTEGER)", "SELECT 1", "commit", "close"]
)
def test_a_backup_target_is_refused_while_it_is_written(
    path: Path, tmp_path: Path, connect: Callable[[], m2mdb.Connection], use: str
) -> None:
    """Its use in `progress` ended the backup's transaction, which then seemed to be damaged."""
    source = connect()
    for x in range(10, 20):
        source.execute("INSERT INTO t VALUES (?, ?)", (x, "body " * 1000))
    target = m2mdb.connect(tmp_path / "target.m2m", autocommit=True)
    target.execute("CREATE TABLE old (x INTEGER)")
    remainders: list[int] = []

    def progress(status: int, left: int, total: int) -> None:
        remainders.append(left)
        assert rows(source) == [*ROWS, *range(10, 20)]
        with pytest.raises(m2mdb.ProgrammingError, match="a backup writes into"):
            getattr(target, use)() if use in ("commit", "close") else target.execute(use)

    source.backup(target, pages=2, progress=progress)
    assert len(remainders) > 2
    assert remainders[-1] == 0
    assert rows(target) == [*ROWS, *range(10, 20)]
    with pytest.raises(m2mdb.ProgrammingError, match="no such"):
        target.execute("SELECT * FROM old")

    def stop(*_: int) -> None:
        target.execute("COMMIT")

    target.execute("INSERT INTO t VALUES (99, NULL)")
    with pytest.raises(m2mdb.ProgrammingError, match="a backup writes into"):
        source.backup(target, pages=2, progress=stop)
    assert rows(target) == [*ROWS, *range(10, 20), 99]
    assert target.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    target.close()
