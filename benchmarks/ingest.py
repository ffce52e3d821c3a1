"""Loading: `Collection.add` beside sqlite3's `executemany` of the same rows, both durable.

    python benchmarks/ingest.py --data FOLDER

One transaction of 100,000 rows (id, text, 384 float32) with and without FULLTEXT, and batches of
1,000 rows a transaction; synchronous = full on both sides, kernels warm, vectors as BLOBs there.
"""

from __future__ import annotations

import os
import sqlite3

import common

import m2mdb


def sqlite_file(path: str, synchronous: str = "FULL") -> sqlite3.Connection:
    """The rival: WAL, a row as (id, text, vector)."""
    con = sqlite3.connect(path)
    con.execute("PRAGMA journal_mode=WAL")
    con.execute(f"PRAGMA synchronous={synchronous}")
    con.execute("CREATE TABLE notes (id TEXT PRIMARY KEY, body TEXT, embedding BLOB)")
    con.commit()
    return con


def m2m_file(path: str, fulltext: bool, synchronous: str = "full") -> m2mdb.Connection:
    """Ours: the same row, the vector as a vector."""
    con = m2mdb.connect(path, synchronous=synchronous)
    con.execute(
        f"CREATE COLLECTION notes (id TEXT PRIMARY KEY, body TEXT {'FULLTEXT' if fulltext else ''},"
        f" embedding VECTOR({common.DIMENSION}))"
    )
    con.commit()
    return con


def load_sqlite(folder: str, data: common.Data, name: str) -> float:
    """Seconds for all rows in one transaction."""
    con = sqlite_file(os.path.join(folder, name))
    rows = zip(data.ids, data.texts, data.vectors, strict=True)

    def work() -> None:
        with con:
            con.executemany(
                "INSERT INTO notes VALUES (?, ?, ?)", ((i, t, v.tobytes()) for i, t, v in rows)
            )

    taken = common.seconds(work)
    con.close()
    return taken


def load_m2m(folder: str, data: common.Data, name: str, fulltext: bool) -> tuple[float, int]:
    """Seconds for all rows in one transaction, and the file's bytes after closing."""
    path = os.path.join(folder, name)
    con = m2m_file(path, fulltext)
    notes = con.collection("notes")
    columns = {"id": data.ids, "body": data.texts, "embedding": data.vectors}
    taken = common.seconds(lambda: (notes.add(columns), con.commit()))
    con.close()
    return taken, os.path.getsize(path)


def batches(folder: str, data: common.Data, name: str) -> tuple[float, float, float]:
    """Seconds for 20 transactions of 1,000 rows: sqlite3, ours, ours with FULLTEXT."""
    step, turns = 1000, 20
    con = sqlite_file(os.path.join(folder, name + "s"))

    def theirs() -> None:
        for start in range(0, turns * step, step):
            some = slice(start, start + step)
            rows = zip(data.ids[some], data.texts[some], data.vectors[some], strict=True)
            with con:
                con.executemany(
                    "INSERT INTO notes VALUES (?, ?, ?)", [(i, t, v.tobytes()) for i, t, v in rows]
                )

    taken = [common.seconds(theirs)]
    con.close()
    for fulltext in (False, True):
        ours = m2m_file(os.path.join(folder, f"{name}m{fulltext}"), fulltext)
        notes = ours.collection("notes")

        def work(notes: m2mdb.Collection = notes, ours: m2mdb.Connection = ours) -> None:
            for start in range(0, turns * step, step):
                some = slice(start, start + step)
                notes.add(
                    {
                        "id": data.ids[some],
                        "body": data.texts[some],
                        "embedding": data.vectors[some],
                    }
                )
                ours.commit()

        taken.append(common.seconds(work))
        ours.close()
    return taken[0], taken[1], taken[2]


def main() -> int:
    """Run the turns and print the table."""
    options = common.arguments(__doc__ or "", 100_000, 3)
    data = common.Data(options.data, options.count)
    table = common.Table(f"ingest, {data.name} {len(data.ids):,} x {data.vectors.shape[1]}")
    for turn in range(options.rounds):
        with common.workplace(options.folder) as folder:
            theirs = load_sqlite(folder, data, f"s{turn}")
            plain, _ = load_m2m(folder, data, f"p{turn}", False)
            text, size = load_m2m(folder, data, f"t{turn}", True)
            rate = len(data.ids) / plain
            table.add("one transaction / sqlite3", theirs / plain, f"{rate:,.0f} rows/s", 0.7)
            rate = len(data.ids) / text
            table.add("... with FULLTEXT", theirs / text, f"{rate:,.0f} rows/s", 0.35)
            table.add("file / raw bytes", size / data.raw_bytes, f"{size:,} bytes", 1.3, False)
            small, ours, with_text = batches(folder, data, f"b{turn}")
            table.add("1,000-row transactions / sqlite3", small / ours,
                      f"{20_000 / ours:,.0f} rows/s", 0.5)  # fmt: skip
            table.add(
                "1,000-row transactions, FULLTEXT",
                small / with_text,
                f"{20_000 / with_text:,.0f} rows/s",
            )
    return 0 if table.show() else 1


if __name__ == "__main__":
    raise SystemExit(main())
