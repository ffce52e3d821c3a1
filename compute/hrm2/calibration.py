"""Calibration: how long a search has to probe for the recall that is asked.

Probing goes on while fewer lists were probed than

    factor * (the last list that changed the k best) + patience

so that a query whose neighbours lie together stops early and one between clusters goes on. How
patient it has to be depends on k, on the recall, on the share of the rows that pass a filter, and
on how hard the query is: the distance of its k-th best row after the first LEAST lists tells that
better than anything known before, and costs nothing. Queries far off the stored rows are hard and
get much patience, of which those among them then need none.

The table is measured when lists are built, on queries of several kinds:

    stored   a row, searched for among the others
    swapped  the centroid of a list with the residual of a row of another
    moved    a row with most of the difference of two others
    mixed    the mean of three rows of a list with more than half of such a difference
    halved   the mean of two rows
    noisy    a row and noise that spreads as all rows do
    free     that noise alone, around the mean of the rows, of several lengths
    known    queries that were asked of the collection; where there are enough of them, they take
             the place of all made-up ones

A range of hardness gets the smallest patience that reaches the recall in the mean of its queries;
then ranges get as much more as it takes for the mean of each group of queries, first the one that
the group loses most in. Where nothing reaches it (rows that their codes cannot tell apart), the
table says so, and a search compares every row.

A search is a prefix of every longer one (K5), so one long search of a query tells when any other
would have stopped, and with what (`tracing`).

Invariants
    C1  Patience ascends with recall and with hardness; between points of recall that of the next
        higher one is taken.
    C2  The table depends on lists, rows, queries and seed alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.lists import never
from m2mdb.compute.hrm2.patience import (
    EPSILON,
    FACTORS,
    FARTHEST,
    KS,
    LEAST,
    RECALLS,
    SHARES,
    TABLE_SHAPES,
    THINNING,
    UNREACHED,
    WORK_SHARES,
    Table,
    _between,
    spare,
    stop_for,
)
from m2mdb.compute.hrm2.reference import HARD
from m2mdb.compute.ranking import readable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Lists
    from m2mdb.compute.hrm2.reference import Stop
    from m2mdb.compute.hrm2.searcher import Searcher

    Floats = NDArray[np.float32]
    Wide = NDArray[np.float64]
    Tick = Callable[[], None]

LEVELS = np.unique(np.rint(1.1 ** np.arange(96)).astype(np.int64))  # of patience: 1 to 8,550
STORED_QUERIES = 144
GROUPS = STORED, BETWEEN, BEYOND, FREE, KNOWN = range(5)  # of queries
TURNS = (BETWEEN, BETWEEN, BETWEEN, BEYOND, BEYOND)  # swapped, moved, mixed, halved, noisy
MADE_QUERIES = 60 * len(TURNS)  # of these together
FREE_QUERIES = 84
LENGTHS = 0.7, 1.1  # of the noise of free queries, to the rows' spread: hard ones of each hardness
FILTERED_QUERIES = 150  # of each group, for shares below 1
WORK_QUERIES = 8  # of each group
LEAST_QUERIES = 96  # of each group, for the largest of KS: each has many neighbours
ENOUGH = 64  # known queries, to do without made-up ones
MARGIN = 0.003  # that a measured recall has to be above the one that is promised,
ERRORS = 0.7  # and standard errors of its mean
DOUBT = 2.0  # standard errors that it may be below it where no patience reaches it
HIGHEST = 0.993  # asked of measurements: few queries tell no more, and bounds lose some rows
MEMBERS = 64  # of a list, for its centroid
TICK_QUERIES = 32  # that are measured between two looks for an interrupt
CHUNK_ROWS = 8192
MIDDLE_ROWS = 4096
ROUNDING = np.float32(1e-6)  # of a sum of products, by the lengths of what is multiplied


Fitted = tuple["Floats", "Floats"]  # of one share and k: edges and patience


# ------------------------------------------------------------------------- queries


class Queries(NamedTuple):
    """Queries that measure.

    vectors  float32[n, d]
    own      int64[n]: the row that a query is, and that it must not find; -1: none
    groups   int64[n]: STORED, BETWEEN (swapped, moved, mixed), BEYOND (halved, noisy), FREE, KNOWN
    """

    vectors: Floats
    own: NDArray[np.int64]
    groups: NDArray[np.int64]

    def first(self, each: int) -> Queries:
        """The first ones of every group, so many of each."""
        return self.at(self.places(each))

    def places(self, each: int) -> NDArray[np.intp]:
        """Where the first ones of every group stand."""
        return np.concatenate([np.flatnonzero(self.groups == g)[:each] for g in GROUPS])

    def at(self, places: NDArray[np.intp]) -> Queries:
        """Those that stand at some places."""
        return Queries(self.vectors[places], self.own[places], self.groups[places])


def queries_for(
    searcher: Searcher, rows: Floats, seed: int, known: Floats | None = None
) -> Queries:
    """Stored rows, and known queries or, where they are too few, made-up ones too."""
    rng = np.random.default_rng(seed)
    own = rng.permutation(len(rows))[:STORED_QUERIES]
    vectors, groups = [rows[own]], [np.zeros(len(own), np.int64)]
    count = 0 if known is None else len(known)
    if count < ENOUGH:
        made = _ready(made_queries(searcher, rows, rng), searcher.metric)
        vectors.append(made)
        groups += [np.resize(TURNS, MADE_QUERIES), np.full(FREE_QUERIES, FREE)]
    if known is not None and count:
        vectors.append(known)
        groups.append(np.full(count, KNOWN))
    every = np.ascontiguousarray(np.concatenate(vectors), np.float32)
    of_none = np.full(len(every) - len(own), -1)
    return Queries(every, np.concatenate((own, of_none)), np.concatenate(groups))


def made_queries(searcher: Searcher, rows: Floats, rng: np.random.Generator) -> Floats:
    """Queries off the distribution of the rows, of unlike difficulty.

    Kinds take TURNS; then come free ones.
    """
    count = -(-MADE_QUERIES // len(TURNS))

    def some() -> Floats:
        return rows[rng.integers(0, len(rows), count)]

    members = _Members(searcher.lists, rows)
    owners = rng.integers(0, len(searcher.lists.ordinals), (3, count))
    swapped = np.stack(
        [
            members.mean(at) + members.one(of, rng) - members.mean(of)
            for at, of in zip(*owners[:2].tolist(), strict=True)
        ]
    )
    moved = some() + np.float32(0.9) * (some() - some())
    mixed = np.stack(
        [np.mean([members.one(of, rng) for _ in range(3)], axis=0) for of in owners[2].tolist()]
    )
    mixed += np.float32(0.6) * (some() - some())
    halved = (some() + some()) / 2
    sample = rows[rng.integers(0, len(rows), min(len(rows), CHUNK_ROWS))]
    spread, middle = sample.std(axis=0), sample.mean(axis=0)
    noisy = some() + rng.standard_normal((count, rows.shape[1])) * spread
    every = np.stack((swapped, moved, mixed, halved, noisy), axis=1).reshape(-1, rows.shape[1])
    noise = rng.standard_normal((FREE_QUERIES, rows.shape[1])) * spread
    free = middle + rng.uniform(*LENGTHS, (FREE_QUERIES, 1)) * noise
    out: Floats = np.concatenate((every[:MADE_QUERIES], free)).astype(np.float32)
    return out


class _Members:
    """Rows of the lists in which rows stand."""

    def __init__(self, lists: Lists, rows: Floats) -> None:
        self._lists = lists
        self._rows = rows
        self._list_of = np.empty(len(lists.ordinals), np.int64)
        for each, (start, end) in enumerate(zip(lists.starts[:-1], lists.starts[1:], strict=True)):
            block = lists.positions[start:end]
            self._list_of[block[block >= 0]] = each

    def _ordinals(self, position: int) -> NDArray[np.int32]:
        """Of the list in which a position stands."""
        each = self._list_of[position]
        block = self._lists.positions[self._lists.starts[each] : self._lists.starts[each + 1]]
        out: NDArray[np.int32] = self._lists.ordinals[block[block >= 0]]
        return out

    def mean(self, position: int) -> Floats:
        """The centroid of its list, nearly."""
        out: Floats = self._rows[self._ordinals(position)[:MEMBERS]].mean(axis=0)
        return out

    def one(self, position: int, rng: np.random.Generator) -> Floats:
        """A row of its list."""
        out: Floats = self._rows[rng.choice(self._ordinals(position))]
        return out


def _ready(queries: Floats, metric: str) -> Floats:
    if metric == "cosine":
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        queries = queries / np.maximum(lengths, np.float32(1e-20))
    return np.ascontiguousarray(queries, np.float32)


# ------------------------------------------------------------------------- measuring


def exact(
    rows: Floats, queries: Floats, metric: str, k: int, tick: Tick = never
) -> NDArray[np.float32]:
    """The k best keys (see `_keys`) of each query, [len(queries), k] in descending order.

    By BLAS in float32, from a point amid the rows, which leaves more digits to what lies far from
    zero; less what roundings may come to.
    """
    k = min(k, len(rows))
    is_near = metric != "ip"
    middle = rows[:: max(1, len(rows) // MIDDLE_ROWS)].mean(axis=0) if is_near else np.float32(0)
    queries = queries - middle
    best = np.empty((len(queries), 0), np.float32)
    longest = np.float32(0)
    for start in range(0, len(rows), CHUNK_ROWS):
        tick()
        some = rows[start : start + CHUNK_ROWS] - middle
        squares = np.einsum("ij,ij->i", some, some)
        longest = max(longest, squares.max())
        keys = -(queries @ some.T)
        if is_near:
            keys *= 2
            keys += squares
        if keys.shape[1] > k:
            keys.partition(k - 1, axis=1)
        best = np.concatenate((best, keys[:, :k]), axis=1)
        if best.shape[1] > k:
            best.partition(k - 1, axis=1)
            best = best[:, :k]
    own = np.einsum("ij,ij->i", queries, queries)
    if is_near:
        best += own[:, None]
    out: NDArray[np.float32] = -np.sort(best, axis=1)
    out -= ROUNDING * (np.sqrt(own) * np.sqrt(longest))[:, None]  # their product may be infinite
    return out


def calibrate(
    searcher: Searcher,
    rows: Floats,
    seed: int,
    queries: Floats | None = None,
    tick: Tick = never,
) -> Table:
    """The table for lists over `rows`, float32[n, d], numbered as the ordinals.

    queries  real ones, float32[m, d], of length 1 under cosine; None where none are known
    """
    every = queries_for(searcher, rows, seed, queries)
    passing = np.random.default_rng(seed).random(len(rows)) < SHARES[1]
    found = []
    for mask, count in ((None, len(every.own)), (passing, FILTERED_QUERIES)):
        asked = every.first(count)
        best = _best(searcher, rows, asked, mask, tick)
        for k in KS:
            tick()
            places = asked.places(LEAST_QUERIES if k == KS[-1] else len(asked.own))
            measuring = _Measuring(searcher, rows, mask, k)
            found.append(_measured(measuring, asked.at(places), best, places, tick))
    table = _table_of(found)
    fewer = passing & (np.random.default_rng(seed + 1).random(len(rows)) < SHARES[1])
    merged = np.where(every.groups == FREE, BEYOND, every.groups)  # few searches are so hard
    order = np.random.default_rng(seed).permutation(len(merged))
    usual = Queries(every.vectors[order], every.own[order], merged[order])
    for share, mask in enumerate((None, passing, fewer)):
        tick()
        _measure_work(searcher, table, usual.first(WORK_QUERIES).vectors, (share, mask))
    return table


def _measure_work(
    searcher: Searcher,
    table: Table,
    queries: Floats,
    passing: tuple[int, NDArray[np.bool_] | None],
) -> None:
    """Fill in what searches do for their recalls, where a `share` of rows passes a mask."""
    from m2mdb.compute.hrm2 import tracing

    share, mask = passing
    chosen = np.empty(0, np.uint8) if mask is None else mask.astype(np.uint8)
    for row, k in enumerate(KS):
        stops = [stop_for(table, k, recall, WORK_SHARES[share]) for recall in RECALLS]
        there = [(column, stop) for column, stop in enumerate(stops) if stop is not None]
        if not there:
            continue
        hardness = np.array([stop.hardness for _, stop in there], np.float32)
        out = np.zeros((len(there), 3))
        scratch = searcher.tracing_scratch(k + spare(k))
        tracing.trace_works(
            scratch.plan, chosen, readable(queries), (k, LEAST), _between(k, FACTORS), EPSILON,
            readable(hardness), out,
        )  # fmt: skip
        for (column, _), done in zip(there, out, strict=True):
            table.work[share, row, column] = np.maximum(1, done / len(queries))


def _table_of(found: list[Fitted | None]) -> Table:
    """What was measured, and where nothing was, what follows from all rows; else UNREACHED."""
    edges, patience, work = (
        np.full(shape, filling, np.float32)
        for shape, filling in zip(TABLE_SHAPES, (FARTHEST, UNREACHED, UNREACHED), strict=True)
    )
    for number, each in enumerate(found):
        share, k = divmod(number, len(KS))
        if each is not None:
            edges[share, k], patience[share, k] = each
        elif share:
            thinned = patience[0, k] * np.float32(SHARES[share] ** -THINNING)
            patience[share, k] = np.minimum(thinned, UNREACHED)
    return Table(edges, patience, work)


def _best(
    searcher: Searcher, rows: Floats, asked: Queries, mask: NDArray[np.bool_] | None, tick: Tick
) -> dict[int, Floats]:
    """The k-th best key of each query for each of KS, among the rows that pass but its own.

    Without those k for which there are too few rows.
    """
    metric = searcher.metric
    among = rows if mask is None else rows[mask]
    best = exact(among, asked.vectors, metric, KS[-1] + 1, tick)
    owns = np.full(len(best), -np.inf, np.float32)
    for at, own in enumerate(asked.own.tolist()):
        if own >= 0 and (mask is None or mask[own]):
            owns[at] = _keys(rows[own : own + 1], asked.vectors[at], metric)[0]
    out = {}
    for k in KS:
        if k < best.shape[1]:
            edges = best[:, k - 1]
            found = owns >= edges - 1e-5 * np.abs(edges)
            out[k] = np.where(found, best[:, k], edges)
    return out


class _Measuring:
    """Searches for k rows among those of a mask."""

    def __init__(
        self, searcher: Searcher, rows: Floats, mask: NDArray[np.bool_] | None, k: int
    ) -> None:
        self.searcher = searcher
        self.rows = readable(rows)
        self.mask = np.ones(len(rows), np.uint8) if mask is None else mask.astype(np.uint8)
        self.k = k
        self.factor = _between(k, FACTORS)

    def measured(
        self, queries: Floats, own: NDArray[np.int64], edges: Floats, tick: Tick = never
    ) -> tuple[Wide, Wide]:
        """Hardness of each query; and its recall at each of LEVELS, [len(queries), LEVELS].

        own    the row that a query is, and that it must not find; -1: none
        edges  the k-th best key of each
        """
        from m2mdb.compute.hrm2 import tracing

        scratch = self.searcher.tracing_scratch(self.k + spare(self.k))
        marks = np.zeros((2, len(self.searcher.lists.center_scales) + 1), np.int32)
        recalls = np.zeros((len(queries), len(LEVELS)))
        hardness = np.zeros(len(queries))
        metric = self.searcher.metric
        for start in range(0, len(queries), TICK_QUERIES):
            tick()
            some = slice(start, start + TICK_QUERIES)
            tracing.trace_recalls(
                scratch.plan, self.mask, self.rows, readable(queries[some]), readable(own[some]),
                readable(edges[some]), (self.k, LEAST), self.factor, EPSILON, metric != "ip",
                readable(LEVELS), marks, recalls[some], hardness[some],
            )  # fmt: skip
        return hardness, recalls


def _measured(
    measuring: _Measuring,
    asked: Queries,
    best: dict[int, Floats],
    places: NDArray[np.intp],
    tick: Tick,
) -> Fitted | None:
    """What the table has for this share and k; None where rows are too few.

    best    k-th best keys, of which those at `places` are of the queries
    """
    if measuring.k not in best:
        return None
    edges = best[measuring.k][places]
    return fitted(*measuring.measured(asked.vectors, asked.own, edges, tick), asked.groups)


def fitted(hardness: Wide, recalls: Wide, groups: NDArray[np.int64]) -> Fitted:
    """Edges that part queries evenly by hardness, and the patience for [RECALLS, HARD].

    hardness  of n queries
    recalls   [n, LEVELS]
    groups    [n], see `Queries`
    """
    ordered = np.sort(hardness)
    edges = ordered[np.arange(1, HARD) * len(ordered) // HARD]
    ranges = np.searchsorted(edges, hardness)
    patience = np.empty((len(RECALLS), HARD), np.float32)
    for column, recall in enumerate(RECALLS):
        wanted = min(recall + MARGIN, HIGHEST)
        at = np.zeros(HARD, np.int64)
        for each in range(HARD):
            own = recalls[ranges == each]
            if len(own):
                curve = own.mean(axis=0)
                at[each] = (curve >= min(wanted, curve.max())).argmax()
        at = np.maximum.accumulate(at)
        at = _raised(recalls, ranges, groups, at, wanted)
        patience[column] = LEVELS[at]
        reached = recalls[np.arange(len(recalls)), at[ranges]]
        if _failing(reached, groups, recall, -DOUBT) is not None:
            patience[column] = UNREACHED
    np.maximum.accumulate(patience, axis=0, out=patience)
    return np.minimum(edges, FARTHEST).astype(np.float32), patience


def _raised(
    recalls: Wide,
    ranges: NDArray[np.intp],
    groups: NDArray[np.int64],
    at: NDArray[np.int64],
    wanted: float,
) -> NDArray[np.int64]:
    """Levels by hardness, raised until each group reaches a recall, as far as that is any use."""
    while True:
        reached = recalls[np.arange(len(recalls)), at[ranges]]
        group = _failing(reached, groups, wanted, ERRORS)
        if group is None:
            return at
        own = groups == group
        lost = np.bincount(ranges[own], (recalls[:, -1] - reached)[own], HARD)
        worst = int(lost.argmax())
        if lost[worst] <= 0:
            return at
        at = at.copy()
        at[worst] += 1
        at = np.maximum.accumulate(at)


def _failing(reached: Wide, groups: NDArray[np.int64], wanted: float, errors: float) -> int | None:
    """A group whose mean is not so many standard errors above a recall, or None."""
    for group in np.unique(groups).tolist():
        own = reached[groups == group]
        if own.mean() < min(wanted + errors * own.std() / math.sqrt(len(own)), HIGHEST):
            return int(group)
    return None


def _keys(rows: Floats, query: Floats, metric: str) -> Floats:
    """What is sought of rows, the more the better: -|x - q|^2, or <x, q>."""
    if metric == "ip":
        products: Floats = rows @ query
        return products
    gaps = rows - query
    squares: Floats = np.einsum("ij,ij->i", gaps, gaps)
    return -squares


def _tolerant(edge: float) -> float:
    """The k-th best key, less what float32 sums differ by."""
    return float(edge) - 1e-5 * abs(float(edge))


def measure(
    searcher: Searcher,
    rows: Floats,
    queries: Floats,
    edges: Floats,
    stop: Stop,
    mask: NDArray[np.bool_] | None = None,
) -> float:
    """Recall@k over queries, among the rows of a mask; rows that tie with the k-th best count."""
    hits = 0
    wanted = stop.k + spare(stop.k)
    for query, edge in zip(queries, edges, strict=True):
        found = searcher.search(query, stop, wanted=wanted, epsilon=EPSILON, mask=mask)
        keys = _keys(rows[found.ordinals], query, searcher.metric)
        hits += min(stop.k, int((keys >= _tolerant(edge)).sum()))
    return hits / (stop.k * len(queries))
