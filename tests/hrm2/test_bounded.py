"""Builds in bounded memory: scratch on the disk gives the same lists, and interrupts undo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.compute.hrm2 import training
from m2mdb.compute.hrm2.training import assign, train
from m2mdb.index import hrm2, scratch
from m2mdb.index.scratch import Scratch
from m2mdb.index.values import VectorData
from m2mdb.pager.errors import OperationalError
from m2mdb.pager.os_vfs import OsVfs
from tests.hrm2.conftest import ROWS, clustered, filled, found, lists_of
from tests.hrm2.test_damage import COLUMN


def parts(rows: np.ndarray, work: Scratch) -> dict[str, np.ndarray]:
    values = VectorData(rows, np.linalg.norm(rows, axis=1).astype(np.float32), None)
    return {p[0]: p[2] for p in hrm2.lists_parts(COLUMN, values, measured=False, scratch=work)}


@pytest.mark.usefixtures("small")
def test_scratch_on_the_disk_gives_the_same_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = clustered(3000, COLUMN.dimension)
    in_memory = parts(rows, Scratch())
    con = m2mdb.connect(str(tmp_path / "m.m2m"), autocommit=True)
    monkeypatch.setattr(scratch, "MEMORY_BYTES", 0)
    monkeypatch.setattr(scratch, "LEAST_FILE", 0)
    asked: list[int] = []
    vfs_scratch = OsVfs.scratch

    def counted(self: OsVfs, path: str, size: int) -> memoryview:
        asked.append(size)
        return vfs_scratch(self, path, size)

    monkeypatch.setattr(OsVfs, "scratch", counted)
    on_disk = parts(rows, Scratch(con.engine()))
    assert sum(asked) > rows.nbytes
    assert in_memory.keys() == on_disk.keys()
    for name, array in in_memory.items():
        assert np.array_equal(array, on_disk[name]), name
    assert {path.name for path in tmp_path.iterdir()} <= {"m.m2m", "m.m2m-shm", "m.m2m-wal"}
    con.close()


@pytest.mark.usefixtures("small")
def test_a_merge_through_scratch_keeps_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "MEMORY_BYTES", 0)
    monkeypatch.setattr(scratch, "LEAST_FILE", 0)
    rows = clustered(2400)
    con = filled(tmp_path / "m.m2m", rows[:1200])
    notes = con.collection("notes")
    numbers = np.arange(1200, 2400)
    notes.add({"id": numbers, "n": numbers, "v": rows[1200:]})
    con.execute("DELETE FROM notes WHERE n % 7 = 3")
    con.execute("OPTIMIZE")
    assert len(lists_of(con)) == 1
    for row in con.execute("SELECT n, v FROM notes"):
        assert np.array_equal(row[1], rows[row[0]])
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()


def test_a_full_disk_is_an_error_and_nothing_changes(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    con.execute("DELETE FROM notes WHERE n < 5")
    monkeypatch.setattr(scratch, "MEMORY_BYTES", 0)
    monkeypatch.setattr(scratch, "LEAST_FILE", 0)

    def full(self: OsVfs, path: str, size: int) -> memoryview:
        raise OperationalError(f"cannot take {size} bytes of scratch beside {path}: disk full")

    monkeypatch.setattr(OsVfs, "scratch", full)
    with pytest.raises(OperationalError, match="scratch beside"):
        con.execute("OPTIMIZE")
    monkeypatch.undo()
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (ROWS - 5,)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_scratch_that_the_disk_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match="bytes of scratch beside"):
        OsVfs().scratch(str(tmp_path / "m.m2m"), 1 << 55)
    with pytest.raises(OperationalError, match="bytes of scratch beside"):
        OsVfs().scratch(str(tmp_path / "absent" / "m.m2m"), 4096)


class Stopped(Exception):
    """Raised by a tick."""


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_an_interrupted_optimize_undoes_its_step(
    tmp_path: Path, con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Interrupted at any of its blocks, by a tick that counts them."""
    con.execute("DELETE FROM notes WHERE n % 9 = 0")
    expected = con.execute("SELECT count(*), sum(n) FROM notes").fetchone()
    query = clustered(ROWS)[4]
    before = found(con, query, k=20, exact=True)
    database = con.engine()
    ticks = 0
    check = database.check_interrupted

    def count() -> None:
        nonlocal ticks
        ticks += 1
        check()

    with monkeypatch.context() as patch:
        patch.setattr(scratch, "CHUNK_BYTES", 256 * 24)
        patch.setattr(database, "check_interrupted", count)
        build(database)
        total, at = ticks, 0
    assert total > 20

    def stop() -> None:
        nonlocal at
        at += 1
        if at > share * total:
            database.interrupt()
        check()

    with monkeypatch.context() as patch:
        patch.setattr(scratch, "CHUNK_BYTES", 256 * 24)
        patch.setattr(database, "check_interrupted", stop)
        with pytest.raises(OperationalError, match="interrupted"):
            con.execute("OPTIMIZE")
    assert con.execute("SELECT count(*), sum(n) FROM notes").fetchone() == expected
    assert found(con, query, k=20, exact=True) == before
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.execute("OPTIMIZE")
    assert len(lists_of(con)) == 1
    assert found(con, query, k=20, exact=True) == before


def build(database: object) -> None:
    """OPTIMIZE on a database, undone."""
    from m2mdb.index.database import Database
    from m2mdb.index.maintenance import flush, merge

    assert isinstance(database, Database)
    with pytest.raises(Stopped), database.writing() as write:
        view = write.collection("notes")
        flush(write, view)
        merge(write, view, [view.segments[0].id], view.schema.vector_columns)
        raise Stopped


@pytest.mark.slow
def test_a_build_takes_less_memory_than_its_vectors(tmp_path: Path) -> None:
    """In a process of its own: what it adds to its memory that is not of a file."""
    script = f"""
import resource, numpy as np
from m2mdb.compute.hrm2 import training
from m2mdb.index import scratch, hrm2
from m2mdb.index.scratch import Scratch
from m2mdb.index.values import VectorData
from m2mdb.index.schema import Column
import m2mdb
from m2mdb.compute.loader import LOADER
assert LOADER.wait(300)  # what the kernels themselves take is not the build's
training.SAMPLE_BYTES = 4 << 20
scratch.MEMORY_BYTES = 4 << 20
con = m2mdb.connect({str(tmp_path / "m.m2m")!r})
rows = np.lib.format.open_memmap({str(tmp_path / "rows.npy")!r}, mode="r")
column = Column("v", "VECTOR")
column.dimension, column.dtype, column.metric, column.id = 256, "f32", "cosine", 3
values = VectorData(rows, np.ones(len(rows), np.float32), None)
def anonymous():
    text = open("/proc/self/status").read()
    return int(text.split("RssAnon:")[1].split()[0]) << 10
before, most = anonymous(), 0
work = Scratch(con.engine())
def look():
    global most
    most = max(most, anonymous())
work.tick = look
hrm2.lists_parts(column, values, measured=False, scratch=work)
print(most - before)
"""
    rows = np.random.default_rng(1).standard_normal((40_000, 256)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(out.stdout) < rows.nbytes


# ------------------------------------------------------------------------- balance


def test_long_lists_are_split_and_the_rest_is_even() -> None:
    """A crowd that k-means leaves in few lists."""
    rng = np.random.default_rng(4)
    centers = rng.standard_normal((300, 16))
    weights = 1 / np.arange(1, 301) ** 1.5
    labels = rng.choice(300, 30_000, p=weights / weights.sum())
    rows = (centers[labels] + 0.01 * rng.standard_normal((30_000, 16))).astype(np.float32)
    router = train(rows, 300, 1)
    first, second = assign(router, rows, spill=True)
    sizes = np.bincount(first, minlength=len(router.centers))
    assert np.percentile(sizes, 99) <= 4 * sizes.mean()
    assert second is not None
    assert router.owned[-1] == len(router.centers)
    again = train(rows, 300, 1)
    assert np.array_equal(again.centers, router.centers)


def test_rows_that_are_alike_make_no_endless_lists() -> None:
    rows = np.ones((6000, 8), np.float32)
    rows[:100] = np.random.default_rng(1).standard_normal((100, 8))
    router = train(rows, 100, 1)
    first, _ = assign(router, rows)
    assert len(np.unique(first[100:])) == 1
    assert 1 <= len(router.centers) <= 200


def test_a_sample_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAMPLE_BYTES", 1 << 16)
    rows = clustered(5000, 16)
    router = train(rows, 50, 1)
    assert len(router.centers) >= 25


def test_a_progress_handler_sees_the_blocks_and_may_stop_them(
    con: m2mdb.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "CHUNK_BYTES", 256 * 24)
    con.execute("DELETE FROM notes WHERE n < 300")
    calls = 0

    def asked() -> bool:
        nonlocal calls
        calls += 1
        return calls > 25

    con.set_progress_handler(asked, 1)
    with pytest.raises(OperationalError, match="progress handler"):
        con.execute("OPTIMIZE")
    con.set_progress_handler(None, 1)
    assert calls == 26
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (ROWS - 300,)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.execute("OPTIMIZE")
    assert lists_of(con)[0] > 10
