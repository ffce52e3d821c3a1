"""`integrity_check` against each structure in turn, damaged with its checksums made right again."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from m2mdb.index.collection import encode_deletions
from m2mdb.index.database import Database
from m2mdb.index.description import DESCRIPTION_KEY
from m2mdb.index.integrity import check_database
from m2mdb.index.keys import index_key
from m2mdb.index.schema import CollectionSchema, Column, IndexInfo
from m2mdb.index.segment import SegmentRecord
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.extent import BLOCK_SIZE, block_count, padded
from m2mdb.pager.header import Header
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.pager.page import Branch, Leaf, decode_page
from m2mdb.wal.store import StoreOptions

PAGE = 4096
COLUMNS = (
    Column("id", "TEXT", primary_key=True),
    Column("body", "TEXT", fulltext={}),
    Column("n", "INTEGER"),
    Column("o", "BOOLEAN"),
    Column("v", "VECTOR", dimension=64, metric="l2"),
)


def open_file(path: Path, *, create: bool = False) -> Database:
    options = StoreOptions(create=create, read_only=not create)
    return Database.open(OsVfs(), str(path), options, compute="numpy", autocommit=True)


def rows(start: int, count: int) -> dict[str, Any]:
    vectors: list[Any] = list(
        np.random.default_rng(start).standard_normal((count, 64)).astype(np.float32)
    )
    vectors[0] = None
    every = range(start, start + count)
    return {
        "id": [f"k{i}" for i in every],
        "body": [None if i % 9 == 0 else f"word{i % 7} common" for i in every],
        "n": list(every),
        "o": [i % 2 == 0 for i in every],
        "v": vectors,
    }


class Damaged:
    """The bytes of a closed file, changed with all checksums right again."""

    def __init__(self, path: Path) -> None:
        self.raw = bytearray(path.read_bytes())
        self.header = Header.decode(bytes(self.raw[:512]), str(path))
        catalog = dict(self.items(self.header.catalog_root))
        import json

        self.fields = json.loads(catalog[b"C\0\0\0\1"])
        self.record = SegmentRecord.decode(catalog[b"S\0\0\0\1\0\0\0\1"], "")
        self.base = (self.record.extents[0].start_page - 1) * PAGE
        count = struct.unpack_from("<8sI", self.raw, self.base)[1]
        self.parts = {}
        for at in range(self.base + 24, self.base + 24 + 48 * count, 48):
            name, _, column, _, offset, items = struct.unpack_from("<20s4sIIQQ", self.raw, at)
            self.parts[name.rstrip(b"\0").decode(), column] = self.base + offset, items

    def node(self, number: int) -> Any:
        return decode_page(bytes(self.raw[(number - 1) * PAGE : number * PAGE]), number, PAGE, "")

    def put(self, number: int, node: Any) -> None:
        self.raw[(number - 1) * PAGE : number * PAGE] = node.encode(number, PAGE)

    def leaves(self, number: int) -> list[int]:
        node = self.node(number)
        if type(node) is Leaf:
            return [number]
        assert type(node) is Branch
        return [leaf for child in node.children for leaf in self.leaves(child)]

    def items(self, root: int) -> list[tuple[bytes, bytes]]:
        return [
            item
            for leaf in self.leaves(root)
            for item in zip(self.node(leaf).keys, self.node(leaf).values, strict=True)
        ]

    def change(self, root: int, key: bytes, value: bytes | None) -> None:
        """Give an item of a tree another value, or take it away; add it where it is not there."""
        for number in self.leaves(root):
            leaf = self.node(number)
            is_last = number == self.leaves(root)[-1]
            if key in leaf.keys:
                at = leaf.keys.index(key)
                leaf.remove(at)
                if value is not None:
                    leaf.insert(at, key, value)
            elif is_last and value is not None:
                at = sum(known < key for known in leaf.keys)
                leaf.insert(at, key, value)
            else:
                continue
            self.put(number, leaf)
            return

    def part(self, name: str, column: int, dtype: str) -> np.ndarray:
        """A part, to be changed in place; `seal` afterwards."""
        start, items = self.parts[name, column]
        return np.frombuffer(memoryview(self.raw), dtype, items, start)

    def seal(self) -> None:
        """The blocks, their array and the descriptor in the catalog."""
        descriptor = self.record.extents[0]
        end = padded(descriptor.size)
        hashes = [
            xxh3_64_intdigest(
                bytes(self.raw[self.base + at : self.base + min(at + BLOCK_SIZE, end)])
            )
            for at in range(0, end, BLOCK_SIZE)
        ]
        assert len(hashes) == block_count(descriptor.size)
        array = struct.pack(f"<{len(hashes)}Q", *hashes)
        self.raw[self.base + end : self.base + end + len(array)] = array
        self.record.extents = (descriptor._replace(checksum=xxh3_64_intdigest(array)),)
        self.put_record()

    def put_record(self) -> None:
        key = b"S\0\0\0\1\0\0\0\1"
        self.change(self.header.catalog_root, key, self.record.encode())

    def delta(self) -> list[tuple[bytes, bytes]]:
        return self.items(self.fields["delta_root"])

    def change_delta(self, at: int, layout: str, offset: int, value: int) -> None:
        key, raw = self.delta()[at]
        changed = bytearray(raw)
        struct.pack_into(layout, changed, offset, value)
        self.change(self.fields["delta_root"], key, bytes(changed))

    def head(self, field: int, value: int) -> None:
        key = b"H\0\0\0\1"
        raw = dict(self.items(self.header.catalog_root))[key]
        fields = list(struct.unpack("<QQII", raw))
        fields[field] = value
        self.change(self.header.catalog_root, key, struct.pack("<QQII", *fields))

    def deletions(self, entries: dict[int, int], *, segment: int = 1, chunk: int = 0) -> None:
        key = struct.pack(">II", segment, chunk)
        self.change(self.fields["deletes_root"], key, encode_deletions(entries))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed file: a segment with deletions, a delta with ends of rows, an index, free pages."""
    path = tmp_path_factory.mktemp("integrity") / "m.m2m"
    database = open_file(path, create=True)
    with database.writing() as write:
        write.create_collection(CollectionSchema("notes", COLUMNS))
        write.create_index("notes", IndexInfo("by_n", "n"))
    with database.writing() as write:
        write.insert("notes", rows(0, 1200), 1200)
    with database.writing() as write:
        write.delete("notes", list(range(1, 601)))
    for start in range(2000, 2060, 20):
        with database.writing() as write:
            write.insert("notes", rows(start, 20), 20)
    with database.writing() as write:
        write.delete("notes", [700, 1210])
    with database.writing() as write:
        write.create_collection(CollectionSchema("gone", (Column("a", "INTEGER"),)))
    with database.writing() as write:
        write.drop_collection("gone")
    database.close()
    return path


def swap(array: np.ndarray) -> None:
    array[[700, 701]] = array[[701, 700]]


def set_to(at: int, value: Any) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[at] = value

    return change


PARTS: list[tuple[str, int, str, Callable[[np.ndarray], None], str, bool]] = [
    ("rowids", 0, "<i8", swap, "segment 1: rowids do not ascend", True),
    ("rowids", 0, "<i8", set_to(1199, 9999), "the record says 1..1200", True),
    ("nulls", 2, "|u1", set_to(5, 7), "part 'nulls' has the value 7", True),
    ("bools", 4, "|u1", set_to(5, 2), "part 'bools' has the value 2", True),
    ("offsets", 2, "<u4", swap, "offsets of body do not match", True),
    ("about", 0, "|u1", set_to(1, 0), "describes itself as (collection, segment) None", True),
    ("norms", 5, "<f4", set_to(900, 1.5), "norms of v differ from the vectors", False),
    ("vectors", 5, "<f4", set_to(99, np.nan), "norms of v differ from the vectors", False),
    ("vectors", 5, "<f4", set_to(3, 0.0), "", False),
    ("hashes", 1, "<u8", set_to(7, 1), "key hashes of id (hashes) differ from the rows", False),
    ("hash_rows", 1, "<u4", set_to(7, 3), "key hashes of id (hash_rows) differ", False),
    ("t.lists", 2, "|u1", set_to(9, 1), "text index of body (t.lists) differ", False),
    ("t.lengths", 2, "<u4", set_to(9, 9), "text index of body (t.lengths) differ", False),
    ("t.stats", 2, "<u8", set_to(3, 9), "text index of body (t.stats) differ", False),
    ("ints", 3, "<i8", set_to(800, -5), "index by_n: 1 entries without a row, 1 rows", False),
    ("blob", 1, "|u1", set_to(4000, 0xFF), "holds bytes that are not UTF-8", False),
]


@pytest.mark.parametrize(("name", "column", "dtype", "change", "words", "in_quick"), PARTS)
def test_a_changed_part_of_a_segment_is_found(
    whole: Path,
    tmp_path: Path,
    name: str,
    column: int,
    dtype: str,
    change: Callable[[np.ndarray], None],
    words: str,
    in_quick: bool,
) -> None:
    damaged = Damaged(whole)
    change(damaged.part(name, column, dtype))
    damaged.seal()

    faults, quick = faults_of(damaged, tmp_path)

    if words:
        assert any(words in fault for fault in faults), faults
        assert all("notes" in fault or "by_n" in fault for fault in faults)
        assert bool(quick) is in_quick
    else:
        assert faults == [], "the NULL's zeros are zero already"


def faults_of(damaged: Damaged, folder: Path) -> tuple[list[str], list[str]]:
    path = folder / "damaged.m2m"
    path.write_bytes(damaged.raw)
    try:
        database = open_file(path)
    except CorruptDatabaseError as error:
        return [str(error)], [str(error)]
    try:
        return check_database(database), check_database(database, quick=True)
    finally:
        database.close()
        assert path.read_bytes() == damaged.raw, "checking changes nothing"


def numbers_in_a_null(damaged: Damaged) -> None:
    damaged.part("vectors", 5, "<f4")[3] = 1.0
    damaged.part("norms", 5, "<f4")[0] = 1.0
    damaged.seal()


def future_row(damaged: Damaged) -> None:
    damaged.record.commit = 900
    damaged.put_record()


def record_of_other_rowids(damaged: Damaged) -> None:
    damaged.record.min_rowid = 0
    damaged.put_record()


def fewer_deleted(damaged: Damaged) -> None:
    damaged.record.deleted -= 1
    damaged.put_record()


def free_root_run(start: int, length: int) -> Callable[[Damaged], None]:
    def change(damaged: Damaged) -> None:
        key, value = struct.pack(">Q", start), struct.pack("<IQ", length, 1)
        damaged.change(damaged.header.free_root, key, value)

    return change


def no_free_run(damaged: Damaged) -> None:
    key, _ = damaged.items(damaged.header.free_root)[0]
    damaged.change(damaged.header.free_root, key, None)


def child_twice(damaged: Damaged) -> None:
    root = damaged.fields["delta_root"]
    node = damaged.node(root)
    node.children[1] = node.children[0]
    damaged.put(root, node)


def other_name(damaged: Damaged) -> None:
    key = b"C\0\0\0\1"
    raw = dict(damaged.items(damaged.header.catalog_root))[key]
    damaged.change(damaged.header.catalog_root, key, raw.replace(b'"notes"', b'"nates"', 1))


def entry_without_row(damaged: Damaged) -> None:
    root = damaged.fields["indexes"][0]["root"]
    damaged.change(root, index_key(10**12, 5), b"")


def value_in_index(damaged: Damaged) -> None:
    root = damaged.fields["indexes"][0]["root"]
    damaged.change(root, damaged.items(root)[3][0], b"x")


STRUCTURES: list[tuple[Callable[[Damaged], None], str]] = [
    (numbers_in_a_null, "norms of v differ|a NULL of v has numbers"),
    (future_row, "catalog, collection notes: segment 1 is of commit 900, which is to be"),
    (record_of_other_rowids, "rowids 1..1200, the record says 0..1200"),
    (fewer_deleted, "deletions of segment 1: 600 rows, the record says 599"),
    (lambda d: d.head(0, 10**6), "delta, entry 0: the log begins with 1000000"),
    (lambda d: d.head(2, 1), "segment 1 is there, the next one would be 1"),
    (lambda d: d.head(3, 3), "column id 5 is there, the next one would be 3"),
    (
        lambda d: d.change(d.header.catalog_root, b"N", struct.pack(">I", 1)),
        "its id is 1, the next",
    ),
    (lambda d: d.change_delta(3, "<B", 0, 9), "collection notes, delta: no delta entry"),
    (lambda d: d.change_delta(3, "<Q", 1, 999), "delta, entry 3: of commit 999"),
    (lambda d: d.change_delta(9, "<Q", 9, 1), "delta, entry 9: next rowid 1, before it was"),
    (lambda d: d.change_delta(3, "<B", 36, 6), "delta, entry 3: its values do not fit the columns"),
    (lambda d: d.change_delta(3, "<I", 25, 7), "delta, entry 3: it ends row 0 of segment 7"),
    (lambda d: d.change_delta(-1, "<I", 29, 99_999), "it ends row 99999 of segment 1"),
    (lambda d: d.change_delta(3, "<q", 17, 800), "collection notes: a rowid is live twice: 800"),
    (lambda d: d.deletions({5: 3, 300: 3}), "chunk 0 has ordinals that are not its own"),
    (lambda d: d.deletions({5: 10**6}), "ended by commit 1000000, which is to be"),
    (lambda d: d.deletions({5: 3}, segment=4), "deletions: key 0000000400000000 is of no segment"),
    (lambda d: d.change(d.fields["deletes_root"], DESCRIPTION_KEY, b"{}"), "description is not"),
    (other_name, "description is not that of the catalog"),
    (entry_without_row, "index by_n: 1 entries without a row, 0 rows without an entry (rowid 5)"),
    (value_in_index, "index by_n: an entry has a value"),
    (free_root_run(5, 1), "free run: page 5 is used twice, also by"),
    (free_root_run(10**6, 3), "pages 1000000..1000002 lie outside the file"),
    (no_free_run, "neither used nor free"),
    (child_twice, "it is used twice"),
]


@pytest.mark.parametrize(("change", "words"), STRUCTURES)
def test_a_changed_structure_is_found(
    whole: Path, tmp_path: Path, change: Callable[[Damaged], None], words: str
) -> None:
    damaged = Damaged(whole)
    change(damaged)

    faults, _ = faults_of(damaged, tmp_path)

    assert any(word in fault for fault in faults for word in words.split("|")), faults


def test_a_whole_file_has_no_fault(whole: Path, tmp_path: Path) -> None:
    assert faults_of(Damaged(whole), tmp_path) == ([], [])


def test_a_flipped_bit_is_told_with_its_page_and_what_the_page_is_of(
    whole: Path, tmp_path: Path
) -> None:
    known = Damaged(whole)
    trees = {
        "free map": known.header.free_root,
        "catalog": known.header.catalog_root,
        "delta of notes": known.fields["delta_root"],
        "deletions of notes": known.fields["deletes_root"],
        "index by_n": known.fields["indexes"][0]["root"],
    }
    for what, root in trees.items():
        for number in {root, known.leaves(root)[-1]}:
            damaged = Damaged(whole)
            damaged.raw[(number - 1) * PAGE + 30] ^= 4
            faults, quick = faults_of(damaged, tmp_path)
            for found in (faults, quick):
                assert any(what in each and f"page {number} " in each for each in found), faults
    for block in range(block_count(known.record.extents[0].size)):
        damaged = Damaged(whole)
        damaged.raw[damaged.base + block * BLOCK_SIZE + 5] ^= 1
        faults, quick = faults_of(damaged, tmp_path)
        assert any("segment 1" in each and f"block {block}" in each for each in faults + quick)


def test_the_header_and_the_flag_are_read_again_from_the_disk(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.m2m"
    path.write_bytes(whole.read_bytes())
    for offset, words in (
        (60, "page 1 (header)"),
        (530, "page 1 (log flag)"),
        (2000, "page 1: bytes"),
    ):
        database = open_file(path)
        assert check_database(database) == []
        raw = bytearray(path.read_bytes())
        raw[offset] ^= 1
        path.write_bytes(raw)
        assert any(words in fault for fault in check_database(database)), words
        database.close()
        raw[offset] ^= 1
        path.write_bytes(raw)


def test_pages_and_blocks_are_read_again_from_the_disk(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.m2m"
    path.write_bytes(whole.read_bytes())
    known = Damaged(whole)
    for offset in ((known.fields["delta_root"] - 1) * PAGE + 99, known.base + 70_000):
        database = open_file(path)
        assert check_database(database) == []
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
        assert len(check_database(database)) > 0
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes([byte]))
        assert check_database(database) == []
        database.close()


def test_frames_of_the_log_are_checked_while_it_is_in_use(tmp_path: Path) -> None:
    database = open_file(tmp_path / "m.m2m", create=True)
    with database.writing() as write:
        write.create_collection(CollectionSchema("notes", COLUMNS))
    for start in range(0, 60, 10):
        with database.writing() as write:
            write.insert("notes", rows(start, 10), 10)
    assert check_database(database) == []
    log = tmp_path / "m.m2m-wal"
    whole = log.read_bytes()
    frames = len(whole.rstrip(b"\0")) // (PAGE + 32)

    for frame in range(0, frames, 5):
        raw = bytearray(whole)
        raw[512 + frame * (PAGE + 32) + 100] ^= 1
        log.write_bytes(raw)
        words = f"the frame at byte {512 + frame * (PAGE + 32)} does not continue commit"
        assert any(words in fault for fault in check_database(database, quick=True)), frame
    raw = bytearray(whole)
    raw[20] ^= 1
    log.write_bytes(raw)
    assert any("header of log" in fault for fault in check_database(database))
    log.write_bytes(whole)
    assert check_database(database) == []
    database.close()


def test_a_damaged_catalog_is_a_row_and_not_an_error(whole: Path, tmp_path: Path) -> None:
    damaged = Damaged(whole)
    damaged.raw[(damaged.header.catalog_root - 1) * PAGE + 500] ^= 1

    faults, quick = faults_of(damaged, tmp_path)

    assert faults == quick and len(faults) == 1
    assert f"catalog: page {damaged.header.catalog_root} (page of the tree" in faults[0]
