"""Rules: how the searches for a recall know that they are at their end, and what each rule saves.

    USUAL      while fewer lists were probed than factor * (the last that changed the k best) +
               patience: a search stops soon after the lists that hold what is sought, wherever
               these end
    BY_NUMBER  as many lists as the patience says, for queries in the `easy` ranges of hardness,
               where what is stored lies; the others go by the usual rule, which fits queries of
               any kind better

    lists that queries probe by each rule --costs_of, chosen_rules--> one for each recall --> table

Which of them probes fewer lists for the same recall is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.patience import FEW_LISTS, RECALLS
from m2mdb.compute.hrm2.reference import HARD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.fitting import Traced
    from m2mdb.compute.hrm2.patience import Table

    Floats = NDArray[np.float32]
    Wide = NDArray[np.float64]
    Places = NDArray[np.intp]

RULES = USUAL, BY_NUMBER = 0, 1
SAVED, COSTS = 0.1, 0.043  # logarithms of lists that another rule has to save, and may cost at a k
LIKELY_SHARE = 0.125  # of the queries of a range that is easy


class Point(NamedTuple):
    """What was measured at a point of share and k, by rule.

    edges     float64[HARD - 1]
    patience  float32[RULES, RECALLS, HARD]
    epsilon   float32[RECALLS]
    costs     float64[RULES, RECALLS]: see `costs_of`; infinite where the recall is not reached
    lists     float64[RULES, RECALLS]: that likely queries take, in the geometric mean
    """

    edges: Wide
    patience: Floats
    epsilon: Floats
    costs: Wide
    lists: Wide


def easy_ranges(ranges: Places, likely: NDArray[np.bool_]) -> int:
    """How many ranges of hardness there are to the last one that likely queries have a share of.

    ranges   of each query
    """
    all_of, likely_of = np.bincount(ranges, minlength=HARD), np.bincount(ranges[likely], None, HARD)
    is_easy = likely_of >= np.maximum(1, LIKELY_SHARE * all_of)
    return int(is_easy.nonzero()[0].max(initial=-1)) + 1


def by_rule(traced: Sequence[Traced], ranges: Places, easy: int) -> list[Traced]:
    """What searches of the queries found by each of RULES.

    traced   by the usual rule, and by number
    """
    usual, number = traced
    is_easy = (ranges < easy)[:, None]
    recalls = np.where(is_easy, number.recalls, usual.recalls)
    probed = np.where(is_easy, number.probed, usual.probed)
    return [usual, usual._replace(recalls=recalls, probed=probed)]


def costs_of(lists: Wide, likely: NDArray[np.bool_]) -> tuple[float, float]:
    """The mean logarithm of lists that queries probe; lists of likely ones in the geometric mean.

    The likely ones count as much as all others together.

    lists   float64[n]
    """
    logs = np.log2(np.maximum(1, lists))
    parts = [float(logs[some].mean()) for some in (likely, ~likely) if some.any()]
    return float(np.mean(parts)), float(np.exp2(parts[0]))


def chosen_rules(points: Sequence[Point]) -> Places:
    """The place in RULES of each recall's: the usual one, or one that saves more than chance does.

    points   of all rows, for each k: between them values are drawn, so they have one rule
    """
    if not points:
        return np.zeros(len(RECALLS), np.intp)
    with np.errstate(invalid="ignore"):  # where nothing is reached by either
        saved = np.nan_to_num([point.costs[:1] - point.costs for point in points], nan=0.0)
    means = np.where((saved >= -COSTS).all(axis=0), saved.mean(axis=0), -np.inf)
    return np.where(means.max(axis=0) > SAVED, means.argmax(axis=0), 0)


def put(table: Table, place: tuple[int, int], point: Point, rules: Places, easy: int) -> None:
    """Put what was measured at a point of share and k in the table, by the rules of RECALLS."""
    columns = np.arange(len(RECALLS))
    table.edges[place], table.epsilon[place] = point.edges, point.epsilon
    patience = table.patience[place]
    patience[:] = point.patience[rules, columns]
    for column in columns[1:].tolist():
        if rules[column] == rules[column - 1]:  # C1
            np.maximum(patience[column], patience[column - 1], out=patience[column])
    if place[0] == 0 and table.rules is not None:
        shares = table.rules[place[1], :, :HARD]
        shares[:] = 1
        shares[rules == BY_NUMBER, :easy] = 0


def put_fewer(table: Table, row: int, wide: Point, few: Point, rules: Places) -> None:
    """Bring few lists in order at once, for the recalls where that is enough; see FEW_LISTS.

    wide, few   as measured with the usual number and with fewer; `wide` becomes what suffices for
                both, as it is between points of k, under filters, and for readers of older versions
    """
    assert table.rules is not None
    for column, rule in enumerate(rules.tolist()):
        least = min(FEW_LISTS, (1 + COSTS / 2) * wide.lists[rule, column])
        saves = few.lists[rule, column] <= least  # what a list less in order does, a probe undoes
        if saves and few.costs[rule, column] <= wide.costs[rule, column] + SAVED:
            table.rules[row, column, HARD] = FEW_LISTS
            both = np.maximum(wide.patience[rule, column], few.patience[rule, column])
            wide.patience[rule, column] = both
            wide.epsilon[column] = max(wide.epsilon[column], few.epsilon[column])
