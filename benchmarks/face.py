"""What Python costs around the compiled calls of a search, per call and in microseconds.

    python benchmarks/face.py --data FOLDER [--made FOLDER]

Every search is timed as a whole, and so is each compiled call that it makes; what is left is the
face: arguments, snapshot, plan, arrays, hits. Collections: of 100 rows; of 100,000 vectors in lists
(`--count`); the same with a delta of 4,095 rows. Turns of all kinds alternate, so that neighbours
on the machine disturb them alike; the table shows medians of the turns' medians, with the least and
the largest. (A batch has one time for all of its queries, hence their mean, which a few hard ones
raise above the median of single searches.) `--made` keeps the files for the next run, as building
lists takes most of the time.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import common  # sets the number of threads before NumPy loads
import numpy as np

Array = np.ndarray[Any, Any]
SMALL, DELTA, BATCH = 100, 4_095, 1_000
SCHEMA = "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT, e VECTOR({}) METRIC cosine)"
STATEMENT = "SEARCH notes NEAR ? K 10 RETURNING id, score"
KERNELS = {
    "m2mdb.compute.hrm2.kernels": ("search", "search_batch"),
    "m2mdb.compute.ranking_kernels": ("answer", "answer_many", "unit", "units", "unread_many"),
    "m2mdb.compute.numba_kernels": ("scan", "prune"),
    "m2mdb.compute.search_kernels": ("search_whole",),
}


class Spent:
    """Seconds inside compiled calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Have each compiled call add its time."""
        import importlib

        before = []
        for name, functions in KERNELS.items():
            module = importlib.import_module(name)
            for function in functions:
                kernel = getattr(module, function)
                before.append((module, function, kernel))
                setattr(module, function, self._timed(kernel))
        try:
            yield
        finally:
            for module, function, kernel in before:
                setattr(module, function, kernel)

    def _timed(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        clock = time.perf_counter

        def timed(*arguments: Any) -> Any:
            start = clock()
            result = kernel(*arguments)
            self.seconds += clock() - start
            return result

        return timed


class Times(NamedTuple):
    """Of the calls of one turn: medians of the whole, of the compiled part, and of the rest."""

    whole: float
    kernels: float
    face: float


def times(work: Callable[[Array], object], queries: Array, spent: Spent) -> Times:
    """Microseconds of a call for each query."""
    clock = time.perf_counter
    rows = []
    for query in queries:
        spent.seconds = 0.0
        start = clock()
        work(query)
        whole = clock() - start
        rows.append((whole, spent.seconds, whole - spent.seconds))
    return Times(*(np.median(rows, axis=0) * 1e6).tolist())


def filled(path: str, data: common.Data, count: int, delta: int) -> None:
    """A file with `count` rows, in lists where they are many, and `delta` rows behind them."""
    import m2mdb

    con = m2mdb.connect(path)
    con.execute(SCHEMA.format(common.DIMENSION))
    add(con, data, 0, count)
    if count > SMALL:
        con.execute("OPTIMIZE notes")
        con.commit()
    for start in range(count, count + delta, 500):  # so few at a time that they are no segment
        add(con, data, start, min(500, count + delta - start))
    con.close()


def add(con: Any, data: common.Data, first: int, count: int) -> None:
    """Rows of the set, which begins anew where it ends."""
    places = np.arange(first, first + count) % len(data.vectors)
    texts = [data.texts[place] for place in places.tolist()]
    ids = np.arange(first, first + count)
    con.collection("notes").add({"id": ids, "body": texts, "e": data.vectors[places]})
    con.commit()


def made(folder: str, data: common.Data) -> dict[str, str]:
    """The files by name, made where they are not there."""
    os.makedirs(folder, exist_ok=True)
    paths = {name: os.path.join(folder, f"{name}.m2m") for name in ("small", "lists", "delta")}
    if not os.path.exists(paths["small"]):
        filled(paths["small"], data, SMALL, 0)
    if not os.path.exists(paths["lists"]):
        filled(paths["lists"], data, len(data.vectors), 0)
    if not os.path.exists(paths["delta"]):
        import m2mdb

        shutil.copyfile(paths["lists"], paths["delta"])
        con = m2mdb.connect(paths["delta"])
        for start in range(0, DELTA, 500):
            add(con, data, len(data.vectors) + start, min(500, DELTA - start))
        con.close()
    return paths


def measure(paths: dict[str, str], queries: Array, rounds: int) -> dict[str, list[Times]]:
    """The times of each kind, turn by turn."""
    import m2mdb

    spent = Spent()
    found: dict[str, list[Times]] = {}
    connections = {name: m2mdb.connect(path) for name, path in paths.items()}

    def search(name: str) -> Callable[[Array], object]:
        notes = connections[name].collection("notes")
        return lambda query: notes.search(near=query, k=10, returning=[])

    def statement(name: str) -> Callable[[Array], object]:
        con = connections[name]
        return lambda query: con.execute(STATEMENT, (query,)).fetchall()

    many = np.ascontiguousarray(np.resize(queries, (BATCH, queries.shape[1])))
    batch = connections["lists"].collection("notes")
    with spent.watching():
        for turn in range(rounds + 1):
            for name in paths:
                for kind, work in (("search", search(name)), ("SEARCH", statement(name))):
                    one = times(work, queries, spent)
                    if turn:  # the first one finds the file in no cache
                        found.setdefault(f"{kind} {name}", []).append(one)
            one = times(lambda _: batch.search_batch(many, k=10), queries[:3], spent)
            if turn:
                each = Times(*(value / BATCH for value in one))
                found.setdefault(f"batch of {BATCH}, a query", []).append(each)
    for con in connections.values():
        con.close()
    return found


def show(found: dict[str, list[Times]]) -> bool:
    """Print the table; whether every gate is met."""

    def line(name: str, values: list[float], gate: float | None = None) -> bool:
        middle, low, high = float(np.median(values)), min(values), max(values)
        met = gate is None or middle <= gate
        verdict = "" if gate is None else f"   gate <= {gate:g}: {'met' if met else 'MISSED'}"
        print(f"  {name:46} {middle:8.2f}  ({low:.2f} .. {high:.2f}){verdict}")
        return met

    good = True
    for name, turns in found.items():
        line(f"{name}: whole", [each.whole for each in turns])
        line(f"{name}: compiled calls", [each.kernels for each in turns])
        gate = 30.0 if name.startswith("search") else None
        good &= line(f"{name}: face", [each.face for each in turns], gate)
    for name in ("small", "lists", "delta"):
        pairs = zip(found[f"SEARCH {name}"], found[f"search {name}"], strict=True)
        over = [ours.whole - face.whole for ours, face in pairs]
        good &= line(f"SEARCH over Collection.search, {name}", over, 40.0)
    pairs = zip(found["search delta"], found["search lists"], strict=True)
    added = [ours.whole - face.whole for ours, face in pairs]
    return line(f"a delta of {DELTA} rows adds", added, 30.0) and good


def main() -> int:
    """Build what is not there, run the turns and print the table."""
    parser = common.parser(__doc__ or "", 100_000, 7)
    parser.add_argument("--made", help="folder in which the files are kept")
    options = parser.parse_args()
    from m2mdb.compute.loader import LOADER

    if not LOADER.wait():
        raise SystemExit(f"no compiled kernels: {LOADER.error!r}")
    data = common.Data(options.data, options.count)
    queries = np.ascontiguousarray(data.queries[:BATCH], np.float32)
    with common.workplace(options.folder) as folder:
        found = measure(made(options.made or folder, data), queries, options.rounds)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\nface, {data.name}, {len(data.vectors)} rows, microseconds; load average {load}")
    return 0 if show(found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
