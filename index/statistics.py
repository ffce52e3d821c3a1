"""Statistics: what ANALYZE learns of a collection's columns, for the planner's estimates.

    under "T" collection column   JSON: rows, nulls, distinct, low, high, common

They stand in the catalog's tree and change in the transaction that counts them; nothing else
keeps them up to date, and no answer depends on them. A column without an order (VECTOR, BLOB) has
counts alone. They hold values of rows, so FORGET drops those of its collection.

Invariants
    ST1 rows = nulls + the others; the counts of `common` add up to no more than these.
    ST2 Values are short: a text of more than TEXT_CHARACTERS is left out of `common`, and cut in
        `low` and `high`.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from heapq import nlargest
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from m2mdb.index.slices import (
    SLICE_NUMBERS,
    SLICE_VALUES,
    WATCHED_VALUES,
    Check,
    counted_numbers,
    joined,
    slices,
)
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.index.catalog import CatalogItems, CollectionEntry
    from m2mdb.index.collection import CollectionView, Part
    from m2mdb.index.view import WriteView
    from m2mdb.pager.btree import BTree

KIND = b"T"
Common = list[tuple[Any, int]]
MOST_COMMON = 16
TEXT_CHARACTERS = 80
_KEY = struct.Struct(">II")
_FIELDS = ("rows", "nulls", "distinct", "low", "high", "common")
_PLAIN = (type(None), bool, int, float, str)
_count = itemgetter(1)
_THIRD = 1 / 3  # of the rows, where nothing better is known of a range


class ColumnStatistics(NamedTuple):
    """What is known of one column.

    rows      of the collection when they were counted
    nulls     of them, without a value
    distinct  different values
    low high  the least and the greatest value in stored form; None where there is no order
    common    the most frequent values that stand in several rows, and in how many, descending
    """

    rows: int
    nulls: int
    distinct: int
    low: Any
    high: Any
    common: tuple[tuple[Any, int], ...]

    def encode(self) -> bytes:
        """The value in the catalog."""
        return json.dumps(dict(zip(_FIELDS, self, strict=True)), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, raw: bytes, where: str) -> ColumnStatistics:
        """Raises CorruptDatabaseError where it is none."""
        try:
            fields = json.loads(raw)
            common = tuple([(value, count) for value, count in fields["common"]])
            rows, nulls, distinct, low, high = [fields[name] for name in _FIELDS[:-1]]
            found = cls(rows, nulls, distinct, low, high, common)
            numbers = [found.rows, found.nulls, found.distinct, *[count for _, count in common]]
            values = [found.low, found.high, *[value for value, _ in common]]
            sound = all(type(number) is int and 0 <= number <= found.rows for number in numbers)
            if not sound or not all(type(value) in _PLAIN for value in values):
                raise ValueError("numbers that cannot be")
        except (ValueError, TypeError, LookupError, RecursionError) as problem:
            raise CorruptDatabaseError(f"{where}: damaged statistics: {problem}") from problem
        return found

    # --------------------------------------------------------------- estimates

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.nulls

    def equal_share(self, value: Any = None) -> float:
        """The share of the rows with a value; None: any of them."""
        if not self.rows or not self.present:
            return 0.0
        rest, kinds = self.present, self.distinct
        for known, count in self.common:
            if value is not None and known == value:
                return count / self.rows
            rest -= count
            kinds -= 1
        if value is None:
            return self.present / max(1, self.distinct) / self.rows
        if self._is_beyond(value):
            return 0.0
        return max(rest, 0) / max(1, kinds) / self.rows

    def _is_beyond(self, value: Any) -> bool:
        try:
            return self.low is not None and not self.low <= value <= self.high
        except TypeError:
            return False

    def range_share(self, low: Any = None, high: Any = None) -> float:
        """The share of the rows between two values; None leaves a side open."""
        if not self.rows or not self.present:
            return 0.0
        third = self.present / self.rows * _THIRD
        numbers = (int, float)
        if not isinstance(self.low, numbers) or not isinstance(self.high, numbers):
            return third
        if any(bound is not None and not isinstance(bound, numbers) for bound in (low, high)):
            return third
        start = self.low if low is None else max(low, self.low)
        stop = self.high if high is None else min(high, self.high)
        if start > stop:
            return 0.0
        frequent = sum(count for _, count in self.common)
        within = sum(count for value, count in self.common if start <= value <= stop)
        width = float(self.high) - float(self.low)
        part = (float(stop) - float(start)) / width if 0 < width < float("inf") else 1.0
        rest = max(self.present - frequent, 0)
        return (within + max(rest * min(part, 1.0), min(rest, 1))) / self.rows


def statistics_key(collection: int, column: int) -> bytes:
    """The key of a column's statistics."""
    return KIND + _KEY.pack(collection, column)


def put_all(tree: CatalogItems, entry: CollectionEntry) -> None:
    """Write the statistics of every column."""
    for column, found in entry.statistics.items():
        tree.put(statistics_key(entry.id, column), found.encode())


def remove_all(tree: BTree, entry: CollectionEntry) -> None:
    """Remove the statistics of every column."""
    for column in entry.statistics:
        tree.delete(statistics_key(entry.id, column))


def drop(write: WriteView, view: CollectionView) -> None:
    """Forget what was learned of a collection."""
    if not view.entry.statistics:
        return
    entry = view.entry.copy()
    remove_all(write.catalog_tree(), entry)
    entry.statistics = {}
    write.replace_entry(view, entry)


def analyze(write: WriteView, name: str) -> None:
    """Count a collection's columns anew."""
    view = write.collection(name)
    entry = view.entry.copy()
    remove_all(write.catalog_tree(), entry)
    entry.statistics = {}
    for index, column in enumerate(view.schema.columns):
        write.database.check_interrupted()
        entry.statistics[column.id] = _counted(view, index)
    put_all(write.catalog_tree(), entry)
    write.replace_entry(view, entry)
    write.database.plans.clear()  # they were chosen by other figures


# ------------------------------------------------------------------------- counting


def _counted(view: CollectionView, index: int) -> ColumnStatistics:
    column = view.schema.columns[index]
    rows = view.count()
    if column.is_vector:
        present = sum(_vectors(part, index) for part in view.parts())
        return ColumnStatistics(rows, rows - present, present, None, None, ())
    if column.type in ("INTEGER", "REAL", "BOOLEAN", "TIMESTAMP"):
        return _of_numbers(view, index, rows)
    counts: dict[Any, int] = {}
    for part in view.parts():
        _count_values(counts, part, index, is_text=column.type != "BLOB", check=view.check)
    nulls = counts.pop(None, 0)
    if column.type == "BLOB" or not counts:
        return ColumnStatistics(rows, nulls, len(counts), None, None, ())
    low, high, common = _ends_and_common(counts, view.check)
    high = high if len(high) <= TEXT_CHARACTERS else high[:TEXT_CHARACTERS] + "\U0010ffff"
    return ColumnStatistics(
        rows, nulls, len(counts), low[:TEXT_CHARACTERS], high,
        tuple([each for each in common if len(each[0]) <= TEXT_CHARACTERS]),
    )  # fmt: skip


def _ends_and_common(counts: dict[Any, int], check: Check) -> tuple[Any, Any, Common]:
    """The least and the greatest value, and the most frequent ones that stand several times."""
    frequent: Common = []
    low = high = next(iter(counts))
    waiting = iter(counts.items())
    while some := list(islice(waiting, SLICE_VALUES)):
        check()
        low = min(low, min(some)[0])
        high = max(high, max(some)[0])
        frequent += nlargest(MOST_COMMON, [each for each in some if each[1] > 1], key=_count)
    return low, high, nlargest(MOST_COMMON, frequent, key=_count)


def _vectors(part: Part, index: int) -> int:
    """How many live rows of a part have a vector."""
    live, present = part.live, part.present(index)
    if live is None or present is None:
        return part.live_count if present is None else int(np.count_nonzero(present))
    return int(np.count_nonzero(live & present))


def _live(part: Part) -> np.ndarray:
    live = part.live
    return np.arange(part.size) if live is None else np.flatnonzero(live)


def _count_values(
    counts: dict[Any, int], part: Part, index: int, *, is_text: bool, check: Check
) -> None:
    """Add how often each value stands in the live rows of a part; bytes have no dictionary."""
    from m2mdb.index.dictionary import dictionary_of

    live = _live(part)
    found = dictionary_of(part, index) if is_text else None
    if found is not None:
        times = np.zeros(len(found[1]) + 1, np.int64)
        for some in slices(len(live), SLICE_NUMBERS, check):
            times += np.bincount(found[0][live[some]] + 1, minlength=len(times))
        for value, count in zip([None, *found[1]], times.tolist(), strict=True):
            if count:
                counts[value] = counts.get(value, 0) + count
        return
    for values in (
        _sliced(part, index, live, check) if is_text else _blobs(part, index, live, check)
    ):
        for value, count in Counter(values).items():
            counts[value] = counts.get(value, 0) + count


def _sliced(part: Part, index: int, live: np.ndarray, check: Check) -> Iterator[list[Any]]:
    """The values of some rows of a part, slice by slice."""
    values = part.values(index, None if len(live) == part.size else live)
    for some in slices(len(values), SLICE_VALUES, check):
        yield values[some]


def _blobs(part: Part, index: int, live: np.ndarray, check: Check) -> Iterator[list[Any]]:
    """As `_sliced`, without all values of a part at a time."""
    for some in slices(len(live), WATCHED_VALUES, check):
        yield part.few_values(index, live[some].tolist())


def _of_numbers(view: CollectionView, index: int, rows: int) -> ColumnStatistics:
    values = joined([each for part in view.parts() for each in _numbers(part, index)], view.check)
    if not len(values):
        return ColumnStatistics(rows, rows, 0, None, None, ())
    distinct, counts = counted_numbers(values, view.check)
    candidates = []
    for some in slices(len(counts), SLICE_NUMBERS, view.check):
        order = np.argsort(-counts[some], kind="stable")[:MOST_COMMON]
        candidates.append(order + some.start)
    places = np.concatenate(candidates)
    order = places[np.argsort(-counts[places], kind="stable")[:MOST_COMMON]]
    is_boolean = view.schema.columns[index].type == "BOOLEAN"
    common = [
        (bool(value) if is_boolean else value, count)
        for value, count in zip(distinct[order].tolist(), counts[order].tolist(), strict=True)
        if count > 1
    ]
    low, high = distinct[0].item(), distinct[-1].item()
    if is_boolean:
        low, high = bool(low), bool(high)
    return ColumnStatistics(rows, rows - len(values), len(distinct), low, high, tuple(common))


def _numbers(part: Part, index: int) -> Iterator[np.ndarray]:
    """The values of a column of a part that are not NULL."""
    found = part.numbers(index)
    assert found is not None, "the column is of numbers"
    values, nulls = found
    live = part.live
    if nulls is not None:
        live = ~nulls if live is None else live & ~nulls
    yield values if live is None else values[live]
