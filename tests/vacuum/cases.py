"""Databases with holes in them, and all that can be asked of one."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.index.vacuum import free_pages
from m2mdb.pager.vfs import Vfs
from m2mdb.query.executor import execute
from m2mdb.wal.store import StoreOptions

PATH = "d/notes.m2m"
WORDS = ("red", "green", "blue", "dark", "light", "mode", "alpha", "beta")
CREATE = (
    "CREATE COLLECTION {} (id INTEGER PRIMARY KEY, slug TEXT UNIQUE, body TEXT FULLTEXT, "
    "n INTEGER, long BLOB, v VECTOR({}))"
)
SEARCHES = (
    "SELECT rowid, * FROM {} ORDER BY rowid",
    "SELECT id FROM {} WHERE n = 3 ORDER BY id",
    "SELECT id FROM {} WHERE slug = 's17'",
    "SEARCH {} MATCH 'red dark' K 100000 RETURNING id",  # scores count dead rows (S24)
    "SEARCH {} NEAR [1, 2, 3, 4, 5, 6, 7, 8] K 20 RETURNING id, distance",
)
DIMENSION = 8


def opened(vfs: Vfs, path: str = PATH, **options: Any) -> Database:
    """The database at a path; every statement commits itself."""
    wanted = StoreOptions(create=True, **options)
    return Database.open(vfs, path, wanted, compute="numpy", autocommit=True)


def insert(database: Database, name: str, rng: Random, ids: range, *, longest: int = 400) -> None:
    """Rows by one statement: a segment when they are many, else entries of the delta."""
    vectors = np.array([[rng.gauss(0, 1) for _ in range(DIMENSION)] for _ in ids], np.float32)
    columns = {
        "id": list(ids),
        "slug": [f"s{i}" if rng.random() < 0.9 else None for i in ids],
        "body": [" ".join(rng.choices(WORDS, k=rng.randint(0, 6))) for _ in ids],
        "n": [rng.choice((None, 1, 2, 3, 4)) for _ in ids],
        "long": [rng.randbytes(rng.randint(0, longest)) for _ in ids],
        "v": list(vectors),
    }
    with database.writing() as write:
        write.insert(name, columns, len(ids))


def fill(
    database: Database, seed: int, *, batches: int = 8, most: int = 900, drop: bool = False
) -> None:
    """Two collections of segments, deltas, trees with long values, and free places of all sizes."""
    rng = Random(seed)
    for name in ("notes", "other"):
        execute(database, CREATE.format(name, DIMENSION))
        execute(database, f"CREATE INDEX by_n_{name} ON {name} (n)")
    next_id = 1
    for _ in range(batches):
        for name in ("notes", "other"):
            count = rng.choice((3, 40, most // 2, most))
            longest = 9000 if count <= 40 else 200
            insert(database, name, rng, range(next_id, next_id + count), longest=longest)
            next_id += count
    below = rng.randint(1, next_id // 2)
    execute(database, f"DELETE FROM notes WHERE id < {below}")
    execute(database, f"DELETE FROM other WHERE id % {rng.randint(2, 9)} = 0")
    if drop or rng.random() < 0.3:
        execute(database, "DROP COLLECTION notes")


def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """What the searches give for each collection, after a check that all of it is sound."""
    found = {}
    with database.reading() as view:
        faults = check(view)
        assert faults == [], faults[:5]
        names = view.names()
    for name in names:
        for text in SEARCHES:
            rows = execute(database, text.format(name)).rows
            found[text.format(name)] = [tuple(map(plain, row)) for row in rows]
            if "MATCH" in text:
                found[text.format(name)].sort()
    return found


def plain(value: Any) -> Any:
    """A value that compares bit for bit."""
    return value.tobytes() if isinstance(value, np.ndarray) else value


def pages(database: Database) -> tuple[int, int, int]:
    """Pages in use, pages of the database, pages of the file."""
    with database.reading() as view:
        count, free = view.pages.page_count, free_pages(view.pages)
    store = database.store
    return count - free, count, store.file.size() // store.page_size
