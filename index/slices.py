"""Slices: long work over the values of many rows, an interrupt being looked for between pieces.

One call of NumPy or of Python's sort over a million values takes longer than an interrupt may wait.
Here the same results are made of pieces of a few milliseconds each.

    sorting   values --a sample's quantiles--> buckets, in the order of the rows --> sorted each

Buckets instead of runs that are merged: telling the bucket of a value costs as many comparisons as
the sort of the bucket then saves, and nothing has to be merged. A bucket that is much too large
holds one value many times; what equals that value needs no sorting, the rest is sorted likewise.

Invariants
    SL1 What is found is what the one call would have found: sorts are stable, of equal values the
        first is kept.
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np

Check = Callable[[], None]
T = TypeVar("T")

SLICE_VALUES = 1 << 13  # Python values between two looks: about a millisecond
SLICE_NUMBERS = 1 << 18  # numbers of arrays: about as long
STORED_AS_GIVEN = SLICE_NUMBERS >> 2  # a longer column is stored in a list of its own
WATCHED_VALUES = 1 << 10  # of which each costs some microseconds
SLICE_BYTES = 1 << 22  # to a file: some milliseconds
SORTED_VALUES = 1 << 14  # Python values that one call sorts
SORTED_NUMBERS = 1 << 17  # numbers that one call sorts: some ten milliseconds
SAMPLED = 32  # values of the sample for each bucket
STRIDE = 2654435761  # a prime: places of a sample, without a period that rows may have
MOST_BUCKETS = 1 << 10
MANY_SLICES = 8  # from so many on, what is made is not to be looked at again and again
MOST_MOVES = 1 << 14  # between two full collections: half a minute of work


class _Moves:
    """How often the young were moved since a full collection of the garbage collector."""

    count = 0


def grow_old() -> None:
    """Leave all that was made so far to full collections of the garbage collector.

    A collection of the young looks at each item of each new list: beside some lists of a million
    values it takes 50 milliseconds, a full one 100. To move the young among the old takes none.
    Nothing is moved where the program has frozen objects, which would be thawed. Each move also
    puts the next full collection off, for the whole program: so after MOST_MOVES of them there is
    one, else nothing in a circle would ever be freed.
    """
    if gc.get_freeze_count():
        return
    _Moves.count += 1
    if _Moves.count > MOST_MOVES:
        _Moves.count = 0
        if gc.isenabled():
            gc.collect()
    gc.freeze()
    gc.unfreeze()


def unchecked() -> None:
    """For who has no statement to stop."""


def slices(count: int, size: int, check: Check) -> Iterator[slice]:
    """The slices of `count` things; `check` is called before each."""
    is_long = count > MANY_SLICES * size
    for start in range(0, count, size):
        check()
        if is_long:
            grow_old()
        yield slice(start, min(start + size, count))


def watched(values: Iterable[T], check: Check) -> Iterator[T]:
    """The values; `check` is called before each slice of them but the first.

    A slice is read before its first value is given: to give them one by one would cost more than
    most of what is done with them.
    """
    return chain.from_iterable(_watched_slices(iter(values), check))


def _watched_slices(values: Iterator[T], check: Check) -> Iterator[list[T]]:
    number = 0
    while some := list(islice(values, WATCHED_VALUES)):
        if number:
            check()
            if not number % SLICE_VALUES:
                grow_old()
        number += len(some)
        yield some


def pieces(buffers: Iterable[Any], check: Check) -> Iterator[Any]:
    """Buffers of bytes in pieces of SLICE_BYTES; `check` is called before each."""
    for buffer in buffers:
        whole = memoryview(buffer)
        for start in range(0, len(whole), SLICE_BYTES):
            check()
            yield whole[start : start + SLICE_BYTES]


# ------------------------------------------------------------------------- arrays


def taken(values: np.ndarray, order: np.ndarray, check: Check) -> np.ndarray:
    """`values[order]`."""
    if len(order) <= SLICE_NUMBERS:
        check()
        return np.asarray(values[order])
    found = np.empty((len(order), *values.shape[1:]), values.dtype)
    for some in slices(len(order), SLICE_NUMBERS, check):
        np.take(values, order[some], axis=0, out=found[some], mode="wrap")
    return found


def number_order(values: np.ndarray, check: Check) -> np.ndarray:
    """`np.argsort(values, kind="stable")` of numbers (n,); NaN behind all others."""
    count = len(values)
    if count <= SORTED_NUMBERS:
        check()
        return np.argsort(values, kind="stable")
    buckets = min(MOST_BUCKETS, 2 * count // SORTED_NUMBERS + 1)
    sample = np.sort(values[np.arange(buckets * SAMPLED) * STRIDE % count])
    bounds = np.unique(sample[SAMPLED::SAMPLED])
    places = _bucketed(values, bounds, check)
    found = np.empty(count, np.int64)
    at = 0
    for some in places:
        check()
        end = at + len(some)
        found[at:end] = _sorted_bucket(values, some, check)
        at = end
    return found


def label_order(labels: np.ndarray, counts: np.ndarray, check: Check) -> np.ndarray:
    """`np.argsort(labels, kind="stable")` of unsigned numbers; `counts[i]` of them are i."""
    found = np.empty(len(labels), np.int64)
    for some in slices(len(labels), SLICE_NUMBERS, check):
        found[some] = 0  # else the first run would wait for the memory of all of it
    free = np.cumsum(counts) - counts  # where the next place of each label stands
    within = np.arange(SORTED_NUMBERS, dtype=np.uint64)
    bits = np.uint64((SORTED_NUMBERS - 1).bit_length())
    for some in slices(len(labels), SORTED_NUMBERS, check):
        keys = labels[some].astype(np.uint64) << bits
        keys |= within[: len(keys)]
        keys.sort()  # many times quicker than to sort stably by the labels alone
        own = keys >> bits
        places = (keys & np.uint64((1 << int(bits)) - 1)).astype(np.int64)
        starts = np.flatnonzero(own[1:] != own[:-1]) + 1
        starts = np.concatenate(([0], starts))
        sizes = np.diff(starts, append=len(keys))
        distinct = own[starts].astype(np.int64)
        to = np.arange(len(keys)) + np.repeat(free[distinct] - starts, sizes)
        found[to] = places + some.start
        free[distinct] += sizes
    return found


def joined(arrays: Sequence[np.ndarray], check: Check) -> np.ndarray:
    """`np.concatenate(arrays)` of (n,), one at least; all of one type."""
    count = sum(map(len, arrays))
    if count <= SLICE_NUMBERS:
        check()
        return np.concatenate(arrays)
    found = np.empty(count, arrays[0].dtype)
    at = 0
    for array in arrays:
        for some in slices(len(array), SLICE_NUMBERS, check):
            found[at + some.start : at + some.stop] = array[some]
        at += len(array)
    return found


def rises(values: np.ndarray, check: Check) -> bool:
    """Whether each of the numbers (n,) is larger than the one before it."""
    if len(values) <= SLICE_NUMBERS:
        return bool((values[1:] > values[:-1]).all())
    for some in slices(len(values) - 1, SLICE_NUMBERS, check):
        after = values[some.start + 1 : some.stop + 1]
        if not bool(np.all(after > values[some])):
            return False
    return True


def counting_up(first: int, count: int, check: Check) -> np.ndarray:
    """`np.arange(first, first + count)`."""
    if count <= SLICE_NUMBERS:
        return np.arange(first, first + count, dtype=np.int64)
    found = np.empty(count, np.int64)
    for some in slices(count, SLICE_NUMBERS, check):
        found[some] = np.arange(first + some.start, first + some.stop)
    return found


def _bucketed(values: np.ndarray, bounds: np.ndarray, check: Check) -> Iterator[np.ndarray]:
    """The places of the values in each bucket between the bounds, ascending."""
    pieces: list[tuple[np.ndarray, np.ndarray]] = []
    for some in slices(len(values), SLICE_NUMBERS, check):
        bucket = np.searchsorted(bounds, values[some], "right").astype(np.uint16)
        order = np.argsort(bucket, kind="stable")
        starts = np.searchsorted(bucket[order], np.arange(len(bounds) + 2))
        pieces.append((order + some.start, starts))
    for bucket_number in range(len(bounds) + 1):
        yield np.concatenate(
            [order[starts[bucket_number] : starts[bucket_number + 1]] for order, starts in pieces]
        )


def _sorted_bucket(values: np.ndarray, places: np.ndarray, check: Check) -> np.ndarray:
    """The places of a bucket in the order of their values."""
    own = values[places]
    if len(places) <= 2 * SORTED_NUMBERS:
        return places[np.argsort(own, kind="stable")]
    least = np.fmin.reduce(own)  # the bucket's bound, which is there often where it is large
    is_least = own == least
    rest = places[~is_least]
    if len(rest) == len(places):  # NaN
        return places
    if len(rest) * 2 > len(places):
        return places[np.argsort(own, kind="stable")]
    return np.concatenate([places[is_least], rest[number_order(values[rest], check)]])


def distinct_numbers(values: np.ndarray, check: Check) -> tuple[np.ndarray, np.ndarray]:
    """`np.unique(values, return_inverse=True)` of numbers (n,), none of them NaN."""
    if len(values) <= SORTED_NUMBERS:
        check()
        found, inverse = np.unique(values, return_inverse=True)
        return found, inverse
    order = number_order(values, check)
    ordered = taken(values, order, check)
    begins = np.empty(len(values), bool)
    begins[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    check()
    ranks = np.cumsum(begins)
    ranks -= 1
    inverse = np.empty(len(values), np.int64)
    for some in slices(len(values), SLICE_NUMBERS, check):
        inverse[order[some]] = ranks[some]
    return ordered[begins], inverse


def counted_numbers(values: np.ndarray, check: Check) -> tuple[np.ndarray, np.ndarray]:
    """`np.unique(values, return_counts=True)` of numbers (n,), none of them NaN."""
    if len(values) <= SORTED_NUMBERS:
        check()
        found, counts = np.unique(values, return_counts=True)
        return found, counts
    ordered = taken(values, number_order(values, check), check)
    begins = [np.zeros(1, np.int64)]
    for some in slices(len(values) - 1, SLICE_NUMBERS, check):
        after = ordered[some.start + 1 : some.stop + 1]
        begins.append(np.flatnonzero(after != ordered[some]) + (some.start + 1))
    starts = joined([*begins, np.array([len(values)])], check)
    return taken(ordered, starts[:-1], check), np.diff(starts)


# ------------------------------------------------------------------------- Python values


def value_order(
    places: list[int], values: Sequence[Any], check: Check, *, descending: bool = False
) -> list[int]:
    """Places, in the order of their values, of which any two compare; equal ones keep theirs."""
    count = len(places)
    key = values.__getitem__
    if count <= 2 * SORTED_VALUES:
        check()
        return sorted(places, key=key, reverse=descending)
    wanted = count // SORTED_VALUES + 1
    sample = sorted([key(places[at * STRIDE % count]) for at in range(wanted * SAMPLED)])
    bounds = [sample[SAMPLED]]
    for value in sample[2 * SAMPLED :: SAMPLED]:
        if bounds[-1] < value:
            bounds.append(value)
    buckets: list[list[int]] = [[] for _ in range(len(bounds) + 1)]
    add = [bucket.append for bucket in buckets]
    for some in slices(count, SLICE_VALUES, check):
        for place in places[some]:
            add[bisect_right(bounds, values[place])](place)
    del add  # what holds the buckets
    if descending:
        buckets.reverse()
        bounds.reverse()
    found: list[int] = []
    for number in range(len(buckets)):
        bucket, buckets[number] = buckets[number], []  # freed with the next one, not with all
        own = None
        if len(bucket) > 4 * SORTED_VALUES:
            at = number if descending else number - 1
            own = bounds[at] if 0 <= at < len(bounds) else None
        found += _sorted_values(bucket, values, own, check, descending)
    return found


def _sorted_values(
    bucket: list[int], values: Sequence[Any], bound: Any, check: Check, descending: bool
) -> list[int]:
    """The places of a bucket in order; `bound`: the value with which a large one begins."""
    check()
    if bound is None:
        return sorted(bucket, key=values.__getitem__, reverse=descending)
    equal: list[int] = []
    rest: list[int] = []
    for some in slices(len(bucket), SLICE_VALUES, check):
        for place in bucket[some]:
            (rest if bound < values[place] else equal).append(place)
    if len(rest) * 2 > len(bucket):
        rest = sorted(rest, key=values.__getitem__, reverse=descending)
    else:
        rest = value_order(rest, values, check, descending=descending)
    return rest + equal if descending else equal + rest


def mapped(values: Sequence[Any], call: Callable[[Any], Any], check: Check) -> list[Any]:
    """`list(map(call, values))`."""
    found: list[Any] = []
    for some in slices(len(values), SLICE_VALUES, check):
        found += map(call, values[some])
    return found


def pieced(
    values: Sequence[Any], call: Callable[[Sequence[Any]], list[Any]], check: Check
) -> list[Any]:
    """What a call that takes some microseconds a value gives for all of them."""
    if len(values) <= WATCHED_VALUES:
        return call(values)
    found: list[Any] = []
    for some in slices(len(values), WATCHED_VALUES, check):
        found += call(values[some])
    return found


def listed(array: np.ndarray, check: Check) -> list[Any]:
    """`array.tolist()` of (n,)."""
    if len(array) <= SLICE_NUMBERS:
        check()
        whole: list[Any] = array.tolist()
        return whole
    found: list[Any] = []
    for some in slices(len(array), SLICE_NUMBERS, check):
        found += array[some].tolist()
    return found


def emptied(check: Check, *given: list[Any] | dict[Any, Any] | set[Any]) -> None:
    """Empty lists that nobody else reads: to free a million texts or tuples at once, as the end
    of a function does, takes 20 to 100 milliseconds. Likewise dicts and sets.
    """
    for values in given:
        while len(values) > SLICE_VALUES:
            check()
            if isinstance(values, list):
                del values[-SLICE_VALUES:]
                continue
            remove = values.popitem if isinstance(values, dict) else values.pop
            for _ in range(SLICE_VALUES):
                remove()


def handed_over(*columns: list[Any]) -> Iterator[tuple[Any, ...]]:
    """`zip(*columns)`, the columns, of one length, being emptied slice by slice."""
    for column in columns:
        column.reverse()
    while columns[0]:
        some = [column[-SLICE_VALUES:] for column in columns]
        for column, own in zip(columns, some, strict=True):
            del column[-SLICE_VALUES:]
            own.reverse()
        yield from zip(*some, strict=True)


def kinds_of(values: Sequence[Any], check: Check) -> set[type]:
    """The types of the values."""
    kinds: set[type] = set()
    for some in slices(len(values), SLICE_NUMBERS, check):
        kinds.update(map(type, values[some]))
    return kinds


def array_of(values: Sequence[Any], dtype: Any, check: Check) -> np.ndarray:
    """`np.array(values, dtype)` of numbers."""
    found = np.empty(len(values), dtype)
    for some in slices(len(values), SLICE_NUMBERS >> 2, check):
        found[some] = values[some]
    return found


def distinct_values(values: Iterable[Hashable], check: Check) -> dict[Any, None]:
    """`dict.fromkeys(values)`."""
    found: dict[Any, None] = {}
    waiting = iter(values)
    while some := dict.fromkeys(islice(waiting, 4 * SLICE_VALUES)):
        check()
        grow_old()
        if found:
            found.update(some)
        else:
            found = some
    return found


def rows_of(columns: Sequence[Iterable[Any]], check: Check) -> list[tuple[Any, ...]]:
    """`list(zip(*columns, strict=True))`."""
    waiting = zip(*columns, strict=True)
    found: list[tuple[Any, ...]] = []
    while some := list(islice(waiting, 4 * SLICE_VALUES)):
        check()
        grow_old()
        found += some
    return found


def columns_of(rows: Sequence[Sequence[Any]], width: int, check: Check) -> list[list[Any]]:
    """`list(zip(*rows))`, as lists, of rows of `width` values.

    A zip over so many rows makes an iterator for each, at all of which the garbage collector looks.
    """
    found: list[list[Any]] = [[] for _ in range(width)]
    for some in slices(len(rows), SLICE_VALUES, check):
        own = rows[some]
        for at, column in enumerate(found):
            column += [row[at] for row in own]
    return found


def picked(values: Sequence[Any], places: np.ndarray, check: Check) -> list[Any]:
    """The values at some places."""
    found: list[Any] = []
    read = values.__getitem__
    for some in slices(len(places), 4 * SLICE_VALUES, check):
        found += map(read, places[some].tolist())
    return found
