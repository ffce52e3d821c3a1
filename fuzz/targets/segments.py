"""Segments: extents whose checksums hold and whose content does not.

postings   the parts of a text index: a byte that says how many rows, u32 sizes, then the parts
lists      the same with lists of its vectors: their checks, and the compiled search of them
segment    the content of a segment's extent, of as many rows as its first u16 says: every way
           to read it, and searches by both backends
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from struct import Struct

import numpy as np

from fuzz.seeded import PATH, SeededVfs
from fuzz.target import Target
from m2mdb.compute.backend import choose
from m2mdb.compute.loader import LOADER
from m2mdb.compute.text_backend import text_kernels
from m2mdb.index import hrm2
from m2mdb.index.catalog import CollectionEntry
from m2mdb.index.column_parts import column_parts, hash_parts
from m2mdb.index.description import describe_segment
from m2mdb.index.effort import Effort
from m2mdb.index.hrm2 import searched_query
from m2mdb.index.integrity_lists import list_faults
from m2mdb.index.maintenance import text_parts
from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.index.segment import (
    NamedPart,
    Segment,
    SegmentRecord,
    lay_out,
)
from m2mdb.index.text.blocks import block_parts
from m2mdb.index.text.compiled import TextPlan
from m2mdb.index.text.match_query import parse_match
from m2mdb.index.text.options import parse_options
from m2mdb.index.text.postings import FLAT, PART_TYPES, VERSION, build, merge
from m2mdb.index.text.search import search_text
from m2mdb.index.text.segment import TextSegment
from m2mdb.index.text.source import TextColumn
from m2mdb.index.values import VectorData
from m2mdb.pager.errors import Error
from m2mdb.pager.extent import Extent
from m2mdb.pager.extent_writer import write_extent

_SIZE = Struct("<I")
_QUERIES = [parse_match(text) for text in ("red apple", "a* -red", "+pear^2 fig~1", "plum~1")]
_VARIANTS = ("lucene", "okapi", "l", "plus")
TEXTS = ["red apple", None, "apple apple pear", "", "é plum fig", "a " * 300, "red red fig"]


class _Segment(TextSegment):
    """A text index whose shortest lists have blocks."""

    least_blocked = 1


def run_postings(data: bytes) -> None:
    """Search a made text index, list it, and merge it with itself."""
    rows, at, parts = data[0] if data else 0, 1, {}
    for name in PART_TYPES:
        if at + 4 > len(data):
            break
        size = _SIZE.unpack_from(data, at)[0] % 65536
        parts[name] = data[at + 4 : at + 4 + size]
        at += 4 + size
    text = _Segment(parts, "fuzz", rows)
    rowids = [np.arange(rows, dtype=np.int64)]
    variant = parse_options({"variant": _VARIANTS[rows % 4]}).variant
    for query in _QUERIES:
        try:
            column = TextColumn("body", [text], variant)
            hits = search_text(query, [column], rowids, 5)
        except Error:
            continue
        assert len(hits) <= 5 and (not len(hits) or int(hits.ordinals.max()) < rows)
    kernels = text_kernels(choose(), rows) if LOADER.wait() else None
    if kernels is not None:
        for query in _QUERIES:
            with contextlib.suppress(Error):
                column = TextColumn("body", [_Segment(parts, "fuzz", rows)], variant)
                found = TextPlan([column], rowids, kernels).search(query, 5, None, None)
                assert found is None or not len(found) or int(found.ordinals.max()) < rows
    for call in (
        lambda: list(text.faults()),
        lambda: merge([text, text], [np.arange(rows), np.arange(rows) + rows], 2 * rows),
    ):
        with contextlib.suppress(Error):
            call()


def packed(rows: int, parts: dict[str, bytes]) -> bytes:
    """The input that stands for these parts."""
    given = [parts.get(name, b"") for name in PART_TYPES]
    body = b"".join(_SIZE.pack(len(part)) + part for part in given)
    return bytes([rows]) + body


def postings_seeds() -> list[bytes]:
    """Of no row, some, one whose term stands in it 300 times, and lists of several blocks."""
    found = []
    for texts in ([], TEXTS[:1], TEXTS, [None, None], ["red apple", "pear red red"] * 120):
        for version in (FLAT, VERSION):
            built = build(texts, version=version)
            if version > FLAT:
                made = _Segment(built)
                built |= block_parts(made.every_posting(), made.lengths, least=made.least_blocked)
            parts = {name: part.tobytes() for name, part in built.items()}
            found.append(packed(len(texts), parts))
    return found


COLUMNS = (
    Column("id", "TEXT", id=1, unique=True),
    Column("n", "INTEGER", id=2),
    Column("f", "BOOLEAN", id=3),
    Column("r", "REAL", id=4),
    Column("b", "BLOB", id=5),
    Column("body", "TEXT", id=6, fulltext={}),
    Column("v", "VECTOR", id=7, dimension=4),
    Column("h", "VECTOR", id=8, dimension=2, dtype="f16", metric="l2"),
)


def made_extent(raw: bytes) -> Extent:
    """The content as an extent whose checksums hold."""
    vfs = SeededVfs()
    file = vfs.open(PATH, create=True)
    descriptor = write_extent(file, 4096, 2, 1, len(raw), [raw])
    return Extent(file, descriptor, 4096, PATH)


def run_segment(data: bytes) -> None:
    """Every way to read a segment."""
    rows = int.from_bytes(data[:2], "little") % 64
    record = SegmentRecord(1, rows or 1, rowids=(1, max(rows, 1)), commit=1)
    segment = Segment(record, [made_extent(data[2:])], "fuzz")
    for column in COLUMNS:
        for call in _reads(segment, column):
            try:
                call()
            except Error:
                continue


def _reads(segment: Segment, column: Column) -> Iterator[Callable[[], object]]:
    """The calls that read a column."""
    rows = range(segment.rows)
    yield lambda: [segment.ordinal(rowid) for rowid in (0, 1, 3, 9)]
    if column.is_vector:
        for name in ("numpy", "numba"):
            yield partial(_nearest, segment, column, name)
        yield lambda: [segment.value(column, row) for row in rows]
        yield lambda: list(segment.matrix_chunks(column))
        return
    yield lambda: segment.values(column)
    yield lambda: [segment.value(column, row) for row in rows]
    if column.type in ("INTEGER", "REAL", "BOOLEAN"):
        yield lambda: segment.numbers(column)
    if column.unique:
        for hash_ in segment.array("hashes", column.id)[:4].tolist():
            for ordinal in segment.candidates(column.id, hash_):
                assert ordinal < segment.rows
    if column.fulltext is not None:
        yield lambda: list(segment.text(column).faults())
        yield lambda: segment.text(column).prefix_postings(b"a")


def _nearest(segment: Segment, column: Column, backend: str) -> None:
    rows, norms = segment.matrix(column), segment.per_row("norms", column.id)
    query = np.ones(column.dimension, np.float32)
    found = choose(backend).top_k(rows, norms, query, 3, column.metric)
    assert not len(found.ordinals) or 0 <= found.ordinals.min() <= found.ordinals.max() < len(rows)


def run_lists(data: bytes) -> None:
    """Search and check the lists of two columns."""
    rows = int.from_bytes(data[:2], "little") % 512
    record = SegmentRecord(1, rows or 1, rowids=(1, max(rows, 1)), commit=1)
    segment = Segment(record, [made_extent(data[2:])], "fuzz")
    for column in COLUMNS[6:8]:
        for call in (_probe, lambda *of: list(list_faults(*of))):
            try:
                call(segment, column)
            except Error:
                continue


def _probe(segment: Segment, column: Column) -> None:
    """Lists that were taken are searched by compiled kernels, wherever they lead."""
    lists = segment.lists(column)
    if lists is None or not LOADER.wait():
        return
    lists.clusters()
    for query in (np.ones(column.dimension, np.float32), np.zeros(column.dimension, np.float32)):
        prepared = searched_query(query + np.float32(1e-3), column.metric)
        assert prepared is not None
        for effort in (Effort(0.9), Effort(0.9, 1000)):
            stop = lists.stop(3, lists.rows, effort)
            if stop is None:
                continue
            rows = lists.search(prepared, stop, None).ordinals.tolist()
            assert all(0 <= row < segment.rows for row in rows) and len(set(rows)) == len(rows)


def _lists(column: Column, data: VectorData) -> list[NamedPart]:
    """Lists of a few rows."""
    least, hrm2.LEAST_ROWS = hrm2.LEAST_ROWS, 1
    try:
        return hrm2.lists_parts(column, data, measured=False)
    finally:
        hrm2.LEAST_ROWS = least


def lists_seeds() -> list[bytes]:
    """Segments of three and of 90 rows."""
    found = []
    entry = CollectionEntry(1, CollectionSchema("fuzz", COLUMNS))
    for rows in (3, 90):
        parts: list[NamedPart] = [("rowids", 0, np.arange(1, rows + 1, dtype=np.int64))]
        for column, dtype in ((COLUMNS[6], np.float32), (COLUMNS[7], np.float16)):
            numbers = np.random.default_rng(rows).standard_normal((rows, column.dimension))
            data = VectorData(numbers.astype(dtype))
            parts += column_parts(column, data)
            parts += _lists(column, data)
        buffers, _ = lay_out(rows, parts, describe_segment(entry, 1, 1))
        found.append(rows.to_bytes(2, "little") + b"".join(bytes(buffer) for buffer in buffers))
    return found


def segment_seeds() -> list[bytes]:
    """Segments of one and of seven rows."""
    found = []
    entry = CollectionEntry(1, CollectionSchema("fuzz", COLUMNS))
    for rows in (1, 7):
        texts = TEXTS[:rows]
        values: list[list[object]] = [
            [f"key{n}" for n in range(rows)], [None if n == 2 else n * n for n in range(rows)],
            [n % 2 == 0 for n in range(rows)], [n / 3 for n in range(rows)],
            [bytes([n]) * n for n in range(rows)], list(texts),
        ]  # fmt: skip
        parts: list[NamedPart] = [("rowids", 0, np.arange(1, rows + 1, dtype=np.int64))]
        for column, some in zip(COLUMNS, values, strict=False):
            parts += column_parts(column, some)
            if column.unique:
                parts += hash_parts(column, some)
            if column.fulltext is not None:
                parts += text_parts(column, some)
        for column, dtype in ((COLUMNS[6], np.float32), (COLUMNS[7], np.float16)):
            matrix = np.arange(1, rows * column.dimension + 1, dtype=dtype)
            data = VectorData(np.ascontiguousarray(matrix.reshape(rows, -1)))
            parts += column_parts(column, data)
        buffers, _ = lay_out(rows, parts, describe_segment(entry, 1, 1))
        found.append(rows.to_bytes(2, "little") + b"".join(bytes(buffer) for buffer in buffers))
    return found


TARGETS = [
    Target("postings", run_postings, postings_seeds, share=2.0),
    Target("segment", run_segment, segment_seeds, share=2.0, in_place=True),
    Target("lists", run_lists, lists_seeds, share=2.0, in_place=True),
]
