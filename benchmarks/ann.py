"""Nearest-neighbour search beside libraries: queries per CPU second at equal recall, on one core.

    taskset -c 0 python benchmarks/ann.py --data FOLDER [--stores m2mdb,hnswlib,...] [--k 10]

Each store gets the same vectors and queries in the same run and sweeps its effort. Every query is
one call; then all of them in one call. Recall is that of the k best inner products, ties allowed.
QPS at a recall is interpolated between two efforts (log QPS over recall); "-" where no effort
reaches it. A store runs in a process of its own: memory is the growth of what it holds. Its times
are CPU times, of all its threads, and each is the best of the turns: on a shared machine a
store's wall time tells more of the neighbours.

m2mdb runs as a database: a file, `Collection.add`, OPTIMIZE, commit, then `Collection.search`.
The libraries keep arrays in memory and are saved to a file to tell their size.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import common  # sets the number of threads before NumPy loads
import numpy as np

RECALLS = (0.90, 0.95, 0.99)
Array = np.ndarray[Any, Any]
Search = Callable[[Array], Array]  # a query, or many, to row numbers


class Point(NamedTuple):
    """One effort of a store: searches of one query and of many."""

    effort: str
    single: Search
    batch: Search | None


class Store(NamedTuple):
    """A built store."""

    disk_bytes: int
    points: Iterator[Point]


def m2mdb(rows: Array, folder: str, k: int) -> Store:
    """Through the public face; recall is asked for."""
    import m2mdb
    from m2mdb.compute.loader import LOADER

    if not LOADER.wait():
        raise SystemExit(f"no compiled kernels: {LOADER.error!r}")
    started = time.process_time()
    path = os.path.join(folder, "ann.m2m")
    connection = m2mdb.connect(path)
    connection.execute(
        f"CREATE COLLECTION notes (id INTEGER PRIMARY KEY, e VECTOR({rows.shape[1]}) METRIC cosine)"
    )
    notes = connection.collection("notes")
    notes.add({"id": np.arange(len(rows)), "e": rows})
    connection.commit()
    connection.execute("OPTIMIZE notes")
    connection.commit()
    spent["build"] = time.process_time() - started

    def points() -> Iterator[Point]:
        for recall in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99):
            yield Point(
                f"recall {recall}",
                partial(_ids, notes, k, recall),
                partial(_ids_of_many, notes, k, recall),
            )

    return Store(os.path.getsize(path), points())


def _ids(notes: Any, k: int, recall: float, query: Array) -> Array:
    ids: Array = notes.search(near=query, k=k, recall=recall, returning="id").ids
    return ids


def _ids_of_many(notes: Any, k: int, recall: float, queries: Array) -> Array:
    ids: Array = notes.search_batch(queries, k=k, recall=recall)[0]
    return ids


def hrm2(rows: Array, folder: str, k: int) -> Store:
    """The lists without a database: what they would be worth at no other cost."""
    from m2mdb.compute.hrm2 import calibration, lists, rotation, training
    from m2mdb.compute.hrm2.searcher import Searcher

    started = time.process_time()
    router = training.train(rows, max(8, len(rows) // 100), 1)
    first, second = training.assign(router, rows, spill=True)
    width = lists.padded(rows.shape[1])
    built = lists.build(
        rotation.rotate(rows, width, 1),
        np.arange(len(rows), dtype=np.int32),
        rotation.rotate(router.centers, width, 1),
        first,
        second,
        "cosine",
    )
    searcher = Searcher(built, "cosine", 1)
    table = calibration.calibrate(searcher, rows, 1)
    spent["build"] = time.process_time() - started
    wanted, epsilon = k + calibration.spare(k), calibration.EPSILON

    def ranked(found: Array, query: Array) -> Array:
        return found[np.argsort(-(rows[found] @ query), kind="stable")[:k]]

    def points() -> Iterator[Point]:
        for recall in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99):
            stop = calibration.stop_for(table, k, recall)

            def single(query: Array, stop: Any = stop) -> Array:
                found = searcher.search(query, stop, wanted=wanted, epsilon=epsilon)
                return ranked(found.ordinals, query)

            def batch(many: Array, stop: Any = stop) -> Array:
                found = searcher.search_batch(many, stop, wanted=wanted, epsilon=epsilon)
                keys = np.einsum("ijk,ik->ij", rows[found.ordinals], many)
                keys[found.ordinals < 0] = -np.inf
                best = np.argsort(-keys, axis=1, kind="stable")[:, :k]
                return np.take_along_axis(found.ordinals, best, axis=1)

            yield Point(f"recall {recall}", single, batch)

    return Store(sum(array.nbytes for array in built) + rows.nbytes, points())


def hnswlib(rows: Array, folder: str, k: int) -> Store:
    """M = 16, ef_construction = 200."""
    library = importlib.import_module("hnswlib")
    started = time.process_time()
    index = library.Index(space="ip", dim=rows.shape[1])
    index.init_index(len(rows), ef_construction=200, M=16, random_seed=1)
    index.set_num_threads(1)
    index.add_items(rows)
    path = os.path.join(folder, "hnsw")
    index.save_index(path)
    spent["build"] = time.process_time() - started

    def points() -> Iterator[Point]:
        for effort in (16, 32, 64, 128, 256):
            index.set_ef(max(effort, k))
            yield Point(
                f"ef {effort}",
                lambda query: index.knn_query(query, k)[0][0],
                lambda many: index.knn_query(many, k)[0],
            )

    return Store(os.path.getsize(path), points())


def usearch(rows: Array, folder: str, k: int) -> Store:
    """16-bit floats, connectivity 16, expansion_add = 128."""
    library = importlib.import_module("usearch.index")
    started = time.process_time()
    index = library.Index(
        ndim=rows.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=128
    )
    index.add(np.arange(len(rows)), rows, threads=1)
    path = os.path.join(folder, "usearch")
    index.save(path)
    spent["build"] = time.process_time() - started

    def points() -> Iterator[Point]:
        for effort in (16, 32, 64, 128, 256):
            index.expansion_search = effort
            yield Point(
                f"expansion {effort}",
                lambda query: index.search(query, k, threads=1).keys,
                lambda many: index.search(many, k, threads=1).keys,
            )

    return Store(os.path.getsize(path), points())


def _faiss(rows: Array, folder: str, k: int, text: str, efforts: tuple[int, ...]) -> Store:
    library = importlib.import_module("faiss")
    library.omp_set_num_threads(1)
    started = time.process_time()
    index = library.index_factory(rows.shape[1], text, library.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    path = os.path.join(folder, "faiss")
    library.write_index(index, path)
    spent["build"] = time.process_time() - started
    name = "nprobe" if "IVF" in text else "efSearch"
    space = library.ParameterSpace()
    if text.endswith("RFlat"):
        space.set_index_parameter(index, "k_factor_rf", 10)  # candidates compared for each of k

    def points() -> Iterator[Point]:
        for effort in efforts:
            space.set_index_parameter(index, name, effort)
            yield Point(
                f"{name} {effort}",
                lambda query: index.search(query[None], k)[1][0],
                lambda many: index.search(many, k)[1],
            )

    return Store(os.path.getsize(path), points())


def faiss_hnsw(rows: Array, folder: str, k: int) -> Store:
    """HNSW with 32 links, vectors of 8-bit values."""
    return _faiss(rows, folder, k, "HNSW32_SQ8", (8, 16, 32, 64, 128, 256))


def faiss_ivf(rows: Array, folder: str, k: int) -> Store:
    """IVF with 4-bit product quantisation (fast scan), then full precision."""
    lists = max(16, len(rows) // 100)
    text = f"IVF{lists},PQ{rows.shape[1] // 2}x4fs,RFlat"
    return _faiss(rows, folder, k, text, (8, 16, 32, 64, 128, 256))


def svs(rows: Array, folder: str, k: int) -> Store:
    """Vamana with 48 links, window 150, vectors of 16-bit floats."""
    library = importlib.import_module("svs")
    started = time.process_time()
    build = library.VamanaBuildParameters(graph_max_degree=48, window_size=150, alpha=0.95)
    half = rows.astype(np.float16)
    index = library.Vamana.build(build, half, library.DistanceType.MIP, 1)
    places = [os.path.join(folder, name) for name in ("config", "graph", "data")]
    index.save(*places)
    spent["build"] = time.process_time() - started

    def points() -> Iterator[Point]:
        for effort in (10, 14, 20, 28, 48, 80, 140):
            index.search_window_size = max(effort, k)
            yield Point(
                f"window {effort}",
                lambda query: index.search(query[None], k)[0][0],
                lambda many: index.search(many, k)[0],
            )

    return Store(_bytes_under(folder), points())


def numpy(rows: Array, folder: str, k: int) -> Store:
    """Every product, and argpartition."""
    spent["build"] = 0.0

    def single(query: Array) -> Array:
        keys = rows @ query
        return np.argpartition(keys, -k)[-k:]

    def batch(many: Array) -> Array:
        parts = [many[i : i + 100] @ rows.T for i in range(0, len(many), 100)]
        return np.concatenate([np.argpartition(part, -k, axis=1)[:, -k:] for part in parts])

    return Store(rows.nbytes, iter([Point("all", single, batch)]))


STORES = {
    each.__name__: each
    for each in (m2mdb, hrm2, svs, faiss_hnsw, faiss_ivf, hnswlib, usearch, numpy)
}
spent: dict[str, float] = {}  # seconds of the last build


def _bytes_under(folder: str) -> int:
    return sum(
        os.path.getsize(os.path.join(place, name))
        for place, _, names in os.walk(folder)
        for name in names
    )


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def edges_of(rows: Array, queries: Array, k: int) -> Array:
    """The k-th best product of each query."""
    out = np.empty(len(queries), np.float32)
    for start in range(0, len(queries), 100):
        keys = queries[start : start + 100] @ rows.T
        out[start : start + 100] = np.partition(keys, -k, axis=1)[:, -k]
    return out


def recall(rows: Array, queries: Array, edges: Array, found: Array, k: int) -> float:
    """The share of the k best that was found; no row counts twice."""
    hits = 0
    for query, edge, some in zip(queries, edges, found, strict=True):
        different = np.unique(some[some >= 0]).astype(np.int64)
        hits += min(k, int((rows[different] @ query >= edge - 1e-6).sum()))
    return hits / (k * len(queries))


def best_rate(work: Callable[[], object], queries: int, turns: int) -> float:
    """Queries per CPU second of the best turn."""
    best = float("inf")
    for _ in range(turns):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return queries / best


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Build and sweep one store, in this process."""
    data = common.Data(options.data, options.count)
    rows = data.vectors / np.linalg.norm(data.vectors, axis=1, keepdims=True)
    queries = np.ascontiguousarray(data.queries[: options.queries])
    edges = edges_of(rows, queries, options.k)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        before = _resident()
        try:
            store = STORES[name](rows, folder, options.k)
        except ModuleNotFoundError as error:
            return {"name": name, "absent": str(error)}
        points = []
        for point in store.points:
            found = np.array([_padded(point.single(query), options.k) for query in queries])
            reached = recall(rows, queries, edges, found, options.k)
            single = best_rate(partial(_each, point, queries), len(queries), options.rounds)
            batch = 0.0
            if point.batch is not None:
                batch = best_rate(partial(point.batch, queries), len(queries), options.rounds)
            points.append((point.effort, reached, single, batch))
            print(f"  {name:11} {point.effort:14} recall {reached:.4f}  {single:8,.0f} QPS  "
                  f"batch {batch:8,.0f}", file=sys.stderr, flush=True)  # fmt: skip
        memory = _resident() - before
        return {
            "name": name,
            "points": points,
            "build": spent["build"],
            "memory": memory,
            "disk": store.disk_bytes,
        }


def _each(point: Point, queries: Array) -> None:
    for query in queries:
        point.single(query)


def _padded(found: Any, k: int) -> Array:
    out = np.full(k, -1, np.int64)
    some = np.asarray(found)[:k]
    out[: len(some)] = some
    return out


def rate_at(points: list[list[Any]], wanted: float, column: int) -> float | None:
    """QPS at a recall, between the two efforts around it; None where none reaches it."""
    ordered = sorted(points, key=lambda point: point[1])
    enough = [point for point in ordered if point[1] >= wanted]
    below = [point for point in ordered if point[1] < wanted]
    if not enough:
        return None
    rates: list[float] = [point[column] for point in enough]
    if below and below[-1][column]:
        low, high = below[-1], enough[0]
        share = (wanted - low[1]) / (high[1] - low[1])
        logs = (1 - share) * np.log(low[column]) + share * np.log(high[column])
        rates.append(float(np.exp(logs)))
    return max(rates)


def main() -> int:
    """Run each store in a process of its own, and print the table."""
    parser = common.parser(__doc__ or "", 100_000, 3)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--only", help="measure one store here and print what it did as JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options)))
        return 0
    results = []
    for name in options.stores.split(","):
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if run.returncode:
            results.append({"name": name, "absent": f"failed: {run.returncode}"})
        else:
            results.append(json.loads(run.stdout.splitlines()[-1]))
    show(results, options)
    return 0


def show(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """A line for each store."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\nk = {options.k}, {options.queries} queries; load average {load}")
    heads = " ".join(f"{f'@{each:.2f}':>8}" for each in RECALLS)
    print(
        f"{'queries per CPU second':23} {heads}   {'batch':>5} {heads}   build s     MB   disk MB"
    )
    for result in results:
        if "absent" in result:
            print(f"{result['name']:23} {result['absent']}")
            continue
        cells = []
        for column in (2, 3):
            for each in RECALLS:
                rate = rate_at(result["points"], each, column)
                cells.append(f"{rate:8,.0f}" if rate else f"{'-':>8}")
        print(
            f"{result['name']:23} {' '.join(cells[:3])}         {' '.join(cells[3:])}"
            f"   {result['build']:7.1f} {result['memory'] / 1e6:6.0f} {result['disk'] / 1e6:9.1f}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
