"""Drifting: searches while clusters move, rows come and old ones go, over whole turn-overs.

Rows lie around centres that move at a steady pace, each in a direction of its own: --speed times a
cluster's radius while as many rows come as there are (a turn-over). They come from where the
centres are by then, in batches, and with each batch as many of the oldest go. Two files take the
same rows: in one centroids follow the rows of their lists, in the other they stay where they were
trained. At every half of a turn-over both are searched by queries like the newest rows, turn by
turn with a new file of the same rows. --still draws rows from wordnet at random instead.

    python benchmarks/drifting.py --count 20000 --dimension 96 --turns 4 --speed 0.25 0.5 1
    python benchmarks/drifting.py --count 20000 --turns 1 --still --data FOLDER

Gate: where centroids follow, recall is within 3 % of the new file's in the median. Told besides:
codes compared in lists, rows in parts without lists, CPU of operations and transactions, alarms.
"""

from __future__ import annotations

import statistics
import sys
import time
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import Data, Table, parser, workplace  # threads, before NumPy loads

# isort: split
import numpy as np

import m2mdb
from benchmarks.churn import K, opened, seconds_each
from m2mdb.compute.hrm2 import following
from m2mdb.compute.loader import LOADER
from m2mdb.query.search import SearchRequest, vector_works

QUERIES = 200
INNER = 12  # dimensions in which rows of a cluster differ
RADIUS = 0.5  # of a cluster in each of these; its centres spread by 1
NOISE = 0.1  # length of what is added in all dimensions
WAYS = {"follow": following.SHARE, "stay": 2.0}  # which is more than a move takes off


class Stream:
    """Rows of clusters whose centres move."""

    def __init__(self, count: int, dimension: int, speed: float, seed: int = 5) -> None:
        self.speed = speed
        self.rng = np.random.default_rng(seed)
        self.base = self.rng.standard_normal((INNER, dimension)) / dimension**0.5
        clusters = max(16, count // 200)
        self.centers = self.rng.standard_normal((clusters, INNER))
        ways = self.rng.standard_normal((clusters, INNER))
        self.ways = ways / np.linalg.norm(ways, axis=1)[:, None]
        self.weights = self.rng.random(clusters) + 0.2
        self.weights /= self.weights.sum()

    def rows(self, count: int, turns: float) -> np.ndarray:
        """So many, as they are after so many turn-overs."""
        labels = self.rng.choice(len(self.centers), count, p=self.weights)
        moved = self.centers + turns * self.speed * RADIUS * INNER**0.5 * self.ways
        inner = moved[labels] + RADIUS * self.rng.standard_normal((count, INNER))
        noise = self.rng.standard_normal((count, self.base.shape[1])) / self.base.shape[1] ** 0.5
        return (inner @ self.base + NOISE * noise).astype(np.float32)


class Still:
    """Rows drawn from a set at random, of which the last ones are queries."""

    def __init__(self, data: Data, seed: int = 5) -> None:
        self.vectors, self.queries = data.vectors, data.queries[:QUERIES]
        self.rng = np.random.default_rng(seed)

    def rows(self, count: int, turns: float) -> np.ndarray:
        """So many; the queries where as many are asked for."""
        if count == QUERIES:
            return self.queries
        return self.vectors[self.rng.integers(0, len(self.vectors), count)]


class File:
    """A file that takes the stream, and what is known of it."""

    def __init__(self, path: str, rows: np.ndarray, share: float) -> None:
        self.con = opened(path, rows.shape[1])
        self.share = share
        self.spent: list[float] = []  # CPU seconds of each transaction
        self.recalls: list[tuple[float, float]] = []  # and the new file's, at each moment
        self.codes: list[tuple[float, float]] = []
        self.times: list[float] = []  # over the new file's
        self.parts: list[tuple[int, float]] = []  # and rows of those without lists
        self.con.collection("notes").add({"id": np.arange(len(rows)), "v": rows})

    def change(self, first: int, last: int, come: np.ndarray) -> None:
        """Add rows from a number on, and delete as many, from another on."""
        following.SHARE = self.share
        notes = self.con.collection("notes")
        start = time.process_time()
        self.con.execute("BEGIN")
        notes.add({"id": np.arange(last, last + len(come)), "v": come})
        notes.delete(list(range(first, first + len(come))))
        self.con.execute("COMMIT")
        self.spent.append(time.process_time() - start)

    def show(self, name: str, batch: int) -> bool:
        """Print the medians; whether the gate is met, if it is for this one."""
        (drift,) = self.con.execute("SELECT ratio, alarms FROM m2m_drift").fetchall()
        assert self.con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        table = Table(f"{name}: medians of {len(self.recalls)} moments, over new files")
        gate = 0.97 if "follow" in name else None
        for number, (recall, codes) in enumerate(zip(self.recalls, self.codes, strict=True)):
            table.add("recall", recall[0] / recall[1], f"{recall[0]:.4f} {recall[1]:.4f}", gate)
            table.add("codes in lists", codes[0] / codes[1], f"{codes[0]:.0f} {codes[1]:.0f}")
            parts, rows = self.parts[number]
            table.add("time", self.times[number], f"{parts} parts, {rows:.0f} rows without lists")
        good = table.show()
        each = sum(self.spent) / len(self.spent) / batch / 2 * 1e6
        print(f"  {each:.1f} us CPU an operation, the longest transaction {max(self.spent):.3f} s")
        print(f"  drift: ratio {drift[0]:.2f}, alarms {drift[1]}")
        return good


def found(con: m2mdb.Connection, queries: np.ndarray) -> tuple[float, float, tuple[int, float]]:
    """Recall against EXACT; codes compared in lists; parts, and rows of those without lists."""
    notes, shares, codes, rows = con.collection("notes"), [], [], []
    parts = 0
    for query in queries:
        exact = set(notes.search(near=query, k=K, exact=True).ids.tolist())
        shares.append(len(set(notes.search(near=query, k=K).ids.tolist()) & exact) / K)
        with con.engine().reading() as view:
            works = vector_works(view, SearchRequest("notes", near=query, k=K))
        codes.append(sum(work.codes for work in works))
        rows.append(sum(work.rows for work in works if not work.codes))
        parts = len(works)
    return float(np.mean(shares)), float(np.mean(codes)), (parts, float(np.mean(rows)))


def measure(files: list[File], fresh: m2mdb.Connection, queries: np.ndarray, rounds: int) -> None:
    """One moment of the files, beside a new one of the same rows."""
    theirs = found(fresh, queries)
    for each in files:
        ours = found(each.con, queries)
        each.recalls.append((ours[0], theirs[0]))
        each.codes.append((ours[1], theirs[1]))
        each.parts.append(ours[2])
    times = []
    for _ in range(rounds):
        times.append([seconds_each(con, queries) for con in (fresh, *(f.con for f in files))])
    for number, each in enumerate(files, 1):
        each.times.append(statistics.median(turn[number] / turn[0] for turn in times))


def streamed(folder: str, rows: Stream | Still, name: str, options: Namespace) -> bool:
    """Both files along one stream; whether the gate is met."""
    count, batch = options.count, options.batch
    live = rows.rows(count, 0.0)
    files = [File(f"{folder}/{way}.m2m", live, share) for way, share in WAYS.items()]
    steps = round(options.turns * count / batch)
    half = max(1, count // (2 * batch))
    for step in range(1, steps + 1):
        come = rows.rows(batch, step * batch / count)
        first = (step - 1) * batch
        for each in files:
            each.change(first, first + count, come)
        live = np.concatenate((live[batch:], come))
        if step % half == 0:
            fresh = opened(f"{folder}/fresh{step}.m2m", live.shape[1])
            fresh.collection("notes").add({"id": np.arange(count), "v": live})
            fresh.execute("OPTIMIZE")
            queries = rows.rows(QUERIES, step * batch / count)
            measure(files, fresh, queries, options.rounds)
            fresh.close()
    good = True
    for each, way in zip(files, WAYS, strict=True):
        good &= each.show(f"{name}, centroids {way}", batch)
        each.con.close()
    return good


def main() -> bool:
    """Every speed."""
    options_parser = parser(__doc__ or "", 20_000, 5)
    options_parser.add_argument("--dimension", type=int, default=96)
    options_parser.add_argument("--turns", type=float, default=4.0)
    options_parser.add_argument("--speed", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    options_parser.add_argument("--batch", type=int, default=100, help="rows that come at once")
    options_parser.add_argument("--still", action="store_true", help="rows of wordnet")
    options = options_parser.parse_args()
    assert LOADER.wait(300), LOADER.error
    good = True
    if options.still:
        data = Data(options.data, 100_000)
        with workplace(options.folder) as folder:
            return streamed(folder, Still(data), data.name, options)
    for speed in options.speed:
        rows = Stream(options.count, options.dimension, speed)
        with workplace(options.folder) as folder:
            good &= streamed(folder, rows, f"speed {speed}", options)
    return good


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
