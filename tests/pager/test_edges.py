"""The pager's rarer paths: failing system calls, closed handles, damage, and what repr says."""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from m2mdb.pager import os_fork, os_platform, os_vfs
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import (
    CorruptDatabaseError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from m2mdb.pager.freespace import FreeMap
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.pager.page import Branch, Leaf, OverflowPage
from m2mdb.pager.range_locks import RangeLocks
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.pager.vfs import File, Vfs
from tests.pager.test_btree_damage import HostilePages

# -- failing system calls -----------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notes.m2m")


def failing(number: int = errno.EIO) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return call


OS_CALLS: dict[str, tuple[str, Callable[[File], object]]] = {
    "read": ("_pread", lambda file: file.read_at(0, 4)),
    "read into": ("_preadv", lambda file: file.read_into(0, memoryview(bytearray(4)))),
    "write": ("_pwrite", lambda file: file.write_at(0, b"news")),
    "allocate space in": ("allocate", lambda file: file.allocate(0, 8)),
    "sync": ("sync_data", lambda file: file.sync()),
    "map": ("map_read_only", lambda file: file.map(0, 4)),
    "lock": ("try_lock", lambda file: file.lock(0, 1, exclusive=True)),
    "unlock": ("try_lock", lambda file: file.unlock(0, 1)),
}


@pytest.mark.parametrize("operation", OS_CALLS)
def test_a_failing_system_call_is_named_and_the_file_stays_usable(
    path: str, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what failed on which file; the next call finds the file as it was."""
    name, call = OS_CALLS[operation]
    file = OsVfs().open(path, create=True)
    file.write_at(0, b"olds")

    with monkeypatch.context() as broken:
        broken.setattr(os_vfs, name, failing())
        with pytest.raises(OperationalError, match=f"cannot {operation.split(' into')[0]}") as got:
            call(file)

    assert path in str(got.value)
    assert isinstance(got.value.__cause__, OSError)
    assert file.read_at(0, 9) == b"olds"
    assert file.lock(0, 1, exclusive=True)
    file.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda file: file.read_into(0, memoryview(bytearray(4))),
        lambda file: file.identity(),
        lambda file: file.map(0, 0),
        lambda file: file.truncate(0),
        lambda file: file.unlock(0, 1),
        lambda file: file.allocate(0, 1),
    ],
)
@pytest.mark.parametrize("vfs", [OsVfs(), MemoryVfs(), SimVfs(1)], ids=lambda vfs: str(vfs.name))
def test_each_call_of_a_closed_file_says_so(
    vfs: Vfs, tmp_path: Path, call: Callable[[File], object]
) -> None:
    file = vfs.open(str(tmp_path / "closed"), create=True)
    file.write_at(0, b"some")
    file.close()
    file.close()

    with pytest.raises(InterfaceError, match="the file is closed"):
        call(file)


def test_an_abandoned_file_is_closed_and_its_locks_are_gone(path: str) -> None:
    """S5: as in a forked child; a second time does nothing."""
    for vfs in (MemoryVfs(), SimVfs(1)):
        file = vfs.open(path, create=True)
        assert file.lock(0, 1, exclusive=True)
        file.abandon()
        file.abandon()

        assert vfs.open(path).lock(0, 1, exclusive=True)
        with pytest.raises(InterfaceError, match="closed"):
            file.read_at(0, 1)

    opened = OsVfs().open(path, create=True)
    opened.abandon()
    opened.abandon()
    with pytest.raises(InterfaceError, match="closed"):
        opened.size()


def test_what_forks_end_is_told_of_it_as_long_as_it_lives() -> None:
    """S5: what was collected is not kept alive by having registered."""

    class Thing:
        told = 0

        def abandon(self) -> None:
            self.told += 1

    thing, dropped = Thing(), Thing()
    gone = weakref.ref(dropped)
    os_fork.end_at_fork(thing)
    os_fork.end_at_fork(dropped)
    del dropped

    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, bytes([thing.told]))
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(read, 1)
    os.close(read)
    os.close(write)

    assert gone() is None
    assert told == b"\1"
    assert thing.told == 0  # the parent goes on


def test_nothing_is_allocated_or_mapped_for_no_bytes(path: str) -> None:
    for vfs in (OsVfs(), MemoryVfs(), SimVfs(1)):
        file = vfs.open(path, create=True)
        file.allocate(4096, 0)

        assert file.size() == 0 or vfs.name == "memory"
        assert bytes(file.map(0, 0)) == b""
        file.close()


def test_paths_that_fail_are_named(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vfs = OsVfs()
    for call in (
        lambda: vfs.size(path),
        lambda: vfs.rename(path, path + "2"),
        lambda: vfs.sync_dir(str(tmp_path / "none" / "x")),
        lambda: vfs.unlink(str(tmp_path)),
        lambda: vfs.exists("n" * 5000),
    ):
        with pytest.raises(OperationalError, match="cannot"):
            call()

    with pytest.raises(OperationalError, match="is a directory"):
        vfs.resolve(str(tmp_path))
    assert not vfs.is_network(str(tmp_path / "none" / "x"))
    monkeypatch.setattr(os_vfs, "allocate", failing(errno.ENOSPC))
    with pytest.raises(OperationalError, match="cannot share memory by"):
        vfs.shared_memory(path + "-shm", 4096, create=True)


def test_a_name_is_given_in_two_steps_where_the_system_has_no_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither way replaces a file."""
    import ctypes

    class OldSystem:
        def __init__(self, *_: object, **__: object) -> None: ...

    source, target = str(tmp_path / "a"), str(tmp_path / "b")
    Path(source).write_bytes(b"a")
    monkeypatch.setattr(ctypes, "CDLL", OldSystem)

    os_platform.rename_new(source, target)
    assert not os.path.exists(source)
    assert Path(target).read_bytes() == b"a"
    Path(source).write_bytes(b"other")
    with pytest.raises(FileExistsError):
        os_platform.rename_new(source, target)
    assert Path(target).read_bytes() == b"a"
    assert Path(source).read_bytes() == b"other"


def test_zeros_that_the_system_does_not_take_end_an_allocation(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = OsVfs().open(path, create=True)
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)

    with pytest.raises(OperationalError, match="cannot allocate space in"):
        file.allocate(0, 10)
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
    with pytest.raises(OperationalError) as caught:
        file.allocate(0, 10)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_a_map_without_proc_reads_the_same_file_or_none(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PL2: by its name, as long as the name is still that file's."""
    real = os_platform.open_descriptor

    def without_proc(name: str, flags: int, mode: int = 0o644) -> int:
        if name.startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return real(name, flags, mode)

    monkeypatch.setattr(os_platform, "open_descriptor", without_proc)
    file = OsVfs().open(path, create=True)
    file.write_at(0, b"the first")
    again = os_platform._reopen(file._fd, path)
    assert os.pread(again, 9, 0) == b"the first"
    os.close(again)

    os.rename(path, path + ".moved")
    Path(path).write_bytes(b"another")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        os_platform._reopen(file._fd, path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_map_is_cut_from_the_one_that_is_there(path: str) -> None:
    file = OsVfs().open(path, create=True)
    file.write_at(0, bytes(range(100)))
    first = file.map(10, 20)

    assert bytes(file.map(50, 5)) == bytes(range(50, 55))
    assert bytes(file.map(0, 0)) == b""
    assert bytes(first) == bytes(range(10, 30))


def test_a_read_and_a_write_that_come_in_parts(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short counts are gone on from; the end of the file ends a read."""
    file = OsVfs().open(path, create=True)
    file.write_at(0, b"0123456789")
    monkeypatch.setattr(os_vfs, "_preadv", lambda fd, parts, at: os.preadv(fd, (parts[0][:3],), at))
    buffer = bytearray(16)

    assert file.read_into(0, memoryview(buffer)) == 10
    assert bytes(buffer[:10]) == b"0123456789"
    assert file.read_into(10, memoryview(buffer)) == 0


def test_files_say_what_they_are(path: str) -> None:
    file = OsVfs().open(path, create=True)
    assert repr(file) == f"<OsFile {path!r}>"
    file.close()
    assert repr(file) == f"<OsFile {path!r} (closed)>"
    vfs = SimVfs(3)
    assert repr(vfs.open("d/x", create=True)) == f"<SimFile 'd/x' of process {vfs.pid}>"


# -- files in memory ----------------------------------------------------------------------------


def test_a_range_allocated_within_spare_room_is_mapped_without_a_copy() -> None:
    """MV1: it gets a segment of its own, so that its view shows later writes."""
    file = MemoryVfs().open("m", create=True)
    file.write_at(0, b"head")
    file.allocate(4096, 1 << 20)
    view = file.map(4096, 1 << 20)
    file.write_at(5000, b"later")

    assert bytes(view[5000 - 4096 :][:5]) == b"later"
    assert file.read_at(0, 5000) == b"head" + bytes(4996)
    file.allocate(4 << 20, 4096)  # behind a hole
    assert file.size() == (4 << 20) + 4096
    assert file.read_at(3 << 20, 10) == bytes(10)
    file.truncate(2)
    file.allocate(0, 100)
    file.allocate(100, 1 << 17)
    assert file.read_at(0, 100) == b"he" + bytes(98)


def test_memory_that_is_allocated_anew_drops_whole_segments_of_spare_room() -> None:
    file = MemoryVfs().open("m", create=True)
    file.write_at(0, b"x")
    file.truncate(0)
    file.write_at(0, b"")
    file.allocate(0, 1 << 17)
    file.write_at((1 << 17) - 1, b"z")
    file.truncate(1 << 16)
    file.allocate(1 << 16, 1 << 18)

    assert file.read_at(0, 1 << 18) == bytes(1 << 18)
    assert file.size() == (1 << 16) + (1 << 18)


def test_names_in_memory() -> None:
    vfs = MemoryVfs()
    with pytest.raises(OperationalError, match="no such file"):
        vfs.rename("a", "b")
    with pytest.raises(OperationalError, match="no such file"):
        vfs.size("a")
    vfs.open("a", create=True).write_at(0, b"a")
    vfs.rename("a", "a")
    assert vfs.size("a") == 1
    region = vfs.shared_memory("a-shm", 64, create=True)
    assert region is not None
    assert vfs.size("a-shm") == 64
    region.close()
    with pytest.raises(OperationalError, match="64 bytes, not 128"):
        vfs.shared_memory("a-shm", 128, create=True)


# -- the simulator ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["truncate", "size", "identity", "map", "unlock", "allocate"])
def test_a_fault_of_the_simulator_reaches_each_call(kind: str) -> None:
    """And the disk is as it was."""
    vfs = SimVfs(5)
    file = vfs.open("d/x", create=True)
    file.write_at(0, b"0123")
    calls: dict[str, Callable[[], object]] = {
        "truncate": lambda: file.truncate(0),
        "size": file.size,
        "identity": file.identity,
        "map": lambda: file.map(0, 4),
        "unlock": lambda: file.unlock(0, 1),
        "allocate": lambda: file.allocate(4, 4),
    }
    vfs.fail(kind)
    with pytest.raises(OperationalError, match="cannot"):
        calls[kind]()
    vfs.clear_faults()

    assert file.read_at(0, 9) == b"0123"
    calls[kind]()


def test_a_simulated_lock_that_the_system_refuses_is_held_elsewhere() -> None:
    vfs = SimVfs(5)
    file = vfs.open("d/x", create=True)
    for number in (errno.EAGAIN, errno.EACCES):
        vfs.fail("lock", error=number)
        assert not file.lock(0, 1, exclusive=True)
    vfs.fail("lock", error=errno.ENOLCK)
    with pytest.raises(OperationalError, match="cannot lock"):
        file.lock(0, 1, exclusive=True)
    assert file.lock(0, 1, exclusive=True)
    with pytest.raises(OperationalError, match="cannot lock"):
        vfs.open("d/x", read_only=True).lock(5, 1, exclusive=True)


def test_the_simulators_settings_are_the_machines() -> None:
    vfs = SimVfs(5)
    other = vfs.fork_process()
    seen: list[str] = []
    other.on_call = lambda call: seen.append(call.kind)
    vfs.disk_size = 8192
    vfs.failed_sync = "none"
    vfs.open("d/x", create=True)

    assert other.disk_size == 8192
    assert other.failed_sync == "none"
    assert vfs.on_call is other.on_call
    assert "create" in seen
    with pytest.raises(AssertionError, match="sometimes"):
        vfs.failed_sync = "sometimes"
    region = vfs.shared_memory("d/x-shm", 64, create=True)
    assert region is not None
    with pytest.raises(OperationalError, match="64 bytes, not 128"):
        other.shared_memory("d/x-shm", 128, create=True)
    assert other.shared_memory("d/y-shm", 64, create=False) is None


def test_two_processes_that_create_a_file_at_once_have_one() -> None:
    """The second comes between the first one's look and its creation."""
    vfs = SimVfs(5)
    other = vfs.fork_process()
    files: list[File] = []

    def hook(call: Any) -> None:
        if call.kind == "create" and not files:
            vfs.on_call = None
            files.append(other.open("d/x", create=True))

    vfs.on_call = hook
    file = vfs.open("d/x", create=True)
    files[0].write_at(0, b"one")

    assert file.read_at(0, 9) == b"one"
    assert file.identity() == files[0].identity()


def test_images_and_operations_say_what_they_are() -> None:
    vfs = SimVfs(5)
    file = vfs.open("d/x", create=True)
    file.write_at(512, b"12345")
    image = vfs.crash_images(vfs.io_points, Random(1), 3)[0]

    assert f"I/O point {image.point}" in repr(image._image)
    texts = [str(operation) for operation in vfs.log]
    assert any(text.startswith("write x [512, +5) by") for text in texts), texts
    assert any(text.startswith("create x") for text in texts), texts


@pytest.mark.parametrize("mode", ["none", "revert", "some", "keep"])
def test_a_failed_sync_of_new_and_of_old_pages(mode: str) -> None:
    """`revert` shows what was durable, the others what was written; a map shows the same."""
    vfs = SimVfs(11)
    file = vfs.open("d/x", create=True)
    file.write_at(0, b"a" * 4096)
    file.sync()
    view = file.map(0, 4096)
    file.write_at(0, b"b" * 4096)
    file.write_at(8192, b"c" * 4096)  # a page that never was on the disk
    vfs.failed_sync = mode
    vfs.fail("sync")
    with pytest.raises(OperationalError, match="cannot sync"):
        file.sync()

    old = mode == "revert"
    assert file.read_at(0, 4096) == (b"a" if old else b"b") * 4096
    assert bytes(view) == file.read_at(0, 4096)
    assert file.read_at(8192, 4096) == (bytes(4096) if old else b"c" * 4096)


def test_locks_name_their_holders() -> None:
    """And dropping one owner's leaves the others'."""
    locks = RangeLocks()
    one, two = object(), object()
    assert locks.lock(one, 0, 10, exclusive=False)
    assert locks.lock(two, 5, 10, exclusive=False)

    assert set(locks.held()) == {(one, 0, 10, False), (two, 5, 15, False)}
    locks.drop(one)
    assert locks.held() == [(two, 5, 15, False)]


# -- trees, free pages, headers -----------------------------------------------------------------


def hostile(**nodes: Any) -> BTree:
    return BTree(HostilePages({int(name[1:]): node for name, node in nodes.items()}), 2)


@pytest.mark.parametrize(
    "damaged",
    [
        lambda: hostile(p2=OverflowPage(0, b"piece")),
        lambda: hostile(p2=Branch([b"m"], [3, 3]), p3=OverflowPage(0, b"piece")),
        lambda: hostile(p2=Branch([], [2])),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda tree: tree.put(b"k", b"v"),
        lambda tree: tree.delete(b"k"),
        lambda tree: tree.get(b"k"),
        lambda tree: list(tree.scan()),
    ],
)
def test_a_tree_whose_root_leads_to_no_leaf_is_damage(
    damaged: Callable[[], BTree], call: Callable[[BTree], object]
) -> None:
    with pytest.raises(CorruptDatabaseError):
        call(damaged())


def test_a_root_without_children_is_an_empty_tree_again() -> None:
    """Whatever a hostile file says, a deletion ends with a tree or with an error."""
    tree = hostile(p2=Branch([], [3]), p3=Leaf([b"k"], [b"v"]))
    with contextlib.suppress(CorruptDatabaseError):
        assert tree.delete(b"k")
        assert list(tree.scan()) == []
        tree.put(b"n", b"v")
        assert list(tree.scan()) == [(b"n", b"v")]


def test_a_copied_piece_of_an_overflow_chain_is_its_own() -> None:
    piece = OverflowPage(7, b"data")
    copied = piece.copy()
    copied.next, copied.data = 9, b"other"

    assert (piece.next, piece.data, piece.size) == (7, b"data", 4)
    assert copied.size == 5


def test_what_is_claimed_has_to_be_free() -> None:
    """A claim may span runs of several commits; one page too many is an error."""
    free = FreeMap()
    free.give(10, 5, 1)
    free.give(15, 5, 2)
    free.give(30, 5, 3)
    free.claim(12, 6)
    assert list(free) == [(10, 2, 1), (18, 2, 2), (30, 5, 3)]
    for first, count in ((11, 2), (12, 1), (34, 2), (1, 1), (25, 6)):
        with pytest.raises(InternalError, match="is claimed, which is not free"):
            free.claim(first, count)


def test_a_free_map_that_never_comes_to_rest_is_an_error() -> None:
    """A tree that gives a page with each change would go on for ever."""
    free = FreeMap()
    pages = iter(range(100, 10_000, 2))

    class Restless:
        def get(self, key: bytes) -> None:
            assert key

        def put(self, key: bytes, value: bytes) -> None:
            free.give(next(pages), 1, 1)

    free.give(10, 5, 1)
    restless: Any = Restless()
    with pytest.raises(InternalError, match="not at rest"):
        free.flush(restless)
