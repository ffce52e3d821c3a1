"""The simulator itself: it loses, tears and reorders what is unsynced, and never what is synced."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.io_errors import is_disk_full
from m2mdb.pager.sim_file import SimFile
from m2mdb.pager.sim_machine import Call, ProcessKilledError
from m2mdb.pager.sim_vfs import SimImage, SimVfs

FAR = 1 << 62
ROUNDS = int(os.environ.get("M2M_SIM_ROUNDS", "1"))


def durable_file(vfs: SimVfs, path: str, content: bytes = b"") -> SimFile:
    file = vfs.open(path, create=True)
    file.write_at(0, content)
    file.sync()
    vfs.sync_dir(path)
    return file


def content(image: SimImage, path: str = "d/x") -> bytes | None:
    vfs = image.vfs()
    return vfs.open(path).read_at(0, 1 << 30) if vfs.exists(path) else None


def contents_at(vfs: SimVfs, point: int, rounds: int = 20) -> set[bytes | None]:
    return {
        content(image)
        for seed in range(rounds)
        for image in vfs.crash_images(point, Random(seed), 20)
    }


# -- content ---------------------------------------------------------------------------------


def test_synced_bytes_are_in_every_image() -> None:
    vfs = SimVfs()
    durable_file(vfs, "d/x", b"kept" * 5000)

    assert contents_at(vfs, vfs.io_points) == {b"kept" * 5000}


def test_an_unsynced_write_is_lost_or_kept_whole_within_a_sector() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"old" + bytes(509))

    file.write_at(0, b"new")

    assert contents_at(vfs, vfs.io_points) == {b"old" + bytes(509), b"new" + bytes(509)}


def test_a_large_write_is_torn_at_sectors_and_pages() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"0" * 8192)
    file.write_at(0, b"1" * 8192)

    images = vfs.crash_images(vfs.io_points - 1, Random(1), 50)
    found = {content(image) for image in images}

    labels = " ".join(image.label for image in images)
    assert "torn at 4096, head kept" in labels
    assert "torn at 4096, tail kept" in labels
    assert b"1" * 4096 + b"0" * 4096 in found
    assert b"0" * 4096 + b"1" * 4096 in found
    assert any(
        data is not None and len({data[i : i + 4096] for i in (0, 4096)}) == 2 for data in found
    )
    for data in found:
        assert data is not None
        assert len(data) == 8192
        for start in range(0, 8192, 512):
            assert data[start : start + 512] in (b"0" * 512, b"1" * 512)


def test_a_later_write_may_be_kept_and_an_earlier_lost() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"a" * 8192)
    file.write_at(0, b"b" * 4096)
    file.write_at(4096, b"c" * 4096)

    found = contents_at(vfs, vfs.io_points)

    assert b"a" * 4096 + b"c" * 4096 in found
    assert b"b" * 4096 + b"a" * 4096 in found


def test_an_overwritten_sector_may_come_back_in_each_version() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"0" * 512)
    for digit in b"123":
        file.write_at(0, bytes([digit]) * 512)

    found = contents_at(vfs, vfs.io_points)

    assert found == {digit * 512 for digit in (b"0", b"1", b"2", b"3")}


def test_a_file_may_have_grown_before_its_content_arrived() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"x" * 4096)
    file.write_at(4096, b"y" * 4096)

    found = contents_at(vfs, vfs.io_points)

    assert b"x" * 4096 in found
    assert b"x" * 4096 + bytes(4096) in found
    assert b"x" * 4096 + b"y" * 4096 in found
    assert any(
        data is not None and data[4096:] not in (b"", bytes(4096), b"y" * 4096) for data in found
    )
    assert all(data is not None and data[:4096] == b"x" * 4096 for data in found)


def test_a_truncation_is_pending_until_the_sync() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"x" * 6000)
    file.truncate(100)

    before = contents_at(vfs, vfs.io_points)
    file.sync()

    assert {b"x" * 6000, b"x" * 100} <= before
    assert contents_at(vfs, vfs.io_points) == {b"x" * 100}


def test_files_are_synced_apart() -> None:
    vfs = SimVfs()
    first, second = durable_file(vfs, "d/x"), durable_file(vfs, "d/y")
    first.write_at(0, b"first")
    second.write_at(0, b"second")

    second.sync()

    found = set()
    for seed in range(20):
        for image in vfs.crash_images(vfs.io_points, Random(seed)):
            assert content(image, "d/y") == b"second"
            found.add(content(image, "d/x"))
    assert {b"", b"first"} <= found


def test_a_crash_during_a_sync_leaves_any_part_of_its_work() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"0" * 8192)
    file.write_at(0, b"1" * 8192)
    point = vfs.io_points
    file.sync()

    during = contents_at(vfs, point)

    assert {b"0" * 8192, b"1" * 8192} < during
    assert contents_at(vfs, point + 1) == {b"1" * 8192}


def test_earlier_points_are_seen_as_they_were() -> None:
    """Point by point in any order, and while the run goes on."""
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"@" * 10)
    points = []
    for step in range(5):
        points.append(vfs.io_points)
        file.write_at(0, bytes([65 + step]) * 10)
        file.sync()

    for step in (4, 1, 3, 0, 2):
        before = bytes([64 + step]) * 10
        assert contents_at(vfs, points[step], 3) == {before, bytes([65 + step]) * 10}


# -- names -----------------------------------------------------------------------------------


def test_a_created_name_is_durable_only_after_sync_dir() -> None:
    vfs = SimVfs()
    file = vfs.open("d/x", create=True)
    file.write_at(0, b"content")
    file.sync()

    assert contents_at(vfs, vfs.io_points) == {None, b"content"}
    vfs.sync_dir("d/other")
    assert contents_at(vfs, vfs.io_points) == {b"content"}


def test_a_durable_name_does_not_make_content_durable() -> None:
    vfs = SimVfs()
    file = vfs.open("d/x", create=True)
    file.write_at(0, b"content")
    vfs.sync_dir("d/x")

    assert contents_at(vfs, vfs.io_points) >= {b"", b"content"}


def test_folders_are_synced_apart() -> None:
    vfs = SimVfs()
    vfs.open("d/x", create=True).sync()
    vfs.sync_dir("e/x")

    assert None in contents_at(vfs, vfs.io_points)


def test_an_unlinked_name_may_come_back_with_its_synced_content() -> None:
    vfs = SimVfs()
    durable_file(vfs, "d/x", b"back")
    vfs.unlink("d/x")

    assert contents_at(vfs, vfs.io_points) == {None, b"back"}
    vfs.sync_dir("d/x")
    assert contents_at(vfs, vfs.io_points) == {None}


def test_a_rename_is_done_or_not() -> None:
    vfs = SimVfs()
    durable_file(vfs, "d/x", b"old")
    durable_file(vfs, "d/y", b"new")
    vfs.rename("d/y", "d/x")

    found = {
        (content(image), content(image, "d/y"))
        for seed in range(20)
        for image in vfs.crash_images(vfs.io_points, Random(seed))
    }

    assert found == {(b"old", b"new"), (b"new", None)}


# -- processes -------------------------------------------------------------------------------


def test_processes_share_files_and_memory_but_no_locks() -> None:
    vfs = SimVfs()
    file = vfs.open("d/x", create=True)
    other = vfs.fork_process()
    theirs = other.open("d/x")

    file.write_at(0, b"seen")
    region = vfs.shared_memory("d/x-shm", 4096, create=True)
    same = other.shared_memory("d/x-shm", 4096, create=False)
    assert region is not None
    assert same is not None
    region.view[0:1] = b"!"

    assert theirs.read_at(0, 4) == b"seen"
    assert bytes(same.view[:1]) == b"!"
    assert other.process_id() != vfs.process_id()
    assert file.lock(FAR, 1, exclusive=True)
    assert not theirs.lock(FAR, 1, exclusive=False)


def test_a_killed_process_leaves_its_writes_and_loses_its_locks() -> None:
    vfs = SimVfs()
    file = vfs.open("d/x", create=True)
    region = vfs.shared_memory("d/x-shm", 4096, create=True)
    assert region is not None
    region.view[0:1] = b"!"
    file.write_at(0, b"unsynced")
    assert file.lock(FAR, 1, exclusive=True)

    after = vfs.process_crash()

    assert after.open("d/x").read_at(0, 8) == b"unsynced"
    assert after.open("d/x").lock(FAR, 1, exclusive=True)
    again = after.shared_memory("d/x-shm", 4096, create=False)
    assert again is not None
    assert bytes(again.view[:1]) == b"!"
    with pytest.raises(ProcessKilledError):
        file.read_at(0, 1)
    with pytest.raises(ProcessKilledError):
        vfs.open("d/x")
    file.close()
    assert None in contents_at(after, after.io_points)


def test_kill_at_call_stops_before_the_call_and_for_good() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x")
    vfs.kill_at_call(2, "write")

    file.write_at(0, b"1")
    with pytest.raises(ProcessKilledError):
        file.write_at(1, b"2")
    with pytest.raises(ProcessKilledError):
        vfs.unlink("d/x")

    assert vfs.fork_process().open("d/x").read_at(0, 9) == b"1"


def test_kill_image_keeps_the_page_cache_and_what_is_pending() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"0")
    region = vfs.shared_memory("d/x-shm", 512, create=True)
    assert region is not None
    region.view[:] = b"a" * 512
    file.write_at(0, b"1")
    region.view[:] = b"b" * 512
    point = vfs.io_points
    file.write_at(0, b"2")
    file.sync()

    killed = vfs.kill_image(point)

    assert killed.open("d/x").read_at(0, 1) == b"1"
    again = killed.shared_memory("d/x-shm", 512, create=False)
    assert again is not None
    assert bytes(again.view) == b"b" * 512
    assert contents_at(killed, killed.io_points) == {b"0", b"1"}
    killed.open("d/x").sync()
    assert contents_at(killed, killed.io_points) == {b"1"}
    assert vfs.open("d/x").read_at(0, 1) == b"2"


def test_an_image_has_no_locks_and_no_trusted_shared_memory() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x")
    region = vfs.shared_memory("d/x-shm", 4096, create=True)
    assert region is not None
    vfs.sync_dir("d/x")
    region.view[:] = b"s" * 4096
    assert file.lock(FAR, 1, exclusive=True)
    file.write_at(0, b"go")

    regions = set()
    for seed in range(20):
        for image in vfs.crash_images(vfs.io_points, Random(seed)):
            machine = image.vfs()
            assert machine.open("d/x").lock(FAR, 1, exclusive=True)
            found = machine.shared_memory("d/x-shm", 4096, create=True)
            assert found is not None
            regions.add(bytes(found.view))
    assert {bytes(4096), b"s" * 4096} < regions


def test_an_image_is_a_machine_of_its_own() -> None:
    vfs = SimVfs()
    durable_file(vfs, "d/x", b"same")
    image = vfs.crash_images(vfs.io_points, Random(0))[0]

    first, second = image.vfs(), image.vfs()
    first.open("d/x").write_at(0, b"FIRST")

    assert second.open("d/x").read_at(0, 9) == b"same"
    assert vfs.open("d/x").read_at(0, 9) == b"same"
    assert first.random(8) == second.random(8) != vfs.random(8)


def test_a_hook_sees_each_call_and_may_run_another_process() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x")
    other = vfs.fork_process()
    seen: list[tuple[str, int]] = []

    def hook(call: Call) -> None:
        seen.append((call.kind, call.process))
        if call.process == vfs.pid and call.kind == "lock":
            assert other.open("d/x").lock(FAR, 1, exclusive=True)

    vfs.on_io = hook
    handle = vfs.open("d/x")

    assert handle.lock(FAR, 1, exclusive=False)
    assert ("lock", vfs.pid) in seen
    assert ("lock", other.pid) in seen
    file.close()


# -- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("once", [True, False])
def test_the_nth_call_fails_once_or_for_ever(once: bool) -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"0" * 2048)
    vfs.fail("write", at_call=2, error=errno.EIO, once=once)

    file.write_at(0, b"1" * 512)
    with pytest.raises(OperationalError, match=r"cannot write d/x: input/output error") as caught:
        file.write_at(512, b"2" * 1024)

    assert isinstance(caught.value.__cause__, OSError)
    rest = file.read_at(512, 1024)
    assert rest in {b"2" * done + b"0" * (1024 - done) for done in (0, 512, 1024)}
    if once:
        file.write_at(512, b"3" * 512)
    else:
        with pytest.raises(OperationalError):
            file.write_at(512, b"3" * 512)
        vfs.clear_faults()
        file.write_at(512, b"3" * 512)


@pytest.mark.parametrize("kind", ["read", "lock", "sync", "allocate", "truncate", "open", "map"])
def test_each_kind_of_call_can_fail(kind: str) -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"0" * 4096)
    durable_file(vfs, "d/other", b"")
    vfs.fail(kind, path_end="x", error=errno.EIO)
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: file.read_at(0, 1),
        "lock": lambda: file.lock(FAR, 1, exclusive=True),
        "sync": file.sync,
        "allocate": lambda: file.allocate(0, 1),
        "truncate": lambda: file.truncate(1),
        "open": lambda: vfs.open("d/x"),
        "map": lambda: file.map(0, 1),
    }

    vfs.open("d/other").sync()
    with pytest.raises(OperationalError, match="d/x: input/output error"):
        calls[kind]()
    calls[kind]()


@pytest.mark.parametrize("mode", ["some", "none", "revert", "keep"])
def test_a_failed_sync_may_drop_what_it_covered(mode: str) -> None:
    """After it a second sync that succeeds proves nothing."""
    outcomes = set()
    for seed in range(12):
        vfs = SimVfs(seed)
        vfs.failed_sync = mode
        file = durable_file(vfs, "d/x", b"0" * 8192)
        file.write_at(0, b"1" * 8192)
        vfs.fail("sync")
        with pytest.raises(OperationalError, match="cannot sync d/x"):
            file.sync()

        assert file.read_at(0, 8192) == (b"0" if mode == "revert" else b"1") * 8192
        file.sync()
        (left,) = contents_at(vfs, vfs.io_points, 2)
        assert left is not None
        outcomes.add((left[:1] + left[4096:4097]).decode())
        file.write_at(0, b"2" * 4096)
        file.sync()
        (left,) = contents_at(vfs, vfs.io_points, 2)
        assert left is not None
        assert left[:4096] == b"2" * 4096

    expected = {"some": {"00", "01", "10", "11"}, "keep": {"11"}}
    assert outcomes == expected.get(mode, {"00"})


def test_a_full_disk_refuses_space_but_not_overwriting() -> None:
    vfs = SimVfs()
    file = durable_file(vfs, "d/x", b"0" * 8192)
    vfs.disk_size = 16_384

    file.allocate(8192, 4096)
    with pytest.raises(OperationalError, match="disk full") as caught:
        file.write_at(8192, bytes(12_288))
    assert is_disk_full(caught.value)
    file.write_at(0, b"1" * 12_288)
    file.truncate(100_000)
    with pytest.raises(OperationalError, match="disk full"):
        file.allocate(50_000, 10_000)
    other = vfs.open("d/y", create=True)
    other.write_at(0, b"y")
    with pytest.raises(OperationalError, match="disk full"):
        file.write_at(99_000, b"z")
    other.close()
    vfs.unlink("d/y")
    file.write_at(99_000, b"z")


# -- the machine -----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_machine() -> None:
    def run(seed: int) -> tuple[object, ...]:
        vfs = SimVfs(seed)
        file = durable_file(vfs, "d/x", vfs.random(3000))
        file.write_at(0, vfs.random(9000))
        vfs.sleep(1.5)
        labels = [(i.label, content(i)) for i in vfs.crash_images(vfs.io_points, Random(seed))]
        return (vfs.log, vfs.now(), vfs.monotonic(), vfs.random(4), vfs.process_id(), labels)

    assert run(1) == run(1)
    assert run(1)[3] != run(2)[3]


def test_time_passes_in_sleep_and_between_looks() -> None:
    vfs = SimVfs()
    first = vfs.monotonic()

    vfs.sleep(3.0)

    assert vfs.monotonic() >= first + 3.0
    assert vfs.monotonic() < vfs.monotonic()


# -- the model -------------------------------------------------------------------------------


class SectorModel:
    """A file as the plainest thing: whole contents, and for each sector all it may hold."""

    def __init__(self) -> None:
        self.now = bytearray()
        self.sizes = {0}
        self.sectors: dict[int, set[bytes]] = {}

    def _note(self, index: int) -> None:
        raw = bytes(self.now[index * 512 : index * 512 + 512])
        self.sectors.setdefault(index, {bytes(512)}).add(raw + bytes(512 - len(raw)))

    def change(self, offset: int, data: bytes) -> None:
        self.now.extend(bytes(max(0, offset + len(data) - len(self.now))))
        self.now[offset : offset + len(data)] = data
        for index in range(offset // 512, (offset + len(data) + 511) // 512):
            self._note(index)
        self.sizes.add(len(self.now))

    def resize(self, size: int) -> None:
        old = len(self.now)
        del self.now[size:]
        self.now.extend(bytes(size - len(self.now)))
        for index in range(size // 512, (old + 511) // 512):
            self._note(index)
        self.sizes.add(size)

    def sync(self) -> None:
        self.sizes = {len(self.now)}
        self.sectors = {}
        for index in range((len(self.now) + 511) // 512):
            raw = bytes(self.now[index * 512 : index * 512 + 512])
            self.sectors[index] = {raw + bytes(512 - len(raw))}

    def allows(self, found: bytes, *, garbage_from: int) -> bool:
        """Whether a crash may leave `found`; `garbage_from` is where noise may stand."""
        if len(found) not in self.sizes:
            return False
        for index in range((len(found) + 511) // 512):
            raw = found[index * 512 : index * 512 + 512]
            allowed = self.sectors.get(index, {bytes(512)})
            if index * 512 < garbage_from and raw not in {one[: len(raw)] for one in allowed}:
                return False
        return True


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 20_000), st.integers(1, 9_000)),
        st.tuples(st.just("truncate"), st.integers(0, 25_000), st.just(0)),
        st.tuples(st.just("allocate"), st.integers(0, 20_000), st.integers(1, 9_000)),
        st.tuples(st.just("sync"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=60 * ROUNDS, deadline=None, derandomize=True)
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_every_image_is_one_that_the_sectors_allow(
    steps: list[tuple[str, int, int]], seed: int
) -> None:
    """SI1 and SI2 against a model of sectors; what is synced and what is torn in one."""
    vfs = SimVfs(seed)
    file = durable_file(vfs, "d/x")
    model = SectorModel()
    for number, (name, a, b) in enumerate(steps):
        if name == "write":
            data = bytes([number + 1]) * b
            file.write_at(a, data)
            model.change(a, data)
        elif name == "truncate":
            file.truncate(a)
            model.resize(a)
        elif name == "allocate":
            file.allocate(a, b)
            model.resize(max(len(model.now), a + b))
        else:
            file.sync()
            model.sync()
        for image in vfs.crash_images(vfs.io_points, Random(seed), 30):
            noise = min(model.sizes) if "garbage" in image.label else 1 << 40
            found = content(image)
            assert found is not None
            assert model.allows(found, garbage_from=noise // 4096 * 4096), image
