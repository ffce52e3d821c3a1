"""Checkpoints, resets and reuse: no reader loses a page, no stale frame comes back (S9, S10)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import (
    CorruptDatabaseError,
    DatabaseBusyError,
    OperationalError,
    ProgrammingError,
)
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.sim_machine import Call, ProcessKilledError
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.frame import LOG_HEADER_SIZE
from m2mdb.wal.locks import CHECKPOINT, WRITER
from m2mdb.wal.store import Store
from tests.sim.store_runs import check as check_pages
from tests.wal.conftest import TREE, Place, change, put, read, rows_of

PAD = "." * 1200


def fill(store: Store, count: int, start: int = 0) -> None:
    """Commits that change several pages each."""
    for number in range(start, start + count):
        put(store, **{f"k{(number * 7 + i) % 20:02}": f"{number}{PAD}" for i in range(3)})


# -- modes -------------------------------------------------------------------------------------


def test_passive_copies_what_there_is(place: Place) -> None:
    store = place.open(wal_autocheckpoint=0)
    assert store.checkpoint() == (0, 0, 0), "there is no log yet"
    fill(store, 3)
    frames = store.stats()["log_frames"]

    assert store.checkpoint("passive") == (0, frames, frames)
    assert store.checkpoint("passive") == (0, frames, frames)
    assert store.stats()["log_frames"] == frames, "the log stays until the next write"


def test_the_next_write_begins_the_log_anew(place: Place) -> None:
    """S10: and the log keeps its length, to be overwritten."""
    store = place.open(wal_autocheckpoint=0)
    fill(store, 3)
    store.checkpoint("passive")
    size, generation = store.log_bytes, store.end.generation

    put(store, a="1")

    assert store.end.generation == generation + 1
    assert store.stats()["log_frames"] <= 2
    assert store.log_bytes == size


def test_restart_and_truncate_begin_it_at_once(place: Place) -> None:
    store = place.open(wal_autocheckpoint=0)
    fill(store, 2)
    assert store.checkpoint("restart") == (0, 0, 0)
    assert store.log_bytes > LOG_HEADER_SIZE
    fill(store, 2)

    assert store.checkpoint("truncate") == (0, 0, 0)

    assert store.log_bytes == LOG_HEADER_SIZE
    rows = read(store)
    put(store, z="1")
    place.close()
    assert read(place.open()) == {**rows, "z": "1"}


def test_unknown_modes_and_open_transactions_are_refused(place: Place) -> None:
    store = place.open()
    with pytest.raises(ProgrammingError, match="'fast' is not one of"):
        store.checkpoint("fast")
    transaction = store.begin_write()

    with pytest.raises(OperationalError, match="inside a transaction"):
        store.checkpoint()

    transaction.rollback()


def test_commits_checkpoint_by_themselves(place: Place) -> None:
    store = place.open(wal_autocheckpoint=10)

    fill(store, 40)

    assert store.stats()["log_frames"] < 20
    assert store.end.generation > 3
    check_pages(store)


@pytest.mark.parametrize("lock", [CHECKPOINT, WRITER])
def test_a_checkpoint_that_is_kept_from_working_says_busy(place: Place, lock: int) -> None:
    store = place.open(wal_autocheckpoint=0)
    fill(store, 2)
    frames = store.stats()["log_frames"]
    file = place.vfs.open(place.path)
    assert file.lock(lock, 1, exclusive=True)

    results = [store.checkpoint(mode) for mode in ("passive", "full", "truncate")]

    if lock == CHECKPOINT:
        assert results == [(1, frames, 0)] * 3
    else:
        assert results == [(0, frames, frames), (1, frames, frames), (1, frames, frames)]
    file.close()


# -- S10 ---------------------------------------------------------------------------------------


def test_nothing_newer_than_the_oldest_mark_is_copied(place: Place) -> None:
    """S10"""
    writer, reader = place.open(wal_autocheckpoint=0), place.open()
    fill(writer, 2)
    snapshot = reader.begin_read()
    rows = rows_of(snapshot)
    held = writer.stats()["log_frames"]
    fill(writer, 2, 2)
    frames = writer.stats()["log_frames"]

    assert writer.checkpoint("passive") == (0, frames, held)
    assert writer.checkpoint("full") == (1, frames, held)

    reader.versions.young.clear()
    reader.versions._old.clear()
    assert rows_of(snapshot) == rows
    snapshot.close()
    assert writer.checkpoint("full") == (0, frames, frames)


def test_a_reader_of_the_log_keeps_it_from_being_begun_anew(place: Place) -> None:
    """S10"""
    writer, reader = place.open(wal_autocheckpoint=0), place.open()
    fill(writer, 2)
    snapshot = reader.begin_read()
    rows = rows_of(snapshot)
    generation = writer.end.generation
    assert writer.checkpoint("full")[0] == 0, "all of it may be copied"

    assert writer.checkpoint("restart")[0] == 1
    fill(writer, 2, 2)

    assert writer.end.generation == generation
    reader.versions.young.clear()
    assert rows_of(snapshot) == rows
    snapshot.close()
    writer.checkpoint("full")
    put(writer, z="1")
    assert writer.end.generation == generation + 1


def test_a_reader_of_the_file_alone_does_not_keep_the_log(place: Place) -> None:
    """CP3: it sees no frame, and until it ends nothing newer is copied over what it sees."""
    writer, reader = place.open(wal_autocheckpoint=0), place.open()
    fill(writer, 2)
    writer.checkpoint("full")
    snapshot = reader.begin_read()
    rows = rows_of(snapshot)
    generation = writer.end.generation

    fill(writer, 4, 2)

    assert writer.end.generation == generation + 1
    assert writer.checkpoint("passive")[2] == 0
    for each in (reader, writer):
        each.versions.young.clear()
        each.versions._old.clear()
    assert rows_of(snapshot) == rows
    assert read(reader) != rows
    snapshot.close()


def test_snapshots_of_several_ages_live_over_commits_and_checkpoints(place: Place) -> None:
    writer = place.open(wal_autocheckpoint=5)
    readers = [place.open() for _ in range(3)]
    rng = Random(3)
    held = []
    for number in range(60):
        fill(writer, 1, number)
        if rng.random() < 0.4:
            snapshot = rng.choice(readers).begin_read()
            held.append((snapshot, rows_of(snapshot)))
        if rng.random() < 0.3:
            writer.checkpoint(rng.choice(("passive", "full", "restart", "truncate")))
        if held and rng.random() < 0.4:
            snapshot, rows = held.pop(rng.randrange(len(held)))
            assert rows_of(snapshot) == rows
            snapshot.close()
        for snapshot, rows in held:
            assert rows_of(snapshot) == rows
    for snapshot, rows in held:
        assert rows_of(snapshot) == rows
        snapshot.close()


def test_cached_pages_survive_a_reset_only_where_they_are_still_right(place: Place) -> None:
    """V2: pages are carried over to the next generation, and none is stale."""
    writer, other = place.open(wal_autocheckpoint=0), place.open()
    fill(writer, 6)
    expected = read(other)
    writer.checkpoint("restart")
    assert len(writer.versions) > 3

    assert read(writer) == read(other) == expected
    put(writer, k00="new", k05="new")
    other.checkpoint("restart")
    put(other, k00="newer")
    expected.update(k00="newer", k05="new")
    assert read(writer) == read(other) == expected


def test_a_header_that_is_read_while_it_is_written_is_read_again(sim: Place) -> None:
    """CP6: the system copies the sector without a lock that a reader would wait for."""
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    store = sim.open(wal_autocheckpoint=0)
    put(store, a="1")
    whole = store.file.read_at(0, 512)
    store.file.write_at(40, b"torn")
    looks = 0

    def finish_writing(call: Call) -> None:
        nonlocal looks
        looks += call.kind == "sleep"
        if looks == 3:
            looks += 1
            store.file.write_at(0, whole)

    vfs.on_call = finish_writing
    snapshot = store.begin_read()
    assert snapshot.header().uuid == store.uuid
    joined = sim.open(vfs.fork_process())
    assert read(joined) == {"a": "1"}
    vfs.on_call = None


# -- resets that somebody dies in --------------------------------------------------------------


def die_at(face: SimVfs, matches: Callable[[Call], bool], action: Callable[[], object]) -> None:
    def watch(call: Call) -> None:
        if call.process == face.pid and matches(call):
            face.machine.kill(face.pid)

    face.on_call = watch
    with pytest.raises((ProcessKilledError, ValueError)):
        action()
    face.on_call = None


def test_a_reset_that_died_before_publication_is_finished_by_the_next_writer(sim: Place) -> None:
    """CP5: frames of the old generation under the new header would be lost."""
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    survivor = sim.open(wal_autocheckpoint=0)
    fill(survivor, 2)
    face = vfs.fork_process()
    store = sim.open(face)
    generation = store.end.generation
    seen: list[str] = []

    def after_header(call: Call) -> bool:
        if call.path.endswith("-wal") and call.kind == "write" and call.offset == 0:
            seen.append("header")
        return bool(seen) and call.kind == "sync"

    die_at(face, after_header, lambda: store.checkpoint("restart"))
    late = sim.open(vfs.fork_process())
    rows = read(late)
    assert read(survivor) == rows
    busy = vfs.fork_process().open(sim.path)
    assert busy.lock(CHECKPOINT, 1, exclusive=True)
    with pytest.raises(DatabaseBusyError, match="is locked"):
        put(survivor, z="1")
    busy.close()

    put(survivor, z="1")

    assert survivor.end.generation == generation + 1
    assert read(late) == {**rows, "z": "1"}
    for image in vfs.crash_images(vfs.io_points, Random(1), 6):
        assert read(Place(image.vfs(), sim.path).open()) == {**rows, "z": "1"}


def test_a_header_of_another_generation_over_frames_that_count_is_damage(sim: Place) -> None:
    store = sim.open(wal_autocheckpoint=0)
    fill(store, 2)
    assert store.log is not None
    store.log.file.write_at(24, bytes(16))

    with pytest.raises(CorruptDatabaseError, match="not of generation 1"):
        store.begin_write()


def test_a_damaged_frame_is_not_copied(sim: Place) -> None:
    store = sim.open(wal_autocheckpoint=0)
    fill(store, 2)
    assert store.log is not None
    store.log.file.write_at(LOG_HEADER_SIZE + 4128 + 2000, b"??")

    with pytest.raises(CorruptDatabaseError, match=r"frame at offset .*checksum"):
        store.checkpoint("passive")

    assert store.stats()["frames_copied"] == 0


# -- S9 ----------------------------------------------------------------------------------------


def write_extent(store: Store, key: bytes, content: bytes) -> ExtentDescriptor:
    transaction = store.begin_write()
    tree = BTree(transaction, TREE)
    old = tree.get(key)
    if old is not None:
        transaction.free_extent(ExtentDescriptor.decode(old))
    descriptor = transaction.write_extent([content], len(content))
    tree.put(key, descriptor.encode())
    transaction.commit_now()
    return descriptor


def free_extent(store: Store, key: bytes) -> None:
    transaction = store.begin_write()
    tree = BTree(transaction, TREE)
    old = tree.get(key)
    assert old is not None
    transaction.free_extent(ExtentDescriptor.decode(old))
    tree.delete(key)
    transaction.commit_now()


def next_extent(store: Store) -> int:
    """Where an extent would be written now."""
    transaction = store.begin_write()
    start = transaction.allocate_extent(30_000)
    transaction.rollback()
    return start


def test_pages_are_not_used_while_an_older_snapshot_lives(place: Place) -> None:
    """S9"""
    store, reader = place.open(), place.open()
    first = write_extent(store, b"x", b"f" * 30_000)
    snapshot = reader.begin_read()
    free_extent(store, b"x")

    assert next_extent(store) != first.start_page
    assert snapshot.extent(first).read(0, 5) == b"fffff"
    snapshot.close()
    assert next_extent(store) == first.start_page


def test_pages_are_not_used_by_the_transaction_that_freed_them(place: Place) -> None:
    """S9"""
    store = place.open()
    first = write_extent(store, b"x", b"f" * 30_000)
    transaction = store.begin_write()
    transaction.free_extent(first)
    assert transaction.allocate_extent(30_000) != first.start_page
    pages = {transaction.allocate() for _ in range(5)}
    assert not pages & set(range(first.start_page, first.start_page + first.page_count))
    transaction.rollback()


@pytest.mark.parametrize(
    ("synchronous", "used"), [("full", True), ("normal", False), ("off", True)]
)
def test_pages_are_not_used_before_the_commit_that_freed_them_is_synced(
    sim: Place, synchronous: str, used: bool
) -> None:
    """S9: `off` waives this; a checkpoint syncs."""
    store = sim.open(synchronous=synchronous, wal_autocheckpoint=0)
    first = write_extent(store, b"x", b"f" * 30_000)
    store.checkpoint("passive")
    put(store, a="1")
    free_extent(store, b"x")

    assert (next_extent(store) == first.start_page) == used
    store.checkpoint("passive")
    assert next_extent(store) == first.start_page


def test_an_extent_is_not_written_on_pages_that_have_frames_in_the_log(sim: Place) -> None:
    """S9: recovery or a checkpoint would copy the stale frame over the extent."""
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    store = sim.open(wal_autocheckpoint=0)
    put(store, **{f"k{number:02}": PAD for number in range(40)})
    put(store, **{f"k{number:02}": None for number in range(40)})
    put(store, a="1")

    descriptor = write_extent(store, b"x", b"e" * 30_000)

    assert store.log is not None
    pages = set(range(descriptor.start_page, descriptor.start_page + descriptor.page_count))
    assert not pages & set(store.index.frames)
    for image in vfs.crash_images(vfs.io_points, Random(2), 4):
        again = Place(image.vfs(), sim.path).open()
        snapshot = again.begin_read()
        assert snapshot.extent(descriptor).read(0, 30_000) == b"e" * 30_000
        snapshot.close()
    store.checkpoint("restart")
    assert next_extent(store) < descriptor.start_page, "without frames they may be used"


def test_freed_tree_pages_are_used_again(place: Place) -> None:
    store = place.open(wal_autocheckpoint=30)
    for number in range(40):
        put(store, **{f"k{number % 2}{i:02}": PAD for i in range(20)})
        put(store, **{f"k{number % 2}{i:02}": None for i in range(20)})

    assert store.end.page_count < 60
    check_pages(store)


def test_a_writer_sees_its_own_pages_while_a_checkpoint_runs(place: Place) -> None:
    """S10: a transaction needs no mark: only committed frames are copied."""
    store, other = place.open(wal_autocheckpoint=0), place.open()
    fill(store, 3)
    transaction = store.begin_write()
    change(transaction, k00="mine", k07=None)
    rows = rows_of(transaction)

    assert other.checkpoint("passive")[0] == 0
    store.versions.young.clear()

    assert rows_of(transaction) == rows
    transaction.commit_now()
    assert read(other) == rows


@pytest.mark.parametrize("knows_all", [False, True])
def test_s10_who_dies_in_a_reset_has_taken_no_frames_from_those_who_go_on(
    place: Place, knows_all: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is cut behind the publication: before it others still read its frames."""
    other = place.open(wal_autocheckpoint=0)
    put(other, first="1")
    store = place.open(wal_autocheckpoint=0)
    store.journal_size_limit = 0
    fill(store, 5)
    if knows_all:
        assert read(other)["first"] == "1"

    assert store.shared is not None
    with monkeypatch.context() as patch:

        def die(*_: object) -> None:
            raise ProcessKilledError("between the new header and its publication")

        patch.setattr(type(store.shared), "publish", die)
        with pytest.raises(ProcessKilledError):
            store.checkpoint("restart")

    assert other.checkpoint("restart")[0] == 0
    put(other, last="2")
    assert read(other)["last"] == "2"
