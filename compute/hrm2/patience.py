"""How patient a search is: the table that `calibration` measures, and what is read from it.

A search goes on while fewer lists were probed than `factor * last + patience` (`calibration`). The
table has points of k, of recall and of the share of the rows that pass a filter; between points of
k and share a value is drawn by logarithms, and of recalls the next higher one is taken.

Where the k best lie in few lists, `last` lets a search stop soon after them, and go on where they
lie in many. It tells nothing where rows of a cluster are all as far from each other, so that nearly
every list changes the k best. There a recall may go *by number* (`rules`): of queries that are no
harder than what is stored, the factor's share is zero, and the patience is the number of lists.
Readers that know nothing of it multiply by the whole factor: they search longer, never shorter.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.reference import EPSILON, HARD, MANY_LISTS, Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Wide = NDArray[np.float64]

EPSILONS = (EPSILON, 1.7, 2.2, 3.0)  # from which `calibration` takes the first that loses little
KS = (1, 10, 100)
FACTORS = (1.5, 1.5, 1.0)  # of many rows one always comes late
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
SHARES = (1.0, 0.1)  # of the rows that pass a filter
WORK_SHARES = (1.0, 0.1, 0.01)  # the same where work is measured
THINNING = 0.4  # exponent of patience for smaller shares
UNREACHED = np.float32(1e9)  # patience where nothing reaches the recall
FARTHEST = np.float32(1e30)  # an edge of hardness that only searches without k rows are beyond
USUAL_LIST = 100  # rows, where nothing is known
LEAST = 2
CAUTIOUS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)  # shares of the lists, where nothing was measured
FEW_LISTS = 8  # that most searches probe, for which fewer are brought in order


class Table(NamedTuple):
    """How patient searches are.

    edges     float32[SHARES, KS, HARD - 1]: distances that part the ranges of hardness
    patience  float32[SHARES, KS, RECALLS, HARD]; UNREACHED where every row must be compared
    work      float32[WORK_SHARES, KS, RECALLS, 3]: what searches did for it in the mean, see `Work`
    epsilon   float32[SHARES, KS, RECALLS]: of each search, see `Stop`
    rules     float32[KS, RECALLS, HARD + 1]: the share of the factor in each range of hardness, and
              how many lists are brought in order at once, MANY_LISTS for the usual number; None: 1
              and the usual number, and hardness after the LEAST first lists, even where these do
              not hold k rows (older files)
    """

    edges: Floats
    patience: Floats
    work: Floats
    epsilon: Floats
    rules: Floats | None = None


class Work(NamedTuple):
    """What searches did in the mean: lists probed, codes compared, rows compared by 8-bit codes."""

    probed: float
    codes: float
    reranked: float


RULES_SHAPE = (len(KS), len(RECALLS), HARD + 1)
TABLE_SHAPES = (
    (len(SHARES), len(KS), HARD - 1),
    (len(SHARES), len(KS), len(RECALLS), HARD),
    (len(WORK_SHARES), len(KS), len(RECALLS), len(Work._fields)),
    (len(SHARES), len(KS), len(RECALLS)),
)


def plain_table(patience: Floats) -> Table:
    """A table of one patience for all queries, [KS, RECALLS]; less dense rows take more."""
    edges = np.full(TABLE_SHAPES[0], FARTHEST, np.float32)
    thinned = np.array(SHARES, np.float32) ** np.float32(-THINNING)
    every = (thinned[:, None, None] * patience).astype(np.float32)
    work = np.stack([patience * np.float32(share**-THINNING) for share in WORK_SHARES])
    work = work[..., None] * np.array((1, 2 * USUAL_LIST, 1), np.float32)
    epsilon = np.full(TABLE_SHAPES[3], EPSILON, np.float32)
    ranges = np.repeat(every[..., None], HARD, axis=3)
    return Table(edges, ranges, np.clip(work, 1, UNREACHED), epsilon)


def cautious_table(lists: int) -> Table:
    """A table for so many lists of which nothing is known."""
    every = np.tile(np.ceil(np.array(CAUTIOUS) * lists), (len(KS), 1))
    return plain_table(every.astype(np.float32))


def unmeasured_table() -> Table:
    """A table that says of nothing how it can be reached."""
    fillings = FARTHEST, UNREACHED, UNREACHED, np.float32(EPSILONS[0])
    shapes = zip(TABLE_SHAPES, fillings, strict=True)
    rules = np.ones(RULES_SHAPE, np.float32)
    rules[:, :, HARD] = MANY_LISTS
    table = Table(*(np.full(shape, filling, np.float32) for shape, filling in shapes))
    return table._replace(rules=rules)


def spare(k: int) -> int:
    """How many candidates beyond k are kept for the comparison in full precision."""
    return max(8, k // 8)


def _between(k: int, values: Sequence[float]) -> float:
    """A value of each of KS, at k: by the logarithm of k; those of the ends beyond them."""
    if k >= KS[-1]:
        return values[-1]
    right = bisect_right(KS, k)
    low, high = KS[right - 1], KS[right]
    share = math.log(k / low) / math.log(high / low)
    return values[right - 1] + share * (values[right] - values[right - 1])


def stop_for(table: Table, k: int, recall: float, share: float = 1.0) -> Stop | None:
    """When to stop for a recall where a share of the rows passes; None: compare every row."""
    column, thin = _column(recall), _thinness(share)
    beyond = math.pow(max(1.0, SHARES[1] / share), THINNING) * _beyond(k)
    patience = np.exp(_at(np.log(table.patience[:, :, column]), k, thin)) * beyond
    if patience[0] >= UNREACHED / 2:
        return None
    shares, ahead = _ruled(table, column, k, share)
    more = np.where(shares > 0, 0.49, 0.0)  # of few lists by number, one more is much
    patience = np.minimum(np.rint(patience + more), UNREACHED)
    edges = _edges(table.edges, k, thin)
    return Stop(
        k, LEAST, int(patience[-1]), 1 << 30, _between(k, FACTORS),
        np.concatenate((edges, patience, shares)).astype(np.float32),
        float(_at(table.epsilon[:, :, column], k, thin)), ahead, table.rules is not None,
    )  # fmt: skip


def _ruled(table: Table, column: int, k: int, share: float) -> tuple[Wide, int]:
    """Shares of the factor by hardness, and lists that are brought in order at once.

    Beyond the largest of KS, where nothing was measured, what is found has to count.
    """
    if table.rules is None or k > KS[-1]:
        return np.ones(HARD), MANY_LISTS
    rules = table.rules[:, column]
    around = bisect_right(KS, k) - 1, bisect_left(KS, k)
    ahead = max(int(rules[at, HARD]) for at in around) if share >= 1 else MANY_LISTS
    return _at(rules[None, :, :HARD].repeat(2, axis=0), k, 0.0), ahead


def _edges(edges: Floats, k: int, thin: float) -> Wide:
    """Edges of hardness at k and between shares.

    Where fewer rows pass, searches do not have k of them after the first lists, and an edge is
    FARTHEST. Between such a point and another one the edge is that of the other one: more queries
    are taken for hard.
    """
    if thin in (0.0, 1.0):
        return _at(edges, k, thin)
    return _at(np.where(edges < FARTHEST / 2, edges, edges[:1]), k, thin)


def work_for(table: Table, k: int, recall: float, share: float = 1.0) -> Work:
    """What such searches do in the mean."""
    thin = math.log(share) / math.log(WORK_SHARES[1])
    first = 0 if thin <= 1 else 1
    part = min(1.0, max(0.0, thin - first))
    logs = np.log(table.work[first : first + 2, :, _column(recall)])
    return Work(*(np.exp(_at(logs, k, part)) * _beyond(k)).tolist())


def _column(recall: float) -> int:
    return min(bisect_left(RECALLS, recall - 1e-9), len(RECALLS) - 1)


def _thinness(share: float) -> float:
    """Where a share lies between all and the smallest of SHARES: from 0 to 1."""
    return min(1.0, max(0.0, math.log(share) / math.log(SHARES[1])))


def _beyond(k: int) -> float:
    """More rows than those of the table's last point take more."""
    return math.sqrt(max(1.0, k / KS[-1]))


def _at(values: Floats, k: int, thin: float) -> Wide:
    """Values of [SHARES, KS, ...] at k and between shares."""
    right = min(bisect_right(KS, k), len(KS) - 1)
    low, high = KS[right - 1], KS[right]
    part = min(1.0, math.log(k / low) / math.log(high / low))
    wide = values[:, right - 1 : right + 1].astype(np.float64)
    weights = np.outer((1 - thin, thin), (1 - part, part))
    out = np.zeros(values.shape[2:])
    for i, j in np.argwhere(weights > 0).tolist():
        out += weights[i, j] * wide[i, j]
    return out
