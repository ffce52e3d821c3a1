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
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Wide = NDArray[np.float64]
    Longs = NDArray[np.int64]

LEVELS = np.unique(np.rint(1.1 ** np.arange(96)).astype(np.int64))  # of patience: 1 to 8,550
MARGIN = 0.005  # that a measured recall has to be above the one that is promised,
ERRORS = 3.0  # standard errors that the mean of a group has to be above the least for a recall
TOLERANCE = 0.01  # by which the least is below it, or half of what it may lose where that is less
GAIN = 0.08  # of what a recall may lose, that further queries have to lower a goal by
USUAL_COLUMNS = [each for each, recall in enumerate(RECALLS) if 0.8 <= recall <= 0.95]
FAR_PART = 0.1  # of the far queries, that are taken for near ones
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


def hardness_edges(hardness: Wide, far: NDArray[np.bool_] | None = None) -> Wide:
    """Distances that part queries evenly by hardness, [HARD - 1].

    far   queries that take the last range for themselves, but for the easiest of them, where most
          others are easier: else these would be searched for as long as they need
    """
    edges = _parted(hardness, HARD)
    if far is not None and far.any() and not far.all():
        others, own = _parted(hardness[~far], HARD - 1), np.sort(hardness[far])
        last = own[int(FAR_PART * len(own))]
        if last > others[-1]:
            edges = np.append(others, last)
    return np.minimum(edges, FARTHEST)


def _parted(hardness: Wide, parts: int) -> Wide:
    ordered = np.sort(hardness)
    return ordered[np.arange(1, parts) * len(ordered) // parts]


def fitted(traced: Traced, edges: Wide, column: int, easy: int = 0) -> Floats:
    """The patience for one of RECALLS, [HARD]; UNREACHED where none suffices.

    easy   ranges that go by another rule than the others: patience ascends in each part for itself
    """
    recall = RECALLS[column]
    ranges = np.searchsorted(edges, traced.hardness)
    at = _levels(traced, ranges, column, easy, ERRORS)
    reached = traced.recalls[np.arange(len(ranges)), at[ranges]]
    if _is_below(reached, traced.groups, recall):
        return np.full(HARD, UNREACHED, np.float32)
    return LEVELS[at].astype(np.float32)


def _levels(
    traced: Traced, ranges: NDArray[np.intp], column: int, easy: int, errors: float
) -> Longs:
    """The level of each range of hardness for one of RECALLS, with so many errors to spare."""
    recall, recalls = RECALLS[column], traced.recalls
    wanted = min(recall + MARGIN, HIGHEST)
    at = np.zeros(HARD, np.int64)
    for each in range(HARD):
        own = recalls[ranges == each]
        if len(own):
            curve = own.mean(axis=0)
            at[each] = (curve >= min(wanted, curve.max())).argmax()
    at = _ascending(at, easy)
    limits = {each: min(HIGHEST, last - FINDS_MORE) for each, last in traced.at_last.items()}
    goals = goals_of(traced, recall, errors)
    return _raised(
        traced, ranges, at, {each: min(goals[each], limits[each]) for each in goals}, easy
    )


def goals_of(traced: Traced, recall: float, errors: float) -> dict[int, float]:
    """What the mean of each group of queries has to be, to be sure of a recall.

    So many standard errors above the least that is still taken for the recall, and the recall at
    least. The error is that of a group whose mean is the least: what those that were asked happened
    to lose does not make it smaller.
    """
    least, goals = recall - min(TOLERANCE, (1 - recall) / 2), {}
    for group in traced.present:
        curves = traced.recalls[traced.groups == group]
        error = math.sqrt(least * (1 - least) / (_worth(curves, recall) * len(curves)))
        goals[group] = max(recall, least + errors * error)
    return goals


def _worth(curves: Wide, recall: float) -> float:
    """How many rows a query is worth: one where all of its rows are found or none.

    By how much queries differ at a mean near a recall, or USUAL: above it too few lose anything.
    """
    means = curves.mean(axis=0)
    at = int(np.abs(means - min(recall, USUAL)).argmin())
    mean, variance = float(means[at]), float(curves[:, at].var())
    return max(1.0, mean * (1 - mean) / variance) if variance else math.inf


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
        worth = _worth(curves, USUAL)
        if recall * (1 - recall) / (worth * len(curves)) > (DOUBTFUL * (1 - recall)) ** 2:
            found.append(group)
    return found


def too_few(traced: Traced, edges: Wide, helping: Callable[[int], int]) -> list[int]:
    """Groups of which a further helping makes searches less patient, or tells the highest recall.

    Where all of a group are found with ease, it matters little how many they are; nor where bounds
    leave out too much of it.

    helping   how many queries of a group one has
    """
    ranges, last = np.searchsorted(edges, traced.hardness), traced.at_last
    found = {group for group in in_doubt(traced) if last[group] >= RECALLS[USUAL_COLUMNS[-1]]}
    for column in USUAL_COLUMNS:
        recall = RECALLS[column]
        least = recall - min(TOLERANCE, (1 - recall) / 2)
        at = _levels(traced, ranges, column, 0, 0.0)
        reached = traced.recalls[np.arange(len(ranges)), at[ranges]]
        for group, goal in goals_of(traced, recall, ERRORS).items():
            own = reached[traced.groups == group]
            part = math.sqrt(len(own) / (len(own) + helping(group)))
            lower = min(goal, last[group]) - max(recall, least + part * (goal - least))
            if own.mean() < goal and lower > GAIN * (1 - recall):
                found.add(group)
    return sorted(found)


def _raised(
    traced: Traced,
    ranges: NDArray[np.intp],
    at: Longs,
    goals: dict[int, float],
    easy: int,
) -> Longs:
    """Levels by hardness, raised until each group has its goal, as far as that is any use."""
    recalls, groups = traced.recalls, traced.groups
    while True:
        reached = recalls[np.arange(len(recalls)), at[ranges]]
        group = _failing(reached, groups, goals)
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


def _failing(reached: Wide, groups: Longs, goals: dict[int, float]) -> int | None:
    """A group whose mean is below its goal; or None."""
    for group, goal in goals.items():
        if reached[groups == group].mean() < goal:
            return group
    return None


def _is_below(reached: Wide, groups: Longs, recall: float) -> bool:
    """Whether the mean of some group is surely below a recall."""
    for group in np.unique(groups):
        own = reached[groups == group]
        if own.mean() < recall - DOUBT * own.std() / math.sqrt(len(own)):
            return True
    return False
