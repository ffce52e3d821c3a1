"""Balance: lists that are too long are split, and those that nothing stands in are given up.

k-means leaves crowded regions in few lists: a search that probes one of them compares the rows of
many, and the patience that was measured in lists means little there. After training, each list
with more than LONG times the mean of the sample's rows becomes several, each of about the mean;
lists without rows of the sample go, and what they may have been nearest to goes to their
neighbours. Rows that are all alike cannot be told apart: their list stays long.

Invariants
    B1  The supers, and which of them are near each other, stay: lists change within their super.
    B2  Depends on rows and seed alone, and takes one more assignment of the sample at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.sample import Sample
    from m2mdb.compute.hrm2.training import Router

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int32]

LONG = 3.0  # times the mean: then 99 lists of 100 have at most 4 times, of all rows too
FEW = 0.002  # share of lists that may be long or empty without anything being done
SPLIT_ROUNDS = 4  # of k-means within a list
SPLIT_NEIGHBOURS = 12  # supers whose lists a row is compared with afterwards


def balanced(
    router: Router,
    sample: Sample,
    first: Ints,
    rng: np.random.Generator,
    tick: Callable[[], None],
) -> Router:
    """The router with long lists split and empty ones left out.

    first  the list of each row of the sample, by which the centroids were made
    """
    from m2mdb.compute.hrm2.training import moved

    sizes = np.bincount(first, minlength=len(router.centers))
    mean = sample.count / max(1, len(sizes))
    is_long = (sizes > LONG * mean) & (sizes >= 2)
    if np.count_nonzero(is_long | (sizes == 0)) <= FEW * len(sizes):
        return router
    router = _changed(router, sample, first, (sizes, is_long, mean), rng, tick)
    return moved(router, sample, SPLIT_NEIGHBOURS, tick)[0]


def _changed(
    router: Router,
    sample: Sample,
    first: Ints,
    found: tuple[NDArray[np.int64], NDArray[np.bool_], float],
    rng: np.random.Generator,
    tick: Callable[[], None],
) -> Router:
    sizes, is_long, mean = found
    order = np.argsort(first, kind="stable")
    starts = np.cumsum(sizes) - sizes
    parts: list[Floats] = []
    owned = np.zeros(len(router.supers) + 1, np.int32)
    for super_ in range(len(router.supers)):
        count = 0
        for each in range(int(router.owned[super_]), int(router.owned[super_ + 1])):
            if not sizes[each]:
                continue
            part = router.centers[each : each + 1]
            if is_long[each]:
                members = sample.at(order[starts[each] : starts[each] + sizes[each]]).rows
                part = _split(members, round(sizes[each] / mean), rng, tick)
            parts.append(part)
            count += len(part)
        owned[super_ + 1] = owned[super_] + count
    return router._replace(centers=np.concatenate(parts), owned=owned)


def _split(
    members: Floats, pieces: int, rng: np.random.Generator, tick: Callable[[], None]
) -> Floats:
    """Centroids of a list's parts; one where its rows are alike."""
    from m2mdb.compute.hrm2.training import k_means

    tick()
    if not np.ptp(members, axis=0).any():
        return members[:1].copy()
    centers = k_means(members, max(2, pieces), SPLIT_ROUNDS, rng, tick)[0]
    out: Floats = np.unique(centers, axis=0)
    return out
