"""VACUUM INTO and backup to a new file: what is reported is there, and what was there stays."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import pytest

import m2mdb
from m2mdb.index.copying import copy_into
from m2mdb.index.database import Database
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.pager.sim_machine import Call
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.query.executor import execute
from tests.vacuum.cases import opened

COPY = "d/copy.m2m"


def half_deleted(vfs: SimVfs) -> Database:
    database = opened(vfs)
    execute(database, "CREATE COLLECTION t (k INTEGER PRIMARY KEY, v TEXT)")
    with database.writing() as write:
        write.insert("t", {"v": [f"x{i}" * 5 for i in range(1200)]}, 1200)
    execute(database, "DELETE FROM t WHERE k <= 600")
    database.checkpoint("truncate")
    return database


def count(vfs: SimVfs) -> int:
    database = opened(vfs, COPY, read_only=True)
    found: int = execute(database, "SELECT count(*) FROM t").rows[0][0]
    database.close()
    return found


def copy_with_fault(kind: str, at_call: int) -> tuple[SimVfs, bool, int]:
    """The machine, whether VACUUM INTO said that it is done, and how many such calls there were."""
    vfs = SimVfs(at_call)
    database = half_deleted(vfs)
    calls = 0

    def strike(call: Call) -> None:
        nonlocal calls
        if call.kind == kind and "-new-" in call.path:
            calls += 1
            if calls == at_call:
                vfs.fail(kind, error=errno.EIO)

    vfs.on_call = strike
    try:
        copy_into(database, COPY)
    except m2mdb.OperationalError:
        done = False
    else:
        done = True
    vfs.on_call = None
    vfs.clear_faults()
    return vfs, done, calls


@pytest.mark.parametrize("kind", ["write", "sync", "unlink", "truncate", "lock"])
def test_s11_vacuum_into_reports_no_copy_that_cannot_be_read(kind: str) -> None:
    """The last close of the draft swallows its errors; VACUUM INTO must not."""
    _, _, calls = copy_with_fault(kind, 10**9)
    assert calls > 0
    for at_call in range(max(1, calls - 12), calls + 1):
        vfs, done, _ = copy_with_fault(kind, at_call)
        names = vfs.machine.disk.names
        assert (COPY in names) == done, f"{kind} {at_call}"
        if not done:
            continue
        images = vfs.crash_images(vfs.io_points, Random(at_call), 6)
        assert count(vfs) == 600, f"{kind} {at_call}"
        for image in images:
            assert count(image.vfs()) == 600, f"{kind} {at_call}: {image}"


# -- another process makes the file meanwhile ------------------------------------------------------


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("way", ["VACUUM INTO", "backup"])
def test_a_database_that_is_made_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, empty: bool
) -> None:
    path = tmp_path / "copy.m2m"
    con = m2mdb.connect(tmp_path / "source.m2m", autocommit=True, compute="numpy")
    con.execute("CREATE COLLECTION t (v TEXT)")
    if empty:
        path.write_bytes(b"")
    looked = 0
    exists = OsVfs.exists

    def make_meanwhile(self: OsVfs, asked: str) -> bool:
        nonlocal looked
        found = exists(self, asked)
        if asked == str(path):
            looked += 1
            if looked == 2:  # the last look before the file gets its name
                other = m2mdb.connect(path, autocommit=True, compute="numpy")
                other.execute("CREATE COLLECTION precious (v TEXT)")
                other.execute("INSERT INTO precious VALUES ('only copy')")
                other.close()
        return found

    monkeypatch.setattr(OsVfs, "exists", make_meanwhile)
    with pytest.raises(m2mdb.OperationalError, match="exists and is not empty"):
        if way == "backup":
            con.backup(path)
        else:
            con.execute("VACUUM INTO ?", (str(path),))
    monkeypatch.undo()

    other = m2mdb.connect(path, compute="numpy")
    assert other.execute("SELECT v FROM precious").fetchall() == [("only copy",)]
    other.close()
    con.close()
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["copy.m2m", "source.m2m"]


def test_an_empty_file_that_somebody_is_opening_is_not_replaced() -> None:
    vfs = SimVfs(1)
    database = half_deleted(vfs)
    other = opened(vfs.fork_process(), COPY)
    other.store.file.truncate(0)  # as it is before the first page is written

    with pytest.raises(m2mdb.OperationalError, match=r"another process has .* open"):
        copy_into(database, COPY)

    there = vfs.identity(COPY)
    assert there is not None
    assert there[:2] == other.store.file.identity()[:2]
