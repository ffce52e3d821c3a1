"""What only real files can show: fork, kill, permissions, descriptors, other file types."""

from __future__ import annotations

import errno
import fcntl
import gc
import mmap
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from m2mdb.pager import os_platform
from m2mdb.pager.errors import InterfaceError, NotSupportedError, OperationalError
from m2mdb.pager.io_errors import is_disk_full
from m2mdb.pager.os_vfs import OsFile, OsVfs

FAR = 1 << 62


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notes.m2m")


@pytest.fixture
def file(path: str) -> OsFile:
    return OsVfs().open(path, create=True)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(OperationalError, match="is a directory"):
            OsVfs().open(str(tmp_path), read_only=read_only)


def test_a_pipe_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (str(tmp_path / "pipe"), "/dev/null"):
        with pytest.raises(OperationalError, match="not a regular file"):
            OsVfs().open(path, read_only=True)


def test_a_missing_folder_and_a_null_byte_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match="no such file or folder"):
        OsVfs().open(str(tmp_path / "none" / "x.m2m"), create=True)
    with pytest.raises(OperationalError, match="cannot open"):
        OsVfs().open(str(tmp_path / ("n" * 300)), create=True)
    with pytest.raises(InterfaceError, match="null"):
        OsVfs().open("a\0b", create=True)
    with pytest.raises(InterfaceError, match="null"):
        OsVfs().exists("a\0b")


def test_no_permission_is_refused(path: str, file: OsFile, tmp_path: Path) -> None:
    os.chmod(path, 0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(folder, 0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything

    try:
        with pytest.raises(OperationalError, match="permission denied") as caught:
            OsVfs().open(path)
    finally:
        os.seteuid(user)
    assert isinstance(caught.value.__cause__, PermissionError)


def test_a_full_disk_is_told_from_other_errors(
    file: OsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OperationalError, match=r"allocate space in .*notes\.m2m: disk full") as e:
        file.allocate(0, 4096)
    assert is_disk_full(e.value)


def test_allocation_falls_back_to_zeros(file: OsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    file.write_at(0, b"abc")
    file.allocate(0, 3_000_000)

    assert file.size() == 3_000_000
    assert file.read_at(0, 4) == b"abc\0"


def test_missing_lock_support_is_named(file: OsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os_platform, "_SET_LOCK", None)

    with pytest.raises(NotSupportedError, match="F_OFD_SETLK"):
        file.lock(FAR, 1, exclusive=True)


def test_descriptors_are_closed_on_exec_and_never_standard_ones(path: str) -> None:
    """PL3, in a process whose standard streams are closed."""
    code = (
        "import os, sys\n"
        "from m2mdb.pager.os_vfs import OsVfs\n"
        "for fd in (0, 1, 2): os.close(fd)\n"
        "file = OsVfs().open(sys.argv[1], create=True)\n"
        "ok = file._fd > 2 and not os.get_inheritable(file._fd)\n"
        "try: os.fstat(0); ok = False\n"
        "except OSError: pass\n"
        "os._exit(0 if ok else 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 0


def test_locks_hold_between_processes_and_die_with_them(path: str, file: OsFile) -> None:
    code = (
        "import sys\n"
        "from m2mdb.pager.os_vfs import OsVfs\n"
        "file = OsVfs().open(sys.argv[1])\n"
        f"print(file.lock({FAR}, 1, exclusive=True), flush=True)\n"
        "sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline().strip() == "True"
        assert not file.lock(FAR, 1, exclusive=False)
    finally:
        other.kill()
        other.communicate()

    assert file.lock(FAR, 1, exclusive=True)


def test_a_forked_child_keeps_no_lock_of_its_parent(path: str, file: OsFile) -> None:
    """OS1: a child that lives on does not hold what its parent gave up."""
    assert file.lock(FAR, 1, exclusive=True)
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            file.read_at(0, 1)
        except InterfaceError:
            os.write(write_end, b"c")
        os.close(write_end)
        os.read(0, 0)
        os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 1) == b"c"
    os.waitpid(child, 0)
    os.close(read_end)

    other = OsVfs().open(path)
    assert not other.lock(FAR, 1, exclusive=True)
    file.close()
    assert other.lock(FAR, 1, exclusive=True)


def test_closing_another_handle_drops_no_lock(path: str, file: OsFile) -> None:
    """PL1: the trap of POSIX's process locks."""
    assert file.lock(FAR, 1, exclusive=True)

    with open(path, "rb"):
        OsVfs().open(path).close()

    assert not OsVfs().open(path).lock(FAR, 1, exclusive=True)


def test_a_dropped_file_closes_its_descriptor(path: str) -> None:
    file = OsVfs().open(path, create=True)
    fd = file._fd
    assert file.lock(FAR, 1, exclusive=True)

    del file
    gc.collect()

    with pytest.raises(OSError, match="Bad file"):
        fcntl.fcntl(fd, fcntl.F_GETFD)
    assert OsVfs().open(path).lock(FAR, 1, exclusive=True)


def test_many_maps_cost_few_descriptors(file: OsFile) -> None:
    file.allocate(0, 1 << 20)
    before = len(os.listdir("/proc/self/fd"))

    views = [file.map(offset, 4096) for offset in range(0, 1 << 20, 4096)]

    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert isinstance(views[0].obj, mmap.mmap)


def test_a_map_of_a_renamed_and_removed_file_works(path: str, file: OsFile) -> None:
    file.write_at(0, b"x" * 4096)
    os.unlink(path)

    assert bytes(file.map(0, 4096)) == b"x" * 4096


def test_side_files_take_the_permissions_of_the_database(path: str, file: OsFile) -> None:
    """OS3: the log of a private database is private."""
    os.chmod(path, 0o660)

    OsVfs().open(path + "-wal", create=True)
    OsVfs().shared_memory(path + "-shm", 4096, create=True)

    assert stat.S_IMODE(os.stat(path + "-wal").st_mode) == 0o660
    assert stat.S_IMODE(os.stat(path + "-shm").st_mode) == 0o660


def test_shared_memory_is_backed_by_allocated_blocks(path: str) -> None:
    OsVfs().shared_memory(path, 32_768, create=True)

    assert os.stat(path).st_blocks * 512 >= 32_768


def test_shared_memory_closes_under_a_live_slice(path: str) -> None:
    region = OsVfs().shared_memory(path, 4096, create=True)
    assert region is not None
    word = region.view[0:8]

    region.close()

    word[0:1] = b"x"
    assert OsVfs().open(path).read_at(0, 1) == b"x"


def test_hard_links_are_counted(path: str, file: OsFile) -> None:
    os.link(path, path + ".copy")

    found = OsVfs().identity(path)
    assert found is not None
    assert found.links == file.identity().links == 2


def test_network_file_systems_are_found_by_device_and_by_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S29."""
    device = os.stat(tmp_path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    table = [("9:9", "/", "ext4"), (name, str(tmp_path), "nfs4")]
    monkeypatch.setattr(os_platform, "_mounts", lambda: table)

    assert OsVfs().is_network(str(tmp_path / "new.m2m"))
    table[1] = ("9:8", str(tmp_path), "cifs")
    assert OsVfs().is_network(str(tmp_path / "new.m2m"))
    table[1] = ("9:8", str(tmp_path), "9p")
    assert not OsVfs().is_network(str(tmp_path / "new.m2m"))
    table[1] = (name, "/", "ext4")
    assert not OsVfs().is_network(str(tmp_path / "new.m2m"))
    assert not OsVfs().is_network("/none/at/all")


def test_short_writes_and_reads_are_continued(
    file: OsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V2: the system may take part of a request."""
    import m2mdb.pager.os_vfs as module

    monkeypatch.setattr(module, "_pwrite", lambda fd, data, at: os.pwrite(fd, data[:3], at))
    monkeypatch.setattr(module, "_pread", lambda fd, size, at: os.pread(fd, min(size, 4), at))
    monkeypatch.setattr(module, "_preadv", lambda fd, parts, at: os.preadv(fd, [parts[0][:2]], at))

    file.write_at(1, memoryview(b"0123456789"))
    buffer = bytearray(6)

    assert file.read_at(0, 20) == b"\x000123456789"
    assert file.read_into(2, memoryview(buffer)) == 6
    assert buffer == b"123456"


def test_a_system_that_takes_nothing_is_an_error_and_no_endless_loop(
    file: OsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V2: found while the n-th call of every kind was made to fail."""
    import m2mdb.pager.os_vfs as module

    def unsupported(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no allocation")

    monkeypatch.setattr(module, "_pwrite", lambda fd, data, at: 0)
    with pytest.raises(OperationalError, match=r"cannot write .*: input/output error"):
        file.write_at(0, b"0123456789")
    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    with pytest.raises(OperationalError, match=r"cannot allocate .*: input/output error"):
        file.allocate(0, 4096)


def test_closing_succeeds_where_locks_cannot_be_given_up(
    path: str, file: OsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V5: no OSError leaves `close`, and the descriptor is gone with its locks."""
    import m2mdb.pager.os_vfs as module

    def fail(*_: object) -> bool:
        raise OSError(errno.ENOLCK, "no locks available")

    assert file.lock(1 << 62, 1, exclusive=True)
    monkeypatch.setattr(module, "try_lock", fail)

    file.close()

    monkeypatch.undo()
    other = OsVfs().open(path)
    assert other.lock(1 << 62, 1, exclusive=True)
    other.close()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells a map's flags")
def test_who_gives_pages_back_gets_no_huge_ones(file: OsFile) -> None:
    """Of a map of which pages were given back, a read is to make 2 MiB resident no more."""

    def flags() -> list[str]:
        text = Path("/proc/self/smaps").read_text()
        of_map = text[text.index(f" {os.path.realpath(file.path)}\n") :]
        return of_map[of_map.index("VmFlags:") :].splitlines()[0].split()[1:]

    file.write_at(0, bytes(4 << 20))
    view = file.map(0, 4 << 20)
    assert "nh" not in flags()
    file.release(1 << 20, 1 << 20)
    assert "nh" in flags()
    assert bytes(view[1 << 20 : (1 << 20) + 9]) == bytes(9)


@pytest.mark.skipif(not hasattr(mmap, "MADV_NOHUGEPAGE"), reason="the system has no huge pages")
def test_pages_are_given_back_where_the_kernel_knows_no_huge_ones(
    file: OsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One built without them answers EINVAL, as to any advice that it does not know."""
    monkeypatch.setattr(mmap, "MADV_NOHUGEPAGE", 9999)
    file.write_at(0, b"x" * (4 << 20))
    view = file.map(0, 4 << 20)

    file.release(1 << 20, 1 << 20)

    assert bytes(view[1 << 20 : (1 << 20) + 9]) == b"x" * 9
