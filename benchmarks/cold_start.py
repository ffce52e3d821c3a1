"""Reopen and first search in a fresh process: ours, sqlite-vec, LanceDB, and bare NumPy.

    python benchmarks/cold_start.py --data FOLDER

Each turn starts one process a store; it imports NumPy, opens the file (in the page cache), searches
once and prints the time from its start. sqlite-vec is reached through apsw, because many builds of
Python's sqlite3 cannot load extensions. Extra `bench` brings the rivals; absent ones are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys

import common
import numpy as np

import m2mdb

OURS = """
import m2mdb
con = m2mdb.connect(path, read_only=False)
found = [hit.id for hit in con.collection("notes").search(near=query, k=10)]
"""
SQLITE_VEC = """
import apsw, sqlite_vec
con = apsw.Connection(path)
con.enable_load_extension(True)
con.load_extension(sqlite_vec.loadable_path())
con.execute("pragma mmap_size=4294967296").fetchall()
found = [r[0] for r in con.execute(
    "select id from v where e match ? and k = 10", (query.tobytes(),))]
"""
LANCE = """
import lancedb
table = lancedb.connect(path).open_table("v")
found = table.search(query, vector_column_name="vector").metric("cosine").limit(10).to_list()
"""
FRAME = """
import time
import numpy as np
query = np.load({query!r})
path = {path!r}
start = time.perf_counter()
{body}
assert {nothing} or len(found) == 10
print(time.perf_counter() - start)
"""


def make_m2m(path: str, data: common.Data) -> None:
    """Our file: one collection, closed cleanly."""
    con = m2mdb.connect(path)
    con.execute(
        f"CREATE COLLECTION notes (id INTEGER PRIMARY KEY, embedding VECTOR({common.DIMENSION}))"
    )
    con.collection("notes").add({"id": np.arange(len(data.vectors)), "embedding": data.vectors})
    con.commit()
    con.close()


def make_sqlite_vec(path: str, data: common.Data) -> None:
    """The rival's file, as its documentation makes it."""
    import apsw
    import sqlite_vec

    con = apsw.Connection(path)
    con.enable_load_extension(True)
    con.load_extension(sqlite_vec.loadable_path())
    con.execute("pragma journal_mode=wal").fetchall()
    con.execute(
        f"create virtual table v using vec0(id integer primary key, e float[{common.DIMENSION}]"
        " distance_metric=cosine)"
    )
    with con:
        con.executemany(
            "insert into v(id, e) values (?, ?)",
            ((i, v.tobytes()) for i, v in enumerate(data.vectors)),
        )
    con.execute("pragma wal_checkpoint(truncate)").fetchall()
    con.close()


def make_lance(path: str, data: common.Data) -> None:
    """A LanceDB table without an index: exact search like ours."""
    import lancedb
    import pyarrow as pa

    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(data.vectors.ravel(), pa.float32()), common.DIMENSION
    )
    table = pa.table({"id": pa.array(range(len(data.vectors))), "vector": vectors})
    lancedb.connect(path).create_table("v", table)


STORES = {
    "m2mdb": (make_m2m, OURS),
    "sqlite-vec": (make_sqlite_vec, SQLITE_VEC),
    "lancedb": (make_lance, LANCE),
}


def run(body: str, path: str, query: str) -> float:
    """Seconds from the first statement behind NumPy's import to the first result."""
    code = FRAME.format(query=query, path=path, body=body, nothing=not body)
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    return float(done.stdout)


def main() -> int:
    """Run the turns and print the table."""
    options = common.arguments(__doc__ or "", 100_000, 20)
    data = common.Data(options.data, options.count)
    table = common.Table(f"reopen and first search, {data.name} {len(data.vectors):,}")
    with common.workplace(options.folder) as folder:
        query = os.path.join(folder, "query.npy")
        np.save(query, data.queries[0])
        there = {}
        for name, (make, body) in STORES.items():
            try:
                make(os.path.join(folder, name), data)
                there[name] = body
                run(body, os.path.join(folder, name), query)
            except ImportError as problem:
                print(f"{name} left out: {problem}")
        for _ in range(options.rounds):
            took = {n: run(body, os.path.join(folder, n), query) for n, body in there.items()}
            ours = took["m2mdb"]
            table.add("m2mdb, seconds beyond Python with NumPy", ours, "", 0.2, False)
            for name in there:
                if name != "m2mdb":
                    text = f"{took[name] * 1e3:.0f} ms"
                    table.add(f"{name} / m2mdb", took[name] / ours, text, 1.0)
    return 0 if table.show() else 1


if __name__ == "__main__":
    raise SystemExit(main())
