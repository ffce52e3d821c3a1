"""Whole files: a small database, changed here and there, with every checksum put right.

An input is a script of changes to one of the golden files, whose bytes never change, or to one
that is made with what today's build can put into a file (`kept`), whose bytes are the build's:

    u8 which file, u8 mode, then changes: u8 kind, u32 place, u8 length, bytes

    kind    0 put the bytes there   1 the same, the place counted within page 1
            2 the same, within the pages that are no part of an extent
            3 copy the page there over the page that the first bytes name   4 cut the file there
    mode    1 untrusted   2 compiled kernels   4 write as well   8 checksums as they are

    file     is opened, checked, read, searched and written, as a user would
    salvage  is recovered into a new file, with mode 8 with its checksums put right
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from functools import cache
from pathlib import Path
from struct import Struct, pack_into, unpack_from
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

import m2mdb
from fuzz.mutation import NUMBERS
from fuzz.seeded import SeededVfs, content, holding, open_database
from fuzz.target import Target
from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.index.maintenance import flush
from m2mdb.index.untrusted import admit
from m2mdb.pager.errors import Error
from m2mdb.pager.extent import ExtentDescriptor, block_count, padded
from m2mdb.query.executor import execute
from m2mdb.recovering import recover

FOLDER = Path(__file__).parent.parent.parent / "tests" / "golden"
NAMES = ("format1-types", "format1-segments", "format1-recovery", "format1-empty", "kept")
PAGE = 4096
BLOCK = 65536
UNTRUSTED, COMPILED, WRITE, UNMENDED = 1, 2, 4, 8
_CHANGE = Struct("<BIB")


def kept_file() -> bytes:
    """A file with kept versions, kept segments, a receipt of FORGET and what else is stored."""
    vfs = SeededVfs()
    database = open_database(vfs, create=True)
    execute(database, "PRAGMA keep_commits = 1000")
    execute(
        database,
        "CREATE COLLECTION k (key TEXT PRIMARY KEY, n INTEGER, body TEXT FULLTEXT, v VECTOR(4))",
    )
    execute(database, "CREATE INDEX by_n ON k (n)")
    for i in range(8):
        row = (f"k{i:03}", i, f"red apple {i}", [1, i, 2, 3])
        execute(database, "INSERT INTO k VALUES (?, ?, ?, ?)", row)
    for _ in range(2):
        with database.writing() as write:
            flush(write, write.collection("k"))
        execute(database, "UPDATE k SET n = n + 10, body = 'pear' WHERE n % 2 = 0")
        execute(database, "DELETE FROM k WHERE key = 'k003'")
    execute(database, "CREATE COLLECTION f (t TEXT FULLTEXT, u INTEGER UNIQUE)")
    execute(database, "INSERT INTO f VALUES ('a secret', 1), ('another one', 2)")
    execute(database, "FORGET FROM f WHERE u = 1")
    execute(database, "INSERT INTO k (key, body) VALUES ('late', 'fig')")
    database.close()
    return content(vfs)


class Base:
    """A file to change, and where its extents and their descriptors are."""

    def __init__(self, name: str) -> None:
        golden = FOLDER / f"{name}.m2m"
        self.raw = golden.read_bytes() if golden.exists() else kept_file()
        log = FOLDER / f"{name}.m2m-wal"
        self.log = log.read_bytes() if log.exists() else None
        self.extents: list[tuple[ExtentDescriptor, int]] = []  # and the descriptor's place
        if self.log is None:
            self._find_extents()
        inside = {
            number
            for descriptor, _ in self.extents
            for number in range(
                descriptor.start_page, descriptor.start_page + descriptor.page_count
            )
        }
        self.pages = [n for n in range(2, len(self.raw) // PAGE + 1) if n not in inside]

    def _find_extents(self) -> None:
        database = open_database(holding(main=self.raw), read_only=True)
        with database.reading() as view:
            for entry in view.catalog.by_id.values():
                for record in (*entry.records.values(), *entry.past.values()):
                    for descriptor in record.extents:
                        place = self.raw.index(descriptor.encode())
                        self.extents.append((descriptor, place))
        database.close()


@cache
def bases() -> list[Base]:
    """The golden files."""
    return [Base(name) for name in NAMES]


def changed(base: Base, script: bytes) -> bytearray:
    """The file after a script's changes."""
    raw = bytearray(base.raw)
    at = 0
    while at + _CHANGE.size <= len(script):
        kind, place, length = _CHANGE.unpack_from(script, at)
        piece = script[at + _CHANGE.size : at + _CHANGE.size + length]
        at += _CHANGE.size + length
        if kind % 5 == 4:
            del raw[max(1024, place % (len(raw) + 1)) :]
            continue
        if kind % 5 == 1:
            place %= PAGE
        elif kind % 5 == 2:
            number, offset = divmod(place % (PAGE * len(base.pages)), PAGE)
            place = (base.pages[number] - 1) * PAGE + offset
        place %= max(len(raw) - len(piece), 1)
        if kind % 5 == 3:
            source = place // PAGE * PAGE
            target = (piece[0] if piece else 0) * PAGE % max(len(raw) - PAGE, 1) // PAGE * PAGE
            piece, place = bytes(raw[source : source + PAGE]), target
        raw[place : place + len(piece)] = piece
    return raw


def mend(base: Base, raw: bytearray) -> None:
    """Put every checksum right: blocks, descriptors, pages, the header."""
    for descriptor, place in base.extents:
        start = (descriptor.start_page - 1) * PAGE
        end = start + padded(descriptor.size)
        if end + 8 * block_count(descriptor.size) > len(raw):
            continue
        sums = [
            xxh3_64_intdigest(raw[at : min(at + BLOCK, end)]) for at in range(start, end, BLOCK)
        ]
        array = np.array(sums, "<u8").tobytes()
        raw[end : end + len(array)] = array
        pack_into("<Q", raw, place + 16, xxh3_64_intdigest(array))
    for number in base.pages:
        at = (number - 1) * PAGE
        if at + PAGE <= len(raw) and unpack_from("<I", raw, at + 8)[0]:
            pack_into("<I", raw, at + 8, number)
            pack_into("<Q", raw, at, xxh3_64_intdigest(memoryview(raw)[at + 8 : at + PAGE]))
    for at in (0, 512):
        if any(raw[at : at + 512]):
            pack_into("<Q", raw, at + 504, xxh3_64_intdigest(memoryview(raw)[at : at + 504]))


READS = [
    "SELECT * FROM {c}",
    "SELECT count(*) FROM {c}",
    "SELECT rowid FROM {c} WHERE n BETWEEN 1 AND 50 ORDER BY n",
    "SELECT * FROM {c} WHERE key = 'k010' OR id = 'low'",
    "SELECT * FROM {c} WHERE key = 'k400'",
    "SELECT * FROM {c} WHERE body LIKE '%apple%' LIMIT 5",
    "SEARCH {c} MATCH 'apple re* +plum~1' K 5",
    "SEARCH {c} MATCH '\"red apple\" -fig' K 5",
    "SEARCH {c} NEAR v [1, 2, 3, 4] K 5",
    "SEARCH {c} NEAR h [1, 2] K 5",
    "SEARCH {c} NEAR c [1, 2] MATCH 'red' K 5",
    "SEARCH {c} NEAR v [1, 2, 3] K 5",
    "SELECT * FROM {c} AS OF 12",
    "SEARCH {c} NEAR v [1, 2, 3, 4] MATCH 'apple' K 5 AS OF 14",
    "SELECT count(*) FROM {c} AS OF (SELECT oldest_commit FROM m2m_collections LIMIT 1)",
]
WRITES = [
    "INSERT INTO {c} (key, n, body) VALUES ('new', 5, 'a new apple')",
    "INSERT INTO {c} (id) VALUES ('new')",
    "UPDATE {c} SET body = 'changed', n = n + 1 WHERE n < 20",
    "DELETE FROM {c} WHERE rowid % 7 = 1",
    "FORGET FROM {c} WHERE rowid % 5 = 2",
    "CREATE INDEX made ON {c} (body)",
    "DROP INDEX by_n",
    "CREATE COLLECTION made (a TEXT)",
    "DROP COLLECTION {c}",
    "PRAGMA keep_commits = 2",
    "VACUUM",
]


def run_file(data: bytes) -> None:
    """Open, check, read, search and write a changed file."""
    which, mode = (*data[:2], 0, 0)[:2]
    base = bases()[which % len(NAMES)]
    raw = changed(base, data[2:])
    if not mode & UNMENDED:
        mend(base, raw)
    files = {"main": bytes(raw)} | ({} if base.log is None else {"wal": base.log})
    compute = "numba" if mode & COMPILED else "numpy"
    database = open_database(holding(**files), compute, untrusted=bool(mode & UNTRUSTED))
    try:
        if mode & UNTRUSTED:
            admit(database)
        use(database, write=bool(mode & WRITE))
    finally:
        with contextlib.suppress(Error):
            database.close()


def use(database: Database, *, write: bool) -> None:
    """What a user does, each part for itself."""
    attempt(lambda: _check(database))
    names = attempt(lambda: _names(database)) or []
    for name in names[:3]:
        for statement in [*READS, *(WRITES if write else [])]:
            attempt(lambda s=statement, n=name: execute(database, s.format(c=f'"{n}"')))
    if write:
        attempt(lambda: database.checkpoint("truncate"))
        attempt(lambda: _check(database))


def attempt(call: Any) -> Any:
    """What a call gives, or None where it raises an error of PEP 249."""
    try:
        return call()
    except Error:
        return None


def _check(database: Database) -> list[str]:
    with database.reading() as view:
        return check(view)


def _names(database: Database) -> list[str]:
    with database.reading() as view:
        return [name.replace('"', '""') for name in view.names()]


def make_file(choose: random.Random) -> bytes:
    """One to four changes."""
    which = choose.choice((0, 0, 1, 1, 1, 2, 3, 4, 4, 4))
    mode = choose.choice((0, 0, WRITE, WRITE, UNTRUSTED, UNTRUSTED | WRITE, COMPILED, UNMENDED))
    base = bases()[which]
    script = [bytes([which, mode])]
    for _ in range(choose.choice((1, 1, 2, 4))):
        kind = choose.choice((0, 1, 2, 2, 2, 2, 3, 4)) if choose.random() < 0.9 else 0
        place = choose.randrange(len(base.raw))
        if kind == 2 and choose.random() < 0.5:  # a page's header and tables
            place = choose.randrange(len(base.pages)) * PAGE + choose.randrange(8, 220)
        elif base.extents and kind == 0 and choose.random() < 0.7:  # a segment's directory
            start = choose.choice(base.extents)[0].start_page - 1
            place = start * PAGE + choose.randrange(2048)
        piece = choose.choice(NUMBERS) if choose.random() < 0.6 else choose.randbytes(1)
        script.append(_CHANGE.pack(kind, place, len(piece)) + piece)
    return b"".join(script)


def file_seeds() -> list[bytes]:
    """Each file as it is, in each mode."""
    return [bytes([which, mode]) for which in range(len(NAMES)) for mode in range(8)]


def run_salvage(data: bytes) -> None:
    """Recover a changed file into a new one, which then has to be sound."""
    which, mode = (*data[:2], 0, 0)[:2]
    base = bases()[which % len(NAMES)]
    raw = changed(base, data[2:])
    if mode & UNMENDED:
        mend(base, raw)  # damage is what salvage is for: a checksum is right by exception
    with tempfile.TemporaryDirectory() as folder:
        damaged, new = os.path.join(folder, "damaged.m2m"), os.path.join(folder, "new.m2m")
        Path(damaged).write_bytes(raw)
        if base.log is not None:
            Path(f"{damaged}-wal").write_bytes(base.log)
        recover(damaged, new)
        with m2mdb.connect(new, autocommit=True, compute="numpy") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            connection.close()


TARGETS = [
    Target("salvage", run_salvage, file_seeds, share=2.0, make=make_file),
    Target("file", run_file, file_seeds, share=6.0, make=make_file),
]
