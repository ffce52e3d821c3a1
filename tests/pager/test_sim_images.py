"""Crash images: which kinds there are, each by what it leaves, and that no I/O point lacks one."""

from __future__ import annotations

from random import Random

import pytest

from m2mdb.pager.sim_disk import DiskState, Operation
from m2mdb.pager.sim_file import SimFile
from m2mdb.pager.sim_images import Timeline, variants_of
from m2mdb.pager.sim_vfs import SimImage, SimVfs
from tests.sim.store_runs import StoreRun
from tests.sim.store_scripts import STORE_SCRIPTS

MANY = 100  # more than there are kinds


def durable(vfs: SimVfs, path: str, content: bytes) -> SimFile:
    file = vfs.open(path, create=True)
    file.write_at(0, content)
    file.sync()
    vfs.sync_dir(path)
    return file


def content(image: SimImage, path: str = "d/x") -> bytes | None:
    vfs = image.vfs()
    return vfs.open(path).read_at(0, 1 << 30) if vfs.exists(path) else None


def contents(vfs: SimVfs, label: str, path: str = "d/x") -> set[bytes | None]:
    """What the images of one kind leave of a file behind the last I/O point."""
    found = set()
    for seed in range(30):
        for image in vfs.crash_images(vfs.io_points - 1, Random(seed), MANY):
            if image.label == label:
                found.add(content(image, path))
    return found


# -- each kind by what it leaves -----------------------------------------------------------------


def test_all_unsynced_bytes_may_be_lost_or_kept() -> None:
    vfs = SimVfs()
    file = durable(vfs, "d/x", b"0" * 1024)
    file.write_at(0, b"1" * 512)
    file.write_at(512, b"2" * 512)

    assert contents(vfs, "all lost") == {b"0" * 1024}
    assert contents(vfs, "all kept") == {b"1" * 512 + b"2" * 512}


def test_random_sectors_of_several_writes_are_mixed() -> None:
    vfs = SimVfs()
    file = durable(vfs, "d/x", b"0" * 2048)
    file.write_at(0, b"1" * 1536)
    file.write_at(512, b"2" * 1536)

    found = contents(vfs, "random sectors")

    sectors = {(data or b"")[512:1024:512] for data in found}
    assert sectors == {b"0", b"1", b"2"}
    assert len(found) > 15


def test_the_last_write_overtakes_all_others_even_in_its_own_page() -> None:
    vfs = SimVfs()
    file = durable(vfs, "d/x", b"0" * 2048)
    file.write_at(0, b"1" * 512)
    file.write_at(1024, b"2" * 512)

    assert contents(vfs, "last write only") == {b"0" * 1024 + b"2" * 512 + b"0" * 512}


@pytest.mark.parametrize("unit", [512, 4096])
def test_a_write_is_torn_at_each_boundary(unit: int) -> None:
    vfs = SimVfs()
    file = durable(vfs, "d/x", b"0" * 4 * unit)
    file.write_at(0, b"1" * 4 * unit)

    found = set()
    for at in range(unit, 4 * unit, unit):
        for part in ("head", "tail"):
            found |= contents(vfs, f"torn at {at}, {part} kept")

    for at in range(unit, 4 * unit, unit):
        assert b"1" * at + b"0" * (4 * unit - at) in found
        assert b"0" * at + b"1" * (4 * unit - at) in found


def test_each_file_is_lost_alone_and_kept_alone() -> None:
    vfs = SimVfs()
    x, y = durable(vfs, "d/x", b"0" * 512), durable(vfs, "d/y", b"0" * 512)
    x.write_at(0, b"1" * 512)
    y.write_at(0, b"1" * 512)

    vfs.open("d/z", create=True)  # the last write is not the last operation

    for label, left in (("d/x lost", (b"0", b"1")), ("d/x alone", (b"1", b"0"))):
        found = {
            ((content(image) or b"")[:1], (content(image, "d/y") or b"")[:1])
            for image in vfs.crash_images(vfs.io_points - 1, Random(1), MANY)
            if image.label == label
        }
        assert found == {left}


def test_one_page_is_lost_alone_and_kept_alone() -> None:
    vfs = SimVfs()
    file = durable(vfs, "d/x", b"0" * 4096 * 3)
    for page in range(3):
        file.write_at(page * 4096, b"1" * 4096)

    lost = {(data or b"")[::4096] for data in contents(vfs, "one page lost")}
    alone = {(data or b"")[::4096] for data in contents(vfs, "one page alone")}

    assert lost == {b"011", b"101", b"110"}
    # The last one alone is what the last write only leaves.
    assert alone == {b"100", b"010"}


def test_a_grown_file_has_a_tail_of_content_zeros_and_noise() -> None:
    vfs = SimVfs()
    file = durable(vfs, "d/x", b"x" * 700)
    file.write_at(700, b"y" * 8000)

    tails = contents(vfs, "garbage tail")
    sectors = [(data or b"")[at : at + 512] for data in tails for at in range(1024, 8192, 512)]

    assert all(data is not None and data[:1024] == b"x" * 700 + b"y" * 324 for data in tails)
    assert b"y" * 512 in sectors
    assert bytes(512) in sectors
    assert any(sector not in (b"y" * 512, bytes(512)) for sector in sectors)
    assert contents(vfs, "grown, zeros") == {b"x" * 700 + bytes(8000)}
    assert all(len(data or b"") == 8700 for data in contents(vfs, "grown, garbage"))


def test_names_and_content_are_kept_and_lost_apart() -> None:
    vfs = SimVfs()
    durable(vfs, "d/x", b"old")
    file = vfs.open("d/new", create=True)
    file.write_at(0, b"new")
    vfs.unlink("d/x")

    found = {
        (content(image), content(image, "d/new"))
        for seed in range(40)
        for image in vfs.crash_images(vfs.io_points, Random(seed), MANY)
    }
    assert found >= {(b"old", None), (None, b"new"), (b"old", b"new"), (None, None), (None, b"")}


# -- at every I/O point --------------------------------------------------------------------------


def wanted(state: DiskState, operation: Operation | None) -> set[str]:
    """The kinds that a state must have images of."""
    kinds = {"all lost", "all kept"}
    changed = [f for f in state.files.values() if f.history or len(f.sizes) > 1]
    if state.pending_names:
        kinds |= {"names lost, data kept", "names kept, data lost", "some names"}
    if changed:
        kinds |= {"random pages", "random sectors", "files apart", "random prefix"}
        kinds |= {"one page lost", "one page alone"}
    if any(len(file.sizes) > 1 for file in state.files.values()):
        kinds |= {"grown, zeros", "grown, garbage", "garbage tail"}
    if len(changed) > 1:
        kinds |= {"a file lost", "a file alone"}
    if operation is not None and operation.kind == "write":
        kinds.add("last write only")
        for unit in (512, 4096):
            first, end = operation.offset, operation.offset + len(operation.data)
            if first // unit != (end - 1) // unit:
                kinds.add("torn, head kept")
                kinds.add("torn, tail kept")
    return kinds


def kind_of(label: str) -> str:
    """A label without what it names."""
    if label.startswith("torn at"):
        return "torn" + label[label.index(",") :]
    for end in ("lost", "alone"):
        if label.endswith(f" {end}") and label not in ("all lost", f"one page {end}"):
            return label if "," in label else f"a file {end}"
    return label


@pytest.mark.parametrize("script", sorted(STORE_SCRIPTS))
def test_every_point_of_a_workload_has_images_of_every_kind(script: str) -> None:
    run = StoreRun(SimVfs(1), synchronous="normal")
    STORE_SCRIPTS[script](run)
    timeline: Timeline = run.vfs.machine.timeline
    seen: set[str] = set()
    for point, operation in enumerate(run.vfs.log):
        syncs = operation.kind in ("sync", "sync_dir", "failed_sync")
        state = timeline.state_at(point if syncs else point + 1)
        kinds = {kind_of(v.label) for v in variants_of(state, operation, Random(point))}
        assert kinds >= wanted(state, operation), (point, operation)
        seen |= kinds
    assert seen >= {"torn, head kept", "garbage tail", "some names", "one page lost"}
