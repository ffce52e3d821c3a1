"""VACUUM INTO and backup: the copy is one commit, whole, and goes on by itself."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.backup import to_connection
from m2mdb.connection import Connection
from m2mdb.index.copying import copy_into
from m2mdb.index.database import Database
from m2mdb.pager.header import Header
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.sim_machine import Call
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.query.executor import execute
from tests.vacuum.cases import PATH, everything, fill, insert, opened, pages

COPY = "d/copy.m2m"


def connected(database: Database) -> Connection:
    return Connection(database, database.path)


# -- VACUUM INTO -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_vacuum_into_keeps_every_answer(seed: int) -> None:
    vfs = SimVfs(seed)
    database = opened(vfs)
    fill(database, seed, batches=5)
    before = everything(database)

    count = copy_into(database, COPY)

    copy = opened(vfs, COPY)
    assert everything(copy) == before == everything(database)
    live, page_count, in_file = pages(copy)
    assert page_count == in_file == count <= 1.1 * live + 1
    insert(copy, "other", Random(seed), range(10**6, 10**6 + 700))
    execute(copy, "DELETE FROM other WHERE id % 2 = 0")
    everything(copy)
    assert everything(database) == before
    copy.close()
    database.close()
    assert sorted(vfs.machine.disk.names) == [COPY, PATH]


def test_the_new_file_is_a_database_of_its_own() -> None:
    vfs = MemoryVfs()
    database = opened(vfs, page_size=8192)
    fill(database, 1, batches=2)
    execute(database, "PRAGMA user_version = 7")
    database.checkpoint("full")

    execute(connected_files(database), "VACUUM INTO ?", (COPY,))

    headers = [Header.decode(vfs.open(path).read_at(0, 512), path) for path in (PATH, COPY)]
    assert headers[0].uuid != headers[1].uuid
    assert headers[1].user_version == 7
    assert headers[1].page_size == 8192
    assert headers[1].commit >= headers[0].commit
    copy = opened(vfs, COPY)
    assert execute(copy, "PRAGMA freelist_count").rows == [(0,)]
    copy.close()


def connected_files(database: Database) -> Database:
    """Let a database in memory write its copies to its own file system."""
    database.store.vfs.name = "files"
    return database


def test_dead_rows_are_not_in_the_new_file() -> None:
    vfs = SimVfs(3)
    database = opened(vfs)
    execute(database, "CREATE COLLECTION t (id INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
    with database.writing() as write:
        write.insert("t", {"body": [f"secret{i:05d}" for i in range(3000)]}, 3000)
    execute(database, "DELETE FROM t WHERE id <= 1000")

    copy_into(database, COPY)

    file = vfs.open(COPY)
    raw = file.read_at(0, file.size())
    assert raw.count(b"secret00999") == 0
    assert raw.count(b"secret01001") > 0


@pytest.mark.parametrize("content", [b"x", b"\0" * 4096])
def test_vacuum_into_refuses_a_file_that_is_there(content: bytes) -> None:
    vfs = SimVfs(1)
    database = opened(vfs)
    fill(database, 1, batches=1)
    vfs.open(COPY, create=True).write_at(0, content)

    with pytest.raises(m2mdb.OperationalError, match="exists and is not empty"):
        copy_into(database, COPY)
    with pytest.raises(m2mdb.OperationalError, match="exists and is not empty"):
        copy_into(database, PATH)

    file = vfs.open(COPY)
    assert file.read_at(0, file.size()) == content
    assert [name for name in vfs.machine.disk.names if "-new-" in name] == []


def test_vacuum_into_takes_an_empty_file_and_a_reader_may_write_it() -> None:
    vfs = SimVfs(2)
    database = opened(vfs)
    fill(database, 2, batches=1)
    before = everything(database)
    database.close()
    vfs.open(COPY, create=True)

    reader = opened(vfs, read_only=True)
    copy_into(reader, COPY)
    reader.close()

    assert everything(opened(vfs, COPY)) == before


@pytest.mark.parametrize("target", ["", "a\0b", 5, None, b"x"])
def test_vacuum_into_refuses_what_is_no_path(target: Any) -> None:
    database = opened(MemoryVfs())
    with pytest.raises(m2mdb.ProgrammingError, match="path of a new file"):
        execute(database, "VACUUM INTO ?", (target,))


def test_a_failure_leaves_nothing_under_either_name() -> None:
    for number in range(1, 60, 7):
        vfs = SimVfs(number)
        database = opened(vfs)
        fill(database, 4, batches=1, most=30)
        vfs.fail("write sync create rename sync_dir", at_call=number)
        try:
            copy_into(database, COPY)
        except m2mdb.OperationalError:
            failed = True
        else:
            failed = False
        vfs.clear_faults()
        names = vfs.machine.disk.names
        assert [name for name in names if "-new-" in name] == []
        if COPY in names:
            copy = opened(vfs, COPY)
            assert everything(copy) == everything(database)
            copy.close()
        else:
            assert failed


def test_a_database_in_memory_goes_to_a_real_file(tmp_path: Path) -> None:
    con = m2mdb.connect(":memory:", compute="numpy", autocommit=True)
    con.execute("CREATE COLLECTION t (x INTEGER)")
    con.execute("INSERT INTO t VALUES (1), (2)")

    row = con.execute("VACUUM INTO :path", {"path": str(tmp_path / "new.m2m")}).fetchone()

    assert row[0] == str(tmp_path / "new.m2m")
    assert os.listdir(tmp_path) == ["new.m2m"]
    other = m2mdb.connect(tmp_path / "new.m2m", compute="numpy")
    assert other.execute("SELECT sum(x) FROM t").fetchone() == (3,)
    other.close()
    con.close()


# -- backup ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "page_size"), [(0, 4096), (1, 8192)])
def test_backup_keeps_every_answer(seed: int, page_size: int) -> None:
    database, into = opened(MemoryVfs()), opened(MemoryVfs(), page_size=page_size)
    fill(database, seed, batches=4)
    fill(into, seed + 1, batches=2)
    before = everything(database)
    source, target = connected(database), connected(into)

    for _ in range(3):
        source.backup(target)
        assert everything(into) == before
    assert everything(database) == before
    insert(into, "other", Random(seed), range(10**6, 10**6 + 30))
    execute(into, "UPDATE other SET n = 5, body = 'blue' WHERE id % 3 = 0")
    execute(into, "DELETE FROM other WHERE id % 2 = 0")
    everything(into)


def test_a_backup_to_a_younger_database_has_no_commit_of_its_future() -> None:
    """Commits of copied rows are bounded by the target's own: AS OF begins with the copy."""
    database, into = opened(MemoryVfs()), opened(MemoryVfs())
    execute(database, "PRAGMA keep_commits = 1000")
    execute(database, "CREATE COLLECTION t (id INTEGER PRIMARY KEY, x INTEGER)")
    for number in range(40):
        execute(database, "INSERT INTO t (x) VALUES (?)", (number,))
    with database.writing() as write:
        write.insert("t", {"x": list(range(600))}, 600)
    execute(database, "UPDATE t SET x = -1 WHERE id % 10 = 0")
    execute(database, "DELETE FROM t WHERE id % 7 = 0")
    execute(database, "OPTIMIZE")
    execute(database, "INSERT INTO t (x) VALUES (?)", (77,))
    expected = execute(database, "SELECT id, x FROM t ORDER BY id").rows

    connected(database).backup(connected(into))

    commit = into.store.last_commit
    assert commit < database.store.last_commit
    asked = f"SELECT id, x FROM t AS OF {commit} ORDER BY id"
    assert execute(into, asked).rows == expected
    assert execute(into, "PRAGMA integrity_check").rows == [("ok",)]  # nor a deletion of its past
    execute(into, "UPDATE t SET x = 0 WHERE id > 5")
    execute(into, "OPTIMIZE")
    assert execute(into, asked).rows == expected
    with pytest.raises(m2mdb.Error):
        execute(into, f"SELECT id FROM t AS OF {commit - 1}")
    assert execute(into, "PRAGMA integrity_check").rows == [("ok",)]


def test_the_past_goes_into_a_new_file() -> None:
    vfs = SimVfs(1)
    database = opened(vfs)
    execute(database, "PRAGMA keep_commits = 1000")
    execute(database, "CREATE COLLECTION t (id INTEGER PRIMARY KEY, x INTEGER)")
    with database.writing() as write:
        write.insert("t", {"x": list(range(900))}, 900)
    commit = database.store.last_commit
    execute(database, "DELETE FROM t WHERE id % 2 = 0")
    asked = f"SELECT id, x FROM t AS OF {commit} ORDER BY id"
    expected = execute(database, asked).rows
    assert len(expected) == 900

    copy_into(database, COPY)
    execute(database, "VACUUM")

    assert execute(database, asked).rows == expected
    copy = opened(vfs, COPY)
    assert execute(copy, asked).rows == expected
    assert execute(copy, "SELECT count(*) FROM t").rows == [(450,)]


def test_other_connections_of_the_target_see_the_old_or_the_new_content() -> None:
    """CO3, CO4: caches that hold an older content with equal ids and roots are not believed."""
    vfs = MemoryVfs()
    into, other = opened(vfs), opened(vfs)
    for number in range(6):
        database = opened(MemoryVfs())
        execute(database, "CREATE COLLECTION t (id INTEGER PRIMARY KEY, x INTEGER)")
        for value in range(number + 3):
            execute(database, "INSERT INTO t (x) VALUES (?)", (100 * number + value,))
        execute(other, "BEGIN")
        old = everything_of_t(other)
        connected(database).backup(connected(into))
        assert everything_of_t(other) == old
        execute(other, "COMMIT")
        expected = [(100 * number + value,) for value in range(number + 3)]
        assert everything_of_t(other) == everything_of_t(into) == expected


def everything_of_t(database: Database) -> list[Any]:
    with database.reading() as view:
        if "t" not in view.names():
            return []
    return execute(database, "SELECT x FROM t ORDER BY id").rows


def test_the_copy_is_one_commit_while_others_write() -> None:
    """Each commit keeps a sum; writers of two processes commit at every call of the backup."""
    vfs = SimVfs(5)
    database = opened(vfs)
    execute(database, "CREATE COLLECTION t (id INTEGER PRIMARY KEY, x INTEGER, pad BLOB)")
    with database.writing() as write:
        write.insert("t", {"x": [0] * 800, "pad": [b"p" * 500] * 800}, 800)
    execute(database, "INSERT INTO t (x, pad) VALUES (0, ?)", (b"q" * 9000,))
    writers = [opened(vfs.fork_process(), timeout=0.0) for _ in range(2)]
    into = opened(vfs, COPY)
    rng = Random(5)
    inside = False
    commits = 0

    def write_now(call: Call) -> None:
        nonlocal inside, commits
        if inside or call.process != vfs.pid or rng.random() < 0.5:
            return
        inside = True
        writer = rng.choice(writers)
        one, other = rng.sample(range(1, 802), 2)
        execute(writer, "BEGIN")
        execute(writer, "UPDATE t SET x = x + 5 WHERE id = ?", (one,))
        execute(writer, "UPDATE t SET x = x - 5 WHERE id = ?", (other,))
        execute(writer, "COMMIT")
        commits += 1
        inside = False

    vfs.on_call = write_now
    connected(database).backup(connected(into), pages=3)
    vfs.on_call = None

    assert commits > 20
    assert execute(into, "SELECT count(*), sum(x) FROM t").rows == [(801, 0)]
    assert execute(into, "PRAGMA integrity_check").rows == [("ok",)]
    assert execute(database, "SELECT count(*), sum(x) FROM t").rows == [(801, 0)]


def test_progress_is_told_as_sqlite3_tells_it() -> None:
    database, into = opened(MemoryVfs()), opened(MemoryVfs())
    fill(database, 3, batches=2)
    told: list[tuple[int, int, int]] = []

    connected(database).backup(
        connected(into), pages=10, progress=lambda *step: told.append(step), sleep=0
    )

    status, remaining, totals = zip(*told, strict=True)
    assert set(status[:-1]) == {0}
    assert told[-1] == (101, 0, totals[0])
    assert list(remaining) == sorted(remaining, reverse=True)
    assert len(set(totals)) == 1
    assert len(told) > 5
    told.clear()
    connected(database).backup(connected(into), progress=lambda *step: told.append(step))
    assert told == [(101, 0, totals[0])]


def test_an_exception_of_progress_leaves_the_target_as_it_was() -> None:
    database, into = opened(MemoryVfs()), opened(MemoryVfs())
    fill(database, 3, batches=2)
    fill(into, 4, batches=2)
    before = everything(into)
    target = connected(into)

    def fail(status: int, remaining: int, total: int) -> None:
        if remaining < total / 2:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        connected(database).backup(target, pages=5, progress=fail)

    assert everything(into) == before
    assert not target.in_transaction
    connected(database).backup(target)
    assert everything(into) == everything(database)


# -- by the face, on a real disk -------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Connection:
    con = m2mdb.connect(tmp_path / "source.m2m", compute="numpy")
    con.execute("CREATE COLLECTION t (id INTEGER PRIMARY KEY, body TEXT FULLTEXT, v VECTOR(4))")
    rows = [(i, f"text {i}", np.full(4, i + 1.0, np.float32)) for i in range(700)]
    con.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    con.commit()
    return con


def ids(con: Connection) -> tuple[int, int]:
    found: tuple[int, int] = con.execute("SELECT count(*), sum(id) FROM t").fetchone()
    return found


def test_backup_to_paths_new_and_there(source: Connection, tmp_path: Path) -> None:
    path = tmp_path / "copy.m2m"
    for _ in range(2):
        source.backup(path)
        with m2mdb.connect(path, compute="numpy") as copy:
            assert ids(copy) == (700, 244_650)
        copy.close()
        assert sorted(name for name in os.listdir(tmp_path) if "copy" in name) == ["copy.m2m"]
        source.execute("UPDATE t SET body = 'other' WHERE id < 9")
        source.commit()
    source.backup(f"file:{path}")
    (tmp_path / "text").write_text("no database")
    with pytest.raises(m2mdb.CorruptDatabaseError):
        source.backup(tmp_path / "text")
    assert (tmp_path / "text").read_text() == "no database"


def test_backup_refuses_wrong_targets(source: Connection, tmp_path: Path) -> None:
    other = m2mdb.connect(tmp_path / "other.m2m", compute="numpy")
    same = m2mdb.connect(tmp_path / "source.m2m", compute="numpy")
    with pytest.raises(m2mdb.ProgrammingError, match="itself"):
        source.backup(source)
    for target in (same, tmp_path / "source.m2m"):
        with pytest.raises(m2mdb.ProgrammingError, match="both"):
            source.backup(target)
    for wrong in (5, None, object()):
        with pytest.raises(m2mdb.InterfaceError):
            source.backup(wrong)  # type: ignore[arg-type]
    with pytest.raises(m2mdb.InterfaceError, match="gone at once"):
        source.backup(":memory:")
    with pytest.raises(m2mdb.OperationalError, match="mode=rw"):
        source.backup(f"file:{tmp_path}/nothing.m2m?mode=rw")
    with pytest.raises(m2mdb.OperationalError, match="reading only"):
        source.backup(f"file:{tmp_path}/other.m2m?mode=ro")
    reader = m2mdb.connect(tmp_path / "other.m2m", read_only=True, compute="numpy")
    with pytest.raises(m2mdb.OperationalError, match="reading only"):
        source.backup(reader)
    other.execute("BEGIN")
    with pytest.raises(m2mdb.OperationalError, match="in a transaction"):
        source.backup(other)
    other.rollback()
    source.execute("DELETE FROM t WHERE id = 1")
    with pytest.raises(m2mdb.OperationalError, match="commit before copying"):
        source.backup(other)
    source.rollback()
    other.close()
    with pytest.raises(m2mdb.InterfaceError, match="closed"):
        source.backup(other)
    source.close()
    with pytest.raises(m2mdb.InterfaceError, match="closed"):
        source.backup(reader)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"pages": "5"}, m2mdb.InterfaceError),
        ({"pages": True}, m2mdb.InterfaceError),
        ({"progress": 5}, m2mdb.InterfaceError),
        ({"sleep": -1}, m2mdb.InterfaceError),
        ({"sleep": float("nan")}, m2mdb.InterfaceError),
        ({"name": "temp"}, m2mdb.OperationalError),
        ({"name": 5}, m2mdb.InterfaceError),
    ],
)
def test_backup_refuses_wrong_options(
    source: Connection, tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        source.backup(tmp_path / "copy.m2m", **options)
    assert not (tmp_path / "copy.m2m").exists()


def test_a_locked_target_is_busy(source: Connection, tmp_path: Path) -> None:
    other = m2mdb.connect(tmp_path / "other.m2m", compute="numpy", timeout=0.05)
    holder = m2mdb.connect(tmp_path / "other.m2m", compute="numpy")
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(m2mdb.DatabaseBusyError):
        source.backup(other)
    holder.rollback()
    source.backup(other)
    assert ids(other) == ids(source)


def test_two_backups_of_each_other_end(source: Connection, tmp_path: Path) -> None:
    other = m2mdb.connect(tmp_path / "other.m2m", compute="numpy")
    source.backup(other)
    barrier = threading.Barrier(2)

    def copy(one: Connection, two: Connection) -> None:
        barrier.wait()
        for _ in range(3):
            one.backup(two, pages=2)

    threads = [
        threading.Thread(target=copy, args=pair) for pair in ((source, other), (other, source))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert ids(other) == ids(source) == (700, 244_650)


def test_serialize_and_deserialize(source: Connection) -> None:
    data = source.serialize()
    con = m2mdb.connect(":memory:", compute="numpy")
    con.execute("CREATE COLLECTION gone (x INTEGER)")
    with pytest.raises(m2mdb.OperationalError, match="transaction"):
        con.deserialize(data)
    con.commit()
    for wrong in (b"no database", data[:5000], data[:-1]):
        with pytest.raises(m2mdb.DatabaseError):
            con.deserialize(wrong)
    with pytest.raises(m2mdb.InterfaceError, match="not bytes"):
        con.deserialize("text")  # type: ignore[arg-type]
    assert [c.name for c in con.collections()] == ["gone"]

    con.deserialize(memoryview(data))

    assert ids(con) == ids(source)
    assert len(con.execute("SEARCH t MATCH 'text' K 5").fetchall()) == 5
    con.execute("INSERT INTO t (body) VALUES ('more')")
    con.commit()
    assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert con.path == ":memory:"
    again = m2mdb.connect(":memory:", compute="numpy")
    again.deserialize(con.serialize())
    assert ids(again)[0] == 701
    with pytest.raises(m2mdb.OperationalError, match="unknown database"):
        con.serialize(name="temp")


def test_the_module_is_what_the_method_calls() -> None:
    database, into = opened(MemoryVfs()), opened(MemoryVfs())
    fill(database, 1, batches=1)
    to_connection(connected(database), connected(into), -1, None)
    assert everything(into) == everything(database)
