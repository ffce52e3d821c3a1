"""A power loss, a kill or an I/O error at every point of VACUUM, VACUUM INTO and a backup.

Whatever is left: the source holds its rows, and a copy is the old one, the new one, or not there.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from m2mdb.connection import Connection
from m2mdb.index.copying import copy_into
from m2mdb.index.database import Database
from m2mdb.index.vacuum import vacuum
from m2mdb.pager.errors import OperationalError
from m2mdb.pager.sim_vfs import SimImage, SimVfs
from m2mdb.query.executor import execute
from tests.sim.history import ROUNDS
from tests.vacuum.cases import PATH, everything, insert, opened, pages

COPY = "d/copy.m2m"
IMAGES = 2 * ROUNDS  # disks per I/O point
STEP = max(1, 12 // ROUNDS)  # every so many I/O points; from twelve rounds on each
DOUBLE_EVERY = 31  # one image in so many is crashed again at every point of its recovery
COLUMNS = "(id INTEGER PRIMARY KEY, slug TEXT UNIQUE, body TEXT FULLTEXT, n INTEGER, long BLOB, "

State = dict[str, list[tuple[Any, ...]]]
Work = Callable[[Database], None]


def build(vfs: SimVfs, path: str = PATH, *, seed: int = 1) -> Database:
    """A small file: extents, long values and tree pages behind free places of several lengths."""
    database = opened(vfs, path)
    rng = Random(seed)
    for name in ("gone", "other", "more"):
        execute(database, f"CREATE COLLECTION {name} {COLUMNS} v VECTOR(8))")
        execute(database, f"CREATE INDEX by_n_{name} ON {name} (n)")
        insert(database, name, rng, range(520), longest=30)
        insert(database, name, rng, range(1000, 1006), longest=9000)
    execute(database, "DROP COLLECTION gone")
    execute(database, "DELETE FROM other WHERE id < 100")
    return database


def shrink(database: Database) -> None:
    vacuum(database)


def copy(database: Database) -> None:
    copy_into(database, COPY)


def back_up(database: Database) -> None:
    target = Connection(opened(database.store.vfs, COPY), COPY)
    Connection(database, PATH).backup(target, pages=5)
    target.engine().close()


def prepare(work: Work, seed: int = 1) -> tuple[Database, SimVfs]:
    """A database to work on, and for a backup the target with another content."""
    vfs = SimVfs(seed)
    database = build(vfs)
    if work is back_up:
        target = build(vfs, COPY, seed=2)
        execute(target, "DROP COLLECTION more")
        target.close()
    return database, vfs


@functools.cache
def run(work: Work) -> tuple[SimVfs, int, State, State | None, State | None]:
    """The run: machine, first I/O point of the work, the source, the copy before and after."""
    database, vfs = prepare(work)
    source = everything(database)
    before = None
    if work is back_up:
        target = opened(vfs, COPY)
        before = everything(target)
        target.close()
    start = vfs.io_points
    work(database)
    database.close()
    after = None if work is shrink else source
    return vfs, start, source, before, after


WORKS = [shrink, copy, back_up]


def check(vfs: SimVfs, where: object, work: Work) -> None:
    """Recover, look at everything, write, and look again."""
    _, _, source, before, after = run(work)
    database = opened(vfs)
    assert everything(database) == source, where
    if work is not shrink and vfs.exists(COPY):
        found = opened(vfs, COPY)
        assert everything(found) in (before, after), where
        found.close()
    elif before is not None:
        raise AssertionError(f"{where}: the target is gone")
    insert(database, "other", Random(3), range(5000, 5520), longest=10)
    execute(database, "DELETE FROM other WHERE id >= 5000")
    assert everything(database) == source, where
    database.close()


def images(work: Work, count: int) -> Iterator[tuple[int, SimImage]]:
    vfs, start = run(work)[:2]
    number = 0
    for point in range(start + vfs.machine.seed % STEP, vfs.io_points + 1, STEP):
        for image in vfs.crash_images(point, Random(point), count):
            number += 1
            yield number, image


@pytest.mark.parametrize("work", WORKS)
def test_power_loss_at_every_point(work: Work) -> None:
    for number, image in images(work, IMAGES):
        machine = image.vfs()
        if number % DOUBLE_EVERY:
            check(machine, image, work)
            continue
        opened(machine).close()
        for point in range(machine.io_points + 1):
            for second in machine.crash_images(point, Random(point), 2):
                check(second.vfs(), (image, second), work)


@pytest.mark.parametrize("work", WORKS)
def test_kill_at_every_point(work: Work) -> None:
    vfs, start = run(work)[:2]
    for point in range(start, vfs.io_points + 1, STEP):
        check(vfs.kill_image(point), f"killed at {point}", work)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("work", WORKS)
def test_an_error_at_the_nth_call_loses_nothing(work: Work, error: int) -> None:
    total = run(work)[0].io_points - run(work)[1]
    for number in range(1, total + 1, max(1, 24 // ROUNDS)):
        database, vfs = prepare(work, seed=number)
        source = everything(database)
        vfs.fail("change", at_call=number, error=error, once=number % 2 == 0)
        try:
            work(database)
            database.close()
        except OperationalError:
            pass
        vfs.clear_faults()
        machine = vfs.process_crash()
        again = opened(machine)
        assert everything(again) == source, number
        vacuum(again)
        assert everything(again) == source, number
        live, count, in_file = pages(again)
        assert count == in_file <= 1.1 * live + 1
        again.close()


def test_a_crash_of_what_was_vacuumed_before_the_file_was_cut() -> None:
    """The smaller page count stands in the log, the file is longer: recovery takes both."""
    vfs = SimVfs(9)
    database = build(vfs)
    other = opened(vfs.fork_process())
    source = everything(database)
    start = vfs.io_points
    vacuum(database)
    other.close()
    insert(database, "more", Random(4), range(9000, 9600), longest=20)
    execute(database, "DELETE FROM more WHERE id >= 9000")
    for point in range(start, vfs.io_points + 1, STEP):
        for image in vfs.crash_images(point, Random(point), 2):
            again = opened(image.vfs())
            found = everything(again)
            ids = "SELECT rowid, * FROM more ORDER BY rowid"
            if not any(row[0] >= 9000 for row in found[ids]):
                assert found == source, image
            else:
                assert [row for row in found[ids] if row[0] < 9000] == source[ids], image
            again.close()
