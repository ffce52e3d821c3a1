"""Drifting: searches while clusters move, rows come and old ones go, over whole turn-overs.

Rows lie around centres that move at a steady pace, each in a direction of its own: --speed times a
cluster's radius while as many rows come as there are (a turn-over). They come from where the
centres are by then, in batches, and with each batch as many of the oldest go. At the end the file
is searched by queries like the newest rows, turn by turn with a new file of the same rows. This is
done twice with the same rows: with centroids that follow the rows of their lists, and with
centroids that stay where they were trained. --still draws rows from wordnet at random instead.

    python benchmarks/drifting.py --count 20000 --dimension 96 --turns 4 --speed 0.25 0.5 1
    python benchmarks/drifting.py --count 20000 --turns 1 --still --data FOLDER

Gate: where centroids follow, recall is within 3 % of the new file's. CPU for an operation, and for
the longest transaction, are told.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import Data, Table, parser, workplace  # threads, before NumPy loads

# isort: split
import numpy as np

import m2mdb
from benchmarks.churn import opened, recall_and_codes, seconds_each
from m2mdb.compute.hrm2 import following
from m2mdb.compute.loader import LOADER

QUERIES = 200
INNER = 12  # dimensions in which rows of a cluster differ
RADIUS = 0.5  # of a cluster in each of these; its centres spread by 1
NOISE = 0.1  # length of what is added in all dimensions
NEVER = 2.0  # a share of the squared error that no move takes off


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


class Way(NamedTuple):
    """How a run is made."""

    count: int
    turns: float
    batch: int
    rounds: int


def streamed(path: str, rows: Stream | Still, way: Way) -> np.ndarray:
    """The rows that are left."""
    live = rows.rows(way.count, 0.0)
    con = opened(path, live.shape[1])
    notes = con.collection("notes")
    notes.add({"id": np.arange(way.count), "v": live})
    spent = []
    steps = round(way.turns * way.count / way.batch)
    for step in range(steps):
        come = rows.rows(way.batch, (step + 1) * way.batch / way.count)
        first = step * way.batch
        last = first + way.count
        start = time.process_time()
        con.execute("BEGIN")
        notes.add({"id": np.arange(last, last + way.batch), "v": come})
        notes.delete(list(range(first, first + way.batch)))
        con.execute("COMMIT")
        spent.append(time.process_time() - start)
        live = np.concatenate((live[way.batch :], come))
    (drift,) = con.execute("SELECT ratio, alarm, alarms FROM m2m_drift").fetchall()
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
    each = sum(spent) / steps / way.batch / 2 * 1e6
    print(f"  {each:.1f} us CPU an operation, the longest transaction {max(spent):.3f} s")
    print(f"  drift: ratio {drift[0]:.2f}, alarms {drift[2]}")
    return live


def compared(folder: str, rows: Stream | Still, way: Way, name: str) -> bool:
    """Stream and search; whether the gate is met, which holds where centroids follow."""
    print(f"\n{name}")
    live = streamed(f"{folder}/streamed.m2m", rows, way)
    queries = rows.rows(QUERIES, way.turns)
    fresh = opened(f"{folder}/fresh.m2m", live.shape[1])
    fresh.collection("notes").add({"id": np.arange(len(live)), "v": live})
    fresh.execute("OPTIMIZE")
    con = m2mdb.connect(f"{folder}/streamed.m2m", autocommit=True)
    ours, theirs = recall_and_codes(con, queries), recall_and_codes(fresh, queries)
    times = [(seconds_each(con, queries), seconds_each(fresh, queries)) for _ in range(way.rounds)]
    gate = 0.97 if "follow" in name else None
    table = Table(f"{name}: over a new file of the same rows")
    table.add("recall", ours[0] / theirs[0], f"{ours[0]:.4f} {theirs[0]:.4f}", gate)
    table.add("codes", ours[1] / theirs[1], f"{ours[1]:.0f} {theirs[1]:.0f}, parts {ours[2]}")
    for mine, other in times:
        table.add("time", mine / other, f"{statistics.median(a for a, _ in times) * 1e6:.1f} us")
    con.close()
    fresh.close()
    return table.show()


def main() -> bool:
    """Every speed, with centroids that follow and with such that stay."""
    options_parser = parser(__doc__ or "", 20_000, 9)
    options_parser.add_argument("--dimension", type=int, default=96)
    options_parser.add_argument("--turns", type=float, default=4.0)
    options_parser.add_argument("--speed", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    options_parser.add_argument("--batch", type=int, default=100, help="rows that come at once")
    options_parser.add_argument("--still", action="store_true", help="rows of wordnet")
    options = options_parser.parse_args()
    assert LOADER.wait(300), LOADER.error
    way = Way(options.count, options.turns, options.batch, options.rounds)
    data = Data(options.data, 100_000) if options.still else None
    good = True
    for speed in [0.0] if options.still else options.speed:
        for name, share in (("that follow", following.SHARE), ("that stay", NEVER)):
            kept, following.SHARE = following.SHARE, share
            rows = Still(data) if data else Stream(options.count, options.dimension, speed)
            what = data.name if data else f"speed {speed}"
            with workplace(options.folder) as folder:
                good &= compared(folder, rows, way, f"{what}, centroids {name}")
            following.SHARE = kept
    return good


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
