"""Filtered vector search: the planner's choice beside each of its strategies, and queries a second.

    python benchmarks/filters.py --data FOLDER [--folder PLACE] [--ks 1,10,100]
    python benchmarks/filters.py ... --folder PLACE --stage build
    python benchmarks/filters.py ... --folder PLACE --stage measure --results FILE --seconds 60
    python benchmarks/filters.py ... --stage table --results FILE

A collection gets conditions of every selectivity: `r < ?` (rows at random) and `c < ?` (the rows
nearest to one point). Queries lie at that point, opposite to it, or anywhere. Each condition is
searched in three ways: as planned, by comparing all rows that pass, and by probing without a
budget. A line tells the median times and what the planner lost to the better of both; the end,
what it lost in the median and in the worst of twenty, the least recall, and queries a second of
`Collection.search(near=…, where=…)`. Rows missing from an answer (fewer than min(k, matches)) count
as a fault. In stages the file is built once and kept, cells are measured until the seconds are over
and gathered in the file of results, where a further run goes on, and the table is of all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import common  # sets the number of threads before NumPy loads
import numpy as np

import m2mdb
from m2mdb.compute.loader import LOADER
from m2mdb.index import costs, hrm2
from m2mdb.index.effort import EXACT, Effort

SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.003, 0.001, 0.0001)
STRATEGIES = ("planned", "scan", "probe")
Array = np.ndarray[Any, Any]


@contextmanager
def forced(strategy: str) -> Iterator[None]:
    """Searches that are planned meanwhile take this strategy."""
    usual = hrm2.budgeted
    if strategy == "scan":
        hrm2.budgeted = lambda stop, size, work, share: None
    elif strategy == "probe":
        hrm2.budgeted = lambda stop, size, work, share: stop._replace(most=costs.NO_LIMIT)
    try:
        yield
    finally:
        hrm2.budgeted = usual


def build(data: common.Data, path: str) -> None:
    """The collection, with lists."""
    rows = data.vectors / np.linalg.norm(data.vectors, axis=1, keepdims=True)
    count = len(rows)
    connection = m2mdb.connect(path, autocommit=True)
    connection.execute(
        f"CREATE COLLECTION notes (id INTEGER PRIMARY KEY, r INTEGER, c INTEGER, topic TEXT, "
        f"e VECTOR({rows.shape[1]}) METRIC cosine)"
    )
    ranks = np.empty(count, np.int64)
    ranks[np.argsort(-(rows @ point(rows)), kind="stable")] = np.arange(count)
    chosen = np.random.default_rng(1).permutation(count)
    topics = [f"topic {0 if r < count // 10 else r % 40 + 1}" for r in chosen.tolist()]
    connection.collection("notes").add(
        {"id": np.arange(count), "r": chosen, "c": ranks, "topic": topics, "e": rows}
    )
    connection.execute("OPTIMIZE")
    connection.close()


def point(rows: Array) -> Array:
    """What rows are correlated with: one of them."""
    found: Array = rows[len(rows) // 3]
    return found


def groups(data: common.Data, count: int) -> dict[str, tuple[str, Array]]:
    """The condition and the queries of each kind."""
    rows = data.vectors / np.linalg.norm(data.vectors, axis=1, keepdims=True)
    queries = data.queries / np.linalg.norm(data.queries, axis=1, keepdims=True)
    order = np.argsort(-(queries @ point(rows)), kind="stable")
    return {
        "random": ("r < ?", queries[:count]),
        "anywhere": ("c < ?", queries[:count]),
        "at": ("c < ?", queries[order[:count]]),
        "opposite": ("c < ?", queries[order[-count:]]),
    }


class Cell(NamedTuple):
    """What one condition took: microseconds of each strategy; recall, and rows that are missing."""

    times: dict[str, float]
    recall: float
    missing: int


def measure(
    connections: dict[str, m2mdb.Connection], what: tuple[str, Array, int, int], rounds: int
) -> Cell:
    """Search one condition in each way, turn by turn."""
    where, queries, k, matches = what
    found: dict[str, list[list[int]]] = {}
    times: dict[str, list[float]] = {name: [] for name in STRATEGIES}
    for turn in range(rounds + 1):
        for name in STRATEGIES:
            with forced(name), connections[name].engine().reading() as view:
                started, answers = searched(connections[name], view, (where, queries, k, matches))
                if turn:
                    times[name].append(started)
                else:
                    found[name] = answers
    with connections["planned"].engine().reading() as view:
        exact = searched(connections["planned"], view, what, EXACT)[1]
    hits = [len(set(a) & set(b)) / max(1, len(b)) for a, b in zip(found["planned"], exact,
                                                                  strict=True)]  # fmt: skip
    wanted = min(k, matches)
    missing = sum(len(a) < wanted for each in found.values() for a in each)
    best = {name: 1e6 * min(each) / len(queries) for name, each in times.items()}
    return Cell(best, float(np.mean(hits)), missing)


def searched(
    connection: m2mdb.Connection, view: Any, what: tuple[str, Array, int, int],
    effort: Effort | None = None,
) -> tuple[float, list[list[int]]]:  # fmt: skip
    """Seconds of CPU for all queries, without what WHERE takes; and rowids."""
    from m2mdb.connection import language

    where, queries, k, matches = what
    collection = view.collection("notes")
    bound = language().condition(connection.conditions, view, "notes", where, (matches,))
    masks = [bound.mask(part) for part in collection.parts()]
    column = collection.schema.column("e")
    backend = view.database.kernels
    effort = effort or Effort()
    started = time.process_time()
    found = [
        collection.nearest(column, query, k, backend, masks, effort=effort) for query in queries
    ]
    took = time.process_time() - started
    return took, [each.rowids.tolist() for each in found]


def rates(connection: m2mdb.Connection, queries: Array, rows: int) -> None:
    """Queries per CPU second through the face."""
    notes = connection.collection("notes")
    asked = [("r < ?", (int(share * rows),)) for share in (0.1, 0.01, 0.001)]
    asked += [("topic = ?", ("topic 0",)), ("topic = ?", ("topic 3",))]
    for where, params in asked:
        best = 0.0
        for _ in range(3):
            started = time.process_time()
            for query in queries:
                notes.search(near=query, where=where, params=params, k=10, returning=[])
            best = max(best, len(queries) / (time.process_time() - started))
        count = notes.count(where, params)
        print(f"  WHERE {where:10} {params!s:14} {count:6} rows pass: {best:8,.0f} QPS")


def main() -> int:
    """Measure every condition, print a line for each, and what the planner lost."""
    parser = common.parser(__doc__ or "", 100_000, 2)
    parser.add_argument("--ks", default="1,10,100", type=lambda text: [*map(int, text.split(","))])
    parser.add_argument("--queries", type=int, default=24)
    parser.add_argument("--kinds", default="random,anywhere,at,opposite")
    parser.add_argument("--stage", default="all", choices=["all", "build", "measure", "table"])
    parser.add_argument("--results", default=None, help="JSON file of cells, in stages")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of measuring")
    options = parser.parse_args()
    cells: dict[str, Any] = {}
    if options.results and os.path.exists(options.results):
        with open(options.results, encoding="utf-8") as kept:
            cells = json.load(kept)
    if options.stage == "table":
        show(cells)
        return 0
    if not LOADER.wait():
        raise SystemExit(f"no compiled kernels: {LOADER.error!r}")
    data = common.Data(options.data, options.count)
    with common.workplace(options.folder if options.folder else None) as place:
        path = os.path.join(options.folder or place, f"filters-{data.name}-{options.count}.m2m")
        if not os.path.exists(path):
            build(data, path)
        if options.stage == "build":
            return 0
        run(data, path, options, cells)
    if options.stage == "all":
        show(cells)
    return 0


def run(
    data: common.Data, path: str, options: argparse.Namespace, cells: dict[str, Any]
) -> None:  # fmt: skip
    """Open the built file once for each strategy, and measure the cells that are not there yet."""
    started = time.monotonic()
    connections = {name: m2mdb.connect(path) for name in STRATEGIES}
    left = 0
    for kind, (where, queries) in groups(data, options.queries).items():
        if kind not in options.kinds.split(","):
            continue
        for k in options.ks:
            for share in SHARES:
                name = f"{kind:9} k {k:4} {100 * share:7g} %"
                if name in cells:
                    continue
                if time.monotonic() - started > options.seconds:
                    left += 1
                    continue
                matches = max(1, int(share * len(data.vectors)))
                what = (where, queries, k, matches)
                cells[name] = measure(connections, what, options.rounds)._asdict()
                if options.results:
                    with open(options.results, "w", encoding="utf-8") as kept:
                        json.dump(cells, kept)
                if options.stage == "all":
                    line(name, Cell(**cells[name]))
    if left:
        print(f"{left} cells are left")
    else:
        rates(connections["planned"], data.queries[:200], len(data.vectors))


def loss(cell: Cell) -> float:
    """How many times the better strategy's time the planner took."""
    return cell.times["planned"] / min(cell.times["scan"], cell.times["probe"])


def line(name: str, cell: Cell) -> None:
    """Tell one cell."""
    times = "  ".join(f"{way} {cell.times[way]:7.1f}" for way in STRATEGIES)
    print(f"  {name}  {times} us  {loss(cell):5.2f} x  recall {cell.recall:.3f}")
    sys.stdout.flush()


def show(found: dict[str, Any]) -> None:
    """What the planner lost in all cells."""
    cells = {name: Cell(**each) for name, each in found.items()}
    for name, cell in sorted(cells.items(), key=lambda item: -loss(item[1]))[:12]:
        line(name, cell)
    losses, recalls = [*map(loss, cells.values())], [each.recall for each in cells.values()]
    worst = statistics.quantiles(losses, n=20)[-1] if len(losses) > 1 else losses[0]
    missing = sum(each.missing for each in cells.values())
    print(f"planned beside the better, {len(cells)} cells: {statistics.median(losses):.2f} x in the"
          f" median, {worst:.2f} x in the worst of 20; recall {min(recalls):.3f} at least, "
          f"{np.mean(recalls):.3f} in the mean; {missing} answers with rows missing")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
