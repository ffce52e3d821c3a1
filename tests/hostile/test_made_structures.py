"""Files that somebody made: right checksums, and numbers that cannot be.

Each case was an exception of Python, a hang, or memory without measure before its check was
written; now each is a CorruptDatabaseError.
"""

from __future__ import annotations

import json
import struct
import time
from typing import Any

import numpy as np
import pytest

from fuzz.seeded import PATH, SeededVfs, content, holding, open_database
from fuzz.targets.catalog import entry_items, packed, run_catalog
from fuzz.targets.logs import mended
from fuzz.targets.segments import COLUMNS, made_extent, segment_seeds
from m2mdb.index.catalog import collection_key, segment_key
from m2mdb.index.delta import DeltaMirror, indexable_text
from m2mdb.index.keys import decode_rowid
from m2mdb.index.record import HEAD, REMOVAL, SEQUENCE, encode_removal, encode_row
from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.index.segment import HEADER, PART, Segment, SegmentRecord
from m2mdb.index.text.match_query import parse_match
from m2mdb.index.text.options import parse_options
from m2mdb.index.text.postings import FLAT, VERSION, build
from m2mdb.index.text.search import search_text
from m2mdb.index.text.segment import TextSegment
from m2mdb.index.text.source import TextColumn
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.header import FLAG_OFFSET, Header, LogFlag
from m2mdb.pager.page import Branch, Leaf, OverflowPage, OverflowReference
from m2mdb.query.executor import execute
from m2mdb.wal.frame import LOG_HEADER_SIZE, FrameHeader, LogHeader
from tests.pager.test_btree_damage import PIECE, HostilePages

# ------------------------------------------------------------------------- trees


def test_overflow_pages_of_two_values_are_read_once() -> None:
    """150 references a page to one chain of a megabyte were 150 megabytes a page."""
    pages = HostilePages(
        {
            2: Leaf([b"a", b"b"], [OverflowReference.of(3, 976), OverflowReference.of(4, 488)]),
            3: OverflowPage(4, PIECE),
            4: OverflowPage(0, PIECE),
        }
    )
    tree = BTree(pages, 2)

    assert tree.get(b"a") == PIECE * 2
    for attempt in (tree.scan, lambda: tree.scan(reverse=True), tree.pages_used):
        with pytest.raises(CorruptDatabaseError, match="page 4 is in another chain too"):
            list(attempt())


@pytest.mark.parametrize("reverse", [False, True])
def test_a_leaf_is_not_given_out_once_a_separator(reverse: bool) -> None:
    """A leaf shared by n children gave its keys n times: with pages of 4 KiB, without an end."""
    pages = HostilePages(
        {2: Branch([b"b", b"c", b"d"], [3, 3, 3, 3]), 3: Leaf([b"a", b"x", b"y"], [b""] * 3)}
    )

    with pytest.raises(CorruptDatabaseError, match="wrong side of separator"):
        list(BTree(pages, 2).scan(reverse=reverse))


# ------------------------------------------------------------------------- segments


def directory(data: bytes) -> np.ndarray:
    count = HEADER.unpack_from(data, 2)[1]
    return np.frombuffer(data, PART, count, 2 + HEADER.size).copy()


def with_entry(name: str, column: int, /, **fields: Any) -> bytes:
    """The sample segment with fields of one part changed in its directory."""
    data = segment_seeds()[1]
    entries = directory(data)
    (at,) = np.flatnonzero((entries["name"] == name.encode()) & (entries["column"] == column))
    for field, value in fields.items():
        entries[field][at] = value
    start = 2 + HEADER.size
    return data[:start] + entries.tobytes() + data[start + entries.nbytes :]


def with_bytes(name: str, column: int, values: np.ndarray) -> bytes:
    """The sample segment with the first items of one part changed."""
    data = bytearray(segment_seeds()[1])
    entries = directory(bytes(data))
    (at,) = np.flatnonzero((entries["name"] == name.encode()) & (entries["column"] == column))
    start = 2 + int(entries["offset"][at])
    data[start : start + values.nbytes] = values.tobytes()
    return bytes(data)


def opened(data: bytes, rows: int = 7) -> Segment:
    record = SegmentRecord(1, rows, rowids=(1, rows), commit=1)
    return Segment(record, [made_extent(data[2:])], "made")


@pytest.mark.parametrize(
    ("name", "column", "fields", "message"),
    [
        ("rowids", 0, {"name": b"others"}, "no part says the rowids"),
        ("rowids", 0, {"count": 6}, "6 items for 7 rows"),
        ("rowids", 0, {"dtype": b"<f8"}, "items of <f8, expected <i8"),
        ("ints", 2, {"dtype": b"|u1"}, r"items of \|u1, expected <i8"),
        ("reals", 4, {"count": 2**63}, "outside its extent"),
        ("offsets", 5, {"count": 7}, "7 items for 7 rows"),
        ("offsets", 5, {"offset": 8}, "outside its extent"),
        ("blob", 5, {"name": b"bolb"}, "has offsets and no bytes"),
        ("vectors", 7, {"count": 27}, "27 items for 7 rows"),
        ("vectors", 7, {"dtype": b"<u8", "count": 14}, "expected <f4 or <f2"),
        ("hash_rows", 1, {"count": 6}, "7 key hashes and 6 ordinals"),
        ("hashes", 1, {"name": b"hashed"}, "None key hashes"),
        ("bools", 3, {"offset": 1 + 64 * 40}, "not aligned"),
    ],
)
def test_a_part_that_cannot_be(
    name: str, column: int, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(CorruptDatabaseError, match=message):
        opened(with_entry(name, column, **fields))


def test_rows_are_no_more_than_the_extent_has_bytes_for() -> None:
    """A record of 2**60 rows without an extent was np.ones(2**60)."""
    record = SegmentRecord(1, 2**60, rowids=(1, 2**60), commit=1)

    with pytest.raises(CorruptDatabaseError, match="no part says the rowids"):
        Segment(record, [], "made")


def test_a_key_hash_that_names_no_row() -> None:
    """The ordinal went into a mask, or into a memoryview, as it was."""
    segment = opened(with_bytes("hash_rows", 1, np.array([7], np.uint32)))

    with pytest.raises(CorruptDatabaseError, match="'hash_rows' has the value 7"):
        segment.candidates(1, int(segment.array("hashes", 1)[0]))


@pytest.mark.parametrize(("name", "column"), [("nulls", 2), ("bools", 3)])
def test_a_flag_that_is_neither_0_nor_1(name: str, column: int) -> None:
    """Viewed as bool, 2 is true and counts as nothing known."""
    segment = opened(with_bytes(name, column, np.array([2], np.uint8)))

    with pytest.raises(CorruptDatabaseError, match="has the value 2"):
        segment.numbers(COLUMNS[column - 1])


def test_values_share_no_bytes() -> None:
    """Offsets 0, n, 0, n, … were a copy of the whole column for each row."""
    offsets = np.array([0, 21, 0, 21, 0, 21, 0], np.uint32)
    segment = opened(with_bytes("offsets", 5, offsets))

    with pytest.raises(CorruptDatabaseError, match="do not ascend"):
        segment.values(COLUMNS[4])


# ------------------------------------------------------------------------- text indexes


def text_with(version: int = VERSION, **changes: Any) -> TextSegment:
    """The lists of four texts with some parts changed."""
    texts = ["red apple", "red", None, "red pear"]
    parts = dict(build(texts, version=version))
    for name, change in changes.items():
        parts[name] = change(parts[name].copy())
    return TextSegment(parts, "made", 4)


def put(at: int, value: int) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        array[at] = value
        return array

    return change


@pytest.mark.parametrize(
    ("part", "at", "value", "message"),
    [
        ("stats", 1, 5, "expected 5 items"),
        ("stats", 2, 0, "0 texts of 5 tokens"),  # an average of 5 / 0
        ("stats", 2, 2**63, "texts of 5 tokens"),
        ("stats", 3, 2**64 - 1, "tokens in 4 rows"),
        ("term_offsets", 1, 40, "offsets of terms do not ascend"),
        ("starts", 1, 0, "a list at 0..0"),
        ("starts", 1, 50, "a list at"),
        ("starts", 3, 99, "lists span 0..99"),
        ("lists", 0, 9, "a list of 9 rows, 3 have a text"),  # apple: 1 row, ordinal 0, position 1
        ("lists", 0, 0, "a list of 0 rows"),
        ("lists", 1, 8, "an ordinal that is not below 4"),
        ("lists", 1, 1, "does not end where it should"),
        ("lists", 2, 255, "a packed list is cut"),
    ],
)
def test_a_text_index_that_cannot_be(part: str, at: int, value: int, message: str) -> None:
    with pytest.raises(CorruptDatabaseError, match=message):
        text = text_with(**{part: put(at, value)})
        text.vocabulary()
        for term in (b"apple", b"pear", b"red"):
            text.postings(term)


@pytest.mark.parametrize(
    ("part", "at", "value", "message"),
    [
        ("starts", 1, 2**63, "a list at 0|out of range|too large"),
        ("docs", 2, 4, "ordinal 4 of 4 rows"),
        ("freqs", 2, 0, "a list cannot be"),
    ],
)
def test_a_text_index_of_version_1_that_cannot_be(
    part: str, at: int, value: int, message: str
) -> None:
    with pytest.raises(CorruptDatabaseError, match=message):
        text = text_with(FLAT, **{part: put(at, value)})
        text.vocabulary()
        for term in (b"apple", b"pear", b"red"):
            text.postings(term)


def test_lists_of_other_rows_than_the_segment_has() -> None:
    """Ordinals below the lists' own size went into arrays of the segment's size."""
    with pytest.raises(CorruptDatabaseError, match="lists of 4 rows, expected 3"):
        TextSegment(build(["a", "b", None, "c"]), "made", 3)


@pytest.mark.parametrize("variant", ["lucene", "okapi", "l", "plus"])
def test_more_rows_have_a_prefix_than_have_a_text(variant: str) -> None:
    """log of a negative number: ValueError from the okapi variant."""
    text = text_with(stats=lambda stats: np.array([stats[0], 4, 1, 5, *stats[4:]], np.uint64))
    column = TextColumn("body", [text], parse_options({"variant": variant}).variant)

    with pytest.raises(CorruptDatabaseError, match=r"have a te(rm|xt)"):
        search_text(parse_match("r* p* a*"), [column], [np.arange(4)], 3)
        search_text(parse_match("red"), [column], [np.arange(4)], 3)


@pytest.mark.parametrize("value", ["{", "[" * 100_000, "nonsense"])
def test_a_json_value_that_is_none(value: str) -> None:
    with pytest.raises(CorruptDatabaseError, match="a JSON value is damaged"):
        indexable_text("JSON", value)


# ------------------------------------------------------------------------- the catalog

SMALL = CollectionSchema("x", (Column("a", "TEXT", id=1), Column("b", "INTEGER", id=2)))


def described(**changes: Any) -> bytes:
    """A catalog of one collection with fields of its description changed."""
    items = entry_items(1, SMALL, 2)
    fields = json.loads(items[0][1])
    for name, value in changes.items():
        if name in fields:
            fields[name] = value
        else:
            fields["columns"][0][name.removeprefix("column_")] = value
    return packed([(items[0][0], json.dumps(fields).encode()), *items[1:]])


INDEX = {"name": "i", "column": "a", "kind": "btree", "unique": False, "root": 7}


@pytest.mark.parametrize(
    "changes",
    [
        {"column_name": 5},
        {"column_type": ["TEXT"]},
        {"column_id": 2},
        {"column_id": -1},
        {"column_id": 1e999},
        {"column_dimension": 2.5},
        {"column_fulltext": [1]},
        {"column_default": [1]},
        {"column_default": {"hex": 5}},
        {"column_metric": {}},
        {"columns": 5},
        {"columns": [[1, 2]]},
        {"delta_root": 1e999},
        {"delta_root": "4"},
        {"delta_root": -4},
        {"deletes_root": 2**40},
        {"deletes_root": True},
        {"indexes": [{**INDEX, "root": 0}]},
        {"indexes": [{**INDEX, "root": "7"}]},
        {"indexes": [{**INDEX, "name": 7}]},
        {"indexes": [{**INDEX, "column": "nothing"}]},
        {"indexes": [INDEX, INDEX]},
        {"indexes": [[]]},
        {"name": ""},
        {"name": "n" * 1001},
    ],
    ids=str,
)
def test_a_description_that_cannot_be(changes: dict[str, Any]) -> None:
    run_catalog(described())
    with pytest.raises(CorruptDatabaseError, match="damaged description"):
        run_catalog(described(**changes))


def head(base: int = 0, rowid: int = 1, segment: int = 3, column: int = 3) -> bytes:
    return struct.pack("<QQII", base, rowid, segment, column)


def record(id: int = 1, rows: int = 9, commit: int = 2, **fields: Any) -> bytes:
    made = SegmentRecord(id, rows, rowids=(1, 9), commit=commit)
    made.extents = fields.get("extents", (ExtentDescriptor(90, 1, 900, 7, 2),))
    made.version = fields.get("version", 0)
    return made.encode()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (collection_key(b"H", 1), head(base=2**63), "base sequence"),
        (collection_key(b"H", 1), head(rowid=2**64 - 1), "next rowid"),
        (collection_key(b"H", 1), head(segment=2**32 - 1), "next segment"),
        (collection_key(b"H", 1), head()[:-1], "a head of 23 bytes"),
        (b"N", b"\xff\xff\xff\xff", "the next collection"),
        (b"N", b"12345", "a value of 5 bytes"),
        (segment_key(1, 1), record(rows=2**60), "rows of segment 1"),
        (segment_key(1, 1), record(id=2**32 - 1), "a segment of collection 1"),
        (segment_key(1, 1), record(commit=2**63), "a number of segment 1"),
        (segment_key(1, 1), record(extents=()), "has no extent"),
        (
            segment_key(1, 1),
            record(extents=(ExtentDescriptor(43, 3, 9000, 7, 2),)),
            "page 44 is in two extents",
        ),
        (collection_key(b"H", 9), head(), "belongs to no collection"),
    ],
)
def test_a_catalog_that_cannot_be(key: bytes, value: bytes, message: str) -> None:
    items = dict(entry_items(1, SMALL, 2)) | {key: value}

    with pytest.raises(CorruptDatabaseError, match=message):
        run_catalog(packed(list(items.items())))


def test_two_collections_of_one_name() -> None:
    with pytest.raises(CorruptDatabaseError, match="two collections have one name"):
        run_catalog(packed([*entry_items(1, SMALL, 0), *entry_items(2, SMALL, 0)]))


def test_an_index_key_too_short_for_a_rowid() -> None:
    with pytest.raises(CorruptDatabaseError, match="a key of 3 bytes has no rowid"):
        decode_rowid(b"abc")


@pytest.mark.parametrize("wanted", ["ab" * 500, "c1", "x" * 64])
def test_a_hint_looks_at_few_and_short_names(wanted: str) -> None:
    """2,000 columns with names of 1,000 letters were compared with a wrong name: minutes."""
    names = [f"{'ba' * 490}{i}" for i in range(1_000)] + [f"c{i}" for i in range(900)]
    schema = CollectionSchema("x", tuple(Column(n, "TEXT", id=i) for i, n in enumerate(names)))
    started = time.thread_time()

    schema.hint(wanted)

    assert time.thread_time() - started < 0.5


# ------------------------------------------------------------------------- the delta


def mirrored(*entries: tuple[int, bytes]) -> DeltaMirror:
    pages = HostilePages({2: Leaf([], [])})
    for sequence, raw in entries:
        BTree(pages, 2).put(SEQUENCE.pack(sequence), raw)
    mirror = DeltaMirror(SMALL, 0, 1)
    mirror.read(BTree(pages, 2), "made")
    return mirror


@pytest.mark.parametrize(
    ("sequence", "raw", "message"),
    [
        (1, encode_row(1, 2, 1, (0, 0), [5, 5]), "a of a row version is int"),
        (1, encode_row(1, 2, 1, (0, 0), ["a", "b"]), "b of a row version is str"),
        (1, encode_row(1, 2, 1, (0, 0), [b"a", 1]), "a of a row version is bytes"),
        (1, encode_row(1, 2, 1, (0, 0), ["a", True]), "b of a row version is bool"),
        (1, encode_row(1, 2, 1, (0, 0), ["a"]), "1 columns, expected 2"),
        (1, encode_row(2**63, 2, 1, (0, 0), ["a", 1]), "of commit"),
        (1, encode_row(1, 2**64 - 1, 1, (0, 0), ["a", 1]), "delta entry 1"),
        (2**64 - 1, encode_row(1, 2, 1, (0, 0), ["a", 1]), "out of order"),
        (2**63, HEAD.pack(REMOVAL, 1, 2), "out of order"),
        (1, HEAD.pack(9, 1, 2), "of kind 9"),
        (1, b"short", "out of order"),
    ],
)
def test_a_delta_entry_that_cannot_be(sequence: int, raw: bytes, message: str) -> None:
    mirrored((1, encode_row(1, 2, 1, (0, 0), ["a", 1])), (2, encode_removal(1, 2, [])))
    with pytest.raises(CorruptDatabaseError, match=message):
        mirrored((sequence, raw))


def test_a_delta_that_ends_a_row_which_its_segment_has_not() -> None:
    """live[killed] was an IndexError."""
    vfs = SeededVfs()
    database = open_database(vfs, create=True)
    execute(database, "CREATE COLLECTION c (n INTEGER)")
    with database.writing() as write:
        write.insert("c", {"n": list(range(600))}, 600)
    with database.writing() as write:
        view = write.collection("c")
        tree = BTree(write.transaction, view.entry.delta_root)
        tree.put(SEQUENCE.pack(view.end), encode_removal(9, 601, [(1, (1, 600))]))
    newest = database.store.end.commit
    database.close()
    database = open_database(vfs)

    for statement in (
        "SELECT count(*) FROM c",
        "SELECT * FROM c",
        "DELETE FROM c WHERE n = 1",
        f"SELECT * FROM c AS OF {newest}",
    ):
        with pytest.raises(CorruptDatabaseError, match="row 600 of segment 1, which has 600 rows"):
            execute(database, statement)


@pytest.mark.parametrize("heap", ["fresh", "recycled"])
def test_null_vectors_of_the_delta_take_no_memory_of_their_own(heap: str) -> None:
    """One row of NULLs was a page of memory for each vector that is not there.

    Once a process had freed a large block, the allocator no longer mapped such arrays each for
    itself but took them from the heap, and cleared, so touched, all that it recycled.
    """
    if heap == "recycled":
        freed = [np.ones(3 << 20) for _ in range(100)]
        del freed[::2]
    columns = tuple(Column(f"v{i}", "VECTOR", id=i + 1, dimension=65_536) for i in range(200))
    mirror = DeltaMirror(CollectionSchema("wide", columns), 0, 1)
    with open("/proc/self/statm", encoding="ascii") as opened_file:
        before = int(opened_file.read().split()[1])

    for row in range(70):
        mirror.add_row((row, 1), row, (0, 0), [None] * 200)

    with open("/proc/self/statm", encoding="ascii") as opened_file:
        after = int(opened_file.read().split()[1])
    assert (after - before) * 4096 < 300 << 20  # 70 rows of 200 vectors of 256 KiB are 3.5 GiB


# ------------------------------------------------------------------------- header and log


@pytest.mark.parametrize("field", ["commit", "schema_number", "catalog_number"])
def test_a_number_that_has_no_next_one(field: str) -> None:
    """commit + 1 did not fit its 64 bits: struct.error at the next write."""
    made = Header(4096, bytes(16))
    setattr(made, field, 2**64 - 1)

    with pytest.raises(CorruptDatabaseError, match="expected at most"):
        Header.decode(made.encode(), "made")


@pytest.mark.parametrize("field", ["generation", "base_commit"])
def test_a_log_whose_numbers_have_no_next_ones(field: str) -> None:
    changed: dict[str, Any] = {field: 2**64 - 1}
    made = LogHeader(4096, 1, 2, 3, bytes(16))._replace(**changed)

    with pytest.raises(CorruptDatabaseError, match="expected at most"):
        LogHeader.decode(made.encode(), "made")


@pytest.mark.parametrize("untrusted", [False, True])
@pytest.mark.parametrize("pages", [2**32 - 1, 2**31, 300_000])
def test_a_log_cannot_make_the_file_fill_the_disk(pages: int, untrusted: bool) -> None:
    """RE5: a commit of 2**32 - 1 pages was so much space asked for at once."""
    vfs = SeededVfs()
    database = open_database(vfs, create=True)
    database.close()
    main = bytearray(content(vfs))
    header = Header.decode(main, PATH)
    log = LogHeader(4096, 1, 77, header.commit, header.uuid).encode()
    frame = FrameHeader(2, pages, header.commit + 1, 77, 0).encode() + main[4096:8192]
    main[FLAG_OFFSET : FLAG_OFFSET + 512] = LogFlag.needed_for(77, 1).encode()
    raw = bytearray(log + frame)
    raw[21] = 0
    vfs = holding(main=bytes(main), wal=mended(bytes(raw), 4096))

    with pytest.raises(CorruptDatabaseError, match=f"its last commit is of {pages} pages"):
        open_database(vfs, untrusted=untrusted)
    assert len(content(vfs)) == len(main)
    assert len(content(vfs, f"{PATH}-wal")) == LOG_HEADER_SIZE + len(frame)
