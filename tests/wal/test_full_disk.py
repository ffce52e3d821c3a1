"""A full disk: a file whose log cannot be brought into it is read all the same (S11)."""

from __future__ import annotations

import errno
from random import Random

import pytest

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.frame import FRAME_HEADER_SIZE, LOG_HEADER_SIZE
from tests.sim.store_runs import check as check_pages
from tests.wal.conftest import Place, put, read

KINDS = ("allocate", "write")


@pytest.fixture
def left(sim: Place) -> tuple[SimVfs, dict[str, str]]:
    """What a killed process leaves: a file that has to grow for its log; and the rows in both."""
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    store = sim.open(wal_autocheckpoint=0)
    for number in range(5):
        put(store, **{f"k{number}{n}": "." * 900 for n in range(8)})
    rows = read(store)
    return vfs.process_crash(), rows


@pytest.mark.parametrize("kind", KINDS)
def test_s11_a_file_left_with_its_log_is_read_on_a_full_disk(
    sim: Place, left: tuple[SimVfs, dict[str, str]], kind: str
) -> None:
    vfs, rows = left
    fault = vfs.fail(kind, path_end=".m2m", error=errno.ENOSPC, once=False)

    store, other = sim.open(vfs), sim.open(vfs)
    assert store.recovery_waits

    for each in (store, other):
        assert read(each) == rows
        with pytest.raises(OperationalError, match="disk full"):
            put(each, more="1")
        assert read(each) == rows
    store.close()
    assert read(other) == rows
    other.close()
    again = sim.open(vfs)
    assert read(again) == rows

    vfs.machine.faults.remove(fault)
    put(again, more="1")
    assert read(again) == {**rows, "more": "1"}
    check_pages(again)
    again.close()
    assert not vfs.exists(sim.path + "-wal")
    assert read(sim.open(vfs)) == {**rows, "more": "1"}


@pytest.mark.parametrize("call", range(1, 7))
def test_s11_whatever_call_finds_the_disk_full_no_row_is_lost(
    sim: Place, left: tuple[SimVfs, dict[str, str]], call: int
) -> None:
    """The power fails afterwards, at any point, whether the open was refused or went on."""
    vfs, rows = left
    start = vfs.io_points
    vfs.fail("allocate write truncate create", at_call=call, error=errno.ENOSPC)
    try:
        store = sim.open(vfs)
    except OperationalError as error:
        assert "disk full" in str(error)
    else:
        assert read(store) == rows
        put(store, more="1")
        store.close()
    for point in range(start, vfs.io_points + 1):
        for image in vfs.crash_images(point, Random(point), 3):
            found = read(Place(image.vfs(), sim.path).open())
            found.pop("more", None)
            assert found == rows, (point, image)


def test_s11_another_failure_than_a_full_disk_still_refuses(
    sim: Place, left: tuple[SimVfs, dict[str, str]]
) -> None:
    vfs, _ = left
    vfs.fail("write", path_end=".m2m", error=errno.EIO)
    with pytest.raises(OperationalError, match="input/output error"):
        sim.open(vfs)
    vfs.fail("sync", error=errno.ENOSPC)
    with pytest.raises(OperationalError, match="disk full"):
        sim.open(vfs)


def test_s3_a_damaged_log_without_room_for_its_copy_is_read_and_not_made_void(
    sim: Place, left: tuple[SimVfs, dict[str, str]]
) -> None:
    """LC1: the first write that has room keeps the copy."""
    vfs, rows = left
    file = vfs.open(sim.path + "-wal")
    log = bytearray(file.read_at(0, 1 << 20))
    log[LOG_HEADER_SIZE + FRAME_HEADER_SIZE + 100] ^= 1
    file.write_at(0, log)
    fault = vfs.fail("write", path_end="-damaged-1", error=errno.ENOSPC, once=False)

    store = sim.open(vfs)

    assert store.lost is not None and not store.lost.kept_as
    assert read(store) == {}
    with pytest.raises(OperationalError, match="a copy of it cannot be kept"):
        put(store, more="1")
    assert file.read_at(0, 1 << 20) == bytes(log)
    assert not vfs.exists(sim.path + "-wal-damaged-1")
    vfs.machine.faults.remove(fault)
    put(store, more="1")
    kept = vfs.open(sim.path + "-wal-damaged-1")
    assert kept.read_at(0, 1 << 20) == bytes(log)
    assert rows
