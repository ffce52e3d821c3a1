"""Stores side by side in one process, turn by turn: time a query, recall, and ratios to the first.

    python benchmarks/turns.py --data FOLDER --keep PLACE --stores "m2mdb recall=0.95, svs, hnswlib"
    python benchmarks/turns.py ... --set clusters --dimension 640 --k 64 --queries 500 --stores
                                   "m2mdb recall=0.95, m2mdb probes=5, faiss IVF256 nprobe=1"
    python benchmarks/turns.py ... --filter 100 --stores "m2mdb recall=0.95, numpy"

`ann.py` has a process for each store, and so compares moments of the machine too. Here all stores
(`stores.py`; built as there where PLACE has none) are open at once, and what is asked, a store by
one effort, goes through the same queries in slices, one after the other, in an order that rotates.
Without an effort a store takes the first of its sweep that finds `--recall`, or its last one.

A turn's ratio is a store's CPU time over that of what is named first: 1.5 takes half as long again.
Shown are medians of the turns and of their ratios, with the least and the greatest ratio. A store
that is slow sees the first queries of a slice only (`--seconds`).

With `--filter SHARE` one row in 10 or 100 passes, and there are two tables:

    asked again   one condition for all queries: NumPy knows the numbers of the rows that pass
    asked once    no condition comes twice: `ofSHARE = ? AND id >= ?`; NumPy compares two int64
                  columns, gathers the rows that pass and multiplies them; others are as in ONCE
"""

from __future__ import annotations

import abc
import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import ann
import numpy as np
from stores import LABELS, STORES, Array, Effort, Store, common, label_of

LEAST = 5  # queries of a slice that even a slow store sees
Search = Callable[[Array], Any]


# ------------------------------------------------------------------------- ways to ask


class Way(abc.ABC):
    """What is asked of every store: rows, queries and how many of the best."""

    title = ""

    def __init__(self, rows: Array, queries: Array, k: int) -> None:
        self.rows, self.queries, self.k = rows, queries, k

    @abc.abstractmethod
    def serves(self, store: Store) -> bool:
        """Whether a store has such a call."""

    @abc.abstractmethod
    def search(self, store: Store) -> Search:
        """A call from one query to row numbers."""

    @abc.abstractmethod
    def recall(self, store: Store) -> float:
        """Of all queries."""


class Plain(Way):
    """Among all rows, or those of one label, always the same."""

    def __init__(self, rows: Array, queries: Array, k: int, share: int | None = None) -> None:
        super().__init__(rows, queries, k)
        self.share = share
        self.passing = None if share is None else label_of(share, len(rows)) == 0
        self.edges = ann.edges_of(rows if share is None else rows[self.passing], queries, k)
        self.title = "no filter" if share is None else f"1 row in {share} passes, asked again"

    def serves(self, store: Store) -> bool:
        return self.share is None or store.has_filter

    def search(self, store: Store) -> Search:
        if self.share is None:
            return partial(store.search, k=self.k)
        return partial(store.filtered, k=self.k, share=self.share)

    def recall(self, store: Store) -> float:
        search = self.search(store)
        found = [search(query) for query in self.queries]
        return ann.recall(self.rows, self.queries, self.edges, found, self.k, self.passing)


class Once(Way):
    """Among the rows of a condition that no other search has."""

    def __init__(self, rows: Array, queries: Array, k: int, share: int) -> None:
        super().__init__(rows, queries, k)
        self.share = share
        self.title = f"1 row in {share} passes, asked once"
        self.labels, self.ids = label_of(share, len(rows)), np.arange(len(rows))
        self.numbers = itertools.count()

    def serves(self, store: Store) -> bool:
        return store.name in ONCE

    def search(self, store: Store) -> Search:
        return lambda query: self._search(store, query, next(self.numbers))

    def recall(self, store: Store) -> float:
        each = []
        for query in self.queries:
            number = next(self.numbers)
            found = self._search(store, query, number)
            passing = (self.labels == number % self.share) & (self.ids >= number // self.share)
            edge = ann.edges_of(self.rows[passing], query[None], self.k)
            each.append(ann.recall(self.rows, query[None], edge, [found], self.k, passing))
        return statistics.fmean(each)

    def _search(self, store: Store, query: Array, number: int) -> Any:
        return ONCE[store.name](self, store, query, number % self.share, number // self.share)

    def m2mdb(self, store: Any, query: Array, label: int, first: int) -> Any:
        """By the public face."""
        return store.notes.search(
            near=query,
            k=self.k,
            where=f"of{self.share} = ? AND id >= ?",
            params=(label, first),
            returning=[],
            **store.effort,
        ).ids

    def numpy(self, store: Any, query: Array, label: int, first: int) -> Array:
        """The same rows, compared in full."""
        passing = np.flatnonzero((self.labels == label) & (self.ids >= first))
        keys = store.rows[passing] @ query
        return passing[np.argpartition(keys, -self.k)[-self.k :]]

    def sqlite_vec(self, store: Any, query: Array, label: int, first: int) -> Any:
        """Its columns beside the vector, and its key."""
        return store.search(query, self.k, f"and of{self.share} = {label} and id >= {first}")

    def lancedb(self, store: Any, query: Array, label: int, first: int) -> Any:
        """A bitmap on the label; the filter goes first."""
        asked = store.query(query, self.k)
        asked = asked.where(f"of{self.share} = {label} and id >= {first}", prefilter=True)
        return asked.to_arrow()["id"].to_numpy()


ONCE: dict[str, Callable[[Once, Any, Array, int, int], Any]] = {
    "m2mdb": Once.m2mdb,
    "numpy": Once.numpy,
    "sqlite-vec": Once.sqlite_vec,
    "lancedb": Once.lancedb,
}


# ------------------------------------------------------------------------- what is asked


class Asked(NamedTuple):
    """A store by one effort, empty where it is to be found."""

    name: str
    store: Store
    effort: Effort


def asked_of(text: str) -> Asked:
    """`STORE [EFFORT=NUMBER]...`; SystemExit where there is none of that name."""
    words = text.split()
    name = " ".join(word for word in words if "=" not in word)
    if name not in STORES:
        raise SystemExit(f"no store {name!r}: there are {', '.join(STORES)}")
    effort: Effort = {}
    for key, _, value in (word.partition("=") for word in words if "=" in word):
        known = sorted({key for each in STORES[name].efforts for key in each})
        if key not in known:
            raise SystemExit(f"{name} has no effort {key!r}: there are {known}")
        effort[key] = float(value) if "." in value else int(value)
    return Asked(" ".join(words), STORES[name], effort)


def open_stores(asked: list[Asked], options: argparse.Namespace, keep: str) -> None:
    """Open each store once, built where it is not kept."""
    for store in {each.store.name: each.store for each in asked}.values():
        folder = ann.kept(store.name, options, keep)
        built = ann.build_missing(store.name, options, folder)
        if "absent" in built:
            raise SystemExit(f"{store.name}: {built['absent']}")
        store.open(str(folder / "store"))
    ann.wait_for_kernels()


def with_effort(each: Asked, way: Way, wanted: float) -> Asked:
    """With the first effort of the store's sweep that finds so much, where none was named."""
    if each.effort:
        return each
    effort: Effort = {}
    for effort in each.store.efforts:
        each.store.use(effort)
        if way.recall(each.store) >= wanted:
            break
    told = [f"{key}={value}" for key, value in effort.items()]
    return each._replace(name=" ".join([each.name, *told]), effort=effort)


# ------------------------------------------------------------------------- the run


def run(asked: list[Asked], way: Way, options: argparse.Namespace) -> None:
    """Ask in turns, and show the table."""
    for each in asked:
        if not way.serves(each.store):
            print(f"{each.name}: no call for this: {way.title}")
    asked = [with_effort(each, way, options.recall) for each in asked if way.serves(each.store)]
    recalls, most = [], []
    for each in asked:
        each.store.use(each.effort)
        started = time.perf_counter()
        recalls.append(way.recall(each.store))
        spent = time.perf_counter() - started
        most.append(max(LEAST, int(options.seconds * len(way.queries) / spent)))
    turns = [one_turn(asked, way, most, options.slice, turn) for turn in range(options.rounds)]
    table = common.Table(f"{way.title}: CPU time over that of {asked[0].name}")
    for each, recall, times in zip(asked, recalls, zip(*turns, strict=True), strict=True):
        middle = statistics.median(times)
        text = f"{middle * 1e6:9,.1f} us {1 / middle:9,.0f}/s  recall {recall:.4f}"
        for own, first in zip(times, (turn[0] for turn in turns), strict=True):
            table.add(each.name, own / first, text)
    table.show()


def one_turn(asked: list[Asked], way: Way, most: list[int], length: int, turn: int) -> list[float]:
    """CPU seconds a query of each, all slices together."""
    spent, seen = [0.0] * len(asked), [0] * len(asked)
    for number, start in enumerate(range(0, len(way.queries), length)):
        part = way.queries[start : start + length]
        for step in range(len(asked)):
            at = (turn + number + step) % len(asked)
            asked[at].store.use(asked[at].effort)
            search = way.search(asked[at].store)
            search(part[-1])  # what a new effort, or a while of rest, costs first is not asked
            some = part[: most[at]]
            started = time.process_time()
            for query in some:
                search(query)
            spent[at] += time.process_time() - started
            seen[at] += len(some)
    return [seconds / queries for seconds, queries in zip(spent, seen, strict=True)]


def main() -> int:
    """Open the stores, and show a table for each way to ask."""
    given = ann.parser(__doc__ or "", 11)
    given.add_argument("--stores", default="m2mdb recall=0.95, svs, hnswlib")
    given.add_argument("--recall", type=float, default=0.95, help="where no effort is named")
    given.add_argument("--filter", type=int, choices=LABELS, help="one row in so many passes")
    given.add_argument("--slice", type=int, default=100, help="queries between two stores")
    given.add_argument("--seconds", type=float, default=0.2, help="of a slice of a slow store")
    options = given.parse_args()
    asked = [asked_of(text) for text in options.stores.split(",")]
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        open_stores(asked, options, options.keep or scratch)
        rows, queries = ann.rows_and_queries(options)
        print(f"{options.set}, {len(rows):,} x {rows.shape[1]}, k = {options.k}, {len(queries)} "
              f"queries; medians of {options.rounds} turns; load average {os.getloadavg()[0]:.1f}"
              )  # fmt: skip
        run(asked, Plain(rows, queries, options.k, options.filter), options)
        if options.filter is not None:
            run(asked, Once(rows, queries, options.k, options.filter), options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
