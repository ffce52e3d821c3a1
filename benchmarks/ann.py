"""Nearest-neighbour search beside its rivals: queries per CPU second at equal recall, on one core.

    taskset -c 1 python benchmarks/ann.py --data FOLDER [--stores "m2mdb,svs"] [--keep PLACE]

Each store (`stores.py`) gets the same vectors and queries in the same run and sweeps its effort:
every query is one call; then all of them in one call; then one call a query under a filter that
lets 10 % and 1 % of the rows pass. Recall is that of the k best inner products, ties allowed. QPS
at a recall is interpolated between two efforts (log QPS over recall); "-" where no effort reaches
it. A store is built in one process and searched in another: memory is the growth of the second.
Times are CPU times of all threads, and each is the best of the turns: on a shared machine wall
time tells more of the neighbours. A store that is slow sees the first queries only (`--seconds`).

cold      wall time from nothing of the store's library imported, files in the system's cache, to
          the first answer (NumPy and the data are loaded)
churn     a copy of the store, in a third process: --changed of its rows, a tenth, get other vectors
          in ten batches, durably; CPU time a row, and recall and QPS of one effort (the first that
          reaches 0.95) before and after

    --keep PLACE     where built stores are kept, so that the next run only searches them
    --set            wordnet (--data); clusters: 200 normal ones, in which --count vectors of
                     --dimension stand; synthetic: a likeness of real vectors (synthetic.py)
    --plot FILE      draws all of it: QPS over recall, build, memory, disk, cold start, churn (needs
                     matplotlib; `plotting.py`)
    --json FILE      keeps all that was measured
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from stores import LABELS, STORES, Array, Store, bytes_under, common, label_of

RECALLS = (0.90, 0.95, 0.99)
LEAST = 30  # queries that even a slow store sees
CHURN_QUERIES, CHURN_BATCHES = 300, 10
CHILD_OPTIONS = "data count rounds k queries set dimension seconds changed".split()


# ------------------------------------------------------------------------- data


def rows_and_queries(options: argparse.Namespace) -> tuple[Array, Array]:
    """float32 (n, d) and (m, d), all of length one."""
    if options.set == "clusters":
        rows, queries = mixture(options.count, options.dimension, options.queries)
    elif options.set == "synthetic":
        import synthetic

        rows, queries = synthetic.vectors(options.count, options.dimension, options.queries)
    else:
        data = common.Data(options.data, options.count)
        rows = data.vectors
        step = max(1, len(data.queries) // options.queries)  # its kinds stand one after the other
        queries = data.queries[::step][: options.queries]
    return _unit(rows), _unit(queries)


def mixture(count: int, dimension: int, queries: int, clusters: int = 200) -> tuple[Array, Array]:
    """Normal clusters of one size and spread, rows and queries alike: easy, and often shown."""
    random = np.random.default_rng(42)
    centers = random.standard_normal((clusters, dimension), np.float32)
    of = random.integers(0, clusters, count + queries)
    all_of_them = centers[of] + random.standard_normal((len(of), dimension), np.float32)
    return all_of_them[:count], all_of_them[count:]


def _unit(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / lengths, np.float32)


def edges_of(rows: Array, queries: Array, k: int) -> Array:
    """The k-th best product of each query; -inf where there are fewer rows."""
    out = np.full(len(queries), -np.inf, np.float32)
    if len(rows) < k:
        return out
    for start in range(0, len(queries), 100):
        keys = queries[start : start + 100] @ rows.T
        out[start : start + 100] = np.partition(keys, -k, axis=1)[:, -k]
    return out


def recall(
    rows: Array, queries: Array, edges: Array, found: Sequence[Any], k: int, passing: Array | None
) -> float:
    """The share of the k best that was found; no row counts twice, none that the filter refuses."""
    hits = 0
    for query, edge, some in zip(queries, edges, found, strict=False):
        different = np.unique(np.asarray(some, np.int64)[:k])
        different = different[different >= 0]
        if passing is not None:
            different = different[passing[different]]
        hits += min(k, int((rows[different] @ query >= edge - 1e-6).sum()))
    return hits / (k * len(found))


# ------------------------------------------------------------------------- measuring


def build(store: Store, options: argparse.Namespace, folder: str) -> dict[str, float]:
    """Build a store, in this process: CPU and wall seconds, and the bytes of its files."""
    rows, _ = rows_and_queries(options)
    labels = {share: label_of(share, len(rows)) for share in LABELS}
    started, clock = time.process_time(), time.perf_counter()
    store.build(rows, labels, folder)
    return {
        "build": time.process_time() - started,
        "build_wall": time.perf_counter() - clock,
        "disk": bytes_under(folder),
        "queries": options.queries,
    }


def search(store: Store, options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Sweep an opened store, in this process."""
    rows, queries = rows_and_queries(options)
    edges = edges_of(rows, queries, options.k)
    before, started = _resident(), time.perf_counter()
    store.open(folder)
    store.use(store.efforts[-1])
    store.search(queries[0], k=options.k)
    cold = time.perf_counter() - started
    wait_for_kernels()
    memory = None
    plain, batches, filtered = [], [], {share: [] for share in LABELS}
    for effort in store.efforts:
        store.use(effort)
        found, rate = _each(partial(store.search, k=options.k), queries, options)
        reached = recall(rows, queries, edges, found, options.k, None)
        plain.append((str(effort), reached, rate))
        memory = memory or _resident() - before
        if store.has_batch and len(found) == len(queries):
            rate = _best(partial(store.batch, queries, options.k), len(queries), options.rounds)
            together = recall(
                rows, queries, edges, store.batch(queries, options.k), options.k, None
            )
            batches.append((str(effort), together, rate))
        _tell(store.name, effort, plain[-1], batches)
    if store.has_filter and not options.no_filters:
        for share in LABELS:
            filtered[share] = _filtered(store, share, rows, queries, options)
    return {
        "plain": plain, "batch": batches, "filtered": filtered, "memory": memory, "cold": cold,
    }  # fmt: skip


def churn(store: Store, options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Change some of a store's rows, in this process; None where it cannot."""
    import changing

    way = changing.way_of(store)
    if way is None:
        return {"churn": None}
    rows, queries = rows_and_queries(options)
    labels = {share: label_of(share, len(rows)) for share in LABELS}
    queries = queries[:CHURN_QUERIES]
    store.open(folder)
    wait_for_kernels()
    before = _first_enough(store, rows, queries, options)
    random = np.random.default_rng(9)
    numbers = random.choice(len(rows), int(options.changed * len(rows)), replace=False)
    noise = random.standard_normal((len(numbers), rows.shape[1]), np.float32)
    fresh = _unit(rows[numbers] + 0.5 * rows[random.permutation(numbers)] + 0.3 * _unit(noise))
    started = time.process_time()
    for part in np.array_split(np.arange(len(numbers)), CHURN_BATCHES):
        way(store, numbers[part], fresh[part], labels)
    changing.keep(store, folder)
    spent = time.process_time() - started
    rows[numbers] = fresh
    call = partial(store.search, k=options.k)
    found, rate = _each(call, queries, options)
    reached = recall(rows, queries, edges_of(rows, queries, options.k), found, options.k, None)
    _tell(f"{store.name} changed", before[0], ("", reached, rate), [])
    told = {"effort": before[0], "before": before[1:], "after": (reached, rate)}
    return {"churn": {**told, "rows": len(numbers), "seconds": spent}}


def _first_enough(
    store: Store, rows: Array, queries: Array, options: argparse.Namespace
) -> tuple[str, float, float]:
    """The first effort that reaches 0.95, or the last; it stays in use."""
    edges = edges_of(rows, queries, options.k)
    point = ("", 0.0, 0.0)
    for effort in store.efforts:
        store.use(effort)
        found, rate = _each(partial(store.search, k=options.k), queries, options)
        point = (str(effort), recall(rows, queries, edges, found, options.k, None), rate)
        if point[1] >= 0.95:
            break
    return point


def _filtered(
    store: Store, share: int, rows: Array, queries: Array, options: argparse.Namespace
) -> list[tuple[str, float, float]]:
    passing = label_of(share, len(rows)) == 0
    edges = edges_of(rows[passing], queries, options.k)
    points = []
    for effort in store.efforts:
        store.use(effort)
        call = partial(store.filtered, k=options.k, share=share)
        found, rate = _each(call, queries, options)
        reached = recall(rows, queries, edges, found, options.k, passing)
        points.append((str(effort), reached, rate))
        _tell(f"{store.name} 1/{share}", effort, points[-1], [])
        if reached >= 0.999:
            break
    return points


def _each(
    call: Callable[[Array], Any], queries: Array, options: argparse.Namespace
) -> tuple[list[Any], float]:
    """What was found for as many queries as the time allows, and queries per CPU second."""
    call(queries[0])
    found: list[Any] = []
    started = time.perf_counter()
    for query in queries:
        found.append(call(query))
        if len(found) >= LEAST and time.perf_counter() - started > options.seconds:
            break
    some = queries[: len(found)]

    def all_of_them() -> None:
        for query in some:
            call(query)

    return found, _best(all_of_them, len(some), options.rounds)


def _best(work: Callable[[], object], queries: int, turns: int) -> float:
    """Queries per CPU second of the best turn."""
    best = float("inf")
    for _ in range(turns):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return queries / best


def _tell(name: str, effort: Any, point: tuple[str, float, float], batches: list[Any]) -> None:
    batch = f"  batch {batches[-1][2]:8,.0f}" if batches else ""
    line = f"  {name:18} {effort!s:34} recall {point[1]:.4f}  {point[2]:8,.0f} QPS{batch}"
    print(line, file=sys.stderr, flush=True)


def wait_for_kernels() -> None:
    """m2mdb answers by NumPy until its kernels are loaded; rates are those with them."""
    loaded = sys.modules.get("m2mdb.compute.loader")
    if loaded is not None:
        loaded.LOADER.wait()


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ------------------------------------------------------------------------- the run


def run(name: str, options: argparse.Namespace, keep: str) -> dict[str, Any]:
    """Build a store where it is not kept, and search it, each in a process of its own."""
    folder = kept(name, options, keep)
    built = build_missing(name, options, folder)
    if "absent" in built:
        return {"name": name, **built}
    searched = _child(name, "search", str(folder / "store"), options)
    if "absent" in searched:
        return {"name": name, **searched}
    changed: dict[str, Any] = {}
    if options.changed > 0:
        with tempfile.TemporaryDirectory(dir=keep) as copy:
            shutil.copytree(folder / "store", Path(copy, "store"))
            changed = _child(name, "churn", str(Path(copy, "store")), options)
    return {
        "name": name,
        "settings": STORES[name].settings,
        **built,
        **searched,
        "churn": changed.get("churn"),
    }


def kept(name: str, options: argparse.Namespace, keep: str) -> Path:
    """Where a store is kept: its files lie in `store`, what its build told in `built.json`."""
    safe = "".join(c if c.isalnum() else "-" for c in f"{name} {options.set} {options.count}")
    return Path(keep, f"{safe}-{options.dimension}")


def build_missing(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build a store, in a process of its own, where it is not kept or is of other rows.

    Rows of `clusters` depend on the number of queries, which are drawn with them.
    """
    told = folder / "built.json"
    if told.exists():
        found: dict[str, Any] = json.loads(told.read_text())
        if options.set != "clusters" or found.get("queries", options.queries) == options.queries:
            return found
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "store").mkdir(parents=True)
    found = _child(name, "build", str(folder / "store"), options)
    if "absent" not in found:
        told.write_text(json.dumps(found))
    return found


def _child(name: str, phase: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--only", name, "--phase", phase, "--place", folder]
    for each in CHILD_OPTIONS:
        value = getattr(options, each, None)
        if value is not None:
            command += [f"--{each}", str(value)]
    if getattr(options, "no_filters", False):
        command.append("--no-filters")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"absent": f"{phase} failed with {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """The options that say what is searched, and where built stores are kept."""
    parser = common.parser(description, 100_000, rounds)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--set", default="wordnet", choices=("wordnet", "clusters", "synthetic"))
    parser.add_argument("--dimension", type=int, default=common.DIMENSION)
    parser.add_argument("--keep")
    return parser


def main() -> int:
    """Run each store in processes of its own, and print the table."""
    given = parser(__doc__ or "", 3)
    given.add_argument("--stores", default=",".join(STORES))
    given.add_argument("--seconds", type=float, default=2.0, help="of a turn of a slow store")
    given.add_argument("--no-filters", action="store_true")
    given.add_argument("--changed", type=float, default=0.1, help="rows of churn, 0: none")
    given.add_argument("--plot")
    given.add_argument("--json")
    given.add_argument("--only", help=argparse.SUPPRESS)
    given.add_argument("--phase", help=argparse.SUPPRESS)
    given.add_argument("--place", help=argparse.SUPPRESS)
    options = given.parse_args()
    if options.only:
        work = {"build": build, "search": search, "churn": churn}[options.phase]
        try:
            print(json.dumps(work(STORES[options.only], options, options.place)))
        except ModuleNotFoundError as error:
            print(json.dumps({"absent": str(error)}))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        names = [name.strip() for name in options.stores.split(",")]
        results = [run(name, options, options.keep or scratch) for name in names]
    show(results, options)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    if options.plot:
        import plotting

        plotting.plot(results, options.k, f"{options.set}, {options.count:,} rows", options.plot)
    return 0


# ------------------------------------------------------------------------- what came of it


def rate_at(points: list[list[Any]], wanted: float) -> float | None:
    """QPS at a recall, between the two efforts around it; None where none reaches it."""
    ordered = sorted(points, key=lambda point: point[1])
    enough = [point for point in ordered if point[1] >= wanted]
    below = [point for point in ordered if point[1] < wanted]
    if not enough:
        return None
    rates: list[float] = [point[2] for point in enough]
    if below and below[-1][2]:
        low, high = below[-1], enough[0]
        share = (wanted - low[1]) / (high[1] - low[1])
        rates.append(float(np.exp((1 - share) * np.log(low[2]) + share * np.log(high[2]))))
    return max(rates)


def show(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """A line for each store."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\n{options.set}, {options.count:,} rows, k = {options.k}; load average {load}")
    heads = " ".join(f"{f'@{each:.2f}':>8}" for each in RECALLS)
    shares = " ".join(f"{f'1/{each} @.95':>10}" for each in LABELS)
    print(
        f"{'queries per CPU second':19} {heads} | batch {heads} | {shares} | "
        f"{'build s':>8} {'rows/s':>7} {'MB':>5} {'disk MB':>8} {'cold ms':>8}"
    )
    for result in results:
        if "absent" in result:
            print(f"{result['name']:19} {result['absent']}")
            continue
        plain = [_cell(rate_at(result["plain"], each), 8) for each in RECALLS]
        batch = [_cell(rate_at(result["batch"], each), 8) for each in RECALLS]
        some = [_cell(rate_at(_of(result["filtered"], each), 0.95), 10) for each in LABELS]
        seconds = max(result["build"], 1e-9)
        print(
            f"{result['name']:19} {' '.join(plain)} |       {' '.join(batch)} | {' '.join(some)} | "
            f"{seconds:8.1f} {options.count / seconds:7,.0f} {result['memory'] / 1e6:5.0f} "
            f"{result['disk'] / 1e6:8.1f} {result['cold'] * 1e3:8.0f}"
        )
    _show_churn(results)


def _show_churn(results: list[dict[str, Any]]) -> None:
    """A line for each store that changed rows."""
    changed = [result for result in results if result.get("churn")]
    if changed:
        print(f"\n{'rows changed':19} {'us a row':>9}   recall, QPS before   and after")
    for result in changed:
        churn = result["churn"]
        cost = churn["seconds"] / churn["rows"] * 1e6
        pairs = "   ".join(f"{reached:.4f} {rate:8,.0f}" for reached, rate in
                           (churn["before"], churn["after"]))  # fmt: skip
        print(f"{result['name']:19} {cost:9,.0f}   {pairs}   {churn['effort']}")


def _of(filtered: dict[Any, list[list[Any]]], share: int) -> list[list[Any]]:
    """JSON makes texts of the shares."""
    return filtered.get(str(share)) or filtered.get(share) or []


def _cell(rate: float | None, width: int) -> str:
    return f"{rate:{width},.0f}" if rate else f"{'-':>{width}}"


if __name__ == "__main__":
    raise SystemExit(main())
