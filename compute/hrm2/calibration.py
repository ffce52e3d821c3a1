"""Calibration: how long a search has to probe for the recall that is asked.

Probing goes on while fewer lists were probed than

    factor * (the last list that changed the k best) + patience

so that a query whose neighbours lie together stops early and one between clusters goes on. Where
that saves nothing, the number of lists is known from the start (`rules`). How
patient it has to be depends on k, on the recall, on the share of the rows that pass a filter, and
on how hard the query is: the distance of its k-th best row after the first lists (LEAST, or more
where these do not hold k rows) tells that better than anything known before, and costs nothing.
Queries far off the stored rows are hard and get much patience, of which those among them then need
none.

The table is measured when lists are built, on queries of several kinds (`asking`); where there are
enough that were asked of the collection, these take the place of all made-up ones.

A range of hardness gets the smallest patience that reaches the recall in the mean of its queries;
then ranges get as much more as it takes for the mean of each group of queries, first the one that
the group loses most in (`fitting`). Where a group has too few queries to tell, further ones come.

How much a bound takes off its estimate, epsilon, is chosen for each recall: with that of lower ones
bounds leave out more than a high recall may lose where very many rows are nearly as near as the
nearest, in large sets above all. Where nothing reaches a recall (rows that their codes cannot tell
apart), the table says so, and a search compares every row.

A search is a prefix of every longer one (K5), so one long search of a query tells when any other
would have stopped, and with what (`tracing`).

Invariants
    C1  Patience ascends with hardness and with recall, among those of the same rule; between points
        of recall that of the next higher one is taken.
    C2  The table depends on lists, rows, queries and seed alone.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.asking import (
    BETWEEN,
    FREE,
    HALVED,
    KNOWN,
    LIKELY,
    MADE,
    NOISY,
    STORED,
    Queries,
    given,
    made,
    of_rows,
    ready,
)
from m2mdb.compute.hrm2.fitting import (
    LEVELS,
    Traced,
    finds_more,
    fitted,
    hardness_edges,
    is_cut,
    lists_for,
    too_few,
)
from m2mdb.compute.hrm2.lists import never
from m2mdb.compute.hrm2.patience import (
    EPSILONS,
    FACTORS,
    FEW_LISTS,
    KS,
    LEAST,
    RECALLS,
    SHARES,
    THINNING,
    UNREACHED,
    WORK_SHARES,
    Table,
    _between,
    spare,
    stop_for,
    unmeasured_table,
)
from m2mdb.compute.hrm2.reference import HARD, MANY_LISTS
from m2mdb.compute.hrm2.rules import (
    BY_NUMBER,
    RULES,
    Point,
    by_rule,
    chosen_rules,
    costs_of,
    easy_ranges,
    put,
    put_fewer,
)
from m2mdb.compute.hrm2.truth import exact_of
from m2mdb.compute.ranking import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.reference import Stop
    from m2mdb.compute.hrm2.searcher import Searcher

    Floats = NDArray[np.float32]
    Wide = NDArray[np.float64]
    Places = NDArray[np.intp]
    Tick = Callable[[], None]

# queries of a group, and of each further helping of it
STORED_QUERIES = 144
MADE_QUERIES = 180  # swapped, moved and mixed, together
HALVED_QUERIES = 192  # more than of others: these differ most in what they find
NOISY_QUERIES = 96
FREE_QUERIES = 192
FILTERED_QUERIES = 150  # of each group, for shares below 1
WORK_QUERIES = 8  # of each group
LEAST_QUERIES = 96  # of each group, for the largest of KS: each has many neighbours
ENOUGH = 64  # known queries, to do without made-up ones
HELPINGS = 5  # of queries, where those before are too few to tell the highest recall
TICK_QUERIES = 32  # that are measured between two looks for an interrupt
POINT_SHAPE = len(RULES), len(RECALLS)
USUAL_RECALL = RECALLS.index(0.95)


# ------------------------------------------------------------------------- queries


def queries_for(
    searcher: Searcher, rows: Floats, seed: int, known: Floats | None = None
) -> Queries:
    """Stored rows, and known queries or, where they are too few, made-up ones too."""
    rng = np.random.default_rng(seed)
    parts = [of_rows(rows, STORED_QUERIES, rng)]
    count = 0 if known is None else len(known)
    if count < ENOUGH:
        parts += [_of_group(group, searcher, rows, rng) for group in MADE]
    if known is not None and count:
        parts.append(given(known, KNOWN))
    return reduce(Queries.and_also, parts)


def _count_of(group: int, k: int = 1) -> int:
    """How many queries a helping of a group has for a k; of known ones there are no more."""
    counts = {
        STORED: STORED_QUERIES,
        BETWEEN: MADE_QUERIES,
        HALVED: HALVED_QUERIES,
        NOISY: NOISY_QUERIES,
        FREE: FREE_QUERIES,
    }
    count = counts.get(group, 0)
    return count if k < KS[-1] else min(count, LEAST_QUERIES)


def _of_group(group: int, searcher: Searcher, rows: Floats, rng: np.random.Generator) -> Queries:
    """A helping of a group, ready to be searched for."""
    if group == STORED:
        return of_rows(rows, STORED_QUERIES, rng)
    vectors = made(group, searcher.lists, rows, _count_of(group), rng)
    return given(ready(vectors, searcher.metric), group)


def made_queries(searcher: Searcher, rows: Floats, rng: np.random.Generator) -> Floats:
    """Queries off the distribution of the rows, of unlike difficulty: a helping of each of MADE."""
    every = [made(group, searcher.lists, rows, _count_of(group), rng) for group in MADE]
    return np.concatenate(every)


# ------------------------------------------------------------------------- measuring


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
    table, rules, easy = unmeasured_table(), np.zeros(len(RECALLS), np.intp), 0
    more = _More(searcher, rows, seed, bool((every.groups == KNOWN).sum() >= ENOUGH), {}, {})
    for share, (mask, count) in enumerate(((None, len(every.own)), (passing, FILTERED_QUERIES))):
        samples = _samples(searcher, rows, every.first(count), mask, tick)
        traces = {}
        for row, k in enumerate(KS):
            tick()
            if k in samples:
                sample = samples[k]
                measuring = _Measuring(searcher, rows, mask, k)
                traces[row] = _trace(measuring, sample, more if mask is None else None, tick)
        if mask is None:
            easy = min((each.easy for each in traces.values()), default=0)
        points = {row: _fits(trace, easy, tick) for row, trace in traces.items()}
        if mask is None:
            rules = chosen_rules(list(points.values()))
        for row in range(len(KS)):
            if row in points:
                point, at_once = points[row], (rules[USUAL_RECALL], USUAL_RECALL)
                if mask is None and point.lists[at_once] <= FEW_LISTS:
                    narrow = _fits(traces[row].with_fewer(tick), easy, tick, rules)
                    put_fewer(table, row, point, narrow, rules)
                put(table, (share, row), point, rules, easy)
            elif share:
                _follow(table, share, row)
    fewer = passing & (np.random.default_rng(seed + 1).random(len(rows)) < SHARES[1])
    # few searches are so hard
    merged = np.where(np.isin(every.groups, (HALVED, FREE)), NOISY, every.groups)
    order = np.random.default_rng(seed).permutation(len(merged))
    usual = Queries(every.vectors[order], every.own[order], merged[order])
    for share, mask in enumerate((None, passing, fewer)):
        _measure_work(searcher, table, usual.first(WORK_QUERIES).vectors, (share, mask), tick)
    return table


def _measure_work(
    searcher: Searcher,
    table: Table,
    queries: Floats,
    passing: tuple[int, NDArray[np.bool_] | None],
    tick: Tick = never,
) -> None:
    """Fill in what searches do for their recalls, where a `share` of rows passes a mask."""
    from m2mdb.compute.hrm2 import tracing

    share, mask = passing
    chosen = np.empty(0, np.uint8) if mask is None else mask.astype(np.uint8)
    for row, k in enumerate(KS):
        alike: dict[tuple[int, float, float, bytes], list[tuple[int, Stop]]] = {}
        for column, recall in enumerate(RECALLS):
            stop = stop_for(table, k, recall, WORK_SHARES[share])
            if stop is not None and stop.hardness is not None:
                how = stop.ahead, stop.factor, stop.epsilon, stop.hardness[-HARD:].tobytes()
                alike.setdefault(how, []).append((column, stop))
        for (ahead, factor, epsilon, _), there in alike.items():
            tick()
            hardness = np.array([stop.hardness for _, stop in there], np.float32)
            out = np.zeros((len(there), 3))
            scratch = searcher.tracing_scratch(k + spare(k))
            tracing.trace_works(
                scratch.plan, chosen, readable(queries), (k, LEAST, ahead), factor, epsilon,
                readable(hardness), out,
            )  # fmt: skip
            for (column, _), done in zip(there, out, strict=True):
                table.work[share, row, column] = np.maximum(1, done / len(queries))


def _follow(table: Table, share: int, row: int) -> None:
    """Fill in what follows from all rows, where too few pass to measure it."""
    thinned = table.patience[0, row] * np.float32(SHARES[share] ** -THINNING)
    table.patience[share, row] = np.minimum(thinned, UNREACHED)
    table.epsilon[share, row] = table.epsilon[0, row]


class _Trace(NamedTuple):
    """What searches of some queries found, by the usual rule and by number."""

    measuring: _Measuring
    sample: _Sample
    edges: Wide
    traced: list[Traced]

    @property
    def ranges(self) -> Places:
        """Of each query's hardness."""
        return np.searchsorted(self.edges, self.traced[0].hardness)

    @property
    def easy(self) -> int:
        """See `rules.easy_ranges`."""
        return easy_ranges(self.ranges, np.isin(self.traced[0].groups, LIKELY))

    def with_fewer(self, tick: Tick) -> _Trace:
        """The same where few lists are brought in order at once."""
        self.measuring.ahead = FEW_LISTS
        return self._replace(traced=self.measuring.traced(self.sample, tick))


def _trace(measuring: _Measuring, sample: _Sample, more: _More | None, tick: Tick) -> _Trace:
    """Search for queries, which come in helpings until they tell the highest recall."""
    traced = measuring.traced(sample, tick)
    for number in range(1, HELPINGS if more is not None else 1):
        assert more is not None
        groups = too_few(traced[0], _edges(traced[0]), partial(_count_of, k=measuring.k))
        asked = more.helping(number, measuring.k, groups, tick)
        if asked is None:
            break
        sample = sample.and_also(asked)
        also = measuring.traced(asked, tick)
        traced = [one.and_also(other) for one, other in zip(traced, also, strict=True)]
    return _Trace(measuring, sample, _edges(traced[0]), traced)


def _edges(traced: Traced) -> Wide:
    """Distances that part queries by hardness."""
    return hardness_edges(traced.hardness, traced.groups == FREE)


def _fits(trace: _Trace, easy: int, tick: Tick, only: Places | None = None) -> Point:
    """The patience for each rule and recall; or for the only rule of each.

    Each recall takes the first of EPSILONS whose bounds cost little of it, or after which no larger
    one finds more.
    """
    measuring, edges, traced, shape = trace.measuring, trace.edges, trace.traced, POINT_SHAPE
    patience = np.full((*shape, HARD), UNREACHED, np.float32)
    epsilons = np.full(len(RECALLS), EPSILONS[0], np.float32)
    costs, lists = np.full(shape, np.inf), np.full(shape, np.inf)
    left, likely = list(range(len(RECALLS))), np.isin(traced[0].groups, LIKELY)
    for epsilon in EPSILONS:
        if epsilon != EPSILONS[0]:
            measuring.epsilon = epsilon
            before, traced = traced, measuring.traced(trace.sample, tick)
            if not finds_more(before[0], traced[0]):
                break
        epsilons[left] = epsilon
        ranges = np.searchsorted(edges, traced[0].hardness)
        for rule, one in enumerate(by_rule(traced, ranges, easy)):
            for column in left:
                if only is None or rule == only[column]:
                    parted = easy if rule == BY_NUMBER else 0
                    found = patience[rule, column] = fitted(one, edges, column, parted)
                    if found[0] < UNREACHED:
                        told = costs_of(lists_for(one, edges, found), likely)
                        costs[rule, column], lists[rule, column] = told
        left = [column for column in left if is_cut(traced[0], column, measuring.k)]
        if not left:
            break
    measuring.epsilon = EPSILONS[0]
    return Point(edges, patience, epsilons, costs, lists)


def _best(
    searcher: Searcher,
    rows: Floats,
    asked: Queries,
    mask: NDArray[np.bool_] | None,
    tick: Tick,
    ks: Sequence[int] = KS,
) -> dict[int, Floats]:
    """The k-th best key of each query for each k, among the rows that pass but its own.

    Without those k for which there are too few rows.

    ks   some of KS, ascending
    """
    metric = searcher.metric
    best = exact_of(searcher, rows, asked.vectors, ks[-1] + 1, mask, tick)
    owns = np.full(len(best), -np.inf, np.float32)
    for at, own in enumerate(asked.own.tolist()):
        if own >= 0 and (mask is None or mask[own]):
            owns[at] = keys_of(rows[own : own + 1], asked.vectors[at], metric)[0]
    out = {}
    for k in ks:
        if k < best.shape[1]:
            edges = best[:, k - 1]
            found = owns >= edges - 1e-5 * np.abs(edges)
            out[k] = np.where(found, best[:, k], edges)
    return out


def _samples(
    searcher: Searcher,
    rows: Floats,
    asked: Queries,
    mask: NDArray[np.bool_] | None,
    tick: Tick,
) -> dict[int, _Sample]:
    """Queries and their k-th best keys, by k: fewer for the largest, which takes the longest."""
    few = asked.places(LEAST_QUERIES)
    others = np.setdiff1d(np.arange(len(asked.own)), few)
    some, rest = asked.at(few), asked.at(others)
    best = _best(searcher, rows, some, mask, tick)
    out = {k: _Sample(some, edges) for k, edges in best.items()}
    if len(others):
        for k, edges in _best(searcher, rows, rest, mask, tick, KS[:-1]).items():
            out[k] = out[k].and_also(_Sample(rest, edges))
    return out


class _Sample(NamedTuple):
    """Queries, and the k-th best key of each for one k."""

    queries: Queries
    edges: Floats

    def and_also(self, other: _Sample) -> _Sample:
        """Both together."""
        queries = self.queries.and_also(other.queries)
        return _Sample(queries, np.concatenate((self.edges, other.edges)))


class _More(NamedTuple):
    """Where further queries of the groups come from."""

    searcher: Searcher
    rows: Floats
    seed: int
    is_known: bool  # real queries are, which take the place of made-up ones
    made: dict[tuple[int, int], Queries]  # by the group and the number of the helping
    best: dict[tuple[int, int, int], Floats]  # and by k

    def helping(self, number: int, k: int, groups: Sequence[int], tick: Tick) -> _Sample | None:
        """As many queries as the first ones of some groups; None where there are no such."""
        possible = (STORED,) if self.is_known else (STORED, *MADE)
        every = [self._of(group, number, k, tick) for group in groups if group in possible]
        return reduce(_Sample.and_also, every) if every else None

    def _of(self, group: int, number: int, k: int, tick: Tick) -> _Sample:
        """A helping of a group. What k = 1 finds is told with what k = 10 does, at little cost."""
        if (group, number) not in self.made:
            rng = np.random.default_rng((self.seed, number, group))
            self.made[group, number] = _of_group(group, self.searcher, self.rows, rng)
        asked = self.made[group, number].first(_count_of(group, k))
        if (group, number, k) not in self.best:
            ks = KS[:-1] if k < KS[-1] else KS[-1:]
            best = _best(self.searcher, self.rows, asked, None, tick, ks)
            self.best.update({(group, number, each): found for each, found in best.items()})
        return _Sample(asked, self.best[group, number, k])


class _Measuring:
    """Searches for k rows among those of a mask."""

    def __init__(
        self, searcher: Searcher, rows: Floats, mask: NDArray[np.bool_] | None, k: int
    ) -> None:
        self.searcher = searcher
        self.rows = readable(rows)
        self.mask = np.ones(len(rows), np.uint8) if mask is None else mask.astype(np.uint8)
        self.k = k
        self.epsilon: float = EPSILONS[0]
        self.ahead = MANY_LISTS
        self.factors = np.array((_between(k, FACTORS), 0), np.float32)

    def traced(self, sample: _Sample, tick: Tick) -> list[Traced]:
        """What searches for the queries of a sample found, by the usual factor and without."""
        asked = sample.queries
        hardness, *found = self.measured(asked.vectors, asked.own, sample.edges, tick)
        recalls, probed = (np.ascontiguousarray(each.transpose(1, 0, 2)) for each in found)
        return [
            Traced(hardness, one, asked.groups, lists)
            for one, lists in zip(recalls, probed, strict=True)
        ]

    def measured(
        self, queries: Floats, own: NDArray[np.int64], edges: Floats, tick: Tick = never
    ) -> tuple[Wide, Wide, Wide]:
        """Hardness of each query; its recall, and lists, [len(queries), 2, LEVELS].

        own    the row that a query is, and that it must not find; -1: none
        edges  the k-th best key of each
        """
        from m2mdb.compute.hrm2 import tracing

        scratch = self.searcher.tracing_scratch(self.k + spare(self.k))
        marks = np.zeros((2, len(self.searcher.lists.center_scales) + 1), np.int32)
        stamps = np.zeros(len(self.rows), np.int32)
        recalls = np.zeros((len(queries), len(self.factors), len(LEVELS)))
        probed = np.zeros_like(recalls)
        hardness = np.zeros(len(queries))
        metric = self.searcher.metric
        for start in range(0, len(queries), TICK_QUERIES):
            tick()
            some = slice(start, start + TICK_QUERIES)
            tracing.trace_recalls(
                scratch.plan, self.mask, self.rows, readable(queries[some]), readable(own[some]),
                readable(edges[some]), (self.k, LEAST, self.ahead), readable(self.factors),
                self.epsilon, metric != "ip",
                readable(LEVELS), marks, stamps, recalls[some], probed[some], hardness[some],
            )  # fmt: skip
        return hardness, recalls, probed


def keys_of(rows: Floats, query: Floats, metric: str) -> Floats:
    """What is sought of rows, the more the better: -|x - q|^2, or <x, q>."""
    if metric == "ip":
        products: Floats = rows @ query
        return products
    gaps = rows - query
    squares: Floats = np.einsum("ij,ij->i", gaps, gaps)
    return -squares


def tolerant(edge: float) -> float:
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
        found = searcher.search(query, stop, wanted=wanted, epsilon=stop.epsilon, mask=mask)
        keys = keys_of(rows[found.ordinals], query, searcher.metric)
        hits += min(stop.k, int((keys >= tolerant(edge)).sum()))
    return hits / (stop.k * len(queries))
