"""Training: centroids of lists in two levels, and the lists that each row stands in.

    sample --k-means--> super-clusters --k-means in each--> lists, by share of the sample
    rows --nearest super--> candidates: lists of the supers near it --> first list, second list

Comparing a row with the lists of the NEIGHBOURS supers next to its own, instead of with all of
them, is what makes a build of many lists cheap; each comparison is a BLAS product over the rows
of one super. The second list of a row (spilling) minimises |x - c|^2 + <x - c, u>^2 with u the
direction of the residual to the first list (SOAR: Sun et al., NeurIPS 2023), so that a query for
which the first residual is unlucky finds the second.

Invariants
    T1  The result depends on rows, sizes and seed alone.
    T2  Every list has a centroid; lists may be empty of rows, never of meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.balance import balanced
from m2mdb.compute.hrm2.lists import never
from m2mdb.compute.hrm2.outliers import far_rows
from m2mdb.compute.hrm2.products import Columns, Points
from m2mdb.compute.hrm2.sample import Streamed, Whole
from m2mdb.compute.loader import LOADER
from m2mdb.compute.ranking import readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.sample import Sample

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int32]
    Tick = Callable[[], None]

SAMPLE_OF_LIST = 32  # rows that a centroid is trained on
LEAST_SAMPLE = 4096
SAMPLE_BYTES = 256 << 20  # that are kept of the sample, unless that is less than a row a list
FAR_SHARE = 0.25  # of the lists: as many rows far from all others are in the sample in any case
SUPER_ROUNDS = 5
LIST_ROUNDS = 3
FINAL_ROUNDS = 2
NEIGHBOURS = 20  # supers whose lists a row is compared with
TRAINED_NEIGHBOURS = 6  # the same in training, where a row that misses its list does less harm
CHUNK_ROWS = 4096
ASSIGNED_ROWS = 512  # what is compared with hundreds of lists stays in the cache
FEW_CENTERS = 64  # whose sums a matrix product makes faster than sorting does


class Router(NamedTuple):
    """Centroids of lists, grouped by super-cluster.

    supers   float32[s, d]
    centers  float32[lists, d]; those of super i are owned[i] .. owned[i + 1]
    owned    int32[s + 1]
    near     int32[s, m], the supers next to each, itself first
    middle   around which bytes tell rows apart, see `products.middle_of`; None: they do not
    """

    supers: Floats
    centers: Floats
    owned: Ints
    near: Ints
    middle: Floats | None = None

    def candidates(self, super_: int, neighbours: int) -> Ints:
        """The lists that rows of a super-cluster are compared with."""
        near = self.near[super_, :neighbours].tolist()
        parts = [np.arange(self.owned[i], self.owned[i + 1]) for i in near]
        return np.concatenate(parts).astype(np.int32)


def train(rows: Floats, lists: int, seed: int = 0, tick: Callable[[], None] = never) -> Router:
    """Centroids for about so many lists, from a sample of the rows.

    rows    float32[n, d], n >= 1
    lists   wanted; fewer where the rows do not suffice
    tick    is called between steps
    """
    rng = np.random.default_rng(seed)
    sample = _sample(rows, lists, rng, tick)
    lists = max(1, min(lists, sample.count))
    count = max(1, round(lists**0.5))
    supers, labels = k_means(sample.some(), count, SUPER_ROUNDS, rng, tick)
    if len(labels) < sample.count:
        labels = np.empty(sample.count, np.int32)
        for some, points in sample.blocks():
            labels[some] = nearest(points, supers, tick)
            del points  # SA1
    sizes = np.bincount(labels, minlength=len(supers))
    shares = _shares(sizes, lists).tolist()
    parts = []
    for share, members in zip(shares, sample.groups(labels, len(supers)), strict=True):
        tick()
        if share and len(members.rows):
            parts.append(k_means(members, share, LIST_ROUNDS, rng, tick)[0])
        else:
            parts.append(np.empty((0, rows.shape[1]), np.float32))
    tick()
    router = _router(supers, parts)._replace(middle=sample.middle)
    for _ in range(FINAL_ROUNDS):
        router, first = moved(router, sample, TRAINED_NEIGHBOURS, tick)
    return balanced(router, sample, first, rng, tick)


def _sample(rows: Floats, lists: int, rng: np.random.Generator, tick: Tick) -> Sample:
    """SAMPLE_OF_LIST rows a list; not all at once where that is more than SAMPLE_BYTES."""
    wanted = max(LEAST_SAMPLE, lists * SAMPLE_OF_LIST)
    held = max(lists, SAMPLE_BYTES // (4 * rows.shape[1]))
    chosen = np.arange(len(rows))
    if len(rows) > wanted:
        chosen = np.sort(rng.choice(len(rows), wanted, replace=False))
        far = far_rows(rows, int(FAR_SHARE * lists), tick)  # they need lists of their own
        chosen = np.union1d(chosen, far)
    if len(chosen) > held:
        return Streamed(rows, chosen, held, rng, tick)
    return Whole(rows if len(chosen) == len(rows) else taken(rows, chosen, tick), tick)


def moved(router: Router, sample: Sample, neighbours: int, tick: Tick) -> tuple[Router, Ints]:
    """A round of k-means, mini-batch by mini-batch; and the list that each row was found in."""
    first = np.empty(sample.count, np.int32)
    seen = np.zeros(len(router.centers), np.int64)
    for some, points in sample.blocks():
        found = assign(router, points, neighbours=neighbours, tick=tick)[0]
        centers = means_of(points.rows, found, router.centers, tick)
        sizes = np.bincount(found, minlength=len(centers))
        if seen.any():  # c <- c + (mean - c) n / seen, which for the first block is its mean
            weights = (sizes / np.maximum(1, seen + sizes)).astype(np.float32)
            centers -= router.centers
            centers *= weights[:, None]
            centers += router.centers
        seen += sizes
        first[some] = found
        router = router._replace(centers=centers)
        del points  # SA1
    return router, first


def _shares(sizes: NDArray[np.int64], lists: int) -> NDArray[np.int64]:
    """How many lists each super gets: by its rows, none more than it has."""
    exact = sizes * (lists / max(1, int(sizes.sum())))
    shares: NDArray[np.int64] = np.minimum(np.floor(exact).astype(np.int64), sizes)
    np.maximum(shares, (sizes > 0).astype(np.int64), out=shares)
    missing = lists - int(shares.sum())
    if missing > 0:
        room = np.flatnonzero(shares < sizes)
        order = room[np.argsort(shares[room] - exact[room], kind="stable")]
        shares[order[:missing]] += 1
    return shares


def _router(supers: Floats, parts: list[Floats]) -> Router:
    owned = np.zeros(len(supers) + 1, np.int32)
    np.cumsum([len(part) for part in parts], out=owned[1:])
    gaps = _squares(supers)[None, :] - 2 * supers @ supers.T
    np.fill_diagonal(gaps, -np.inf)
    near = np.argsort(gaps, axis=1, kind="stable")[:, :NEIGHBOURS].astype(np.int32)
    return Router(supers, np.concatenate(parts), owned, near)


def taken(rows: Floats, chosen: NDArray[np.int64], tick: Tick) -> Floats:
    """`rows[chosen]`."""
    out = np.empty((len(chosen), rows.shape[1]), rows.dtype)
    for start in range(0, len(chosen), CHUNK_ROWS):
        tick()
        some = slice(start, start + CHUNK_ROWS)
        out[some] = rows[chosen[some]]
    return out


def grouped(
    centers: Floats, seed: int = 0, tick: Tick = never, supers: Floats | None = None
) -> tuple[Router, Ints]:
    """Centroids that are there, as a router; and which of them each of the router's is.

    supers  around which they are grouped; None: found by their number and the seed
    """
    if supers is None:
        rng = np.random.default_rng(seed)
        count = max(1, round(len(centers) ** 0.5))
        supers, labels = k_means(centers, count, SUPER_ROUNDS, rng, tick)
    else:
        labels = nearest(centers, supers, tick)
    members = [np.flatnonzero(labels == i) for i in range(len(supers))]
    router = _router(supers, [centers[chosen] for chosen in members])
    return router, np.concatenate(members).astype(np.int32)


def _squares(rows: Floats) -> Floats:
    out: Floats = np.einsum("ij,ij->i", rows, rows)
    return out


def nearest(rows: Floats | Points, centers: Floats, tick: Tick = never) -> Ints:
    """The nearest center of each row."""
    points = rows if isinstance(rows, Points) else Points(rows)
    columns = Columns(centers, points.middle)
    out = np.empty(len(points.rows), np.int32)
    for start in range(0, len(out), CHUNK_ROWS):
        tick()
        some = slice(start, start + CHUNK_ROWS)
        out[some] = _firsts(points.times(columns, some), columns.squares)
    return out


def means_of(rows: Floats, labels: Ints, before: Floats, tick: Tick = never) -> Floats:
    """The mean of each label's rows; the old center where it has none."""
    sizes = np.bincount(labels, minlength=len(before))
    used = np.flatnonzero(sizes)
    centers = before.copy()
    if len(before) <= FEW_CENTERS:
        sums = np.zeros_like(before)
        for start in range(0, len(rows), CHUNK_ROWS):
            tick()
            some = labels[start : start + CHUNK_ROWS]
            marks = np.zeros((len(some), len(before)), np.float32)
            marks[np.arange(len(some)), some] = 1
            sums += marks.T @ rows[start : start + CHUNK_ROWS]
        centers[used] = sums[used] / sizes[used][:, None]
    elif len(used):
        order = np.argsort(labels, kind="stable")
        starts = (np.cumsum(sizes) - sizes)[used].tolist()
        places = zip(used.tolist(), starts, sizes[used].tolist(), strict=True)
        for number, (each, start, size) in enumerate(places):
            if not number % FEW_CENTERS:
                tick()
            centers[each] = rows[order[start : start + size]].mean(axis=0)
    return centers


def k_means(
    every: Floats | Points, count: int, rounds: int, rng: np.random.Generator, tick: Tick = never
) -> tuple[Floats, Ints]:
    """Lloyd's algorithm from random rows; empty clusters take rows of the largest ones."""
    points = every if isinstance(every, Points) else Points(every)
    rows = points.rows
    count = min(count, len(rows))
    centers = rows[np.sort(rng.choice(len(rows), count, replace=False))].copy()
    labels = np.zeros(len(rows), np.int32)
    for turn in range(rounds):
        labels = nearest(points, centers, tick)
        if turn == rounds - 1:
            break
        sizes = np.bincount(labels, minlength=count)
        centers = means_of(rows, labels, centers, tick)
        empty = np.flatnonzero(sizes == 0)
        if len(empty):
            crowded = np.argsort(-sizes[labels], kind="stable")[: len(empty) * 4]
            centers[empty] = rows[
                rng.choice(crowded, len(empty), replace=len(crowded) < len(empty))
            ]
    return centers, labels


def assign(
    router: Router,
    rows: Floats | Points,
    *,
    spill: bool = False,
    neighbours: int = NEIGHBOURS,
    tick: Callable[[], None] = never,
) -> tuple[Ints, Ints | None]:
    """First list of each row, and with `spill` the second one (-1 where there is no other)."""
    points = rows if isinstance(rows, Points) else Points(rows, router.middle)
    first = np.empty(len(points.rows), np.int32)
    second = np.empty(len(points.rows), np.int32) if spill else None
    labels = nearest(points, router.supers, tick)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(len(router.supers) + 1))
    for i in range(len(router.supers)):
        if bounds[i] == bounds[i + 1]:
            continue
        lists = router.candidates(i, neighbours)
        columns = Columns(router.centers[lists], router.middle)
        gram = columns.with_each_other() if spill else None
        for start in range(bounds[i], bounds[i + 1], ASSIGNED_ROWS):
            tick()
            chosen = order[start : min(start + ASSIGNED_ROWS, bounds[i + 1])]
            if second is None or gram is None:
                first[chosen] = lists[_firsts(points.times(columns, chosen), columns.squares)]
                continue
            some = points.around(chosen)
            best, other = _both(some, columns.of(some), columns.squares, gram)
            first[chosen] = lists[best]
            second[chosen] = lists[other] if len(lists) > 1 else -1
    return first, second


def _firsts(products: Floats, squares: Floats) -> NDArray[Any]:
    """The nearest center of each row, by <x, c> and |c|^2; may write over the products."""
    if LOADER.module is None:
        nearest_ones: NDArray[np.intp] = (squares - 2 * products).argmin(axis=1)
        return nearest_ones
    from m2mdb.compute.hrm2 import choosing

    best = np.empty(len(products), np.int32)
    choosing.firsts(products, readable(squares), best)
    return best


def _both(
    rows: Floats, products: Floats, squares: Floats, gram: Floats
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The nearest center of each row and the second one; may write over the products."""
    lengths = _squares(rows)
    if LOADER.module is None:
        costs = squares - 2 * products
        best = costs.argmin(axis=1)
        return best, second_best(lengths, products, costs, best, gram[best])
    from m2mdb.compute.hrm2 import choosing

    one, other = np.empty((2, len(rows)), np.int32)
    costs = np.empty(len(squares), np.float32)
    choosing.seconds(
        products, readable(squares), readable(lengths), readable(gram), costs, one, other
    )
    return one, other


def second_best(
    squares: Floats, products: Floats, costs: Floats, best: NDArray[np.intp], beside: Floats
) -> NDArray[np.intp]:
    """Spilling with orthogonal residuals; `costs` is |x - c|^2 but for |x|^2.

    squares  of each row its |x|^2
    beside   <b, c> of its best center b and each c

    With r = x - b the residual to the best center: <r, x - c> = <r, x> - (<x, c> - <b, c>), of
    which all are known. Writes over `products` and `costs`.
    """
    every = np.arange(len(costs))
    lengths = np.maximum(squares + costs[every, best], np.float32(1e-20))  # |r|^2
    along = products
    products = squares - products[every, best]  # <r, x>
    along -= beside
    np.subtract(products[:, None], along, out=along)
    along /= np.sqrt(lengths)[:, None]  # first: the square may be infinite
    along *= along
    costs += along
    costs[every, best] = np.inf
    out: NDArray[np.intp] = costs.argmin(axis=1)
    return out
