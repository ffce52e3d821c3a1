"""The search of lists in NumPy: the twin of kernels.search, and what its tests compare it with.

It takes the same steps on the same numbers, block by block; only the order in which a sum's terms
are added differs, so that bounds and distances agree to some float32 roundings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.lists import BLOCK, SLOTS
from m2mdb.compute.hrm2.rotation import transform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Lists

    Floats = NDArray[np.float32]

BUCKETS = 1024
HARD = 6  # ranges of hardness


class Stop(NamedTuple):
    """When probing ends; see kernels.search.

    hardness  float32[2 * HARD - 1]: HARD - 1 ascending distances, then a patience for each of the
              HARD ranges between them; None: `patience` for all
    """

    k: int
    least: int
    patience: int
    most: int
    factor: float
    hardness: NDArray[np.float32] | None = None


class Outcome(NamedTuple):
    """What a search found and did.

    positions   nearest first
    nearness    float32, by 8-bit codes
    """

    positions: list[int]
    nearness: list[float]
    probed: int
    codes: int
    reranked: int


class Prepared(NamedTuple):
    """A rotated query as bytes and as the fast scan's table."""

    small: NDArray[np.int8]
    scale: np.float32
    square: np.float32
    table: NDArray[np.uint8]
    table_scale: np.float32
    table_low: np.float32


def prepare(rotated: Floats) -> Prepared:
    """See kernels.prepare."""
    one = np.float32(1)
    largest = max(np.abs(rotated).max(), np.float32(1e-30))
    small = np.rint(rotated * (np.float32(127) / largest)).astype(np.int8)
    groups = rotated.reshape(-1, 4)
    reach = np.abs(groups).sum(axis=1)
    most = np.float32(min(255, 65535 // len(groups)))
    step = most / (np.float32(2) * max(reach.max(), np.float32(1e-30)))
    patterns = np.arange(16)[:, None] >> np.arange(4) & 1
    values = reach[:, None] + groups @ (2 * patterns - 1).T.astype(np.float32)
    table = (values * step + np.float32(0.5)).astype(np.uint8)
    square = np.float32(rotated @ rotated)
    return Prepared(small, largest / np.float32(127), square, table, one / step, -reach.sum())


def sums_of_block(codes: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The table's entries of each code of a block, added, in the order of SLOTS."""
    block = codes.reshape(-1, 16)
    nibbles = np.concatenate((block & 15, block >> 4), axis=1)
    sums = np.take_along_axis(table, nibbles.astype(np.intp), axis=1).astype(np.int64).sum(axis=0)
    ordered: NDArray[np.int64] = sums[SLOTS]
    return ordered


def list_distances(lists: Lists, query: Prepared, metric: str) -> Floats:
    """Distances of all lists by their 8-bit centroids."""
    centers = lists.centers.reshape(len(lists.center_scales), -1).astype(np.int32) - 128
    products = (centers @ query.small.astype(np.int32)).astype(np.float32)
    distances = np.float32(-2) * query.scale * lists.center_scales * products
    if metric != "ip":
        distances += query.square + lists.center_squares
    out: Floats = distances
    return out


def list_order(distances: Floats) -> NDArray[np.intp]:
    """Lists, nearest first, as far as BUCKETS steps tell them apart."""
    low, high = distances.min(), distances.max()
    step = np.float32(BUCKETS - 1) / max(high - low, np.float32(1e-30))
    return np.argsort(((distances - low) * step).astype(np.int32), kind="stable")


def search(
    lists: Lists,
    query: Floats,
    metric: str,
    stop: Stop,
    *,
    wanted: int,
    epsilon: float,
    seed: int,
    mask: NDArray[np.bool_] | None = None,
) -> Outcome:
    """The best rows of a query, as kernels.search finds them.

    query   float32[width], padded; of length 1 under cosine
    """
    prepared = prepare(transform(query[None], seed)[0])
    distances = list_distances(lists, prepared, metric)
    order = list_order(distances)
    width = len(query)
    root = np.float32(1 / np.sqrt(width))
    best: list[tuple[np.float32, int]] = []
    done = last = codes = reranked = 0
    patience = float(stop.patience)
    while done < min(stop.most, len(order)):
        if done == stop.least and stop.hardness is not None:
            hard = np.searchsorted(stop.hardness[: HARD - 1], _worst(best, stop.k))
            patience = float(stop.hardness[HARD - 1 + hard])
        is_full = done >= stop.least and len(best) >= stop.k
        if is_full and done >= np.float32(stop.factor) * last + patience:
            break
        each = int(order[done])
        base = distances[each]
        reach = prepared.square if metric == "ip" else max(base, np.float32(0))
        spread = np.float32(epsilon) * np.sqrt(reach)
        pending: list[tuple[np.float32, int]] = []
        worst = _worst(best, stop.k)  # of the moment when the list is begun
        for block in range(int(lists.starts[each]), int(lists.starts[each + 1])):
            codes += BLOCK
            raw = lists.codes[block * 4 * width : (block + 1) * 4 * width]
            sums = sums_of_block(raw, prepared.table).astype(np.float32)
            products = (prepared.table_scale * sums + prepared.table_low) * root
            h, f, e = lists.factors[block].reshape(3, BLOCK)
            bounds = base + h - f * products - spread * e
            for slot in np.flatnonzero(bounds < worst).tolist():
                position = int(lists.positions[block, slot])
                if position >= 0 and (mask is None or mask[lists.ordinals[position]]):
                    pending.append((bounds[slot], position))
        for bound, position in _nearest_first(pending):
            if not bound < _worst(best, stop.k):
                break
            reranked += 1
            distance = _distance(lists, prepared, position, metric)
            if len(best) == wanted and not distance < best[-1][0]:
                continue
            if 0 <= _insert(best, distance, position, wanted) < stop.k:
                last = done
        done += 1
    return Outcome(
        [position for _, position in best], [float(d) for d, _ in best], done, codes, reranked
    )


def _worst(best: list[tuple[np.float32, int]], k: int) -> np.float32:
    return best[k - 1][0] if len(best) >= k else np.float32(np.inf)


def _distance(lists: Lists, query: Prepared, position: int, metric: str) -> np.float32:
    """A row's distance by its 8-bit code."""
    width = len(query.small)
    row = lists.bytes8[position * width : (position + 1) * width].astype(np.int32) - 128
    product = np.float32(int(row @ query.small.astype(np.int32)))
    distance = np.float32(-2) * query.scale * lists.scales[position] * product
    if metric != "ip":
        distance += query.square + lists.squares[position]
    return np.float32(distance)


def _nearest_first(pending: list[tuple[np.float32, int]]) -> Iterator[tuple[np.float32, int]]:
    """By bound; the first of equal ones comes first, among rows that change places meanwhile."""
    for turn in range(len(pending)):
        at = min(range(turn, len(pending)), key=lambda i: pending[i][0])
        pending[turn], pending[at] = pending[at], pending[turn]
        yield pending[turn]


def _insert(
    best: list[tuple[np.float32, int]], distance: np.float32, position: int, wanted: int
) -> int:
    """Put a row behind those that are as near (K4); its place, or -1 where it was there."""
    if any(d == distance and p == position for d, p in best):
        return -1
    at = len(best)
    while at and best[at - 1][0] > distance:
        at -= 1
    best.insert(at, (distance, position))
    del best[wanted:]
    return at
