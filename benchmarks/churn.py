"""Churn: recall, codes and time of searches after adds, deletes and updates, beside a fresh build.

Half of the rows are loaded in bulk under an hrm2 index. Then --operations rows are added, deleted
or updated, a third each, in batches of uneven size: single rows, some dozens in a transaction, a
thousand in bulk (--batches bulk, single: of one size); with --drift the rows that come lie
elsewhere. Then three files are searched in turns: as the churn left it, after OPTIMIZE, and a new
one that was filled with the same rows and optimized. The exact answer is that of EXACT in the same
file.

    python benchmarks/churn.py --count 100000 --operations 100000 --data FOLDER
    python benchmarks/churn.py --count 200000 --operations 1000000 --dimension 96
    python benchmarks/churn.py ... --folder PLACE --stage build;  ... --stage measure

Gate: recall of both within 10 % of the fresh build; after OPTIMIZE codes and time too (times are
medians of turns that alternate between the files). CPU for an operation, and for the
longest statements, are told.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import Data, Table, parser, workplace  # threads, before NumPy loads

# isort: split
import numpy as np

import m2mdb
from m2mdb.compute.loader import LOADER
from m2mdb.query.search import SearchRequest, vector_works

QUERIES = 200
K = 10
SIZES: dict[str, tuple[list[int], list[float]]] = {  # rows of a statement, and how often
    "mixed": ([1, 30, 1000], [0.2, 0.3, 0.5]),
    "bulk": ([1000], [1.0]),
    "single": ([1], [1.0]),
}


class Rows:
    """Vectors by id: what has to be there, and what may still come."""

    def __init__(self, vectors: np.ndarray, seed: int, drift: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.vectors = vectors
        self.at: dict[int, int] = {}  # id -> row of `vectors`
        self.next = 0
        self.drift = drift

    def fresh(self, count: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        """Ids and vectors of new rows, drawn from a part of the pool."""
        size = len(self.vectors)
        picks = self.rng.integers(
            int(low * size), max(int(low * size) + 1, int(high * size)), count
        )
        ids = np.arange(self.next, self.next + count)
        self.next += count
        self.at.update(zip(ids.tolist(), picks.tolist(), strict=True))
        return ids, self.vectors[picks]

    def some(self, count: int) -> list[int]:
        """Ids that are there."""
        ids = np.fromiter(self.at, np.int64, len(self.at))
        return self.rng.choice(ids, min(count, len(ids) // 2), replace=False).tolist()

    def change(
        self, notes: m2mdb.Collection, kind: int, count: int, low: float = 0.0, high: float = 1.0
    ) -> None:
        """Add (0), delete (1) or update (2) so many rows; vectors are of that part of all."""
        if kind == 0:
            ids, vectors = self.fresh(count, low, high)
            notes.add({"id": ids, "v": vectors})
        elif kind == 1:
            gone = self.some(count)
            notes.delete(gone)
            for id_ in gone:
                del self.at[id_]
        else:
            updated = self.some(count)
            low_row = int(low * len(self.vectors))
            picks = self.rng.integers(low_row, len(self.vectors), len(updated))
            self.at.update(zip(updated, picks.tolist(), strict=True))
            notes.add({"id": np.array(updated), "v": self.vectors[picks]}, on_conflict="replace")


def synthetic(count: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of low intrinsic dimension in uneven clusters, and queries partly off them."""
    rng = np.random.default_rng(11)
    inner = max(8, dimension // 8)
    base = rng.standard_normal((inner, dimension)).astype(np.float32)
    centers = rng.standard_normal((max(16, count // 500), inner)).astype(np.float32)
    labels = (rng.random(count + QUERIES) ** 2 * len(centers)).astype(int)
    rows = centers[labels] + 0.5 * rng.standard_normal((count + QUERIES, inner)).astype(np.float32)
    rows = rows @ base + 0.2 * rng.standard_normal((len(rows), dimension)).astype(np.float32)
    queries = rows[count:]
    queries[::2] = (queries[::2] + rows[rng.integers(0, count, len(queries[::2]))]) / 2
    return rows[:count].astype(np.float32), queries.astype(np.float32)


def opened(path: str, dimension: int) -> m2mdb.Connection:
    """A new file with an index on its vectors."""
    con = m2mdb.connect(path, autocommit=True)
    con.execute("PRAGMA synchronous = off")
    con.execute(f"CREATE COLLECTION notes (id INTEGER PRIMARY KEY, v VECTOR({dimension}))")
    con.execute("CREATE INDEX by_v ON notes USING hrm2 (v)")
    return con


def churn(con: m2mdb.Connection, rows: Rows, operations: int, batches: str) -> tuple[float, float]:
    """So many rows added, deleted or updated; CPU seconds of the two longest statements."""
    notes, done, rng = con.collection("notes"), 0, rows.rng
    sizes, shares = SIZES[batches]
    longest = [0.0, 0.0]
    while done < operations:
        kind = rng.integers(0, 3)
        count = int(rng.choice(sizes, p=shares))
        started = time.process_time()
        low, high = (0.7, 1.0) if rows.drift else (0.0, 1.0)
        rows.change(notes, int(kind), count, low, high)
        done += count
        longest = sorted([*longest, time.process_time() - started])[-2:]
    return longest[1], longest[0]


def recall_and_codes(con: m2mdb.Connection, queries: np.ndarray) -> tuple[float, float, int]:
    """Mean recall against EXACT, mean codes and rows compared, and parts that were searched."""
    notes, shares, codes, parts = con.collection("notes"), [], [], 0
    for query in queries:
        exact = set(notes.search(near=query, k=K, exact=True).ids.tolist())
        got = set(notes.search(near=query, k=K).ids.tolist())
        shares.append(len(got & exact) / K)
        with con.engine().reading() as view:
            works = vector_works(view, SearchRequest("notes", near=query, k=K))
        codes.append(sum(work.codes or work.rows for work in works))
        parts = len(works)
    return float(np.mean(shares)), float(np.mean(codes)), parts


def seconds_each(con: m2mdb.Connection, queries: np.ndarray) -> float:
    """Of one search, the mean over all queries."""
    notes = con.collection("notes")
    start = time.perf_counter()
    for query in queries:
        notes.search(near=query, k=K)
    return (time.perf_counter() - start) / len(queries)


def main() -> bool:
    options_parser = parser(__doc__ or "", 100_000, 9)
    options_parser.add_argument("--operations", type=int, default=100_000)
    options_parser.add_argument("--dimension", type=int, default=0, help="synthetic vectors")
    options_parser.add_argument("--drift", action="store_true", help="new rows lie elsewhere")
    options_parser.add_argument("--batches", default="mixed", choices=sorted(SIZES))
    options_parser.add_argument("--stage", default="all", choices=["all", "build", "measure"])
    options = options_parser.parse_args()
    assert LOADER.wait(300), LOADER.error
    if options.dimension:
        vectors, queries = synthetic(options.count, options.dimension)
        name = f"synthetic {options.dimension}"
    else:
        data = Data(options.data, options.count)
        vectors, queries, name = data.vectors, data.queries[:QUERIES], data.name
    if options.drift:  # the last third of the pool is a region of its own
        vectors = vectors[np.argsort(vectors @ vectors[0], kind="stable")]
    rows = Rows(vectors, 5, options.drift)
    if options.stage == "all":
        with workplace(options.folder) as folder:
            build(options, rows, name, folder)
            return measure(options, queries, name, folder)
    if options.stage == "build":
        build(options, rows, name, options.folder)
        return True
    return measure(options, queries, name, options.folder)


def build(options: Any, rows: Rows, name: str, folder: str) -> None:
    """The file that was churned, a copy of it after OPTIMIZE, and a new one of the same rows."""
    con = opened(f"{folder}/churned.m2m", rows.vectors.shape[1])
    ids, vectors = rows.fresh(options.count // 2, 0.0, 0.6 if options.drift else 1.0)
    con.collection("notes").add({"id": ids, "v": vectors})
    start = time.process_time()
    longest = churn(con, rows, options.operations, options.batches)
    spent = time.process_time() - start
    print(f"{name}, {options.batches} batches: {len(rows.at)} rows after {options.operations} "
          f"operations ({spent / options.operations * 1e6:.0f} us CPU each, the longest statement "
          f"{longest[0]:.2f} s CPU, the second {longest[1]:.2f})")  # fmt: skip
    drifted = con.execute("SELECT ratio, alarm, alarms FROM m2m_drift").fetchall()
    print(f"drift (ratio, alarm, alarms): {drifted}")
    con.close()
    shutil.copy(f"{folder}/churned.m2m", f"{folder}/optimized.m2m")
    con = m2mdb.connect(f"{folder}/optimized.m2m", autocommit=True)
    start = time.process_time()
    con.execute("OPTIMIZE")
    print(f"OPTIMIZE: {time.process_time() - start:.1f} s CPU")
    con.close()
    fresh = opened(f"{folder}/fresh.m2m", rows.vectors.shape[1])
    live = np.array(sorted(rows.at))
    picks = np.array([rows.at[id_] for id_ in live.tolist()])
    fresh.collection("notes").add({"id": live, "v": rows.vectors[picks]})
    fresh.execute("OPTIMIZE")
    fresh.close()


def measure(options: Any, queries: np.ndarray, name: str, folder: str) -> bool:
    """Search the three files turn by turn, and compare."""
    names = ("churned", "optimized", "fresh")
    files = {each: m2mdb.connect(f"{folder}/{each}.m2m", autocommit=True) for each in names}
    times: dict[str, list[float]] = {each: [] for each in names}
    found = {each: recall_and_codes(con, queries) for each, con in files.items()}
    for _ in range(options.rounds):
        for each, con in files.items():
            times[each].append(seconds_each(con, queries))
    for each, (recall, codes, parts) in found.items():
        print(f"  {each:10} recall {recall:.4f}  codes {codes:8.0f}  parts {parts}  "
              f"{statistics.median(times[each]) * 1e6:7.1f} us")  # fmt: skip
    good = True
    for each, gate in (("churned", None), ("optimized", 1.1)):
        table = Table(f"{each}, over the fresh build ({name})")
        ours, theirs = found[each], found["fresh"]
        table.add("recall", ours[0] / theirs[0], "", 0.9)
        table.add("codes", ours[1] / theirs[1], "", gate, least=False)
        for mine, other in zip(times[each], times["fresh"], strict=True):
            table.add("time", mine / other, "", gate, least=False)
        good &= table.show()
    for con in files.values():
        con.close()
    return good


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
