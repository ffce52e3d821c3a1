"""One suite over every Vfs: what `pager.vfs` promises, whichever machine stands behind it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m2mdb.pager.errors import InterfaceError, OperationalError
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.pager.vfs import File, Vfs

FAR = 1 << 62  # where the engine's locks lie: beyond any data

MAKERS: dict[str, Callable[[], Vfs]] = {"os": OsVfs, "memory": MemoryVfs, "sim": SimVfs}


@pytest.fixture(params=sorted(MAKERS))
def vfs(request: pytest.FixtureRequest) -> Vfs:
    return MAKERS[request.param]()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notes.m2m")


@pytest.fixture
def file(vfs: Vfs, path: str) -> File:
    return vfs.open(path, create=True)


def test_a_new_file_is_empty(vfs: Vfs, path: str) -> None:
    assert not vfs.exists(path)

    file = vfs.open(path, create=True)

    assert vfs.exists(path)
    assert file.size() == vfs.size(path) == 0
    assert file.read_at(0, 10) == b""
    assert file.path == path


def test_an_absent_file_is_refused_by_name(vfs: Vfs, path: str) -> None:
    with pytest.raises(OperationalError, match=r"cannot open .*notes\.m2m: no such file"):
        vfs.open(path)
    with pytest.raises(OperationalError, match="no such file"):
        vfs.size(path)
    assert vfs.identity(path) is None


def test_writes_stay_where_they_were_put(file: File) -> None:
    file.write_at(5, b"hello")
    file.write_at(7, bytearray(b"LL"))
    file.write_at(100_000, memoryview(b"far"))

    assert file.read_at(0, 12) == b"\0\0\0\0\0heLLo\0\0"
    assert file.read_at(99_998, 10) == b"\0\0far"
    assert file.size() == 100_003


def test_read_into_fills_a_buffer_and_stops_at_the_end(file: File) -> None:
    file.write_at(0, b"0123456789")
    buffer = bytearray(b"." * 8)

    assert file.read_into(1, memoryview(buffer)) == 8
    assert buffer == b"12345678"
    assert file.read_into(7, memoryview(buffer)) == 3
    assert buffer[:3] == b"789"
    assert file.read_into(50, memoryview(buffer)) == 0


def test_truncate_cuts_and_grows_with_zeros(file: File) -> None:
    file.write_at(0, b"x" * 10_000)

    file.truncate(5_000)
    file.truncate(20_000)

    assert file.size() == 20_000
    assert file.read_at(0, 20_000) == b"x" * 5_000 + bytes(15_000)


def test_allocate_grows_and_keeps_content(file: File) -> None:
    file.write_at(0, b"abc")

    file.allocate(0, 4096)
    file.allocate(8192, 4096)

    assert file.size() == 12_288
    assert file.read_at(0, 5) == b"abc\0\0"
    file.allocate(0, 10)
    assert file.size() == 12_288


def test_two_handles_see_one_file(vfs: Vfs, path: str, file: File) -> None:
    other = vfs.open(path)

    file.write_at(3, b"seen")

    assert other.read_at(3, 4) == b"seen"
    assert other.identity() == file.identity() == vfs.identity(path)


def test_a_read_only_handle_does_not_write(vfs: Vfs, path: str, file: File) -> None:
    file.write_at(0, b"kept")
    reader = vfs.open(path, read_only=True)

    with pytest.raises(OperationalError, match="cannot write"):
        reader.write_at(0, b"lost")

    assert reader.read_at(0, 4) == b"kept"


def test_a_closed_file_says_so(file: File) -> None:
    file.close()
    file.close()

    for use in (
        lambda: file.read_at(0, 1),
        lambda: file.write_at(0, b"x"),
        file.sync,
        file.size,
        lambda: file.lock(FAR, 1, exclusive=False),
    ):
        with pytest.raises(InterfaceError, match="closed"):
            use()


def test_a_removed_file_lives_on_in_its_handles(vfs: Vfs, path: str, file: File) -> None:
    file.write_at(0, b"old")

    vfs.unlink(path)
    vfs.unlink(path)

    assert not vfs.exists(path)
    assert file.read_at(0, 3) == b"old"
    assert file.identity().links == 0
    again = vfs.open(path, create=True)
    assert again.size() == 0
    assert again.identity()[:2] != file.identity()[:2]


def test_rename_replaces_the_target(vfs: Vfs, path: str, file: File) -> None:
    file.write_at(0, b"new")
    vfs.open(path + "2", create=True).write_at(0, b"old")

    vfs.rename(path, path + "2")
    vfs.sync_dir(path)

    assert not vfs.exists(path)
    assert vfs.open(path + "2").read_at(0, 3) == b"new"
    with pytest.raises(OperationalError, match="cannot rename"):
        vfs.rename(path, path + "3")


def test_rename_replaces_nothing_where_it_must_not(
    vfs: Vfs, path: str, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_at(0, b"new")
    vfs.open(path + "2", create=True).write_at(0, b"old")

    for number in range(2):
        with pytest.raises(OperationalError, match="exists") as raised:
            vfs.rename(path, path + "2", replace=False)
        assert isinstance(raised.value.__cause__, FileExistsError)
        assert vfs.open(path + "2").read_at(0, 3) == b"old"
        with pytest.raises(OperationalError, match="no such file"):
            vfs.rename(path + "absent", path + "3", replace=False)
        vfs.rename(path, path + "3", replace=False)
        assert not vfs.exists(path)
        assert vfs.open(path + "3").read_at(0, 3) == b"new"
        if not number:
            vfs.rename(path + "3", path, replace=False)
            monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: None)  # a system that cannot


def test_a_map_shows_the_file_and_outlives_it(vfs: Vfs, path: str, file: File) -> None:
    file.allocate(0, 16_384)
    file.write_at(4096, b"mapped")

    view = file.map(4096, 8192)
    assert bytes(view[:6]) == b"mapped"
    assert len(view) == 8192
    assert view.readonly
    file.write_at(4096, b"MAPPED")
    assert bytes(view[:6]) == b"MAPPED"

    file.write_at(16_384, b"more")
    assert bytes(file.map(16_384, 4)) == b"more"
    file.close()
    assert bytes(view[:6]) == b"MAPPED"


def test_a_map_beyond_the_end_is_refused(file: File) -> None:
    file.write_at(0, b"short")

    with pytest.raises(OperationalError, match=r"cannot map .* of a file of 5"):
        file.map(0, 4096)
    assert bytes(file.map(0, 5)) == b"short"
    assert len(file.map(0, 0)) == 0


def test_a_map_keeps_no_lock_alive(vfs: Vfs, path: str, file: File) -> None:
    file.write_at(0, bytes(4096))
    assert file.lock(FAR, 1, exclusive=True)
    view = file.map(0, 4096)

    file.abandon()

    assert vfs.open(path).lock(FAR, 1, exclusive=True)
    assert len(view) == 4096


def test_exclusive_excludes_and_shared_shares(vfs: Vfs, path: str, file: File) -> None:
    second, third = vfs.open(path), vfs.open(path)

    assert file.lock(FAR, 1, exclusive=False)
    assert second.lock(FAR, 1, exclusive=False)
    assert not third.lock(FAR, 1, exclusive=True)
    assert not second.lock(FAR, 1, exclusive=True)
    assert third.lock(FAR + 1, 1, exclusive=True)

    file.close()
    assert second.lock(FAR, 1, exclusive=True)
    assert not third.lock(FAR, 1, exclusive=False)
    assert second.lock(FAR, 1, exclusive=False)
    assert third.lock(FAR, 1, exclusive=False)


def test_a_refused_conversion_keeps_the_shared_lock(vfs: Vfs, path: str, file: File) -> None:
    second, third = vfs.open(path), vfs.open(path)
    assert file.lock(FAR, 4, exclusive=False)
    assert second.lock(FAR, 4, exclusive=False)

    assert not file.lock(FAR, 4, exclusive=True)

    second.close()
    assert not third.lock(FAR, 1, exclusive=True)


def test_unlock_may_split_a_range(vfs: Vfs, path: str, file: File) -> None:
    other = vfs.open(path)
    assert file.lock(FAR, 10, exclusive=True)

    file.unlock(FAR + 4, 2)

    assert other.lock(FAR + 4, 2, exclusive=True)
    assert not other.lock(FAR + 3, 1, exclusive=False)
    assert not other.lock(FAR + 6, 1, exclusive=False)


def test_a_dropped_handle_drops_its_locks(vfs: Vfs, path: str, file: File) -> None:
    other = vfs.open(path)
    assert other.lock(FAR, 1, exclusive=True)

    del other
    gc.collect()

    assert file.lock(FAR, 1, exclusive=True)


def test_locks_of_different_files_do_not_meet(vfs: Vfs, path: str, file: File) -> None:
    other = vfs.open(path + "-wal", create=True)

    assert file.lock(FAR, 1, exclusive=True)
    assert other.lock(FAR, 1, exclusive=True)


def test_shared_memory_is_shared_zeroed_and_removable(vfs: Vfs, path: str) -> None:
    name = path + "-shm"
    assert vfs.shared_memory(name, 8192, create=False) is None

    first = vfs.shared_memory(name, 8192, create=True)
    assert first is not None
    assert bytes(first.view) == bytes(8192)
    second = vfs.shared_memory(name, 8192, create=False)
    assert second is not None
    first.view[100:104] = b"word"
    assert bytes(second.view[100:104]) == b"word"
    first.close()
    assert vfs.exists(name)

    vfs.unlink(name)
    second.view[0:1] = b"x"
    fresh = vfs.shared_memory(name, 8192, create=True)
    assert fresh is not None
    assert bytes(fresh.view) == bytes(8192)


def test_clock_randomness_and_identity(vfs: Vfs, path: str, file: File) -> None:
    start = vfs.monotonic()
    vfs.sleep(0.0)

    assert vfs.monotonic() >= start
    assert vfs.now() > 0
    assert len(vfs.random(16)) == 16
    assert vfs.random(16) != vfs.random(16)
    assert vfs.process_id() > 0
    assert not vfs.is_network(path)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 40_000), st.integers(0, 9_000)),
        st.tuples(st.just("truncate"), st.integers(0, 50_000), st.just(0)),
        st.tuples(st.just("allocate"), st.integers(0, 80_000), st.integers(1, 30_000)),
        st.tuples(st.just("map"), st.integers(0, 10), st.integers(0, 30_000)),
    ),
    max_size=25,
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(operations=OPERATIONS)
def test_a_file_agrees_with_a_bytearray(
    vfs: Vfs, path: str, operations: list[tuple[str, int, int]]
) -> None:
    vfs.unlink(path)
    file = vfs.open(path, create=True)
    model = bytearray()
    views: list[tuple[memoryview, int]] = []

    for step, (name, a, b) in enumerate(operations):
        if name == "write":
            data = bytes([step + 1]) * b
            model.extend(bytes(max(0, (a + b if b else 0) - len(model))))
            model[a : a + b] = data
            file.write_at(a, data)
        elif name == "truncate":
            views.clear()
            del model[a:]
            model.extend(bytes(a - len(model)))
            file.truncate(a)
        elif name == "allocate":
            model.extend(bytes(max(0, a + b - len(model))))
            file.allocate(a, b)
        elif a * 4096 + b <= len(model):
            views.append((file.map(a * 4096, b), a * 4096))
        assert file.size() == len(model)
        assert file.read_at(0, len(model) + 1) == model
        assert file.read_at(a, 5_000) == model[a : a + 5_000]
        buffer = bytearray(7_000)
        count = file.read_into(a, memoryview(buffer))
        assert buffer[:count] == model[a : a + 7_000]
    for view, offset in views:
        assert len(view) == 0 or offset + len(view) <= len(model)
    file.close()
