"""Fitting: from what searches of every patience found to the patience that a recall takes.

    recall of each query at each of LEVELS --> mean of each range of hardness --> a level for each
    --> raised where a group of queries loses most, until each group reaches the recall

Each group of queries has to reach a recall for itself, with ERRORS standard errors of its mean to
spare. Two things can keep it from that, and they are told apart by what a search finds that goes
on until there are no more lists:

    bounds   1-bit bounds leave out more of what was sought than the recall may lose: `is_cut`. A
             larger epsilon leaves out less (`calibration`).
    few      queries of the group are so few that one of them more or less decides: `in_doubt`.
             More of them tell (`calibration`); until then a search is more patient.

Only where neither helps, as codes cannot tell rows apart, the recall is UNREACHED: a recall that is
uncertain is none that is not reached.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.patience import FARTHEST, RECALLS, UNREACHED
from m2mdb.compute.hrm2.reference import HARD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Wide = NDArray[np.float64]
    Longs = NDArray[np.int64]

LEVELS = np.unique(np.rint(1.1 ** np.arange(96)).astype(np.int64))  # of patience: 1 to 8,550
MARGIN = 0.003  # that a measured recall has to be above the one that is promised,
ERRORS = 1.0  # and standard errors of its mean
DOUBT = 2.0  # standard errors that it may be below it where no patience reaches it
HIGHEST = 0.993  # asked of measurements: few queries tell no more
CUT = 0.5  # of what a recall may lose, that bounds may
FINDS_MORE = 0.001  # recall that a larger epsilon has to bring to be taken
USUAL = 0.9  # a mean at which queries differ enough to tell how alike the fates of their rows are
DOUBTFUL = 0.6  # standard errors of a group's mean, to what a recall may lose


class Traced(NamedTuple):
    """What searches of some queries found.

    hardness  float64[n]
    recalls   float64[n, LEVELS]
    groups    int64[n], see `calibration.Queries`
    probed    float64[n, LEVELS], lists
    """

    hardness: Wide
    recalls: Wide
    groups: Longs
    probed: Wide

    @property
    def at_last(self) -> dict[int, float]:
        """The recall of each group when no list is left."""
        last = self.recalls[:, -1]
        return {group: float(last[self.groups == group].mean()) for group in self.present}

    def and_also(self, other: Traced) -> Traced:
        """Both together."""
        return Traced(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    @property
    def present(self) -> list[int]:
        """The groups that there are queries of."""
        return [int(group) for group in np.unique(self.groups)]


def hardness_edges(hardness: Wide) -> Wide:
    """Distances that part queries evenly by hardness, [HARD - 1]."""
    ordered = np.sort(hardness)
    return np.minimum(ordered[np.arange(1, HARD) * len(ordered) // HARD], FARTHEST)


def fitted(traced: Traced, edges: Wide, column: int, easy: int = 0) -> Floats:
    """The patience for one of RECALLS, [HARD]; UNREACHED where none suffices.

    easy   ranges that go by another rule than the others: patience ascends in each part for itself
    """
    recall, recalls = RECALLS[column], traced.recalls
    ranges = np.searchsorted(edges, traced.hardness)
    wanted = min(recall + MARGIN, HIGHEST)
    at = np.zeros(HARD, np.int64)
    for each in range(HARD):
        own = recalls[ranges == each]
        if len(own):
            curve = own.mean(axis=0)
            at[each] = (curve >= min(wanted, curve.max())).argmax()
    at = _ascending(at, easy)
    limits = {each: min(HIGHEST, last - FINDS_MORE) for each, last in traced.at_last.items()}
    at = _raised(traced, ranges, at, (wanted, limits), easy)
    reached = recalls[np.arange(len(recalls)), at[ranges]]
    lowest = dict.fromkeys(limits, recall)
    if _failing(reached, traced.groups, (recall, lowest), -DOUBT) is not None:
        return np.full(HARD, UNREACHED, np.float32)
    return LEVELS[at].astype(np.float32)


def lists_for(traced: Traced, edges: Wide, patience: Floats) -> Wide:
    """Lists that the search of each query probes with a patience by hardness."""
    at = np.searchsorted(LEVELS, np.minimum(patience, LEVELS[-1]))
    places = at[np.searchsorted(edges, traced.hardness)]
    lists: Wide = traced.probed[np.arange(len(places)), places]
    return lists


def is_cut(traced: Traced, column: int, k: int) -> bool:
    """Whether bounds cost more of a recall than they may; as if half a row more were lost."""
    least, last = 1 - CUT * (1 - RECALLS[column]), traced.at_last
    counts = {group: int((traced.groups == group).sum()) for group in last}
    return any(last[group] - 0.5 / (k * counts[group]) < least for group in last)


def finds_more(one: Traced, other: Traced) -> bool:
    """Whether some group finds more in `other` when no list is left."""
    before, after = one.at_last, other.at_last
    return any(after[group] >= before[group] + FINDS_MORE for group in before)


def in_doubt(traced: Traced) -> list[int]:
    """Groups of too few queries to tell the highest of RECALLS.

    A mean tells it only if its standard error is smaller than what the recall may lose. What a
    query loses at that recall too few of them show; so it is worked out from the spread where more
    is lost, which says how many rows a query is worth: one where all of its rows are found or none.
    """
    recall, found = RECALLS[-1], []
    for group in traced.present:
        curves = traced.recalls[traced.groups == group]
        means = curves.mean(axis=0)
        at = int(np.abs(means - USUAL).argmin())
        mean, variance = float(means[at]), float(curves[:, at].var())
        worth = max(1.0, mean * (1 - mean) / variance) if variance else math.inf
        if recall * (1 - recall) / (worth * len(curves)) > (DOUBTFUL * (1 - recall)) ** 2:
            found.append(group)
    return found


def _raised(
    traced: Traced,
    ranges: NDArray[np.intp],
    at: Longs,
    wanted: tuple[float, dict[int, float]],
    easy: int,
) -> Longs:
    """Levels by hardness, raised until each group reaches a recall, as far as that is any use.

    wanted   the recall, and the limit of each group beyond which no more is asked
    """
    recalls, groups = traced.recalls, traced.groups
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
        at = _ascending(at, easy)


def _ascending(at: Longs, easy: int) -> Longs:
    """Levels raised to those of easier ranges of their part."""
    parts = at[:easy], at[easy:]
    return np.concatenate([np.maximum.accumulate(part) for part in parts])


def _failing(
    reached: Wide, groups: Longs, wanted: tuple[float, dict[int, float]], errors: float
) -> int | None:
    """A group whose mean is not so many standard errors above a recall, or its limit; or None."""
    recall, limits = wanted
    for group, limit in limits.items():
        own = reached[groups == group]
        if own.mean() < min(recall + errors * own.std() / math.sqrt(len(own)), limit):
            return group
    return None
