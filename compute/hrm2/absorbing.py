"""Absorbing: lists without rows that went, and with rows that came, around centroids that follow.

    codes of rows that stay --nibbles, factors--> their lane in the new blocks
    new rows --nearest centroids--> first and second list --> coded as a build codes them
    lists whose centroid is far behind the mean of their rows (`following`) --> moved there; the
        rows that had codes in them are assigned and coded as new ones

A row's codes depend on the row and on its centroids alone, so those of rows that stay are copied.
That takes a microsecond a row, where training, assigning and coding take fifty.

Invariants
    AB1 L1 and L2 of `lists` hold; rows keep their lists, but for those of lists that are moved,
        split or given up; these and new ones stand in the nearest.
    AB2 Depends on the lists, the numbers and the new rows alone.
    AB3 Lists with LONG times as many rows as there should be are split in their place, those with
        a SHORT'th given up; the rows that had codes in them are assigned and coded again. That
        takes no more rows than the change pays for: a fresh build may leave long lists, too.
        So does moving centroids (FW3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2 import following
from m2mdb.compute.hrm2.lists import (
    BLOCK,
    CHUNK_BLOCKS,
    CHUNK_ROWS,
    SLOTS,
    Lists,
    factors_of,
    never,
    nibbles_of,
    placed,
    to_bytes,
)
from m2mdb.compute.hrm2.training import (
    ASSIGNED_ROWS,
    Router,
    grouped,
    k_means,
    nearest,
    second_best,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Bytes, Floats, Ints, Room

    Marks = NDArray[np.bool_]

_SLOT_OF = np.argsort(SLOTS)
NEAR, ROUGHLY_NEAR = 12, 4  # supers whose lists a row is compared with; to count rows of lists
FLAT = 256  # centroids, up to which a row is compared with all of them
LONG = 2.5
SHORT = 12
MOST_RENEWED = 8  # at most one list in so many is split or given up at a time
MOVED = 0.5  # and at most so many rows, of those that came or went, are assigned anew for it
SPLIT_ROUNDS = 5
ALL_TWICE = 0.99  # share of rows with a second code, from which on every new one gets one


class _Codes(NamedTuple):
    """1-bit codes in the order of their blocks and lanes.

    lists, positions  of each code
    block, lane       where it stands
    """

    lists: NDArray[np.int64]
    positions: Ints
    block: NDArray[np.int64]
    lane: NDArray[np.int64]

    def take(self, chosen: NDArray[np.int64]) -> _Codes:
        return _Codes(
            self.lists[chosen], self.positions[chosen], self.block[chosen], self.lane[chosen]
        )


def decoded_centers(lists: Lists) -> Floats:
    """float32[lists, width]: centroids as searches see them, rotated."""
    centers: Floats = lists.centers.reshape(len(lists.center_scales), -1).astype(np.float32)
    centers -= np.float32(128)
    centers *= lists.center_scales[:, None]
    return centers


class Coming(NamedTuple):
    """New rows.

    rows      float32[n, width], rotated; of length 1 under cosine
    ordinals  int32[n], what they are called
    """

    rows: Floats
    ordinals: Ints


class Staying(NamedTuple):
    """Rows that are there.

    numbers  int32: what each ordinal is called now, -1 for rows that went
    fetch    gives some of them, float32[n, width], rotated, by what they are called now
    turn     rotates rows of the column's dimensions
    """

    numbers: Ints
    fetch: Callable[[Ints], Floats]
    turn: Callable[[Floats], Floats]


def absorb(
    old: Lists,
    there: Staying,
    new: Coming,
    mean: float,
    metric: str,
    room: Room = np.zeros,
    tick: Callable[[], None] = never,
) -> Lists:
    """Lists of the rows that stay and of new ones, around centroids like those of `old`.

    mean     rows that a list should have: those that came to have far more are split, those with
             far fewer given up (AB3)
    room     makes the large arrays; tick is called between chunks
    """
    numbers, fetch, turn = there
    codes = _codes(old)
    is_first = _first_codes(codes)
    called = numbers[old.ordinals]
    share = len(codes.lists) / max(1, len(called)) - 1
    centers = decoded_centers(old)
    supers = None if len(centers) <= FLAT else grouped(centers, tick=tick)[0].supers
    first = _assigned((centers, supers), new.rows, None, tick)[0]
    stays = called >= 0
    of_first = np.zeros(len(called), np.int64)
    of_first[codes.positions[is_first]] = codes.lists[is_first]
    changed = len(new.rows) + int(np.count_nonzero(numbers < 0))
    most = round(MOVED * changed + LONG * mean)
    renewed = _renewed(of_first[stays], first, len(centers), mean, most)
    members = _members(old, codes.take(np.flatnonzero(is_first & stays[codes.positions])))
    found = following.behind(old, centers, members, (new.rows, first.astype(np.int64)), turn, tick)
    follows = found.followed(changed, renewed)
    left = renewed.copy()
    left[follows] = True
    if left.any():
        moves = np.zeros(len(called), np.bool_)
        moves[codes.positions[left[codes.lists]]] = True
        moves &= stays
        stays &= ~moves
        moved, moved_from = fetch(called[moves]), of_first[moves]
        made = [
            _split(new.rows[first == each], moved[moved_from == each], mean, tick)
            for each in np.flatnonzero(renewed).tolist()
        ]
        rows = np.concatenate((new.rows, moved))
        new = Coming(rows, np.concatenate((new.ordinals, called[moves])).astype(np.int32))
        of_list = np.cumsum(~renewed) - 1
        centers[follows] = found.means[follows]
        old = _with_centers(old, np.concatenate((centers[~renewed], *made)))
        kept = ~left[codes.lists]
        codes, is_first = codes.take(np.flatnonzero(kept)), is_first[kept]
        codes = codes._replace(lists=of_list[codes.lists])
        centers = decoded_centers(old)
    first, second = _assigned((centers, supers), new.rows, share, tick)
    parts = codes, is_first, np.where(stays, called, -1)
    return _joined(old, parts, new, (first, second), metric, room, tick)


def _members(lists: Lists, first: _Codes) -> following.Members:
    """Rows by the codes of their first lists, which are in the order of these."""
    slot = _SLOT_OF[first.lane]
    f, e = (lists.factors[first.block, index * BLOCK + slot] for index in (1, 2))
    squares = following.residual_squares(f, e, lists.width)
    return following.Members(first.lists, first.positions.astype(np.int64), squares)


def _renewed(of_first: NDArray[np.int64], first: Ints, lists: int, mean: float, most: int) -> Marks:
    """The lists that are to be split or given up, those farthest from the mean (AB3).

    most  rows that they may have together
    """
    sizes = np.bincount(of_first, minlength=lists) + np.bincount(first, minlength=lists)
    out = np.zeros(lists, np.bool_)
    gap = np.maximum(sizes / mean / LONG, (mean / SHORT) / np.maximum(sizes, 0.5))
    order = np.argsort(-gap, kind="stable")[: lists // MOST_RENEWED]
    order = order[gap[order] > 1]
    out[order[np.cumsum(sizes[order]) <= max(most, int(sizes[order[:1]].sum()))]] = True
    return out


def _split(new: Floats, stay: Floats, mean: float, tick: Callable[[], None]) -> Floats:
    """Centroids in the place of one; none where so few rows are left that others take them."""
    tick()
    rows = np.concatenate((new, stay))
    if len(rows) <= mean:
        return rows[:0]
    rng = np.random.default_rng(len(rows))
    return k_means(rows, round(len(rows) / mean), SPLIT_ROUNDS, rng, tick)[0]


def _with_centers(old: Lists, centers: Floats) -> Lists:
    raw, scales = to_bytes(centers)
    squares = np.einsum("ij,ij->i", centers, centers)
    return old._replace(centers=raw.ravel(), center_scales=scales, center_squares=squares)


def _joined(
    old: Lists,
    parts: tuple[_Codes, Marks, Ints],
    new: Coming,
    lists_of: tuple[Ints, Ints],
    metric: str,
    room: Room,
    tick: Callable[[], None],
) -> Lists:
    """Lists of rows that stay in theirs and of new rows.

    old       has the centroids that are to be, and the codes of before
    parts     the codes of rows that may stay, which are of first lists, and what each position is
              called now, -1 where it does not stay
    lists_of  the first and the second list of new rows
    """
    codes, is_first, called = parts
    first, second = lists_of
    rows = new.rows
    centers = decoded_centers(old)
    stays = np.flatnonzero(called >= 0)
    compact = np.full(len(called), -1, np.int32)
    compact[stays] = np.arange(len(stays), dtype=np.int32)
    kept = np.flatnonzero(compact[codes.positions] >= 0)
    ahead, behind = codes.take(kept[is_first[kept]]), codes.take(kept[~is_first[kept]])
    # a member is a row: those that stay, then the new ones; a code of the latter has no old block
    fresh = np.arange(len(stays), len(stays) + len(rows), dtype=np.int32)
    twice = np.flatnonzero(second >= 0)
    labels = np.concatenate((ahead.lists, first, behind.lists, second[twice])).astype(np.int32)
    members = np.concatenate(
        (compact[ahead.positions], fresh, compact[behind.positions], fresh[twice])
    )
    none, few = np.full(len(rows), -1), np.full(len(twice), -1)
    block = np.concatenate((ahead.block, none, behind.block, few))
    lane = np.concatenate((ahead.lane, none, behind.lane, few))
    firsts = np.zeros(len(stays) + len(rows), np.int32)
    firsts[compact[ahead.positions]] = ahead.lists
    firsts[fresh] = first
    order = np.argsort(firsts, kind="stable").astype(np.int32)
    position = np.empty(len(order), np.int32)
    position[order] = np.arange(len(order), dtype=np.int32)
    starts, (labels, chosen, to_block, to_lane) = placed(
        labels, np.arange(len(labels), dtype=np.int32), len(centers)
    )
    source = (block[chosen], lane[chosen], members[chosen] - len(stays))
    target = (labels, to_block, to_lane)
    codes_now, factors = _moved(old, (rows, centers, metric), source, target, starts, room, tick)
    positions = np.full((int(starts[-1]), BLOCK), -1, np.int32)
    positions[to_block, _SLOT_OF[to_lane]] = position[members[chosen]]
    bytes8, scales = _bytes(old, stays, rows, order, room, tick)
    squares = np.concatenate((old.squares[stays], np.einsum("ij,ij->i", rows, rows)))
    names = np.concatenate((called[stays], new.ordinals)).astype(np.int32)
    return old._replace(
        starts=starts,
        codes=codes_now.ravel(),
        factors=factors.reshape(-1, 3 * BLOCK),
        positions=positions,
        bytes8=bytes8.ravel(),
        scales=scales,
        squares=squares[order].astype(np.float32),
        ordinals=names[order],
    )


def _codes(lists: Lists) -> _Codes:
    positions = lists.positions[:, _SLOT_OF]
    block, lane = np.nonzero(positions >= 0)
    owners = np.repeat(np.arange(len(lists.starts) - 1), np.diff(lists.starts))
    return _Codes(owners[block], positions[block, lane], block, lane)


def _first_codes(codes: _Codes) -> Marks:
    """Which codes are those of their rows' first lists; one for each row that has any.

    A list begins with the codes of the rows whose first list it is, and these are numbered on.
    Only the order of rows hangs on it.
    """
    count = len(codes.lists)
    begins = np.searchsorted(codes.lists, codes.lists)
    is_run = codes.positions - codes.positions[begins] == np.arange(count) - begins
    order = np.lexsort((np.arange(count), ~is_run, codes.positions))
    out = np.zeros(count, np.bool_)
    at = np.unique(codes.positions[order], return_index=True)[1]
    out[order[at]] = True
    return out


def _assigned(
    there: tuple[Floats, Floats | None], rows: Floats, share: float | None, tick: Callable[[], None]
) -> tuple[Ints, Ints]:
    """The first and the second list of rows; -1 where there is no second one.

    there  centroids, and around what they are grouped
    share  of the rows with a second list; None: the first, roughly, to count them
    """
    centers, supers = there
    none = np.full(len(rows), -1, np.int32)
    if not len(rows):
        return none, none
    spill = bool(share) and len(centers) > 1
    if supers is None:
        mean = centers.mean(axis=0, keepdims=True)
        flat = Router(mean, centers, np.array([0, len(centers)], np.int32), np.zeros((1, 1), int))
        first, second = _nearest_two(flat, rows, spill, tick)
    else:
        router, names = grouped(centers, tick=tick, supers=supers)
        neighbours = ROUGHLY_NEAR if share is None else NEAR
        first, second = _nearest_two(router, rows, spill, tick, neighbours)
        first = names[first]
        second = np.where(second >= 0, names[second], np.int32(-1))
    if share is not None and spill and share < ALL_TWICE:
        second = _sparing(rows, centers, first, second, share)
    return first, second.astype(np.int32)


def _nearest_two(
    router: Router, rows: Floats, spill: bool, tick: Callable[[], None], neighbours: int = NEAR
) -> tuple[Ints, Ints]:
    """As `training.assign`, for few rows a list: which of two lists are near is not asked of all.

    Where a hundred rows are near a super-cluster, the products of its thousand lists with each
    other take ten times as long as those of the rows with them.
    """
    first, second = np.full((2, len(rows)), -1, np.int32)
    labels = nearest(rows, router.supers, tick)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(len(router.supers) + 1))
    for super_ in range(len(router.supers)):
        members = order[bounds[super_] : bounds[super_ + 1]]
        if not len(members):
            continue
        lists = router.candidates(super_, neighbours)
        centers = router.centers[lists]
        squares = np.einsum("ij,ij->i", centers, centers)
        for start in range(0, len(members), ASSIGNED_ROWS):
            tick()
            chosen = members[start : start + ASSIGNED_ROWS]
            some = rows[chosen]
            products = some @ centers.T
            costs = squares - 2 * products
            best = costs.argmin(axis=1)
            first[chosen] = lists[best]
            if spill and len(lists) > 1:
                lengths = np.einsum("ij,ij->i", some, some)
                beside = centers[best] @ centers.T
                second[chosen] = lists[second_best(lengths, products, costs, best, beside)]
    return first, second


def _sparing(rows: Floats, centers: Floats, first: Ints, second: Ints, share: float) -> Ints:
    """Second lists of the rows for which they are worth most (`spilling`), of that share."""
    cosines = np.full(len(rows), 2, np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        some = slice(start, start + CHUNK_ROWS)
        one, other = rows[some] - centers[first[some]], rows[some] - centers[second[some]]
        lengths = np.einsum("ij,ij->i", one, one) * np.einsum("ij,ij->i", other, other)
        products = np.einsum("ij,ij->i", one, other)
        cosines[some] = products / np.maximum(np.sqrt(lengths), np.float32(1e-15))
    cosines[second < 0] = 2
    limit = np.partition(cosines, int(share * len(rows)))[int(share * len(rows))]
    return np.where(cosines <= min(limit, 1.5), second, np.int32(-1))


def _moved(
    old: Lists,
    new: tuple[Floats, Floats, str],
    source: tuple[NDArray[np.int64], ...],
    target: tuple[NDArray[Any], ...],
    starts: NDArray[np.int64],
    room: Room,
    tick: Callable[[], None],
) -> tuple[Bytes, Floats]:
    """1-bit codes and factors in their new lanes.

    new     rows, centroids, metric
    source  of each code its block and lane in `old`, -1 where it is a new row's, and that row
    target  of each code its list, its block and its lane; blocks ascend
    """
    rows, centers, metric = new
    block_of, lane_of, row_of = source
    labels, to_block, to_lane = target
    width, blocks = old.width, int(starts[-1])
    codes: Bytes = room((blocks, width // 4, 16), np.uint8)
    factors: Floats = room((blocks, 3, BLOCK), np.float32)
    factors[:, 0, :] = np.inf
    old_codes = old.codes.reshape(-1, width // 4, 16)
    old_factors = old.factors.reshape(-1, 3, BLOCK)
    for begin in range(0, blocks, CHUNK_BLOCKS):
        tick()
        end = min(blocks, begin + CHUNK_BLOCKS)
        some = slice(*np.searchsorted(to_block, (begin, end)).tolist())
        block, lane, is_new = block_of[some], lane_of[some], block_of[some] < 0
        to, slot = to_block[some], _SLOT_OF[to_lane[some]]
        stay = np.flatnonzero(~is_new)
        low = old_codes[block[stay], :, lane[stay] % 16]
        nibbles = np.empty((len(block), width // 4), np.uint8)
        nibbles[stay] = low >> (lane[stay] // 16 * 4).astype(np.uint8)[:, None] & 15
        factors[to[stay], :, slot[stay]] = old_factors[block[stay], :, _SLOT_OF[lane[stay]]]
        come = np.flatnonzero(is_new)
        if len(come):
            center = centers[labels[some][come]]
            residual = rows[row_of[some][come]] - center
            nibbles[come] = nibbles_of(residual > 0)
            made = np.stack(factors_of(residual, center, metric), axis=1)
            factors[to[come], :, slot[come]] = made
        both = np.zeros((end - begin, 2, 16, width // 4), np.uint8)
        both[to - begin, to_lane[some] // 16, to_lane[some] % 16] = nibbles
        codes[begin:end] = (both[:, 0] | both[:, 1] << 4).transpose(0, 2, 1)
    return codes, factors


def _bytes(
    old: Lists,
    stays: NDArray[np.int64],
    rows: Floats,
    order: Ints,
    room: Room,
    tick: Callable[[], None],
) -> tuple[Bytes, Floats]:
    """8-bit codes and their scales, in the order of positions."""
    width = old.width
    if old.vectors is not None:  # who called knows the scales
        return np.empty((0, width), np.uint8), np.ones(len(order), np.float32)
    before = old.bytes8.reshape(-1, width)
    bytes8: Bytes = room((len(order), width), np.uint8)
    scales = np.empty(len(order), np.float32)
    for start in range(0, len(order), CHUNK_ROWS):
        tick()
        some = order[start : start + CHUNK_ROWS]
        at = np.arange(start, start + len(some))
        stay, come = some < len(stays), some >= len(stays)
        kept = np.where(stay, stays[np.where(stay, some, 0)], 0) if len(stays) else some * 0
        if len(before):  # a row that comes gets any, and then its own
            np.take(before, kept, axis=0, out=bytes8[at[0] : at[-1] + 1], mode="clip")
            np.take(old.scales, kept, out=scales[at[0] : at[-1] + 1], mode="clip")
        if come.any():
            bytes8[at[come]], scales[at[come]] = to_bytes(rows[some[come] - len(stays)])
    return bytes8, scales


def mean_square(lists: Lists) -> float:
    """The mean squared distance of rows from the nearer of their lists' centroids."""
    there = lists.positions >= 0
    f, e = lists.factors[:, BLOCK : 2 * BLOCK], lists.factors[:, 2 * BLOCK :]
    squares = following.residual_squares(f[there], e[there], lists.width)
    shortest = np.full(len(lists.ordinals), np.inf)
    np.minimum.at(shortest, lists.positions[there], squares)
    return float(shortest.mean()) if len(shortest) else 0.0
