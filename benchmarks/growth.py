"""Search as a set grows: m2mdb beside an exact NumPy scan, from 100 vectors to 100,000.

    python benchmarks/growth.py [--count 100000] [--dimension 640] [--k 64] [--keep FOLDER]

The workload that routing memories show: normal clusters of one size and spread (`ann.mixture`),
queries from the same source, one query a call, k = 64 of 640 dimensions. For each number of
rows both search the same queries in turn, in one process, on one core. Times are medians of CPU
time a query; recall is that of the k best inner products. Below 2,048 rows m2mdb scans too.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import ann
import common  # sets the number of threads before NumPy loads
import numpy as np

import m2mdb
from m2mdb.compute.loader import LOADER

Array = np.ndarray[Any, Any]
SIZES = (100, 1_000, 10_000, 100_000)
RECALL = 0.95
QUERIES = 1000  # that are drawn with the rows


def collection(path: str, rows: Array) -> Any:
    """The rows in a file, with lists where they are enough."""
    is_there = os.path.exists(path)
    connection = m2mdb.connect(path)
    if not is_there:
        connection.execute(
            "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, "
            f"e VECTOR({rows.shape[1]}) METRIC cosine)"
        )
        connection.collection("notes").add({"id": np.arange(len(rows)), "e": rows})
        connection.commit()
        connection.execute("OPTIMIZE notes")
        connection.commit()
    return connection.collection("notes")


def scanned(rows: Array, query: Array, k: int) -> Array:
    """The exact scan: one product, a partition, a sort."""
    scores = rows @ query
    if k < len(rows):
        best = np.argpartition(scores, -k)[-k:]
        return best[np.argsort(-scores[best])]
    return np.argsort(-scores)


def times(search: Callable[[Array], object], queries: Array) -> list[float]:
    """CPU seconds of each query."""
    out = []
    for query in queries:
        started = time.process_time()
        search(query)
        out.append(time.process_time() - started)
    return out


def main() -> int:
    """A line for each size."""
    parser = common.parser(__doc__ or "", 100_000, 3)
    parser.add_argument("--dimension", type=int, default=640)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument(
        "--keep", help="a folder for the files, which are made if they are not there"
    )
    options = parser.parse_args()
    if not LOADER.wait():
        raise SystemExit(f"no compiled kernels: {LOADER.error!r}")
    every, queries = ann.mixture(options.count, options.dimension, QUERIES)
    queries = queries[: options.queries]
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    k = options.k
    print(f"k = {k}, {options.dimension} dimensions, recall {RECALL} asked; "
          f"load average {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'rows':>8} {'scan us':>9} {'m2mdb us':>9} {'faster':>8} {'recall':>8}")
    with common.workplace(options.folder) as place:
        for size in (each for each in SIZES if each <= options.count):
            rows = np.ascontiguousarray(every[:size])
            notes = collection(os.path.join(options.keep or place, f"{size}.m2m"), rows)

            def ours(query: Array, notes: Any = notes) -> Any:
                return notes.search(near=query, k=k, recall=RECALL, returning=[]).ids

            def theirs(query: Array, rows: Array = rows) -> Array:
                return scanned(rows, query, k)

            found = [np.asarray(ours(query)) for query in queries]
            least = min(k, size)
            edges = ann.edges_of(rows, queries, least)
            reached = ann.recall(rows, queries, edges, found, least, None)
            one, other = [], []
            for _ in range(options.rounds):
                one.append(statistics.median(times(theirs, queries)))
                other.append(statistics.median(times(ours, queries)))
            scan, mine = min(one) * 1e6, min(other) * 1e6
            print(f"{size:8,} {scan:9,.1f} {mine:9,.1f} {scan / mine:8.1f} {reached:8.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
