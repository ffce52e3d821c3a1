"""Extents: written in one pass, read in place, every byte under a checksum."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2mdb.pager.errors import CorruptDatabaseError, InternalError
from m2mdb.pager.extent import BLOCK_SIZE, Extent, ExtentDescriptor, extent_page_count, padded
from m2mdb.pager.extent_writer import write_extent
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.pager.vfs import File

PAGE = 4096
SIZES = [0, 1, 7, 8, 9, 4000, 65528, 65535, 65536, 65537, 131072, 200_001, 1_000_003]


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def cut(raw: bytes, sizes: list[int]) -> list[bytes]:
    parts, at = [], 0
    for size in sizes:
        parts.append(raw[at : at + size])
        at += size
    return [*parts, raw[at:]]


def memory_file() -> File:
    return MemoryVfs().open("file", create=True)


def written(file: File, raw: bytes, start: int = 3, **places: int) -> ExtentDescriptor:
    file.write_at(0, b"\xee" * (start - 1 + extent_page_count(len(raw), PAGE) + 2) * PAGE)
    return write_extent(file, PAGE, start, places.get("commit", 7), len(raw), [raw])


def flipped(file: File, offset: int, bit: int = 0) -> None:
    byte = file.read_at(offset, 1)[0]
    file.write_at(offset, bytes([byte ^ 1 << bit]))


@pytest.fixture(params=["memory", "os"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> File:
    if request.param == "memory":
        return memory_file()
    return OsVfs().open(str(tmp_path / "file"), create=True)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_is_read_by_every_way(file: File, size: int, mapped: bool) -> None:
    raw = content(size)
    descriptor = written(file, raw)

    def opened() -> Extent:
        return Extent(file, descriptor, PAGE, "file", mapped)

    assert opened().read(0, size) == raw
    assert bytes(opened().view(0, size)) == raw
    assert opened().array(0, np.uint8, size).tobytes() == raw
    assert b"".join(bytes(chunk) for _, chunk in opened().blocks(0, size)) == raw
    extent = opened()
    extent.verify_all()
    assert extent.all_verified
    assert extent.read(size // 3, size // 2) == raw[size // 3 : size // 3 + size // 2]
    assert b"".join(bytes(chunk) for _, chunk in extent.blocks(0, size)) == raw


@pytest.mark.parametrize("size", SIZES)
def test_an_extent_touches_its_own_pages_and_all_of_them(size: int) -> None:
    file = memory_file()
    descriptor = written(file, content(size))

    end = (2 + descriptor.page_count) * PAGE
    used = padded(size) + 8 * -(-padded(size) // BLOCK_SIZE)
    assert file.read_at(0, 2 * PAGE) == b"\xee" * 2 * PAGE
    assert file.read_at(end, 2 * PAGE) == b"\xee" * 2 * PAGE
    slack = file.read_at(2 * PAGE + used, end - 2 * PAGE - used)
    assert slack == bytes(len(slack))
    assert descriptor.page_count == max(1, -(-used // PAGE))


@pytest.mark.parametrize("seed", range(60))
def test_how_the_content_is_cut_into_parts_does_not_matter(seed: int) -> None:
    generator = random.Random(seed)
    scale = generator.choice([50, 70_000, 600_000])
    sizes = [generator.randrange(scale) for _ in range(generator.randrange(9))]
    raw = content(sum(sizes) + 5, seed)
    whole, parted = memory_file(), memory_file()

    expected = write_extent(whole, PAGE, 2, 1, len(raw), [raw])
    found = write_extent(parted, PAGE, 2, 1, len(raw), cut(raw, sizes))

    assert found == expected
    assert parted.read_at(0, parted.size()) == whole.read_at(0, whole.size())


def test_parts_may_be_arrays_of_any_shape_and_type() -> None:
    file = memory_file()
    rows = np.dtype([("row", "<u4"), ("weight", "<f2")])
    parts: list[Any] = [
        np.arange(12, dtype="<f4").reshape(3, 4),
        np.arange(24, dtype="<i8").reshape(4, 6)[:, ::2],
        np.zeros((0, 5), np.float32),
        np.ones(3, np.float16),
        np.array([(1, 2), (3, 4)], rows),
        np.array(["2020-01-01"], "M8[us]"),
        np.arange(6, dtype="<u2").data.cast("B"),
        bytearray(b"tail"),
    ]
    raw = b"".join(p.tobytes() if isinstance(p, np.ndarray | memoryview) else p for p in parts)

    descriptor = write_extent(file, PAGE, 2, 1, len(raw), parts)

    assert Extent(file, descriptor, PAGE, "file").read(0, len(raw)) == raw


@pytest.mark.parametrize("sizes", [[10, 11], [BLOCK_SIZE * 3]])
def test_parts_that_do_not_come_to_the_size_are_refused(sizes: list[int]) -> None:
    file = memory_file()
    parts = [bytes(size) for size in sizes]

    with pytest.raises(InternalError, match="1 bytes too long"):
        write_extent(file, PAGE, 2, 1, sum(sizes) - 1, parts)
    with pytest.raises(InternalError, match="1 bytes too short"):
        write_extent(file, PAGE, 2, 1, sum(sizes) + 1, parts)

    assert file.size() <= (1 + extent_page_count(sum(sizes), PAGE)) * PAGE


@pytest.mark.parametrize("size", [1, 100, 4093, 65537, 150_000])
def test_a_flipped_bit_is_found_wherever_it_is(size: int) -> None:
    file = memory_file()
    descriptor = written(file, content(size))
    end = descriptor.page_count * PAGE
    step = max(1, end // 4099)

    for offset in range(2 * PAGE, 2 * PAGE + end, step):
        flipped(file, offset, offset % 8)
        with pytest.raises(CorruptDatabaseError, match="extent at page 3 of file"):
            Extent(file, descriptor, PAGE, "file").verify_all()
        flipped(file, offset, offset % 8)

    Extent(file, descriptor, PAGE, "file").verify_all()


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_reads_give_the_content_or_name_a_damaged_block(seed: int, mapped: bool) -> None:
    generator = random.Random(seed)
    file = memory_file()
    raw = content(generator.randrange(1, 9 * BLOCK_SIZE), seed)
    extent = Extent(file, written(file, raw), PAGE, "file", mapped)
    damaged = generator.choice([0, len(raw) - 1, generator.randrange(len(raw))])
    flipped(file, 2 * PAGE + damaged)
    block = damaged // BLOCK_SIZE

    ways: list[Callable[[int, int], bytes]] = [
        extent.read,
        lambda at, n: bytes(extent.view(at, n)),
        lambda at, n: extent.array(at, "u1", n).tobytes(),
        lambda at, n: b"".join([bytes(chunk) for _, chunk in extent.blocks(at, n)]),
    ]

    for _ in range(60):
        offset = generator.randrange(len(raw))
        size = generator.randrange(min(len(raw) - offset, generator.choice([9, 200_000]))) + 1
        touches = offset // BLOCK_SIZE <= block <= (offset + size - 1) // BLOCK_SIZE
        if touches:
            with pytest.raises(CorruptDatabaseError, match=f"block {block}: checksum"):
                generator.choice(ways)(offset, size)
        else:
            assert generator.choice(ways)(offset, size) == raw[offset : offset + size]


@pytest.mark.parametrize("mapped", [True, False])
def test_only_reads_of_the_damaged_block_fail(mapped: bool) -> None:
    file = memory_file()
    raw = content(5 * BLOCK_SIZE)
    descriptor = written(file, raw)
    flipped(file, 2 * PAGE + 3 * BLOCK_SIZE + 77)
    extent = Extent(file, descriptor, PAGE, "file", mapped)

    assert extent.read(0, 3 * BLOCK_SIZE) == raw[: 3 * BLOCK_SIZE]
    assert extent.read(4 * BLOCK_SIZE, 9) == raw[4 * BLOCK_SIZE :][:9]
    message = "block 3: checksum 0x[0-9a-f]{16}, expected 0x[0-9a-f]{16}"
    for attempt in (
        lambda: extent.read(4 * BLOCK_SIZE - 1, 2),
        lambda: extent.view(3 * BLOCK_SIZE, 1),
        lambda: extent.array(0, np.float32, 5 * BLOCK_SIZE // 4),
        lambda: list(extent.blocks(0, 5 * BLOCK_SIZE)),
        extent.verify_all,
    ):
        with pytest.raises(CorruptDatabaseError, match=message):
            attempt()
    assert not extent.all_verified
    assert list(extent.verified) == [1, 1, 1, 0, 1]


def test_a_damaged_block_yields_nothing_of_itself() -> None:
    file = memory_file()
    raw = content(8 * BLOCK_SIZE)
    descriptor = written(file, raw)
    flipped(file, 2 * PAGE + 5 * BLOCK_SIZE)
    extent = Extent(file, descriptor, PAGE, "file")
    found = []

    with pytest.raises(CorruptDatabaseError):
        for offset, chunk in extent.blocks(100, len(raw) - 100, chunk=2 * BLOCK_SIZE):
            found.append((offset, bytes(chunk)))

    assert b"".join(chunk for _, chunk in found) == raw[100 : 4 * BLOCK_SIZE]


@pytest.mark.parametrize("unit", [1, 4, 1536, 12_345, 70_000, 300_000])
@pytest.mark.parametrize("seed", range(12))
def test_blocks_cut_at_units_and_cover_the_range(seed: int, unit: int) -> None:
    generator = random.Random(seed)
    size = generator.randrange(9 * BLOCK_SIZE)
    offset = generator.choice([0, generator.randrange(size + 1), generator.randrange(100)])
    length = generator.choice([size - offset, generator.randrange(size - offset + 1)])
    chunk = generator.choice([1, BLOCK_SIZE, 4 * BLOCK_SIZE])
    file = memory_file()
    raw = content(size)
    extent = Extent(file, written(file, raw), PAGE, "file")
    if seed % 3 == 0:
        extent.read(0, generator.randrange(size + 1))

    found = [(at, bytes(c)) for at, c in extent.blocks(offset, length, chunk, unit)]

    assert b"".join(part for _, part in found) == raw[offset : offset + length]
    assert all(raw[at : at + len(part)] == part for at, part in found)
    assert all((at - offset) % unit == 0 and part for at, part in found)


def test_threads_may_read_at_once(file: File) -> None:
    raw = content(40 * BLOCK_SIZE + 5)
    descriptor = written(file, raw)

    def read(extent: Extent, seed: int) -> bool:
        generator = random.Random(seed)
        for _ in range(40):
            at = generator.randrange(len(raw))
            size = generator.randrange(min(300_000, len(raw) - at))
            if extent.read(at, size) != raw[at : at + size]:
                return False
        return b"".join([bytes(chunk) for _, chunk in extent.blocks(0, len(raw))]) == raw

    for round_ in range(3):
        extent = Extent(file, descriptor, PAGE, "file")
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(read, [extent] * 6, range(round_ * 6, round_ * 6 + 6)))
        assert all(found)
        assert extent.all_verified


def test_accesses_outside_the_content_are_errors_and_never_slices() -> None:
    file = memory_file()
    extent = Extent(file, written(file, content(1000)), PAGE, "file")

    for _ in range(2):
        for offset, size in ((-1, 4), (0, 1001), (999, 2), (1001, 0), (4, -1), (2**64, 1)):
            with pytest.raises(CorruptDatabaseError, match="content of 1000"):
                extent.read(offset, size)
            with pytest.raises(CorruptDatabaseError, match="content of 1000"):
                extent.view(offset, size)
            with pytest.raises(CorruptDatabaseError, match="content of 1000"):
                list(extent.blocks(offset, size))
        for offset, count in ((-4, 1), (0, 251), (997, 1), (0, -1), (0, 2**62)):
            with pytest.raises(CorruptDatabaseError, match="content of 1000"):
                extent.array(offset, np.float32, count)
        assert extent.array(1000, np.float32, 0).shape == (0,)
        extent.verify_all()


def test_arrays_and_views_are_read_only(file: File) -> None:
    extent = Extent(file, written(file, content(1000)), PAGE, "file")
    array = extent.array(0, np.uint8, 1000)

    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert extent.view(0, 10).readonly


def test_descriptors_that_lie_are_refused() -> None:
    file = memory_file()
    good = written(file, content(100_000))

    for flip in range(24 * 8):  # all but the commit, which names and does not describe
        raw = bytearray(good.encode())
        raw[flip // 8] ^= 1 << flip % 8
        with pytest.raises(CorruptDatabaseError):
            Extent(file, ExtentDescriptor.decode(bytes(raw)), PAGE, "file").verify_all()


@given(st.binary(max_size=40))
def test_any_bytes_are_a_descriptor_or_damage(raw: bytes) -> None:
    file = memory_file()
    written(file, content(10))

    try:
        descriptor = ExtentDescriptor.decode(raw)
        assert descriptor.encode() == raw[:32]
        Extent(file, descriptor, PAGE, "file").verify_all()
    except CorruptDatabaseError:
        pass


def test_a_file_cut_short_is_damage() -> None:
    file = memory_file()
    descriptor = written(file, content(300_000))
    extent = Extent(file, descriptor, PAGE, "file", mapped=False)
    file.truncate(2 * PAGE + 100_000)

    with pytest.raises(CorruptDatabaseError, match="it ends at byte"):
        Extent(file, descriptor, PAGE, "file")
    with pytest.raises(CorruptDatabaseError, match="expected"):
        extent.read(0, 10)


def test_a_descriptor_has_the_bytes_of_the_format() -> None:
    descriptor = ExtentDescriptor(3, 5, 17_000, 0x1122334455667788, 9)

    assert descriptor.encode() == struct.pack("<IIQQQ", 3, 5, 17_000, 0x1122334455667788, 9)
    assert ExtentDescriptor.decode(descriptor.encode()) == descriptor
