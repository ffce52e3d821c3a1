"""Exact search against the speed of memory and of BLAS, on one core.

For each metric, searches of one query over all rows are timed in turn with two yardsticks over the
same mapped bytes: a compiled sum that only reads them, and BLAS `rows @ query` + `argpartition`.
Each round times all of them one after the other, so that a busy machine slows all alike; the table
shows the median of the rounds' ratios, and their quartiles.

    python benchmarks/exact_search.py [--data FOLDER] [--rows N] [--rounds N] [--k K]

--data names a folder with vectors.f16.npy and query_vectors.f32.npy (default: M2M_DATA); without
one, rows are drawn from a seeded generator. Exit status 1 if a gate is missed.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy loads

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from m2mdb.compute.backend import Backend, choose
from m2mdb.compute.bound import METRICS, row_norms
from m2mdb.compute.loader import LOADER
from m2mdb.compute.numba_kernels import READ_VECTOR, kernel, types
from m2mdb.compute.rescore import rank_gathered

READ_GATE = 0.85  # of the speed of reading, for cosine
BLAS_GATE = 1.0  # of the speed of BLAS and argpartition, for cosine
BATCHES = (4, 16, 64, 256)
DENSITIES = (0.5, 0.1, 0.01)

Array = np.ndarray[Any, Any]
Timed = dict[str, list[float]]


@kernel(types.float32, READ_VECTOR)
def read(values: Array) -> Any:
    """Sum of all values: reading and hardly anything else."""
    total = np.float32(0.0)
    for i in range(values.shape[0]):
        total += values[i]
    return total


def load(folder: str | None, count: int) -> tuple[Array, Array]:
    """Rows and queries, from the data folder or drawn."""
    if folder:
        rows = np.load(os.path.join(folder, "vectors.f16.npy"))[:count].astype(np.float32)
        return rows, np.load(os.path.join(folder, "query_vectors.f32.npy"))
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((count, 384), dtype=np.float32)
    return rows, rng.standard_normal((3000, 384), dtype=np.float32)


def mapped(rows: Array, folder: str) -> Array:
    """The same rows, as a read-only map of a file."""
    path = os.path.join(folder, "rows.f32")
    rows.tofile(path)
    return np.memmap(path, np.float32, "r", shape=rows.shape).view(np.ndarray)


def timed(rounds: int, works: dict[str, Callable[[int], object]]) -> Timed:
    """Seconds of each work in each round, in turn; one round more goes first, unseen."""
    seconds: Timed = {name: [] for name in works}
    for i in range(-1, rounds):
        for name, work in works.items():
            started = time.perf_counter()
            work(i)
            if i >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: Timed, yardstick: str, name: str) -> tuple[float, float, float]:
    """Quartiles of how many times as fast as the yardstick: (median, lower, upper)."""
    ratios = np.array(seconds[yardstick]) / np.array(seconds[name])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def searches(
    name: str,
    rows: Array,
    norms: Array | None,
    queries: Array,
    k: int,
    metric: str,
    mask: Array | None = None,
) -> Callable[[int], object]:
    """Whole searches by query i: candidates, then final scores."""
    backend = choose(name)

    def run(i: int) -> object:
        found = backend.top_k(rows, norms, queries[i], k, metric, mask)
        ordinals = found.ordinals
        return rank_gathered(lambda part: rows[part], ordinals, ordinals, queries[i], k, metric)

    return run


def single(rows: Array, norms: Array, queries: Array, k: int, rounds: int) -> bool:
    """One query at a time; True if the gates hold."""
    flat = rows.reshape(-1)
    holds = True
    print(f"{'one query':18} {'ms':>7}   of reading          of BLAS + argpartition")
    for metric in METRICS:
        works: dict[str, Callable[[int], object]] = {
            "read": lambda i: read(flat),
            "BLAS": lambda i: np.argpartition(rows @ queries[i], -k)[-k:],
            "numba": searches("numba", rows, norms, queries, k, metric),
            "numpy": searches("numpy", rows, norms, queries, k, metric),
        }
        if metric == "l2":
            works["numba, no norms"] = searches("numba", rows, None, queries, k, metric)
        seconds = timed(rounds, works)
        for name in works:
            reading, blas = ratio(seconds, "read", name), ratio(seconds, "BLAS", name)
            print(
                f"{metric + ' ' + name:22} {1e3 * np.median(seconds[name]):7.2f}"
                f"   {reading[0]:.2f} ({reading[1]:.2f} .. {reading[2]:.2f})"
                f"   {blas[0]:.2f} ({blas[1]:.2f} .. {blas[2]:.2f})"
            )
            if metric == "cosine" and name == "numba":
                holds = reading[0] >= READ_GATE and blas[0] >= BLAS_GATE
    return holds


def batch_search(
    backend: Backend, rows: Array, norms: Array, queries: Array, k: int, _: int
) -> object:
    """Candidates of several queries."""
    return backend.top_k_many(rows, norms, queries, k, "cosine")


def batches(rows: Array, norms: Array, queries: Array, k: int, rounds: int) -> None:
    """Several queries at once, cosine."""
    print(f"\n{'batch, cosine':18} {'numba ms':>9} {'numpy ms':>9}   numba GFLOP/s")
    for batch in BATCHES:
        works = {
            name: partial(batch_search, choose(name), rows, norms, queries[:batch], k)
            for name in ("numba", "numpy")
        }
        seconds = timed(max(3, rounds // batch), works)
        ours, theirs = (float(np.median(seconds[name])) for name in ("numba", "numpy"))
        print(
            f"{batch:18} {1e3 * ours:9.1f} {1e3 * theirs:9.1f}"
            f"   {2 * rows.size * batch / ours / 1e9:.0f}"
        )


def masked(rows: Array, norms: Array, queries: Array, k: int, rounds: int) -> None:
    """One query over some of the rows, cosine."""
    print(f"\n{'rows that count':18} {'numba ms':>9} {'numpy ms':>9}")
    rng = np.random.default_rng(2)
    for density in DENSITIES:
        mask = (rng.random(len(rows)) < density).view(np.uint8)
        works = {
            name: searches(name, rows, norms, queries, k, "cosine", mask)
            for name in ("numba", "numpy")
        }
        seconds = timed(rounds, works)
        ours, theirs = (1e3 * float(np.median(seconds[name])) for name in ("numba", "numpy"))
        print(f"{density:18.0%} {ours:9.2f} {theirs:9.2f}")


def main() -> int:
    """Measure and print; 1 if a gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default=os.environ.get("M2M_DATA"))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--k", type=int, default=10)
    given = parser.parse_args()
    if not LOADER.wait():
        raise SystemExit(f"no compiled kernels: {LOADER.error!r}")
    source, queries = load(given.data, given.rows)
    with tempfile.TemporaryDirectory() as folder:
        rows = mapped(source, folder)
        norms = row_norms(rows)
        print(f"{rows.shape[0]} x {rows.shape[1]} float32, k = {given.k}, one thread")
        holds = single(rows, norms, queries, given.k, given.rounds)
        batches(rows, norms, queries, given.k, given.rounds)
        masked(rows, norms, queries, given.k, given.rounds)
    verdict = "hold" if holds else "MISSED"
    print(f"\ngates (cosine, numba: {READ_GATE} of reading, {BLAS_GATE} of BLAS): {verdict}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
