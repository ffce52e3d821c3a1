"""Threads: queries a second of one thread and of two, each with a connection of its own.

    python benchmarks/threads.py --data FOLDER [--count N] [--threads 1,2] [--keep FILE]

Compiled searches run without the interpreter's lock, the Python around them with it. So a batch
scales with the processor's cores, and single searches as far as they are not Python. Three ways to
search are timed by the clock, turn by turn, with every number of threads:

    batch    `Collection.search_batch` of so many queries a call
    single   `Collection.search`, one query a call
    bare     the compiled search alone, of one query a call: what single searches could reach

What is shown are medians of the turns, and how many times the rate of one thread is reached. As
many processes do the same: they share the machine's memory and caches and no interpreter's lock, so
what processes reach and threads do not is the lock's, and what processes lack too is the memory's.
Two threads need two cores to themselves: on a busy machine the figures tell of its load.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import common  # sets the number of threads before NumPy loads
import numpy as np

import m2mdb
from m2mdb.compute.loader import LOADER

Array = np.ndarray[Any, Any]
Work = Callable[[], int]  # searches some queries; how many


def made(path: str, rows: Array) -> None:
    """A file of vectors with lists."""
    connection = m2mdb.connect(path)
    connection.execute(
        f"CREATE COLLECTION notes (id INTEGER PRIMARY KEY, e VECTOR({rows.shape[1]}) METRIC cosine)"
    )
    connection.collection("notes").add({"id": np.arange(len(rows)), "e": rows})
    connection.commit()
    connection.execute("OPTIMIZE notes")
    connection.commit()
    connection.close()


def ways(path: str, queries: Array, options: argparse.Namespace) -> dict[str, Work]:
    """The ways to search, through a connection of their own."""
    connection = m2mdb.connect(path, check_same_thread=False)
    notes = connection.collection("notes")
    recall, k = options.recall, options.k
    batches = [queries[at : at + options.batch] for at in range(0, len(queries), options.batch)]
    turn = iter(range(1 << 60))

    def batch() -> int:
        some = batches[next(turn) % len(batches)]
        notes.search_batch(some, k=k, recall=recall)
        return len(some)

    def single() -> int:
        first = 32 * next(turn) % (len(queries) - 32)
        for query in queries[first : first + 32]:
            notes.search(near=query, k=k, recall=recall, returning=[])
        return 32

    found: dict[str, Work] = {"batch": batch, "single": single}
    lists = connection.read(lambda view: _lists_of(view, "notes"))
    if lists is not None:
        from m2mdb.index.effort import Effort
        from m2mdb.index.hrm2 import searched_query

        stop = lists.stop(k, lists.rows, Effort(recall=recall))
        ready = [searched_query(query, "cosine") for query in queries]

        def bare() -> int:
            first = 32 * next(turn) % (len(ready) - 32)
            for query in ready[first : first + 32]:
                lists.give_back(lists.run(query, stop, None))
            return 32

        if stop is not None:
            found["bare"] = bare
    for work in found.values():
        work()
    return found


def _lists_of(view: Any, name: str) -> Any:
    """The lists of the largest segment."""
    collection = view.collection(name)
    column = collection.schema.columns[collection.schema.vector_columns[0]]
    segments = [segment for segment in collection.segments if segment.lists(column) is not None]
    return max(segments, key=lambda segment: segment.rows).lists(column) if segments else None


def rate(works: list[Work], seconds: float) -> float:
    """Queries a second by the clock, each work in a thread of its own, all at once."""
    done = [0] * len(works)
    begin = threading.Barrier(len(works) + 1)
    end = [float("inf")]

    def run(number: int) -> None:
        begin.wait()
        while time.perf_counter() < end[0]:
            done[number] += works[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for each in threads:
        each.start()
    started = time.perf_counter()
    end[0] = started + seconds
    begin.wait()
    for each in threads:
        each.join()
    return sum(done) / (time.perf_counter() - started)


def _process(name: str, path: str, options: argparse.Namespace, begin: Any, done: Any) -> None:
    """Search in turns, each begun together with the other processes; tells the rate of each."""
    assert LOADER.wait()
    work = ways(path, queries_of(options), options)[name]
    for _ in range(options.rounds):
        begin.wait()
        done.put(rate([work], options.seconds))


def processes_rate(name: str, count: int, path: str, options: argparse.Namespace) -> float:
    """Queries a second of so many processes together, the median of the turns."""
    context = multiprocessing.get_context("spawn")
    begin, done = context.Barrier(count), context.Queue()
    how = (name, path, options, begin, done)
    children = [context.Process(target=_process, args=how) for _ in range(count)]
    for child in children:
        child.start()
    turns = [sum(done.get() for _ in range(count)) for _ in range(options.rounds)]
    for child in children:
        child.join()
    return statistics.median(turns)


def queries_of(options: argparse.Namespace) -> Array:
    """The queries of the data."""
    return np.ascontiguousarray(common.Data(options.data, options.count).queries, np.float32)


def main() -> int:
    """Time each way with each number of threads."""
    parser = common.parser(__doc__ or "", 100_000, 5)
    parser.add_argument("--threads", default=[1, 2], type=lambda text: [*map(int, text.split(","))])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--batch", type=int, default=256, help="queries of a call of search_batch")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--keep", help="a file that is made if it is not there, and kept")
    options = parser.parse_args()
    if not LOADER.wait():
        raise SystemExit(f"no compiled kernels: {LOADER.error!r}")
    with common.workplace(options.folder) as place:
        path = options.keep or os.path.join(place, "threads.m2m")
        data = common.Data(options.data, options.count)
        if not os.path.exists(path):
            made(path, data.vectors)
        queries = queries_of(options)
        each_thread = [ways(path, queries, options) for _ in range(max(options.threads))]
        load = " ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"{data.name}, {options.count:,} rows, k = {options.k}, recall {options.recall}; "
              f"load average {load}")  # fmt: skip
        for name in each_thread[0]:
            rates: dict[int, list[float]] = {count: [] for count in options.threads}
            for _ in range(options.rounds):
                for count in options.threads:
                    works = [works[name] for works in each_thread[:count]]
                    rates[count].append(rate(works, options.seconds))
            one = statistics.median(rates[options.threads[0]])
            cells = [
                f"{count} thread{'s' if count > 1 else ' '} {statistics.median(found):9,.0f}/s "
                f"({statistics.median(found) / one:.2f} x)"
                for count, found in rates.items()
            ]
            most = max(options.threads)
            together = processes_rate(name, most, path, options)
            cells.append(f"{most} processes {together:9,.0f}/s ({together / one:.2f} x)")
            print(f"  {name:8}" + "   ".join(cells), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
