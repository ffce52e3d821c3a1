"""Single-bit flips in a closed file: each is found, or changes nothing.

`made_file` has every structure: delta, segment, deletions, keys, B-tree index, text, vectors of
three types, an overflow chain, free pages. One bit of it is flipped; then the file is opened, read
and searched in every way, and checked. A read may fail with a DatabaseError that names the place,
or give exactly what the good file gives: nothing else. And `integrity_check`, or the opening, has
to name the fault, but where the bit belongs to no structure at all:

    place                         who finds it
    page 1, both sectors          the opening, by their checksums
    page 1, the zeros behind      integrity_check
    tree pages                    whoever reads them, by their checksums: every byte counts
    extents                       whoever reads the block; integrity_check also the slack
    free pages                    nobody: their bytes mean nothing, and are written anew before use
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fuzz.seeded import PATH, SeededVfs, content, open_database
from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.index.maintenance import flush
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import DatabaseError
from m2mdb.pager.freespace import decode_run
from m2mdb.query.executor import execute

PAGE = 4096
WORDS = "red apple green pear blue plum dark cherry sweet fig".split()
READS = [
    "SELECT rowid, * FROM notes ORDER BY rowid",
    "SELECT rowid FROM notes WHERE n BETWEEN 3 AND 9 ORDER BY n, rowid",
    "SELECT rowid, body FROM notes WHERE key = 'k03'",
    "SELECT rowid FROM notes WHERE key = 'late'",
    "SEARCH notes MATCH 'apple re* plum~1' K 9 RETURNING rowid, score",
    "SEARCH notes MATCH '\"blue green\"' K 9 RETURNING rowid, score",
    "SEARCH notes NEAR v [1, 2, 3] K 6 RETURNING rowid, score",
    "SEARCH notes NEAR h [1, 2] K 6 RETURNING rowid, score",
    "SEARCH notes NEAR c [1, 2] K 6 RETURNING rowid, score",
    "SELECT rowid, * FROM other ORDER BY rowid",
    "PRAGMA user_version",
]


@functools.cache
def made_file() -> bytes:
    """The bytes of the closed file; the same at each call, in each process."""
    vfs = SeededVfs()
    database = open_database(vfs, create=True)
    execute(
        database,
        "CREATE COLLECTION notes (key TEXT PRIMARY KEY, n INTEGER, body TEXT FULLTEXT, "
        "v VECTOR(3), h VECTOR(2, f16), c VECTOR(2, i8) METRIC l2, j JSON, b BLOB, f BOOLEAN)",
    )
    execute(database, "CREATE INDEX by_n ON notes (n)")
    for i in range(12):
        words = " ".join(WORDS[(i * step + step) % len(WORDS)] for step in (1, 3, 7))
        execute(
            database,
            "INSERT INTO notes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (f"k{i:02}", i if i != 5 else None, words, [1, i, i * i], [i + 1, -i],
             np.array([i, -i - 1], np.int8), f"[{i}]", bytes([i]) * i, i % 2 == 0),
        )  # fmt: skip
    with database.writing() as write:
        flush(write, write.collection("notes"))
    execute(database, "DELETE FROM notes WHERE key IN ('k04', 'k07')")
    execute(database, "UPDATE notes SET body = 'a changed apple' WHERE key = 'k01'")
    with database.writing() as write:
        flush(write, write.collection("notes"))
    execute(database, "DELETE FROM notes WHERE key = 'k02'")
    execute(database, "INSERT INTO notes (key, n, body, v) VALUES ('late', 4, 'red fig', [1,1,1])")
    execute(database, "CREATE COLLECTION other (t TEXT)")
    execute(database, "INSERT INTO other VALUES (?)", ("long " * 700,))
    execute(database, "CREATE COLLECTION gone (t TEXT UNIQUE)")
    execute(database, "DROP COLLECTION gone")
    execute(database, "PRAGMA user_version = 77")
    database.close()
    return content(vfs)


@functools.cache
def free_pages() -> frozenset[int]:
    """The pages that belong to nothing."""
    database = opened(SharedCopy())
    found: set[int] = set()
    with database.reading() as view:
        for key, value in BTree(view.pages, view.header().free_root).scan():
            start, length, _ = decode_run(key, value)
            found.update(range(start, start + length))
    database.close()
    return frozenset(found)


class SharedCopy:
    """A file system with the made file, in which bits are flipped and flipped back."""

    def __init__(self) -> None:
        self.vfs = SeededVfs()
        self.file = self.vfs.open(PATH, create=True)
        self.file.write_at(0, made_file())

    def flip(self, bit: int) -> None:
        """Flip one bit."""
        byte = self.file.read_at(bit // 8, 1)[0]
        self.file.write_at(bit // 8, bytes([byte ^ 1 << bit % 8]))


def opened(copy: SharedCopy) -> Database:
    """The database, for reading: nothing is written to the file."""
    return open_database(copy.vfs, read_only=True)


def answers(database: Database) -> list[Any]:
    """What each read gives: its rows, or the text of its error."""
    found: list[Any] = []
    for statement in READS:
        try:
            rows = execute(database, statement).rows
            found.append([tuple(map(comparable, row)) for row in rows])
        except DatabaseError as problem:
            assert str(problem), f"{statement}: an error without a text"
            found.append(str(problem))
    return found


def comparable(value: Any) -> Any:
    """A value that == compares."""
    return value.tobytes() if isinstance(value, np.ndarray) else value


@functools.cache
def right_answers() -> list[Any]:
    """What the good file gives."""
    database = opened(SharedCopy())
    found = answers(database)
    with database.reading() as view:
        assert check(view) == []
    database.close()
    assert not any(isinstance(answer, str) for answer in found)
    assert all(found)
    return found


def judge(copy: SharedCopy, bit: int) -> bool:
    """Flip one bit, look, and flip it back; whether the fault was found.

    Raises AssertionError where an answer was wrong, or a fault of a structure was not found.
    """
    expected = right_answers()
    copy.flip(bit)
    try:
        try:
            database = opened(copy)
        except DatabaseError as problem:
            assert PATH in str(problem), f"bit {bit}: {problem}"
            return True
        try:
            found = answers(database)
            with database.reading() as view:
                faults = check(view)
        except DatabaseError as problem:  # the catalog cannot be read
            found, faults = [], [str(problem)]
        finally:
            database.close()
    finally:
        copy.flip(bit)
    for statement, answer, right in zip(READS, found, expected, strict=False):
        assert answer == right or isinstance(answer, str), (
            f"bit {bit} (byte {bit // 8}): {statement} gave {answer}, expected {right}"
        )
    is_free = bit // 8 // PAGE + 1 in free_pages()
    assert faults or is_free, f"bit {bit} (byte {bit // 8}) was not found"
    assert not is_free or (not faults and found == expected), f"bit {bit} of a free page: {faults}"
    return bool(faults)
