"""Recall that is asked, recall that is reached, and the codes that it takes.

    python benchmarks/recall.py --data FOLDER [--sets wordnet,clustered,...] [--ks 1,10,100]
                                [--queries N] [--seed N]

Each set is built into lists, its table is calibrated, and queries of each kind are searched at each
recall: "like" come from where the rows come from, others do not. Wordnet's "off" are sentences that
search short definitions; those of made sets are means of two rows, rows with as much noise again,
and noise that spreads as all rows do. None of them is known to the calibration; with --known N,
N others of each kind are, as a log of real queries would be. A row that ties with the k-th best
counts.

    set         rows
    wordnet     100,000 definitions (cosine)
    clustered   clusters of uneven weight along six directions of their own, and noise (cosine)
    uniform     a cube of 24 dimensions (l2)
    duplicates  40 copies of a row in the mean, few and very many (cosine)
    giant       nine rows of ten in one narrow cluster (l2)
    lengths     clusters whose rows' lengths spread over a factor of ten (l2)
    products    the same by inner product (ip)

Behind each recall stands the standard error of its mean, as so many queries tell it only so well.
"low" marks what misses the recall that was asked for by more than a hundredth; behind it stands how
likely it is that endlessly many such queries would miss it too: from 0.975 on they surely do.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import common  # sets the number of threads before NumPy loads
import numpy as np

from m2mdb.compute.hrm2 import calibration, patience
from m2mdb.compute.hrm2.lists import Lists, build, padded
from m2mdb.compute.hrm2.rotation import rotate
from m2mdb.compute.hrm2.searcher import Searcher
from m2mdb.compute.hrm2.training import assign, train
from m2mdb.compute.hrm2.truth import exact
from m2mdb.compute.loader import LOADER
from m2mdb.index.hrm2 import SEED
from m2mdb.index.list_counts import list_count

ASKED = (0.80, 0.90, 0.95, 0.99)
TOLERANCE = 0.01
SURE = 0.975  # how likely a recall is missed, from which on it surely is
WIDTH = 64
HELD = 3000  # rows of wordnet that are queries
CHUNK = 256
Array = np.ndarray[Any, Any]


class Set(NamedTuple):
    """Rows, and queries by their kind."""

    metric: str
    rows: Array
    queries: dict[str, Array]


def _clusters(count: int, rng: np.random.Generator, *, spread: float = 0.4) -> Array:
    """Rows of low intrinsic dimension; the same clusters for the same count."""
    fixed = np.random.default_rng(11)
    centers = fixed.standard_normal((200, WIDTH))
    axes = fixed.standard_normal((len(centers), 6, WIDTH))
    labels = (rng.random(count) ** 2 * len(centers)).astype(int)
    along = rng.standard_normal((count, 6))
    rows: Array = centers[labels] + spread * np.einsum("ij,ijk->ik", along, axes[labels])
    return rows + 0.2 * rng.standard_normal((count, WIDTH))


def _off(rows: Array, count: int, rng: np.random.Generator) -> dict[str, Array]:
    """Means of two rows, rows with as much noise again, and noise like all rows."""
    a, b, c = (rows[rng.integers(0, len(rows), count)] for _ in range(3))
    noise = rng.standard_normal((2, count, rows.shape[1]))
    spread = rows.std(axis=0)
    free = rows.mean(axis=0) + noise[1] * spread
    return {"means": (a + b) / 2, "noisy": c + noise[0] * spread, "noise": free}


def _made(metric: str, draw: Callable[[int, np.random.Generator], Array], size: int,
          queries: int) -> Set:  # fmt: skip
    rows = draw(size, np.random.default_rng(1)).astype(np.float32)
    like = draw(queries, np.random.default_rng(2)).astype(np.float32)
    off = _off(rows.astype(np.float64), queries, np.random.default_rng(3))
    return Set(metric, rows, {"like": like, **{k: v.astype(np.float32) for k, v in off.items()}})


def _duplicates(count: int, rng: np.random.Generator) -> Array:
    different = _clusters(750, np.random.default_rng(5))
    picks = (rng.random(count) ** 3 * len(different)).astype(int)
    return different[picks]


def _giant(count: int, rng: np.random.Generator) -> Array:
    rows = _clusters(count, rng)
    narrow = rng.random(count) < 0.9
    rows[narrow] = 3 + 0.05 * rng.standard_normal((int(narrow.sum()), WIDTH))
    return rows


def _lengths(count: int, rng: np.random.Generator) -> Array:
    rows = _clusters(count, rng)
    return rows * np.exp(rng.uniform(np.log(0.3), np.log(3), (count, 1)))


def _wordnet(options: argparse.Namespace) -> Set | None:
    folder = Path(options.data or "/nowhere")
    if not (folder / "vectors.f16.npy").exists():
        return None
    rows = np.load(folder / "vectors.f16.npy").astype(np.float32)
    off = np.load(folder / "query_vectors.f32.npy")
    rng = np.random.default_rng(2)
    chosen = rng.permutation(len(rows))
    held, rows = rows[chosen[:HELD]], rows[np.sort(chosen[HELD:])]
    return Set("cosine", rows, {"like": held, "off": off[rng.permutation(len(off))]})


def sets(options: argparse.Namespace) -> dict[str, Callable[[], Set | None]]:
    """What makes each set."""
    size, queries = options.count, options.queries + options.known

    def made(metric: str, draw: Callable[[int, np.random.Generator], Array]) -> Callable[[], Set]:
        return lambda: _made(metric, draw, size, queries)

    return {
        "wordnet": lambda: _wordnet(options),
        "clustered": made("cosine", _clusters),
        "uniform": made("l2", lambda count, rng: rng.random((count, 24))),
        "duplicates": made("cosine", _duplicates),
        "giant": made("l2", _giant),
        "lengths": made("l2", _lengths),
        "products": made("ip", _lengths),
    }


def ready(rows: Array, metric: str) -> Array:
    """float32, of length 1 under cosine."""
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows, np.float32)


def coded(name: str, rows: Array, metric: str, folder: str | None, seed: int = SEED) -> Lists:
    """Lists of rows; kept in the folder, as building takes longer than measuring."""
    kept = Path(folder or "/nowhere") / f"{name}-{len(rows)}-{seed}.npz"
    if kept.exists():
        with np.load(kept) as arrays:
            return Lists(**{field: arrays[field] for field in arrays.files})
    router = train(rows, list_count(len(rows)), seed)
    first, second = assign(router, rows, spill=True)
    width = padded(rows.shape[1])
    numbers = np.arange(len(rows), dtype=np.int32)
    centers = rotate(router.centers, width, seed)
    lists = build(rotate(rows, width, seed), numbers, centers, first, second, metric)
    if folder:
        there = {field: each for field, each in lists._asdict().items() if each is not None}
        np.savez(kept, **there)
    return lists


class Line(NamedTuple):
    """What was reached of each of ASKED: mean, its standard error, codes that a search compared."""

    kind: str
    k: int
    cells: list[tuple[float, float, float]]


def measure(name: str, made: Set, options: argparse.Namespace) -> list[Line]:
    """A line for each kind of query and k."""
    rows = ready(made.rows, made.metric)
    started = time.process_time()
    lists = coded(name, rows, made.metric, options.folder, options.seed)
    built = time.process_time() - started
    searcher = Searcher(lists, made.metric, options.seed)
    queries = {kind: ready(each, made.metric) for kind, each in made.queries.items()}
    known = None
    if options.known:
        known = np.concatenate([each[-options.known :] for each in queries.values()])
    started = time.process_time()
    table = calibration.calibrate(searcher, rows, options.seed, known)
    took = time.process_time() - started
    print(f"{name}: {len(rows)} rows, {len(lists.center_scales)} lists, "
          f"built {built:.1f} s, calibrated {took:.1f} s")  # fmt: skip
    if options.table:
        print(table.edges[0], table.patience[0], sep="\n")
    lines = []
    for kind, each in queries.items():
        some = each[: min(options.queries, len(each) - options.known)]
        best = exact(rows, some, made.metric, max(options.ks))
        for k in options.ks:
            stops = [patience.stop_for(table, k, asked) for asked in ASKED]
            cells = [searched(searcher, rows, some, best[:, k - 1], stop) for stop in stops]
            lines.append(Line(kind, k, cells))
    return lines


def searched(
    searcher: Searcher, rows: Array, queries: Array, edges: Array, stop: Any
) -> tuple[float, float, float]:
    """Recall, its standard error, and codes compared, in the mean; a scan compares none."""
    if stop is None:
        return 1.0, 0.0, 0.0
    wanted = stop.k + patience.spare(stop.k)
    found = searcher.search_batch(queries, stop, wanted=wanted, epsilon=stop.epsilon)
    recalls = np.empty(len(queries))
    for start in range(0, len(queries), CHUNK):
        some = slice(start, start + CHUNK)
        keys = _keys(rows, queries[some], found.ordinals[some], searcher.metric)
        hits = keys >= (edges[some] - 1e-5 * np.abs(edges[some]))[:, None]
        recalls[some] = np.minimum(hits.sum(axis=1), stop.k) / stop.k
    error = recalls.std() / np.sqrt(len(recalls))
    return float(recalls.mean()), float(error), float(found.counts[:, 2].mean())


def _keys(rows: Array, queries: Array, ordinals: Array, metric: str) -> Array:
    """What is sought of the rows that were found, the more the better; -inf where there is none."""
    there = rows[np.maximum(ordinals, 0)]
    if metric == "ip":
        keys = np.einsum("qnd,qd->qn", there, queries)
    else:
        there -= queries[:, None]
        keys = -np.einsum("qnd,qnd->qn", there, there)
    return np.where(ordinals >= 0, keys, -np.inf)


def show(lines: list[Line]) -> list[float]:
    """Print them; of each recall that was missed, how likely it really is."""
    heads = "".join(f"{f'asked {asked:.2f}':>31}" for asked in ASKED)
    print(f"  {'queries':8} {'k':>4} {heads}")
    missed = []
    for line in lines:
        cells = []
        for asked, (reached, error, codes) in zip(ASKED, line.cells, strict=True):
            mark, gap = "", asked - TOLERANCE - reached
            if gap > 0:
                likely = NormalDist().cdf(gap / error) if error else 1.0
                mark = f"low {likely:.2f}"
                missed.append(likely)
            cells.append(f"{reached:7.3f} ±{error:.3f} {mark:8}{codes:7,.0f} c")
        print(f"  {line.kind:8} {line.k:4} " + "".join(cells))
    sys.stdout.flush()
    return missed


def main() -> int:
    """Measure each set and print its table."""
    parser = common.parser(__doc__ or "", 30_000, 1)
    parser.add_argument("--sets", default=None)
    parser.add_argument("--ks", default="1,10,100", type=lambda text: [*map(int, text.split(","))])
    parser.add_argument("--queries", type=int, default=1000, help="of a kind; 3,000 of wordnet's")
    parser.add_argument("--seed", type=int, default=SEED, help="of lists and their calibration")
    parser.add_argument("--known", type=int, default=0, help="of a kind, as a log of real queries")
    parser.add_argument("--table", action="store_true", help="print the table of patience")
    options = parser.parse_args()
    if options.folder:
        os.makedirs(options.folder, exist_ok=True)
    if not LOADER.wait():
        raise SystemExit(f"no compiled kernels: {LOADER.error!r}")
    every = sets(options)
    missed: list[float] = []
    asked = 0
    for name in options.sets.split(",") if options.sets else every:
        made = every[name]()
        if made is None:
            print(f"{name}: not there")
            continue
        lines = measure(name, made, options)
        missed += show(lines)
        asked += len(lines) * len(ASKED)
    surely = sum(likely > SURE for likely in missed)
    print(f"of {asked} recalls {len(missed)} missed by more than {TOLERANCE}, {surely} surely")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
