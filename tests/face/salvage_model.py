"""A database with known rows, and what must be saved of it after damage.

`Model` builds a closed file and remembers every version of every row that was ever committed.
`Map` tells, from the undamaged file alone, which bytes each live row lies in: the page of its delta
entry, or the blocks of its segment that hold its values. It reads the format itself, as
docs/format.md has it.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import m2mdb
from m2mdb.index.database import Database
from m2mdb.pager.btree import BTree
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.pager.page import Leaf, OverflowReference
from m2mdb.wal.store import StoreOptions

BLOCK = 65536
Row = tuple[Any, ...]
NOTES = {
    "id": "TEXT PRIMARY KEY", "body": "TEXT FULLTEXT", "n": "INTEGER", "r": "REAL", "o": "BOOLEAN",
    "m": "TIMESTAMP", "j": "JSON", "b": "BLOB", "v": "VECTOR(64) METRIC l2",
    "h": "VECTOR(8, f16) METRIC ip", "c": "VECTOR(8, i8) METRIC l2",
}  # fmt: skip
PEOPLE = {"id": "INTEGER PRIMARY KEY", "name": "TEXT NOT NULL DEFAULT 'nobody'", "x": "REAL"}
LOGS = {"t": "TEXT", "v": "VECTOR(4) METRIC l2"}


def plain(value: Any) -> Any:
    """A value that can be compared and hashed, whatever its column's type became."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if hasattr(value, "timestamp"):
        return round(value.timestamp() * 10**6)
    return float(value) if isinstance(value, bool) else value


def rows_of(con: m2mdb.Connection, name: str) -> dict[int, Row]:
    """All rows of a collection by rowid."""
    found = con.execute(f'SELECT rowid, * FROM "{name}"').fetchall()
    return {row[0]: tuple(plain(value) for value in row[1:]) for row in found}


class Model:
    """A closed file and what was in it."""

    def __init__(self, path: Path, seed: int, *, commits: int = 15) -> None:
        self.path = path
        self.rng = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.count = 0
        self.versions: dict[str, set[tuple[int, Row]]] = {}
        self.live: dict[str, dict[int, Row]] = {}
        con = m2mdb.connect(path, autocommit=True, compute="numpy")
        for name, schema in (("notes", NOTES), ("people", PEOPLE), ("logs", LOGS)):
            con.create_collection(name, schema)
            self.versions[name] = set()
        con.execute("CREATE INDEX by_n ON notes (n)")
        con.execute("PRAGMA user_version = 7")
        con.execute("PRAGMA keep_commits = 3")
        for step in range(commits):
            self._change(con, step)
            self._remember(con)
        con.close()

    def _remember(self, con: m2mdb.Connection) -> None:
        for name, versions in self.versions.items():
            self.live[name] = rows_of(con, name)
            versions.update(self.live[name].items())

    def _change(self, con: m2mdb.Connection, step: int) -> None:
        rng = self.rng
        kind = step % 5
        if kind < 2:
            con.collection("notes").add(self.notes(rng.choice([3, 40, 600]) if step else 1600))
        elif kind == 2:
            con.executemany(
                "INSERT INTO people (name, x) VALUES (?, ?)",
                [(f"p{i} {step}", rng.random()) for i in range(rng.choice([1, 60]))],
            )
            vectors = self.numbers.standard_normal((9, 4)).astype(np.float32)
            con.collection("logs").add({"t": [f"log {step} {'x' * i * 900}" for i in range(9)],
                                        "v": list(vectors)})  # fmt: skip
        elif kind == 3:
            con.execute("DELETE FROM notes WHERE n % 17 = ?", (step % 17,))
            con.execute("DELETE FROM people WHERE id % 13 = ?", (step % 13,))
        else:
            con.execute("UPDATE notes SET body = 'changed', n = -n WHERE n % 23 = ?", (step % 23,))
            con.execute("UPDATE people SET name = 'somebody' WHERE id % 11 = ?", (step % 11,))

    def notes(self, count: int) -> dict[str, list[Any]]:
        """Columns of new notes."""
        rng, first = self.rng, self.count
        self.count += count
        every = range(first, first + count)

        def some(value: Any) -> Any:
            return None if rng.random() < 0.1 else value

        return {
            "id": [f"n{i}" for i in every],
            "body": [some(f"word{i % 99} é {'y' * (i % 40)}") for i in every],
            "n": [some(i) for i in every],
            "r": [some(i / 7) for i in every],
            "o": [some(i % 3 == 0) for i in every],
            "m": [some(10**15 + i) for i in every],
            "j": [some(f'{{"i": {i}}}') for i in every],
            "b": [some(rng.randbytes(i % 30)) for i in every],
            "v": [some(v) for v in self.numbers.standard_normal((count, 64)).astype(np.float32)],
            "h": [some(v) for v in self.numbers.standard_normal((count, 8)).astype(np.float16)],
            "c": [some(v) for v in self.numbers.integers(-9, 9, (count, 8)).astype(np.int8)],
        }


class Piece(NamedTuple):
    """Bytes that have to be as they were, all of them."""

    start: int
    stop: int

    def is_whole(self, good: np.ndarray) -> bool:
        """Whether no byte of them is damaged; bytes behind the file's end are."""
        return self.stop <= len(good) and bool(good[self.start : self.stop].all())


class Map:
    """Which pieces of the file each live row needs."""

    def __init__(self, path: Path) -> None:
        self.rows: dict[tuple[str, int], list[Piece]] = {}
        self.directories: dict[tuple[str, int], list[list[Piece]]] = {}  # one of them is needed
        self.changes: dict[str, list[Piece]] = {}  # pages that say what was deleted
        self.raw = path.read_bytes()
        options = StoreOptions(read_only=True)
        database = Database.open(OsVfs(), str(path), options, compute="numpy")
        with database.reading() as view:
            self.size = view.pages.page_size
            header = view.header()
            self.catalog = self._tree(view.pages, header.catalog_root)
            self.free_map = self._tree(view.pages, header.free_root)
            for name in view.names():
                self._collection(view, name)
        database.close()

    def _page(self, number: int) -> Piece:
        return Piece((number - 1) * self.size, number * self.size)

    def _tree(self, pages: Any, root: int) -> list[Piece]:
        return [self._page(number) for number in BTree(pages, root).pages_used()]

    def _collection(self, view: Any, name: str) -> None:
        collection = view.collection(name)
        entry = collection.entry
        self.changes[name] = self._tree(view.pages, entry.delta_root)
        self.changes[name] += self._tree(view.pages, entry.deletes_root)
        self._delta(view.pages, name, entry.delta_root, collection)
        for part in collection.parts()[1:]:
            live = range(part.size) if part.live is None else np.flatnonzero(part.live).tolist()
            self._segment(name, part.segment, [int(ordinal) for ordinal in live])

    def _delta(self, pages: Any, name: str, root: int, collection: Any) -> None:
        part = collection.parts()[0]
        live = np.ones(part.size, bool) if part.live is None else part.live
        wanted = {
            struct.pack(">Q", collection.mirror.sequences[at]): int(part.rowids[at])
            for at in np.flatnonzero(live).tolist()
        }
        for number in BTree(pages, root).pages_used():
            leaf = pages.get(number)
            if type(leaf) is not Leaf:
                continue
            for key, value in zip(leaf.keys, leaf.values, strict=True):
                pieces = [self._page(number)]
                page = value.first_page if type(value) is OverflowReference else 0
                while page:
                    pieces.append(self._page(page))
                    page = pages.get(page).next
                if key in wanted:
                    self.rows[name, wanted[key]] = pieces

    def _segment(self, name: str, segment: Any, live: list[int]) -> None:
        (descriptor,) = (extent.descriptor for extent in segment.extents)
        base = (descriptor.start_page - 1) * self.size
        content = (descriptor.size + 7) // 8 * 8
        checksums = base + content

        def blocks(offset: int, size: int) -> list[Piece]:
            found = []
            for block in range(offset // BLOCK, (offset + max(size, 1) - 1) // BLOCK + 1):
                end = min((block + 1) * BLOCK, content)
                found.append(Piece(base + block * BLOCK, base + end))
                found.append(Piece(checksums + 8 * block, checksums + 8 * block + 8))
            return found

        raw = self.raw[base : base + descriptor.size]
        _, count, _, rows = struct.unpack_from("<8sIIQ", raw)
        parts = {}
        for at in range(24, 24 + 48 * count, 48):
            part, _, column, _, offset, items = struct.unpack_from("<20s4sIIQQ", raw, at)
            parts[part.rstrip(b"\0").decode(), column] = offset, items, raw[at + 20 : at + 24]
        about = parts["about", 0]
        head = blocks(0, 24 + 48 * count)
        rowids = np.frombuffer(raw, "<i8", rows, parts["rowids", 0][0])
        contiguous = int(rowids[-1]) - int(rowids[0]) + 1 == rows
        for ordinal in live:
            pieces = [] if contiguous else blocks(parts["rowids", 0][0] + 8 * ordinal, 8)
            for (part, column), (offset, items, dtype) in parts.items():
                width = np.dtype(dtype.rstrip(b"\0").decode()).itemsize
                if part in ("nulls", "ints", "reals", "bools"):
                    pieces += blocks(offset + width * ordinal, width)
                elif part == "vectors":
                    step = items // rows * width
                    pieces += blocks(offset + step * ordinal, step)
                elif part == "offsets":
                    pieces += blocks(offset + width * ordinal, 2 * width)
                    start, stop = np.frombuffer(
                        raw, dtype.rstrip(b"\0").decode(), 2, offset + width * ordinal
                    ).tolist()
                    if stop > start:
                        pieces += blocks(parts["blob", column][0] + start, stop - start)
            key = name, int(rowids[ordinal])
            self.rows[key] = list(dict.fromkeys(pieces))
            self.directories[key] = [head, blocks(*about[:2])]

    def whole(self, good: np.ndarray) -> set[tuple[str, int]]:
        """The live rows all of whose bytes are as they were."""
        known: dict[Piece, bool] = {}

        def is_whole(pieces: list[Piece]) -> bool:
            for piece in pieces:
                if piece not in known:
                    known[piece] = piece.is_whole(good)
            return all(known[piece] for piece in pieces)

        return {
            key
            for key, pieces in self.rows.items()
            if is_whole(pieces)
            and (key not in self.directories or any(map(is_whole, self.directories[key])))
        }
