"""Targets: what copies, dumps and loads may write to, and what they must leave alone."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import m2mdb
from m2mdb.cli import run

Capture = pytest.CaptureFixture[str]
Copy = Callable[[m2mdb.Connection, Path], object]
COPIES: dict[str, Copy] = {
    "into": lambda con, path: con.execute("VACUUM INTO ?", (str(path),)),
    "backup": lambda con, path: con.backup(path),
}


@pytest.fixture(params=sorted(COPIES))
def copy(request: pytest.FixtureRequest) -> Copy:
    return COPIES[request.param]


@pytest.fixture
def source(path: Path) -> m2mdb.Connection:
    con = m2mdb.connect(path, autocommit=True, compute="numpy")
    con.execute("CREATE COLLECTION n (id INTEGER PRIMARY KEY, t TEXT)")
    con.execute("INSERT INTO n VALUES (1, 'a'), (2, 'b')")
    return con


def node(path: Path) -> Path:
    """A device of our own, in a folder of our own: nothing of the machine's is aimed at."""
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        path.write_bytes(b"")
    except OSError as error:
        pytest.skip(f"no device node can be made here: {error}")
    return path


def rows(path: Path) -> int:
    con = m2mdb.connect(path, read_only=True, compute="numpy")
    count = int(con.execute("SELECT count(*) FROM n").fetchall()[0][0])
    con.close()
    return count


def test_a_copy_refuses_a_device(source: m2mdb.Connection, copy: Copy, tmp_path: Path) -> None:
    device = node(tmp_path / "device")
    (tmp_path / "link").symlink_to(device)

    for target in (device, tmp_path / "link"):
        with pytest.raises(m2mdb.OperationalError, match="is not a regular file"):
            copy(source, target)

    assert stat.S_ISCHR(device.lstat().st_mode)
    assert (tmp_path / "link").is_symlink()
    assert [name for name in os.listdir(tmp_path) if "-new-" in name] == []


def test_a_copy_refuses_a_pipe_a_folder_and_a_circle(
    source: m2mdb.Connection, copy: Copy, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")

    for name in ("pipe", "folder", "circle"):
        with pytest.raises(m2mdb.OperationalError, match=name):
            copy(source, tmp_path / name)

    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert (tmp_path / "circle").is_symlink()


def test_a_copy_follows_links(source: m2mdb.Connection, copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "empty.m2m").write_bytes(b"")
    (tmp_path / "full.txt").write_bytes(b"something else")
    for name, behind in (("a", "empty.m2m"), ("b", "absent.m2m"), ("c", "full.txt")):
        (tmp_path / name).symlink_to(behind)

    copy(source, tmp_path / "a")
    copy(source, tmp_path / "b")
    with pytest.raises(m2mdb.DatabaseError):
        copy(source, tmp_path / "c")

    assert rows(tmp_path / "empty.m2m") == rows(tmp_path / "absent.m2m") == 2
    assert (tmp_path / "full.txt").read_bytes() == b"something else"
    assert all((tmp_path / name).is_symlink() for name in "abc")


def test_vacuum_into_takes_a_path_and_no_uri(
    source: m2mdb.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("file:q.m2m", "file:q.m2m?mode=ro", ":memory:"):
        with pytest.raises(m2mdb.ProgrammingError, match="path of a new file"):
            source.execute("VACUUM INTO ?", (name,))

    assert sorted(os.listdir(tmp_path)) == ["memory.m2m", "memory.m2m-shm", "memory.m2m-wal"]


# -- dump ------------------------------------------------------------------------------------------


def test_a_dump_goes_into_a_device_and_leaves_it(
    source: m2mdb.Connection, path: Path, tmp_path: Path, capsys: Capture
) -> None:
    device = node(tmp_path / "device")

    assert run(["dump", str(path), "--output", str(device)]) == 0

    assert stat.S_ISCHR(device.lstat().st_mode)
    assert [name for name in os.listdir(tmp_path) if name.endswith(".part")] == []


def test_a_dump_goes_into_a_pipe(source: m2mdb.Connection, path: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()

    assert run(["dump", str(path), "--output", str(pipe)]) == 0
    reader.join(10)

    assert read[0].endswith("COMMIT;\n")
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_a_dump_goes_through_links(
    source: m2mdb.Connection, path: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "old.sql").write_text("old")
    for name, behind in (("a", "old.sql"), ("b", "new.sql"), ("c", "c"), ("d", ".")):
        (tmp_path / name).symlink_to(behind)

    assert [run(["dump", str(path), "--output", str(tmp_path / n)]) for n in "abcd"] == [0, 0, 1, 1]

    assert (tmp_path / "old.sql").read_text() == (tmp_path / "new.sql").read_text() != "old"
    assert all((tmp_path / name).is_symlink() for name in "abcd")
    assert [name for name in os.listdir(tmp_path) if name.endswith(".part")] == []


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_dump_does_not_replace_the_database_or_its_files(
    source: m2mdb.Connection, path: Path, tmp_path: Path, suffix: str, capsys: Capture
) -> None:
    target = tmp_path / f"{path.name}{suffix}"
    (tmp_path / "link").symlink_to(target.name)
    before = target.stat().st_ino

    for output in (target, tmp_path / "link"):
        assert run(["dump", str(path), "--output", str(output)]) == 1
        assert "is the database itself or one of its files" in capsys.readouterr().err

    assert target.stat().st_ino == before
    source.execute("INSERT INTO n VALUES (3, 'c')")
    source.close()
    for beside in ("-wal", "-shm"):  # nor are they made where there are none
        assert run(["dump", str(path), "--output", f"{path}{beside}"]) == 1
        assert not os.path.exists(f"{path}{beside}")
    assert rows(path) == 3


def test_a_dump_to_a_full_disk_names_the_file(
    source: m2mdb.Connection, path: Path, tmp_path: Path, capsys: Capture
) -> None:
    full = tmp_path / "full"
    try:
        os.mknod(full, 0o600 | stat.S_IFCHR, os.makedev(1, 7))
        full.open("wb").close()
    except OSError as error:
        pytest.skip(f"no device node can be made here: {error}")

    assert run(["dump", str(path), "--output", str(full)]) == 1

    assert capsys.readouterr().err == f"m2mdb: cannot write {full}: disk full\n"
