"""Moments: how long searches take between two merges, beside a file just built.

A file of --count rows under an hrm2 index is searched as it was built, and beside it a copy in
which rows are added, deleted and updated, a third each (--kinds add: added alone), in transactions
of random size (1 to 60 rows). After every --every operations both are searched turn by turn: the
ratio of that moment is the median of its turns. What is asked for are the median of all moments and
the 90th of a hundred.

    python benchmarks/moments.py --folder PLACE --stage build --data FOLDER
    python benchmarks/moments.py --folder PLACE --stage measure --data FOLDER

A long mix goes on where it ended: --stage mix does operations for --seconds in transactions of 1 to
60 rows, some of 1,000, and keeps file and state in the folder; --stage compare then fills a new
file with the same rows and compares recall, time and bytes. OPTIMIZE is not called on the first.

    python benchmarks/moments.py --folder PLACE --stage mix --operations 1000000 --seconds 100
    python benchmarks/moments.py --folder PLACE --stage compare

Gate: all at most 1.10, recall at least 0.9 of the fresh file's.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.churn import QUERIES, K, Rows, opened, synthetic
from benchmarks.common import Data, parser, workplace

# isort: split
import numpy as np

import m2mdb
from m2mdb.compute.loader import LOADER

LARGEST = 60  # rows of a transaction
BULK, BULK_SHARE = 1000, 0.02  # of a mix: rows of a large one, and how many of these there are
GATE = 1.10


def change(con: m2mdb.Connection, rows: Rows, operations: int, kinds: int) -> int:
    """At least so many operations; how many there were."""
    notes, done = con.collection("notes"), 0
    while done < operations:
        kind, count = int(rows.rng.integers(0, kinds)), int(rows.rng.integers(1, LARGEST + 1))
        rows.change(notes, kind, count)
        done += count
    return done


def seconds(con: m2mdb.Connection, queries: np.ndarray) -> float:
    """Of a search, the mean of all queries."""
    notes = con.collection("notes")
    start = time.perf_counter()
    for query in queries:
        notes.search(near=query, k=K)
    return (time.perf_counter() - start) / len(queries)


def recall(con: m2mdb.Connection, queries: np.ndarray) -> float:
    """Mean recall against EXACT."""
    notes, shares = con.collection("notes"), []
    for query in queries:
        exact = set(notes.search(near=query, k=K, exact=True).ids.tolist())
        shares.append(len(exact & set(notes.search(near=query, k=K).ids.tolist())) / K)
    return float(np.mean(shares))


def build(folder: str, vectors: np.ndarray) -> None:
    """The file that is the measure."""
    con = opened(f"{folder}/fresh.m2m", vectors.shape[1])
    con.collection("notes").add({"id": np.arange(len(vectors)), "v": vectors})
    con.execute("OPTIMIZE")
    con.close()


def measure(options: Any, folder: str, vectors: np.ndarray, queries: np.ndarray) -> bool:
    """Change the copy, and search both at every moment."""
    shutil.copy(f"{folder}/fresh.m2m", f"{folder}/moved.m2m")
    fresh = m2mdb.connect(f"{folder}/fresh.m2m", autocommit=True)
    moved = m2mdb.connect(f"{folder}/moved.m2m", autocommit=True)
    moved.execute("PRAGMA synchronous = off")
    rows = Rows(vectors, 5, False)
    rows.at, rows.next = {i: i for i in range(len(vectors))}, len(vectors)
    expected = recall(fresh, queries)
    ratios: list[float] = []
    shares: list[float] = []
    spent, done, moments = 0.0, 0, max(1, options.operations // options.every)
    kinds = 1 if options.kinds == "add" else 3
    for each in (fresh, moved):
        seconds(each, queries)
    print(f"fresh: {len(vectors)} rows, recall {expected:.4f}")
    while done < options.operations:
        start = time.process_time()
        done += change(moved, rows, options.every, kinds)
        spent += time.process_time() - start
        seconds(moved, queries[:20])
        turns = [(seconds(moved, queries), seconds(fresh, queries)) for _ in range(options.rounds)]
        ratios.append(statistics.median(ours / theirs for ours, theirs in turns))
        ours, theirs = (statistics.median(each) * 1e6 for each in zip(*turns, strict=True))
        told = ""
        if not shares or len(ratios) * options.recalls // moments > len(shares):
            shares.append(recall(moved, queries))
            told = f", recall {shares[-1]:.4f}"
        view = moved.engine().reading()
        with view as snapshot:
            part = snapshot.collection("notes")
            sizes = [(each.size, each.size - each.live_count) for each in part.parts()]
            print(f"  {done:7} operations: rows, ended ones: delta {sizes[0]}, segments "
                  f"{sizes[1:]}  {ours:6.1f} us, {theirs:6.1f} fresh: {ratios[-1]:.3f}{told}"
            )  # fmt: skip
    middle, ninth = statistics.median(ratios), float(np.quantile(ratios, 0.9))
    print(f"time over the fresh file: median {middle:.3f}, p90 {ninth:.3f}, most {max(ratios):.3f} "
          f"(gate {GATE}); recall over its: least {min(shares) / expected:.3f}; "
          f"{spent / done * 1e6:.0f} us CPU an operation")  # fmt: skip
    fresh.close()
    moved.close()
    return max(middle, ninth) <= GATE and min(shares) >= 0.9 * expected


class Mix:
    """The state of a long mix: which rows there are, and what comes next."""

    def __init__(self, folder: str, count: int) -> None:
        self.path, self.rng = Path(folder) / "mix.npz", np.random.default_rng(17)
        self.ids = np.empty(0, np.int64)
        self.picks = np.empty(0, np.int64)  # of each id, which vector it has
        self.next, self.done, self.spent, self.longest = 0, 0, 0.0, 0.0
        self.count = count
        if self.path.exists():
            kept = np.load(self.path)
            self.ids, self.picks = kept["ids"], kept["picks"]
            said = json.loads(str(kept["said"]))
            self.next, self.done, self.spent, self.longest = said["numbers"]
            self.rng.bit_generator.state = said["random"]

    def save(self) -> None:
        """Keep it beside the file."""
        numbers = [self.next, self.done, self.spent, self.longest]
        said = json.dumps({"numbers": numbers, "random": self.rng.bit_generator.state})
        np.savez(self.path, ids=self.ids, picks=self.picks, said=np.array(said))

    def step(self, con: m2mdb.Connection, vectors: np.ndarray) -> None:
        """One transaction; around as many rows stay as there were at first."""
        notes, rng = con.collection("notes"), self.rng
        size = BULK if rng.random() < BULK_SHARE else int(rng.integers(1, LARGEST + 1))
        kind = int(rng.integers(0, 3))
        picks = rng.integers(0, len(vectors), size)
        at = rng.choice(len(self.ids), size, replace=False)
        start = time.process_time()
        if kind == 0:
            ids = np.arange(self.next, self.next + size)
            notes.add({"id": ids, "v": vectors[picks]})
        elif kind == 1:
            notes.delete(self.ids[at].tolist())
        else:
            notes.add({"id": self.ids[at], "v": vectors[picks]}, on_conflict="replace")
        spent = time.process_time() - start
        if kind == 0:
            self.ids, self.picks = np.append(self.ids, ids), np.append(self.picks, picks)
            self.next += size
        elif kind == 1:
            self.ids, self.picks = np.delete(self.ids, at), np.delete(self.picks, at)
        else:
            self.picks[at] = picks
        self.done += size
        self.spent += spent
        self.longest = max(self.longest, spent)


def mix(options: Any, folder: str, vectors: np.ndarray) -> None:
    """Go on with a long mix for a while."""
    state, path = Mix(folder, len(vectors)), f"{folder}/mixed.m2m"
    if not state.next:
        con = opened(path, vectors.shape[1])
        state.ids = state.picks = np.arange(len(vectors))
        state.next = len(vectors)
        con.collection("notes").add({"id": state.ids, "v": vectors})
        state.save()
    else:
        con = m2mdb.connect(path, autocommit=True)
        con.execute("PRAGMA synchronous = off")
    end = time.monotonic() + options.seconds
    while state.done < options.operations and time.monotonic() < end:
        state.step(con, vectors)
    con.close()
    state.save()
    print(
        f"{state.done} operations, {len(state.ids)} rows, {os.path.getsize(path) / 1e6:.0f} MB, "
        f"{state.spent / max(1, state.done) * 1e6:.0f} us CPU each, longest {state.longest:.2f} s"
    )


def compare(options: Any, folder: str, queries: np.ndarray, vectors: np.ndarray) -> bool:
    """What the mix left beside a new file of the same rows."""
    state = Mix(folder, 0)
    fresh_path = f"{folder}/again.m2m"
    if not Path(fresh_path).exists():
        con, order = opened(fresh_path, vectors.shape[1]), np.argsort(state.ids)
        con.collection("notes").add({"id": state.ids[order], "v": vectors[state.picks[order]]})
        con.close()
    files = {path: m2mdb.connect(path, autocommit=True)
             for path in (f"{folder}/mixed.m2m", fresh_path)}  # fmt: skip
    shares = [recall(con, queries) for con in files.values()]
    for con in files.values():
        seconds(con, queries)
    turns = [[seconds(con, queries) for con in files.values()] for _ in range(options.rounds)]
    ratio = statistics.median(ours / theirs for ours, theirs in turns)
    ours, theirs = (statistics.median(each) * 1e6 for each in zip(*turns, strict=True))
    sizes = [os.path.getsize(path) / 1e6 for path in files]
    print(f"after {state.done} operations, {len(state.ids)} rows: recall {shares[0]:.4f}, fresh "
          f"{shares[1]:.4f}; {ours:.1f} us, fresh {theirs:.1f}: {ratio:.3f} (gate {GATE}); "
          f"{sizes[0]:.0f} MB, fresh {sizes[1]:.0f}")  # fmt: skip
    for con in files.values():
        con.close()
    return ratio <= GATE and shares[0] >= 0.9 * shares[1]


def main() -> bool:
    options_parser = parser(__doc__ or "", 98_000, 5)
    options_parser.add_argument("--operations", type=int, default=12_000)
    options_parser.add_argument("--every", type=int, default=300)
    options_parser.add_argument("--recalls", type=int, default=8, help="moments that measure it")
    options_parser.add_argument("--dimension", type=int, default=0, help="synthetic vectors")
    options_parser.add_argument("--kinds", default="all", choices=["all", "add"])
    stages = ["all", "build", "measure", "mix", "compare"]
    options_parser.add_argument("--stage", default="all", choices=stages)
    options_parser.add_argument("--seconds", type=float, default=100.0, help="of one --stage mix")
    options = options_parser.parse_args()
    assert LOADER.wait(300), LOADER.error
    if options.dimension:
        vectors, queries = synthetic(options.count, options.dimension)
    else:
        data = Data(options.data, options.count)
        vectors, queries = data.vectors, data.queries[:QUERIES]
    if options.stage == "all":
        with workplace(options.folder) as folder:
            build(folder, vectors)
            return measure(options, folder, vectors, queries)
    if options.stage == "compare":
        return compare(options, options.folder, queries, vectors)
    if options.stage in ("build", "mix"):
        if options.stage == "mix":
            mix(options, options.folder, vectors)
        else:
            build(options.folder, vectors)
        return True
    return measure(options, options.folder, vectors, queries)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
