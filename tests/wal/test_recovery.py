"""Recovery: the log up to its last commit, and nothing is ever appended to a torn tail (S3)."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.frame import FRAME_HEADER_SIZE, LOG_HEADER_SIZE, LogHeader
from m2mdb.wal.store import Store
from tests.sim.store_runs import check as check_pages
from tests.wal.conftest import Place, put, read

FRAME = FRAME_HEADER_SIZE + 4096
Files = dict[str, bytes]


def crash_with(place: Place, *commits: dict[str, str]) -> tuple[Files, list[dict[str, str]], int]:
    """Files as a killed process leaves them, the states of its commits, and the log's end."""
    store = place.open(wal_autocheckpoint=0)
    states: list[dict[str, str]] = [{}]
    for rows in commits:
        put(store, **rows)
        states.append(read(store))
    end = store.end.offset
    folder = Path(place.path).parent
    files = {name: (folder / name).read_bytes() for name in ("notes.m2m", "notes.m2m-wal")}
    place.close()
    place.stores.clear()
    return files, states, end


def restore(place: Place, files: Files) -> None:
    for name, content in files.items():
        (Path(place.path).parent / name).write_bytes(content)


BIG = {f"k{number:02}": "." * 1000 for number in range(8)}


def in_memory(files: Files, log: bytes) -> Place:
    """The same files in a memory of their own, with this log."""
    place = Place(MemoryVfs(), "notes.m2m")
    place.vfs.open("notes.m2m", create=True).write_at(0, files["notes.m2m"])
    place.vfs.open("notes.m2m-wal", create=True).write_at(0, log)
    return place


def test_the_log_cut_at_every_byte_of_its_last_commit_gives_the_one_before(disk: Place) -> None:
    """S3, W1"""
    files, states, end = crash_with(disk, {"a": "1"}, {"b": "2"}, {"a": "3", "c": "4"})
    log = files["notes.m2m-wal"]

    for cut in range(end - FRAME, end):
        assert read(in_memory(files, log[:cut]).open()) == states[2], cut
        if cut % 16 == 0:
            zeroed = log[:cut] + bytes(end - cut)
            whole = zeroed == log[:end]  # the slack of a page is zero anyway
            assert read(in_memory(files, zeroed).open()) == states[3 if whole else 2], cut
    assert read(in_memory(files, log[:end]).open()) == states[3]


def test_a_commit_of_many_frames_counts_with_its_last_one(disk: Place) -> None:
    """W2"""
    files, states, end = crash_with(disk, {"a": "1"}, BIG)
    log = files["notes.m2m-wal"]
    count = (end - LOG_HEADER_SIZE) // FRAME
    assert count >= 4

    for kept in range(count + 1):
        cut = LOG_HEADER_SIZE + kept * FRAME
        restore(disk, {**files, "notes.m2m-wal": log[:cut]})
        expected = states[2] if kept == count else states[1] if kept else states[0]
        store = disk.open()
        assert read(store) == expected
        check_pages(store)
        disk.close()


def test_a_wrong_byte_ends_what_counts(disk: Place) -> None:
    """W1: whatever is hit, header or page, and all behind it goes with it."""
    files, states, end = crash_with(disk, {"a": "1"}, {"b": "2"}, {"c": "3"})
    log = files["notes.m2m-wal"]
    rng = Random(1)

    for offset in [rng.randrange(LOG_HEADER_SIZE, end) for _ in range(60)]:
        wrong = bytearray(log)
        wrong[offset] ^= 1 << rng.randrange(8)
        restore(disk, {**files, "notes.m2m-wal": bytes(wrong)})
        assert read(disk.open()) == states[(offset - LOG_HEADER_SIZE) // FRAME]
        disk.close()


def test_nothing_is_appended_to_a_torn_tail(disk: Place) -> None:
    """S3: crash, recover, append, crash, recover; old frames behind the new ones stay dead.

    The torn commit is repeated byte for byte, so that its first frame would join the old second
    one if the salt were kept.
    """
    files, states, _ = crash_with(disk, {"a": "1"}, BIG)
    log = bytearray(files["notes.m2m-wal"])
    torn = LOG_HEADER_SIZE + FRAME
    log[torn : torn + FRAME] = bytes(FRAME)
    restore(disk, {**files, "notes.m2m-wal": bytes(log)})
    store = disk.open(wal_autocheckpoint=0)
    assert read(store) == states[1]
    folder = Path(disk.path).parent
    recovered = (folder / "notes.m2m-wal").read_bytes()
    before, after = (LogHeader.decode(bytes(raw[:512]), "x") for raw in (log, recovered))
    assert before.salt != after.salt
    assert after.generation == before.generation + 1
    assert after.base_commit == 1

    put(store, b="2")
    put(store, c="3")
    second = {name: (folder / name).read_bytes() for name in files}
    disk.close()
    restore(disk, second)

    assert read(disk.open()) == {"a": "1", "b": "2", "c": "3"}


def test_recovery_may_be_stopped_anywhere_and_begun_again(sim: Place) -> None:
    """RE2, RE3"""
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    store = sim.open(wal_autocheckpoint=0)
    for number in range(4):
        put(store, **{f"k{number}{i}": "." * 900 for i in range(10)})
    expected = read(store)
    dead = vfs.process_crash()
    start = dead.io_points
    sim.open(dead)
    points = dead.io_points - start
    assert points >= 5

    for point in range(start, start + points + 1):
        machine = dead.kill_image(point)
        again = Place(machine, sim.path)
        found = again.open()
        assert read(found) == expected
        check_pages(found)
        for image in dead.crash_images(point, Random(point), 4):
            assert read(Place(image.vfs(), sim.path).open()) == expected


@pytest.mark.parametrize("mode", ["some", "none", "revert", "keep"])
def test_recovery_after_a_failed_sync_relies_on_nothing_that_may_be_lost(
    sim: Place, mode: str
) -> None:
    """S11, RE4: the power fails while the recovery works, or just after it."""
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    vfs.failed_sync = mode
    store = sim.open()
    put(store, a="1")
    vfs.fail("sync", path_end="-wal")
    with pytest.raises(OperationalError, match="unknown"):
        put(store, **BIG)
    store.close()
    start = vfs.io_points
    again = sim.open(vfs.fork_process())
    found = read(again)
    put(again, b="2")

    assert found in ({"a": "1"}, {"a": "1", **BIG})
    for point in range(start, vfs.io_points + 1):
        for image in vfs.crash_images(point, Random(point), 6):
            rows = read(Place(image.vfs(), sim.path).open())
            rows.pop("b", None)
            assert rows in ({"a": "1"}, {"a": "1", **BIG}), (point, image)
            if point == vfs.io_points:
                assert rows == found


def test_what_a_power_loss_leaves_of_the_last_commits_is_a_prefix(sim: Place) -> None:
    """S7: `normal` may lose the last commits, never one in between."""
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    store = sim.open(synchronous="normal", wal_autocheckpoint=7)
    states: list[dict[str, str]] = [{}]
    for number in range(12):
        put(store, **{f"k{number % 5}": str(number) * 300})
        states.append(read(store))

    for point in range(0, vfs.io_points + 1, 3):
        for image in vfs.crash_images(point, Random(point), 4):
            assert read(Place(image.vfs(), sim.path).open()) in states


def test_hard_links_and_networks_refuse_recovery(disk: Place) -> None:
    """S29: recovery writes."""
    files, _, _ = crash_with(disk, {"a": "1"})
    restore(disk, files)
    os.link(disk.path, disk.path + "2")

    with pytest.raises(OperationalError, match="needs recovery and cannot be written: it has 2"):
        disk.open()

    os.unlink(disk.path + "2")
    assert read(disk.open()) == {"a": "1"}


def test_the_first_to_come_recovers_and_the_others_join(place: Place) -> None:
    stores: list[Store] = [place.open() for _ in range(3)]
    put(stores[0], a="1")

    assert [store.end.generation for store in stores[:1]] == [1]
    assert [read(store) for store in stores] == [{"a": "1"}] * 3
    assert {store.stats()["generation"] for store in stores} == {1}
