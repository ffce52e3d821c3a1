"""The search of lists in NumPy: the twin of kernels.search, and what its tests compare it with.

It takes the same steps on the same numbers, block by block; only the order in which a sum's terms
are added differs, so that bounds and distances agree to some float32 roundings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2.lists import BLOCK, SLOTS
from m2mdb.compute.hrm2.rotation import transform
from m2mdb.compute.hrm2.routes import Routes, routes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Lists

    Floats = NDArray[np.float32]

HARD = 6  # ranges of hardness
TOLD = 3 * HARD - 1  # numbers that say what a range means, see `Stop`
EPSILON = 1.3  # standard errors taken off a 1-bit estimate, where no table says more
MOST_ENTRY = 63  # of the fast scan's table: four of them fit in a byte
# the order of lists
BUCKETS = 256
CROWDED = 8  # items of a bucket, and a 32nd of all, beyond which it is parted by itself
LEAST_RANGE = 1e-30  # of keys that are parted
HALVINGS = 48  # of the range of numbers, for a cut
FAR_SHARE = 1 / 64  # of the range that is left, in the place of a half, while nearly all lie in it
OPEN_SHARE, LEAST_OPEN = 2, 64  # the near supers are one in so many, and so many at least
WAVE = 96  # lists that are brought in order before the first is probed
# Where a search says how many lists it probes (PROBES): so many times as many supers and lists are
# looked at before the first is probed, but no fewer than these, and no more than without
FEW_AHEAD, FEW_OPEN, LEAST_WAVE = 4, 24, 32
SPREAD_SHARE = np.float32(0.5)  # of the mean |r|^2 of its rows, that is added to a list's distance:
#                       all of it would tell how far its rows are in the mean, not the nearest ones
MANY = 12  # rows of a list that may enter, of which a quarter is compared first
TOGETHER = 8  # rows that are compared before it is looked which of them are among the best
MANY_LISTS = 1 << 30  # more than there are


class Stop(NamedTuple):
    """When probing ends; see kernels.search.

    hardness  float32[TOLD]: HARD - 1 ascending distances; then for each of the HARD ranges between
              them a patience, and the share of `factor` that holds; None: `patience` for all
    epsilon   standard errors that a 1-bit bound takes off its estimate
    ahead     lists that are expected to suffice: fewer are brought in order for few of them
    waits     whether hardness is told as soon as there are k rows, not by the first lists alone
    """

    k: int
    least: int
    patience: int
    most: int
    factor: float
    hardness: NDArray[np.float32] | None = None
    epsilon: float = EPSILON
    ahead: int = MANY_LISTS
    waits: bool = False

    @property
    def limits(self) -> tuple[int, int, int, int, int, int]:
        """What the kernels take of it as `limits`."""
        how = self.ahead, int(self.waits)
        return self.k, self.least, self.patience, self.most, *how


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
    plain: Floats | None = None  # the query as it came, where rows are compared in place


def prepare(rotated: Floats) -> Prepared:
    """See kernels.prepare."""
    one = np.float32(1)
    largest = max(np.abs(rotated).max(), np.float32(1e-30))
    small = np.rint(rotated * (np.float32(127) / largest)).astype(np.int8)
    groups = rotated.reshape(-1, 4)
    reach = np.abs(groups).sum(axis=1)
    most = np.float32(min(MOST_ENTRY, 65535 // len(groups)))
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


def by_bytes(
    arrays: tuple[NDArray[np.uint8], Floats, Floats], query: Prepared, metric: str
) -> Floats:
    """Distances of vectors by their 8-bit codes: bytes, scales, squares."""
    codes, scales, squares = arrays
    rows = codes.reshape(len(scales), -1).astype(np.int32) - 128
    products = (rows @ query.small.astype(np.int32)).astype(np.float32)
    distances = np.float32(-2) * query.scale * scales * products
    if metric != "ip":
        distances += query.square + squares
    out: Floats = distances
    return out


def estimates_of(routes: Routes, supers: NDArray[np.intp], keys: Floats, query: Prepared) -> Floats:
    """Distances of the lists of supers by their 1-bit codes; infinite where there is no list."""
    zero, out = np.float32(0), []
    for each in supers.tolist():
        for block in range(int(routes.starts[each]), int(routes.starts[each + 1])):
            out.append(
                bounds_of(routes.codes, block, routes.factors[block], query, (keys[each], zero))
            )
    return np.concatenate(out) if out else np.empty(0, np.float32)


def bounds_of(
    codes: NDArray[np.uint8],
    block: int,
    factors: Floats,
    query: Prepared,
    terms: tuple[np.float32, np.float32],
) -> Floats:
    """Estimates of a block's distances, less their errors: base + h - f <b, q> - spread * e."""
    width = len(query.small)
    raw = codes[block * 4 * width : (block + 1) * 4 * width]
    sums = sums_of_block(raw, query.table).astype(np.float32)
    products = (query.table_scale * sums + query.table_low) * np.float32(1 / np.sqrt(width))
    h, f, e = factors.reshape(3, BLOCK)
    base, spread = terms
    out: Floats = base + h - f * products - spread * e
    return out


def cut(values: Floats, wanted: int, low: np.float32, high: np.float32) -> np.float32:
    """A number that `wanted` values or a quarter more are below; infinity where there is none."""
    found, share, before, is_far = np.float32(np.inf), np.float32(0.5), len(values), True
    for _ in range(HALVINGS):
        middle = low + share * (high - low)
        below, share = int((values < middle).sum()), np.float32(0.5)
        if below < wanted:
            low, is_far = middle, False
        else:
            found = high = middle
            if below <= wanted + (wanted >> 2):
                break
            if is_far and below > before - (before >> 4):
                share = np.float32(FAR_SHARE)
            before = below
    return found


def list_order(
    lists: Lists, routes: Routes, query: Prepared, metric: str, most: int | None = None
) -> tuple[NDArray[np.intp], Floats]:
    """Lists as they are probed, wave by wave; and their distances, by number.

    most  lists that will be probed, where that is known
    """
    supers = by_bytes((routes.supers, routes.super_scales, routes.super_squares), query, metric)
    near = _bucket_order(supers)
    arrays = (lists.centers, lists.center_scales, lists.center_squares)
    distances = by_bytes(arrays, query, metric)
    keys = distances if metric == "ip" else distances + SPREAD_SHARE * routes.spreads
    soon = FEW_AHEAD * (len(distances) if most is None else most)
    opened = min(len(near), max(LEAST_OPEN, len(near) // OPEN_SHARE), max(FEW_OPEN, soon))
    wave_size = min(WAVE, max(LEAST_WAVE, soon))
    estimates, waves, ready = np.empty(0, np.float32), [], 0
    numbers = np.empty(0, np.int32)
    for some in (near[:opened], near[opened:]):
        estimates = np.concatenate((estimates, estimates_of(routes, some, supers, query)))
        blocks = [np.arange(routes.starts[each], routes.starts[each + 1]) for each in some.tolist()]
        numbers = np.concatenate([numbers, *(routes.numbers[block].ravel() for block in blocks)])
        while (estimates < np.inf).any():
            low, high = estimates.min(), estimates[estimates < np.inf].max()
            limit, wanted = np.float32(np.inf), max(wave_size, ready >> 1)
            if wanted + wave_size < int((estimates < np.inf).sum()):
                limit = cut(estimates, wanted, low, high)
            taken = estimates < limit
            wave = numbers[taken]
            estimates[taken] = np.inf
            waves.append(wave[_bucket_order(keys[wave])])
            ready += len(wave)
            if len(waves) == 1:
                break
    return np.concatenate(waves), distances


def _bucket_order(keys: Floats) -> NDArray[np.intp]:
    """Smallest first, as far as BUCKETS steps tell them apart; see steps.bucket_order."""
    low, high, some, start = keys.min(), keys.max(), np.arange(len(keys)), 0
    order, least = np.empty(len(keys), np.intp), np.float32(LEAST_RANGE)
    step = np.float32(BUCKETS - 1) / max(high - low, least)
    while True:
        buckets = ((keys[some] - low) * step).astype(np.int32)
        order[start : start + len(some)] = some[np.argsort(buckets, kind="stable")]
        sizes = np.bincount(buckets, minlength=BUCKETS)
        crowded = np.flatnonzero(sizes > max(CROWDED, len(keys) >> 5))
        if not len(crowded):
            return order
        start += int(sizes[: crowded[0]].sum())
        some = some[(buckets == crowded[0]) | (buckets == crowded[0] + 1)]
        low, high = keys[some].min(), keys[some].max()
        if not high - low > least:
            return order
        step = np.float32(BUCKETS - 1) / (high - low)


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
    turned = transform(query[None], seed)[0]
    turned = turned if lists.middle is None else turned - lists.middle
    prepared = prepare(turned)._replace(plain=query)
    most = min(stop.most, len(lists.center_scales))
    known = most if stop.least >= most else min(stop.ahead, len(lists.center_scales))
    order, distances = list_order(lists, routes_of(lists, metric), prepared, metric, known)
    best: list[tuple[np.float32, int]] = []
    done = last = codes = reranked = 0
    patience, factor, is_told = float(stop.patience), np.float32(stop.factor), False
    while done < min(stop.most, len(order)):
        is_full = done >= stop.least and len(best) >= stop.k
        is_due = is_full or (done == stop.least and not stop.waits)
        if is_due and not is_told and stop.hardness is not None:
            is_told = True
            hard = np.searchsorted(stop.hardness[: HARD - 1], _worst(best, stop.k))
            patience = float(stop.hardness[HARD - 1 + hard])
            factor *= stop.hardness[2 * HARD - 1 + hard]
        if is_full and done >= factor * last + patience:
            break
        each = int(order[done])
        base = distances[each]
        reach = prepared.square if metric == "ip" else max(base, np.float32(0))
        spread = np.float32(epsilon) * np.sqrt(reach)
        pending: list[tuple[np.float32, int]] = []
        worst = _worst(best, stop.k)  # of the moment when the list is begun
        for block in range(int(lists.starts[each]), int(lists.starts[each + 1])):
            codes += BLOCK
            factors = lists.factors[block]
            bounds = bounds_of(lists.codes, block, factors, prepared, (base, spread))
            for slot in np.flatnonzero(bounds < worst).tolist():
                position = int(lists.positions[block, slot])
                if position >= 0 and (mask is None or mask[lists.ordinals[position]]):
                    pending.append((bounds[slot], position))
        for turn in _in_turn(pending):
            while some := _together(turn, _worst(best, stop.k)):
                reranked += len(some)
                for position in some:
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
    """A row's distance by its 8-bit code, or by its vector."""
    if lists.vectors is not None:
        row = lists.vectors[lists.ordinals[position]].astype(np.float32)
        assert query.plain is not None
        product = np.float32(row @ query.plain[: len(row)]) * lists.scales[position]
        near = query.square + lists.squares[position] if metric != "ip" else np.float32(0)
        return np.float32(near - np.float32(2) * product)
    width, some = len(query.small), slice(position, position + 1)
    row = lists.bytes8[position * width : (position + 1) * width]
    return np.float32(by_bytes((row, lists.scales[some], lists.squares[some]), query, metric)[0])


def _in_turn(pending: list[tuple[np.float32, int]]) -> Iterator[list[tuple[np.float32, int]]]:
    """A quarter of many, with the smallest bounds, and then the others; each in order."""
    limit = np.float32(-np.inf)
    if len(pending) > MANY:
        bounds = np.array([bound for bound, _ in pending], np.float32)
        wanted = max(MANY >> 1, len(pending) >> 2)
        limit = cut(bounds, wanted, bounds.min(), bounds.max())
    yield [each for each in pending if each[0] < limit]
    yield [each for each in pending if not each[0] < limit]


def _together(turn: list[tuple[np.float32, int]], worst: np.float32) -> list[int]:
    """Take the rows that are compared together from a turn; none where no bound lets one in."""
    taken: list[int] = []
    while turn and len(taken) < TOGETHER:
        bound, position = turn.pop(0)
        if bound < worst:
            taken.append(position)
    return taken


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
