"""Opening: every state that a file can be in, and what a failed open leaves alone (S3, S4, S6)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from m2mdb.opening import target
from m2mdb.pager.errors import (
    CorruptDatabaseError,
    DatabaseBusyError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
)
from m2mdb.pager.header import FLAG_OFFSET, Header, LogFlag
from m2mdb.pager.os_vfs import OsFile, OsSharedMemory, OsVfs
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.pager.vfs import Identity
from m2mdb.wal.frame import LOG_HEADER_SIZE, LogHeader
from m2mdb.wal.locks import ATTACH, OPENING
from m2mdb.wal.store import Store, StoreOptions
from tests.wal.conftest import Place, put, read, rows_of

Files = dict[str, bytes]


def files_in(place: Place) -> Files:
    """All files of a real folder, by name."""
    folder = Path(place.path).parent
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def crashed(place: Place) -> None:
    """Leave file and log as a killed process does: two commits in the log, nothing copied."""
    store = place.open(wal_autocheckpoint=0)
    put(store, a="1")
    put(store, b="2")
    kept = files_in(place)
    place.close()
    place.stores.clear()
    for name, content in kept.items():
        (Path(place.path).parent / name).write_bytes(content)


def refused(place: Place, error: type[Exception], text: str, **options: Any) -> None:
    """An open that fails, and changes no byte of any file (O3)."""
    before = files_in(place)

    with pytest.raises(error, match=text):
        place.open(**options)

    assert files_in(place) == before


def damage(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


# -- new ---------------------------------------------------------------------------------------


def test_a_new_file_is_created_and_found_again(place: Place) -> None:
    store = place.open(page_size=8192)
    assert read(store) == {}
    put(store, a="1")
    store.close()

    again = place.open(create=False)

    assert (read(again), again.page_size, again.last_commit) == ({"a": "1"}, 8192, 1)


def test_an_absent_file_is_not_made_without_create(disk: Place) -> None:
    refused(disk, OperationalError, "no such file", create=False)
    refused(disk, OperationalError, "no such file", read_only=True)


@pytest.mark.parametrize("size", [0, 100, 4096, 20_000])
def test_a_file_whose_first_page_is_zero_is_new(disk: Place, size: int) -> None:
    """S4"""
    Path(disk.path).write_bytes(bytes(size))

    store = disk.open(create=False)
    put(store, a="1")
    store.close()

    assert read(disk.open()) == {"a": "1"}


def test_an_empty_file_is_no_database_to_a_reader(disk: Place) -> None:
    Path(disk.path).write_bytes(b"")

    refused(disk, CorruptDatabaseError, "not a database", read_only=True)


def test_an_empty_file_beside_a_log_is_refused(disk: Place) -> None:
    """S4: the log is of a database that was there; its commits are not to be forgotten."""
    crashed(disk)
    Path(disk.path).write_bytes(b"")

    refused(disk, CorruptDatabaseError, "remove the log to begin anew")


def test_a_creation_that_fails_leaves_nothing(sim: Place) -> None:
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    for number in range(1, 40):
        fault = vfs.fail("change sync_dir share", at_call=number)
        with contextlib.suppress(OperationalError):
            sim.open().close()
        vfs.clear_faults()
        if fault.calls_left > 0:
            return
        names = set(vfs.machine.disk.names)
        assert names <= {sim.path}, number
        if names:
            sim.open().close()
            vfs.unlink(sim.path)
    pytest.fail("the creation never came to its end")


# -- no database -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"SQLite format 3\0" + bytes(5000), "not a database"),
        (b"x", "not a database"),
        (b"m2mdb format 1\0\0", "is cut short"),
        (os.urandom(20_000), "not a database"),
    ],
)
def test_a_file_that_is_no_database_is_refused(disk: Place, content: bytes, text: str) -> None:
    Path(disk.path).write_bytes(content)

    refused(disk, CorruptDatabaseError, text)
    refused(disk, CorruptDatabaseError, text, read_only=True)
    refused(disk, CorruptDatabaseError, text, immutable=True)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match="directory"):
        Store.open(OsVfs(), str(tmp_path), StoreOptions(create=True))


def test_a_damaged_header_is_refused(disk: Place) -> None:
    put(disk.open(), a="1")
    disk.close()
    damage(disk.path, 60, b"?")

    refused(disk, CorruptDatabaseError, "header of .*checksum")


@pytest.mark.parametrize("missing", [1, 4096, 8192, 12_000])
def test_a_truncated_file_is_refused(disk: Place, missing: int) -> None:
    put(disk.open(), a="1", **{f"k{i}": "." * 900 for i in range(20)})
    disk.close()
    size = os.path.getsize(disk.path)
    os.truncate(disk.path, size - missing)

    for options in ({}, {"read_only": True}, {"immutable": True}):
        refused(disk, CorruptDatabaseError, "truncated", **options)


def rewrite_header(path: str, **values: int) -> None:
    with open(path, "r+b") as file:
        header = Header.decode(file.read(512), path)
        for name, number in values.items():
            setattr(header, name, number)
        file.seek(0)
        file.write(header.encode())


def test_a_newer_format_is_refused_or_only_read(disk: Place) -> None:
    put(disk.open(), a="1")
    disk.close()
    rewrite_header(disk.path, format_write=9)
    store = disk.open()
    assert read(store) == {"a": "1"}
    with pytest.raises(NotSupportedError, match="write format 9"):
        store.begin_write()
    store.close()
    rewrite_header(disk.path, format_read=9, format_write=9)

    refused(disk, NotSupportedError, "format")


# -- without its log, or with another ----------------------------------------------------------


def test_a_file_copied_without_its_log_is_refused(disk: Place) -> None:
    """S4"""
    crashed(disk)
    os.unlink(disk.path + "-wal")

    for options in ({}, {"read_only": True}, {"immutable": True}):
        refused(disk, CorruptDatabaseError, "copied without its log", **options)


def test_a_clean_file_ignores_a_log_that_lies_there(disk: Place) -> None:
    """S4: the flag says that the file is whole by itself."""
    crashed(disk)
    log = Path(disk.path + "-wal").read_bytes()
    disk.open().close()
    Path(disk.path + "-wal").write_bytes(log)

    store = disk.open()
    assert read(store) == {"a": "1", "b": "2"}
    put(store, c="3")
    store.close()

    assert files_in(disk).keys() == {"notes.m2m"}
    assert read(disk.open()) == {"a": "1", "b": "2", "c": "3"}


def test_the_log_of_another_database_is_refused(disk: Place, tmp_path: Path) -> None:
    crashed(disk)
    (tmp_path / "other").mkdir()
    other = Place(disk.vfs, str(tmp_path / "other" / "o.m2m"))
    crashed(other)
    os.replace(other.path + "-wal", disk.path + "-wal")

    refused(disk, CorruptDatabaseError, "belongs to another database")


def test_an_older_log_is_refused(disk: Place) -> None:
    crashed(disk)
    log = Path(disk.path + "-wal").read_bytes()
    store = disk.open()
    put(store, c="3")
    store.close()
    store = disk.open()
    put(store, d="4")
    kept = files_in(disk)
    store.close()
    Path(disk.path).write_bytes(kept["notes.m2m"])
    Path(disk.path + "-wal").write_bytes(log)

    refused(disk, CorruptDatabaseError, "is older than")


def test_a_file_older_than_its_log_is_refused(disk: Place) -> None:
    store = disk.open()
    put(store, a="1")
    early = files_in(disk)
    store.checkpoint("truncate")
    put(store, b="2")
    late = files_in(disk)
    store.close()
    Path(disk.path).write_bytes(early["notes.m2m"])
    Path(disk.path + "-wal").write_bytes(late["notes.m2m-wal"])

    refused(disk, CorruptDatabaseError, "is older than its log")


@pytest.mark.parametrize("size", [0, 100, LOG_HEADER_SIZE - 1])
def test_a_log_shorter_than_its_header_is_refused(disk: Place, size: int) -> None:
    crashed(disk)
    os.truncate(disk.path + "-wal", size)

    refused(disk, CorruptDatabaseError, f"{size} bytes, expected a header")


def test_a_log_with_a_damaged_header_is_refused(disk: Place) -> None:
    crashed(disk)
    damage(disk.path + "-wal", 40, b"?")

    refused(disk, CorruptDatabaseError, "header of log .*checksum")


def test_a_log_that_lost_what_the_file_already_holds_is_refused(disk: Place) -> None:
    """RE2: its pages and the file's would be of different commits."""
    store = disk.open(wal_autocheckpoint=0)
    put(store, a="1")
    put(store, b="2")
    store.checkpoint("passive")
    kept = files_in(disk)
    store.close()
    for name, content in kept.items():
        (Path(disk.path).parent / name).write_bytes(content)
    damage(disk.path + "-wal", LOG_HEADER_SIZE + 4128 + 100, b"?")

    refused(disk, CorruptDatabaseError, "ends with commit 1, but .* holds commit 2")


def test_a_damaged_flag_asks_for_the_log(disk: Place) -> None:
    """S4: the sector has a checksum of its own; while it can be torn a log stands there."""
    crashed(disk)
    damage(disk.path, FLAG_OFFSET + 20, b"?")
    assert read(disk.open()) == {"a": "1", "b": "2"}
    disk.close()
    damage(disk.path, FLAG_OFFSET + 20, b"?")

    refused(disk, CorruptDatabaseError, "log was removed")


def test_the_flag_is_set_while_a_log_is_needed_and_clear_after(disk: Place) -> None:
    """S4"""

    def flag() -> bool:
        return LogFlag.decode(files_in(disk)["notes.m2m"][512:1024], "x").needed

    store = disk.open()
    assert not flag()
    put(store, a="1")
    assert flag()
    store.checkpoint("truncate")
    assert flag()
    store.close()
    assert not flag()


# -- reading only ------------------------------------------------------------------------------


def test_a_clean_file_is_read_and_not_changed(disk: Place) -> None:
    put(disk.open(), a="1")
    disk.close()
    before = files_in(disk)

    store = disk.open(read_only=True)

    assert read(store) == {"a": "1"}
    with pytest.raises(OperationalError, match="open for reading only"):
        store.begin_write()
    with pytest.raises(OperationalError, match="open for reading only"):
        store.checkpoint()
    store.close()
    assert files_in(disk) == before


def test_a_reader_follows_a_living_writer(place: Place) -> None:
    """S6: it leaves its mark like anybody."""
    writer = place.open()
    put(writer, a="1")

    reader = place.open(read_only=True)
    assert read(reader) == {"a": "1"}
    snapshot = reader.begin_read()
    put(writer, a="2")

    assert writer.stats()["oldest_commit"] == 1
    assert read(reader) == {"a": "2"}
    snapshot.close()
    writer.close()
    assert read(reader) == {"a": "2"}


def test_a_reader_that_saw_no_log_follows_the_first_write(place: Place) -> None:
    place.open().close()
    reader = place.open(read_only=True)
    assert read(reader) == {}
    writer = place.open()

    for number in range(5):
        put(writer, a=str(number))
        writer.checkpoint("restart")
        assert read(reader) == {"a": str(number)}


class Denied(OsVfs):
    """A file system that lets nobody write what ends in `denied`."""

    denied = ""

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> OsFile:
        if not read_only and self.denied and path.endswith(self.denied):
            raise OperationalError(f"cannot open {path}: permission denied") from PermissionError(
                13, "permission denied"
            )
        return super().open(path, create=create, read_only=read_only)

    def shared_memory(self, path: str, size: int, *, create: bool) -> OsSharedMemory | None:
        if self.denied and path.endswith(self.denied):
            raise OperationalError(f"cannot open {path}: permission denied")
        return super().shared_memory(path, size, create=create)


@pytest.mark.parametrize("denied", [".m2m", "-shm"])
def test_a_reader_that_can_leave_no_mark_is_sent_to_immutable(disk: Place, denied: str) -> None:
    """S6"""
    put(disk.open(), a="1")
    disk.close()
    vfs = Denied()
    vfs.denied = denied
    disk.vfs = vfs

    refused(disk, OperationalError, "permission denied.*immutable=1", read_only=True)
    refused(disk, OperationalError, "permission denied")
    store = disk.open(immutable=True)
    assert read(store) == {"a": "1"}


def test_a_reader_applies_a_left_over_log_and_changes_nothing(disk: Place) -> None:
    """S3, S6: the first writer recovers, when nobody reads the old log any more."""
    crashed(disk)
    log = Path(disk.path + "-wal")
    log.write_bytes(log.read_bytes()[: LOG_HEADER_SIZE + 2 * 4128] + os.urandom(9000))
    before = files_in(disk)
    del before["notes.m2m-shm"]
    reader = disk.open(read_only=True)
    snapshot = reader.begin_read()
    assert rows_of(snapshot) == {"a": "1", "b": "2"}
    writer = disk.open()
    assert read(writer) == {"a": "1", "b": "2"}
    assert writer.checkpoint("passive")[0] == 1

    with pytest.raises(DatabaseBusyError, match="recovered when nobody reads"):
        writer.begin_write()

    assert {name: files_in(disk)[name] for name in before}["notes.m2m-wal"][512:] == (
        before["notes.m2m-wal"][512:]
    )
    snapshot.close()
    put(writer, c="3")
    assert read(reader) == {"a": "1", "b": "2", "c": "3"}
    kept = files_in(disk)
    disk.close()
    assert read(disk.open()) == {"a": "1", "b": "2", "c": "3"}
    disk.close()
    for name, content in kept.items():
        (Path(disk.path).parent / name).write_bytes(content)
    assert read(disk.open()) == {"a": "1", "b": "2", "c": "3"}, "and after a crash"


def test_readers_alone_leave_an_unrecovered_file_as_it_was(disk: Place) -> None:
    crashed(disk)
    before = files_in(disk)
    for _ in range(2):
        stores = [disk.open(read_only=True) for _ in range(2)]
        assert [read(store) for store in stores] == [{"a": "1", "b": "2"}] * 2
        disk.close()
        after = files_in(disk)
        assert after == {name: before[name] for name in ("notes.m2m", "notes.m2m-wal")}
    reader, writer = disk.open(read_only=True), disk.open()
    reader.close()
    writer.close()
    assert files_in(disk).keys() == {"notes.m2m"}
    assert read(disk.open()) == {"a": "1", "b": "2"}


def test_immutable_applies_a_left_over_log_in_memory(disk: Place) -> None:
    """S6"""
    crashed(disk)
    before = files_in(disk)

    store = disk.open(immutable=True)

    assert read(store) == {"a": "1", "b": "2"}
    assert store.last_commit == 2
    with pytest.raises(OperationalError, match="reading only"):
        store.begin_write()
    store.close()
    assert files_in(disk) == before


# -- names and places --------------------------------------------------------------------------


def test_hard_links_refuse_writing_only(disk: Place) -> None:
    """S29"""
    put(disk.open(), a="1")
    disk.close()
    os.link(disk.path, disk.path + "2")

    store = disk.open()

    assert read(store) == {"a": "1"}
    with pytest.raises(OperationalError, match="2 hard links"):
        store.begin_write()
    os.unlink(disk.path + "2")
    put(store, a="2")


def test_a_file_open_under_another_name_is_refused(disk: Place) -> None:
    """S29: the other name would have another log."""
    put(disk.open(), a="1")
    os.link(disk.path, disk.path + "2")
    other = Place(disk.vfs, disk.path + "2")

    refused(other, OperationalError, "open under another name")


def test_network_file_systems_refuse_writing_unless_without_locks(disk: Place) -> None:
    """S29"""

    class Network(OsVfs):
        def is_network(self, path: str) -> bool:
            return True

    put(disk.open(), a="1")
    disk.close()
    disk.vfs = Network()
    store = disk.open()
    assert read(store) == {"a": "1"}
    with pytest.raises(OperationalError, match="network file system"):
        store.begin_write()
    store.close()

    put(disk.open(no_lock=True), a="2")

    disk.close()
    assert read(disk.open()) == {"a": "2"}


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_file_that_lost_its_name_is_not_written(disk: Place, how: str) -> None:
    store = disk.open()
    put(store, a="1")
    if how == "removed":
        os.unlink(disk.path)
    else:
        os.replace(disk.path, disk.path + ".old")
    if how == "replaced":
        Path(disk.path).write_bytes(b"another file")

    with pytest.raises(OperationalError, match="moved, removed or replaced"):
        store.begin_write()

    assert read(store) == {"a": "1"}
    store.close()
    if how == "replaced":
        assert Path(disk.path).read_bytes() == b"another file"
    if how == "moved":
        moved = Place(disk.vfs, disk.path + ".old")
        assert read(moved.open(create=False)) == {"a": "1"}, "it was closed whole"
        moved.close()


# -- the locks of opening ----------------------------------------------------------------------


def test_opening_waits_for_one_that_recovers_and_says_so(place: Place) -> None:
    put(place.open(), a="1")
    place.close()
    file = place.vfs.open(place.path)
    assert file.lock(ATTACH, 1, exclusive=True)

    with pytest.raises(DatabaseBusyError, match="opens, recovers or closes"):
        place.open()

    file.unlock(ATTACH, 1)
    assert file.lock(OPENING, 1, exclusive=True)
    with pytest.raises(DatabaseBusyError):
        place.open()
    file.close()
    assert read(place.open()) == {"a": "1"}


def test_an_old_shared_state_is_ignored_by_the_first(disk: Place) -> None:
    """S3: whatever it says, the log is what counts."""
    crashed(disk)
    damage(disk.path + "-shm", 64, os.urandom(300))

    assert read(disk.open()) == {"a": "1", "b": "2"}


def test_the_file_opened_is_the_one_that_the_path_names(disk: Place) -> None:
    """S3: the inode is compared after ATTACH was had."""
    put(disk.open(), a="1")
    disk.close()
    (Path(disk.path).parent / "new").mkdir()
    other = Place(disk.vfs, str(Path(disk.path).parent / "new" / "n.m2m"))
    put(other.open(), a="2")
    other.close()

    class Swapping(OsVfs):
        def identity(self, path: str) -> Identity | None:
            if os.path.exists(other.path):
                os.replace(other.path, path)
            return super().identity(path)

    disk.vfs = Swapping()
    assert read(disk.open()) == {"a": "2"}


# -- closing -----------------------------------------------------------------------------------


def test_the_last_close_leaves_one_whole_file(place: Place) -> None:
    """S4"""
    first, second = place.open(), place.open()
    put(first, a="1")
    put(second, b="2")

    first.close()
    assert place.vfs.exists(place.path + "-wal")
    second.close()

    assert not place.vfs.exists(place.path + "-wal")
    assert not place.vfs.exists(place.path + "-shm")
    assert read(place.open()) == {"a": "1", "b": "2"}


def test_closing_rolls_back_and_ends_every_use(place: Place) -> None:
    store = place.open()
    put(store, a="1")
    snapshot = store.begin_read()
    transaction = store.begin_write()
    actions: list[Callable[[], object]] = [
        store.begin_read,
        store.begin_write,
        store.checkpoint,
        lambda: store.last_commit,
        lambda: snapshot.get(2),
        lambda: transaction.change(2),
        transaction.commit_now,
    ]

    store.close()
    store.close()

    assert store.closed
    for action in actions:
        with pytest.raises(InterfaceError):
            action()
    snapshot.close()
    transaction.rollback()
    assert read(place.open()) == {"a": "1"}


def test_two_that_leave_at_once_leave_one_whole_file(place: Place) -> None:
    """S4: both may fail to convert the lock that each of them shares."""
    stores = [place.open() for _ in range(2)]
    put(stores[0], a="1")
    first, second = stores
    converted = first.locks.exclusive(ATTACH)
    assert not converted

    first.close()
    second.close()

    assert not place.vfs.exists(place.path + "-wal")


def test_log_header_names_the_database(disk: Place) -> None:
    store = disk.open()
    put(store, a="1")

    header = LogHeader.decode(files_in(disk)["notes.m2m-wal"][:512], "x")

    assert header.uuid == store.uuid
    assert (header.base_commit, header.generation) == (0, 1)


def test_a_symbolic_link_means_the_file_that_it_leads_to(disk: Place) -> None:
    """The log is named after the file: two names must not lead to two logs."""
    link = disk.path + ".link"
    os.symlink(disk.path, link)

    assert target(link).path == target(disk.path).path == disk.path
