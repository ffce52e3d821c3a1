"""Makes golden files: small databases of one format, and what is in them.

    python -m tests.golden.make FOLDER          (a folder; files that are there are refused)

A golden file is written once, by the build whose format it shows, and then never again: what is
committed here as `format1-*` was made by the first build of format 1 and must open for ever. The
module is kept so that a later format gets its files the same way.

Beside each file stands a `.json` with all that a reader finds in it: `describe` says how.
"""

from __future__ import annotations

import base64
import datetime
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import m2mdb
from m2mdb.index.maintenance import flush

Make = Callable[[Path], None]
MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=datetime.UTC)
WORDS = "red apple green pear blue plum dark cherry sweet fig old oak small fern".split()


# ------------------------------------------------------------------------- what a file holds


def described(value: Any) -> Any:
    """A value in JSON, with its type where JSON has none."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime):
        return {"time": value.isoformat()}
    if isinstance(value, np.ndarray):
        return {"vector": value.dtype.str, "of": value.tolist()}
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return {"real": repr(value)}
    return value


def describe(connection: m2mdb.Connection, searches: list[list[Any]]) -> dict[str, Any]:
    """Everything: settings, columns, indexes, each row with its rowid, and searches' answers."""
    found: dict[str, Any] = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version", "page_size")
    }
    found["collections"] = {}
    for name in [collection.name for collection in connection.collections()]:
        schema = connection.collection(name).schema
        rows = connection.execute(f'SELECT rowid, * FROM "{name}" ORDER BY rowid').fetchall()
        found["collections"][name] = {
            "columns": [[c.name, c.declaration(), c.primary_key] for c in schema.columns],
            "indexes": [[i.name, i.column, i.kind] for i in schema.indexes],
            "rows": [[described(value) for value in row] for row in rows],
        }
    found["searches"] = [[*search, answer(connection, search)] for search in searches]
    return found


def answer(connection: m2mdb.Connection, search: list[Any]) -> list[list[Any]]:
    """[rowid, score] of what a statement with its parameters finds."""
    return [list(row) for row in connection.execute(search[0], search[1]).fetchall()]


# ------------------------------------------------------------------------- the files


def text_of(number: int) -> str:
    """A text of a few words that say its number."""
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in (1, 3))


def vectors(count: int, dimension: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Vectors of whole numbers of sixteenths, which every dtype keeps."""
    numbers = np.arange(count * dimension, dtype=np.int64).reshape(count, dimension)
    values = ((numbers + 1) * 2_654_435_761 % 2**32 >> 13) % 255 - 127
    values[:, 0] |= 1  # no zero vector
    if dtype == np.int8:
        return values.astype(np.int8)
    return (values / 16).astype(dtype)


def empty(path: Path) -> None:
    """No collection."""
    m2mdb.connect(str(path)).close()


def types(path: Path) -> None:
    """Each kind of value in the delta, at its limits; values in overflow pages; free pages."""
    with m2mdb.connect(str(path), autocommit=True) as con:
        con.execute(
            "CREATE COLLECTION values_ (id TEXT PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB, "
            "f BOOLEAN, m TIMESTAMP, j JSON, v VECTOR(3), h VECTOR(2, f16), c VECTOR(4, i8))"
        )
        con.execute("CREATE COLLECTION other (n INTEGER NOT NULL DEFAULT 7, name TEXT UNIQUE)")
        rows: list[tuple[Any, ...]] = [
            ("none", *[None] * 10),
            ("low", -(2**63), -1e308, "", b"", False, MOMENT, "[]", [1, 2, 3], [1, 2], None),
            ("high", 2**63 - 1, 1e308, "é東京🦊\0z", bytes(range(256)), True, MOMENT,
             '{"a": ["b", {"c": 1.5}]}', [-0.5, 0.25, 1e30], [65504, -0.5],
             np.array([-128, 127, 0, 1], np.int8)),
            ("inf", 0, float("inf"), "x" * 300, b"\0\xff\0", None, None, "null", None, None, None),
        ]  # fmt: skip
        marks = ", ".join("?" * 11)
        for row in rows:
            con.execute(f"INSERT INTO values_ VALUES ({marks})", row)
        con.execute("INSERT INTO other (name) VALUES ('one'), ('two'), (NULL), (NULL)")
        con.execute("CREATE COLLECTION gone (t TEXT)")
        con.execute("INSERT INTO other (n, name) VALUES (?, ?)", (-1, "long " * 700))
        con.execute("DROP COLLECTION gone")
        con.execute("PRAGMA user_version = 4711")
        con.execute("PRAGMA application_id = 1836070241")
        con.close()


def segments(path: Path) -> None:
    """A segment with text, vectors of all dtypes and metrics, keys and an index; rows changed and
    ended one by one (in the delta) and many at once (in the deletions tree); a row born again."""
    count = 512
    with m2mdb.connect(str(path), autocommit=True) as con:
        con.execute(
            "CREATE COLLECTION notes (key TEXT PRIMARY KEY, n INTEGER, body TEXT FULLTEXT, "
            "v VECTOR(4), h VECTOR(2, f16) METRIC l2, c VECTOR(2, i8) METRIC ip)"
        )
        con.execute("CREATE INDEX by_n ON notes (n)")
        con.collection("notes").add(
            {
                "key": [f"k{i:03}" for i in range(count)],
                "n": [None if i % 50 == 7 else i * 37 % 101 for i in range(count)],
                "body": [None if i % 64 == 5 else text_of(i) for i in range(count)],
                "v": vectors(count, 4, np.float32),
                "h": vectors(count, 2, np.float16),
                "c": vectors(count, 2, np.int8),
            }
        )
        con.execute("UPDATE notes SET body = 'a changed apple', n = -5 WHERE key = 'k010'")
        con.execute("UPDATE notes SET v = ? WHERE key = 'k011'", ([9, 9, 9, 9],))
        con.execute("DELETE FROM notes WHERE key IN ('k020', 'k021', 'k300')")
        con.execute("INSERT INTO notes (key, n, body) VALUES ('late', 1000, 'a late apple apple')")
        con.execute("DELETE FROM notes WHERE key = 'k400'")
        con.execute("INSERT INTO notes (key, body) VALUES ('k400', 'born again')")
        con.execute("DELETE FROM notes WHERE rowid % 5 = 0 AND rowid > 30")
        with con.engine().writing() as write:  # as 4,096 changes would
            flush(write, write.collection("notes"))
        con.execute("DELETE FROM notes WHERE key IN ('k002', 'k003', 'late')")
        con.execute("INSERT INTO notes (n, key, v) VALUES (?, ?, ?)", (3, "last", [1, 2, 3, 4]))
        con.close()


def recovery(path: Path) -> None:
    """A file whose newest commits stand in its log, which ends with a torn frame."""
    live = path.with_name("live.m2m")
    con = m2mdb.connect(str(live), autocommit=True)
    con.execute("CREATE COLLECTION log (t TEXT FULLTEXT, v VECTOR(2))")
    for number in range(3):
        con.execute("INSERT INTO log VALUES (?, ?)", (text_of(number), [1, number]))
    con.execute("UPDATE log SET t = 'the last word' WHERE rowid = 2")
    end = con.engine().store.end.offset
    raw = Path(f"{live}-wal").read_bytes()
    shutil.copyfile(live, path)
    torn = raw[end - 4128 : end - 4128 + 700]  # a frame that breaks off, as a crash leaves it
    Path(f"{path}-wal").write_bytes(raw[:end] + torn)
    con.close()
    live.unlink()


NOTES_SEARCHES: list[list[Any]] = [
    ["SEARCH notes MATCH 'apple' K 12 RETURNING rowid, score", []],
    ["SEARCH notes MATCH '+red -plum fi*' K 12 RETURNING rowid, score", []],
    ["SEARCH notes NEAR v ? K 9 RETURNING rowid, score", [[1.0, -2.0, 0.5, 3.0]]],
    ["SEARCH notes NEAR h ? K 9 RETURNING rowid, score", [[1.0, -2.0]]],
    ["SEARCH notes NEAR c ? K 9 RETURNING rowid, score", [[1.0, -2.0]]],
    ["SEARCH notes NEAR v ? MATCH 'apple' K 6 RETURNING rowid, score", [[1.0, 0.0, 0.0, 0.5]]],
    ["SELECT rowid, n FROM notes WHERE n BETWEEN 10 AND 12 ORDER BY rowid", []],
    ["SELECT rowid, n FROM notes WHERE key = 'k400'", []],
]
FILES: dict[str, tuple[Make, list[list[Any]]]] = {
    "empty": (empty, []),
    "types": (types, [["SELECT rowid, i FROM values_ WHERE id = 'high'", []]]),
    "segments": (segments, NOTES_SEARCHES),
    "recovery": (
        recovery,
        [["SEARCH log MATCH 'word red' K 5 RETURNING rowid, score", []],
         ["SEARCH log NEAR ? K 3 RETURNING rowid, score", [[1.0, 2.5]]]],
    ),
}  # fmt: skip


def main() -> int:
    """Make all files of a format."""
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for name, (make, searches) in FILES.items():
        path = folder / f"format1-{name}.m2m"
        if path.exists():
            raise FileExistsError(f"{path} is there: a golden file is never made again")
        make(path)
        copy = folder / "copy.m2m"
        for suffix in ("", "-wal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        with m2mdb.connect(str(copy)) as con:
            assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            found = describe(con, searches)
            con.close()
        copy.unlink()
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        path.with_suffix(".json").write_text(text + "\n", "utf-8")
        print(path, path.stat().st_size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
