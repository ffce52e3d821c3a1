"""S17 and S18: where an extent's checksums stand, and when its bytes may be read through a map."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from m2mdb.index.database import Database
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, OperationalError
from m2mdb.pager.extent import BLOCK_SIZE, Extent, ExtentDescriptor
from m2mdb.pager.extent_writer import write_extent
from m2mdb.pager.memory_vfs import MemoryFile, MemoryVfs
from m2mdb.pager.page import Leaf, OverflowReference
from m2mdb.query.executor import execute
from m2mdb.wal.store import StoreOptions

PAGE = 4096


class WatchedFile:
    """A file that notes how it is read, and fails where it is told to."""

    def __init__(self, file: MemoryFile) -> None:
        self._file = file
        self.path = file.path
        self.calls: list[str] = []
        self.broken = False

    def size(self) -> int:
        return self._file.size()

    def read_at(self, offset: int, size: int) -> bytes:
        self._note("read")
        return self._file.read_at(offset, size)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self._note("read")
        return self._file.read_into(offset, buffer)

    def map(self, offset: int, size: int) -> memoryview:
        self.calls.append("map")
        return self._file.map(offset, size)

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._file.write_at(offset, data)

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.broken:
            raise OperationalError(f"cannot read {self.path}: Input/output error")


def written(content: bytes) -> tuple[WatchedFile, ExtentDescriptor]:
    file = MemoryVfs().open("x", create=True)
    descriptor = write_extent(file, PAGE, 2, 1, len(content), [content])
    return WatchedFile(file), descriptor


def opened(file: WatchedFile, descriptor: ExtentDescriptor, mapped: bool = True) -> Extent:
    readable: Any = file  # an extent asks it for no more than it has
    return Extent(readable, descriptor, PAGE, "x", mapped)


def test_s17_the_checksums_stand_at_the_extents_end_and_theirs_in_the_descriptor() -> None:
    content = np.random.default_rng(1).bytes(3 * BLOCK_SIZE + 1001)
    file, descriptor = written(content)

    padded = content + bytes(-len(content) % 8)
    blocks = [padded[at : at + BLOCK_SIZE] for at in range(0, len(padded), BLOCK_SIZE)]
    array = struct.pack("<4Q", *map(xxh3_64_intdigest, blocks))
    assert file.read_at(PAGE + len(padded), len(array)) == array
    assert descriptor.checksum == xxh3_64_intdigest(array)
    rest = file.read_at(PAGE + len(padded) + len(array), PAGE)
    assert rest == bytes(len(rest))


def test_s17_values_of_the_delta_stand_in_overflow_pages_and_not_in_extents() -> None:
    vfs = MemoryVfs()
    options = StoreOptions(create=True)
    database = Database.open(vfs, "x", options, compute="numpy", autocommit=True)
    execute(database, "CREATE COLLECTION c (t TEXT)")
    execute(database, "INSERT INTO c VALUES (?)", ("x" * 20_000,))

    with database.reading() as view:
        entry = view.collection("c").entry
        assert not entry.records
        leaf = view.pages.get(entry.delta_root)
        assert isinstance(leaf, Leaf)
        (value,) = leaf.values
        assert isinstance(value, OverflowReference) and value.length > 20_000
        numbers = list(BTree(view.pages, entry.delta_root).pages_used())
        assert len(numbers) == 1 + -(-value.length // (PAGE - 24))
        assert set(numbers) <= set(database.store.index.frames), "its pages went through the log"
    database.close()


@pytest.mark.parametrize("missing", [1, 500, PAGE])
def test_s18_nothing_is_mapped_before_its_end_was_held_against_the_file(missing: int) -> None:
    """A map beyond the end of a file is a signal, and no exception, at the first touch."""
    file, descriptor = written(bytes(2 * BLOCK_SIZE))
    file._file.truncate(file.size() - missing)

    with pytest.raises(CorruptDatabaseError, match="it ends at byte"):
        opened(file, descriptor)

    assert "map" not in file.calls


def test_s18_a_block_is_verified_by_reading_at_its_first_touch_alone() -> None:
    content = np.random.default_rng(2).bytes(4 * BLOCK_SIZE)
    file, descriptor = written(content)
    extent = opened(file, descriptor)
    assert file.calls == ["map"]

    assert extent.read(BLOCK_SIZE + 5, 10) == content[BLOCK_SIZE + 5 : BLOCK_SIZE + 15]
    touched = file.calls.count("read")
    assert touched == 2, "the array of checksums, and the block"
    assert list(extent.verified) == [0, 1, 0, 0]

    extent.read(BLOCK_SIZE + 500, 10)
    assert file.calls.count("read") == touched, "the map is read from now on"


def test_s18_an_error_of_the_device_is_an_exception() -> None:
    file, descriptor = written(bytes(2 * BLOCK_SIZE))
    extent = opened(file, descriptor)
    file.broken = True

    for read in (
        lambda: extent.read(0, 4),
        lambda: extent.array(8, "<u8", 4),
        lambda: list(extent.blocks(0, 2 * BLOCK_SIZE)),
        extent.verify_all,
    ):
        with pytest.raises(OperationalError, match="Input/output error"):
            read()
    assert not any(extent.verified)

    file.broken = False
    assert extent.read(0, 4) == bytes(4)


def test_s18_verified_bits_belong_to_one_extent_alone() -> None:
    """A new extent on the same pages is verified anew."""
    content = np.random.default_rng(4).bytes(BLOCK_SIZE)
    file, descriptor = written(content)
    opened(file, descriptor).verify_all()
    other = descriptor._replace(commit=2, checksum=descriptor.checksum ^ 1)

    with pytest.raises(CorruptDatabaseError, match="array of block checksums"):
        opened(file, other).read(0, 1)


@pytest.mark.parametrize("compute", ["numpy", "numba"])
def test_s18_a_kernel_never_sees_an_unverified_block(compute: str) -> None:
    vfs = MemoryVfs()
    database = Database.open(vfs, "x", StoreOptions(create=True), compute=compute, autocommit=True)
    execute(database, "CREATE COLLECTION c (v VECTOR(64))")
    vectors = np.random.default_rng(5).standard_normal((2000, 64)).astype(np.float32)
    with database.writing() as write:
        write.insert("c", {"v": vectors}, 2000)
    database.close()
    database = Database.open(vfs, "x", StoreOptions(), compute=compute, autocommit=True)
    with database.reading() as view:
        descriptor = view.collection("c").segments[0].extents[0].descriptor
        _, offset, _, _ = view.collection("c").segments[0]._directory["vectors", 1]
    block = (offset + 1500 * 256) // BLOCK_SIZE
    place = (descriptor.start_page - 1) * PAGE + offset + 1500 * 256
    file = vfs.open("x")
    file.write_at(place, bytes([file.read_at(place, 1)[0] ^ 1]))

    for _ in range(2):
        with pytest.raises(CorruptDatabaseError, match=f"block {block}: checksum"):
            execute(database, "SEARCH c NEAR ? K 3", [vectors[7]])
    database.close()


@pytest.mark.parametrize("start_page", [2, 512, 513, 700])
def test_ew4_large_parts_are_written_up_to_the_ends_of_huge_pages(
    start_page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that each huge page of the file that an extent fills is written at once."""
    huge = 2 << 20
    rng = np.random.default_rng(start_page)
    sizes = [100, 5 * huge + 12_345, 70_000, 3, 2 * huge, 900_000, 900_000, 2 * huge, 7]
    parts = [rng.integers(0, 255, size, np.uint8).tobytes() for size in sizes]
    file = MemoryVfs().open("x", create=True)
    writes: list[tuple[int, int]] = []

    def noted(own: MemoryFile, offset: int, data: bytes | bytearray | memoryview) -> None:
        writes.append((offset, offset + len(data)))
        write_at(own, offset, data)

    write_at = MemoryFile.write_at
    monkeypatch.setattr(MemoryFile, "write_at", noted)
    size, start = sum(sizes), (start_page - 1) * PAGE
    descriptor = write_extent(file, PAGE, start_page, 1, size, parts)
    for first, last in ((0, 1), (4, 7)):  # large parts that follow each other
        begin = start + sum(sizes[:first])
        end = start + sum(sizes[: last + 1])
        whole = range(-(-begin // huge) * huge, end - huge + 1, huge)
        assert len(whole) >= 3
        assert {(at, at + huge) for at in whole[1:]} <= set(writes)
    assert writes[0][0] == start
    assert all(one[1] == two[0] for one, two in pairwise(writes))
    assert Extent(file, descriptor, PAGE, "x", False).read(0, size) == b"".join(parts)


def test_small_parts_that_end_where_a_huge_page_does_come_first() -> None:
    """What was gathered by then stands before the large part that follows."""
    parts = [b"s" * PAGE, b"L" * (5 << 20), b"t" * 9]
    file = MemoryVfs().open("x", create=True)
    size = sum(map(len, parts))
    descriptor = write_extent(file, PAGE, 512, 1, size, parts)
    assert Extent(file, descriptor, PAGE, "x", False).read(0, size) == b"".join(parts)
