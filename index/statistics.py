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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.index.catalog import CatalogItems, CollectionEntry
    from m2mdb.index.collection import CollectionView, Part
    from m2mdb.index.view import WriteView
    from m2mdb.pager.btree import BTree

KIND = b"T"
MOST_COMMON = 16
TEXT_CHARACTERS = 80
_KEY = struct.Struct(">II")
_FIELDS = ("rows", "nulls", "distinct", "low", "high", "common")
_PLAIN = (type(None), bool, int, float, str)
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
    counts: Counter[Any] = Counter()
    for part in view.parts():
        counts.update(_value_counts(part, index, is_text=column.type != "BLOB"))
    nulls = counts.pop(None, 0)
    low = high = None
    if counts and column.type != "BLOB":
        low, high = min(counts)[:TEXT_CHARACTERS], max(counts)
        high = high if len(high) <= TEXT_CHARACTERS else high[:TEXT_CHARACTERS] + "\U0010ffff"
    common: list[tuple[Any, int]] = []
    if column.type != "BLOB":
        common = [
            (value, count)
            for value, count in counts.most_common(MOST_COMMON)
            if count > 1 and len(value) <= TEXT_CHARACTERS
        ]
    return ColumnStatistics(rows, nulls, len(counts), low, high, tuple(common))


def _vectors(part: Part, index: int) -> int:
    """How many live rows of a part have a vector."""
    live, present = part.live, part.present(index)
    if live is None or present is None:
        return part.live_count if present is None else int(np.count_nonzero(present))
    return int(np.count_nonzero(live & present))


def _live(part: Part) -> np.ndarray:
    live = part.live
    return np.arange(part.size) if live is None else np.flatnonzero(live)


def _value_counts(part: Part, index: int, *, is_text: bool) -> dict[Any, int]:
    """How often each value stands in the live rows of a part; bytes have no dictionary."""
    from m2mdb.index.dictionary import dictionary_of

    live = _live(part)
    found = dictionary_of(part, index) if is_text else None
    if found is None:
        return Counter(part.stored(index, ordinal) for ordinal in live.tolist())
    counts = np.bincount(found[0][live] + 1, minlength=len(found[1]) + 1).tolist()
    shown = zip([None, *found[1]], counts, strict=True)
    return {value: count for value, count in shown if count}


def _of_numbers(view: CollectionView, index: int, rows: int) -> ColumnStatistics:
    values = np.concatenate(list(_numbers(view, index)))
    distinct, counts = np.unique(values, return_counts=True)
    if not len(values):
        return ColumnStatistics(rows, rows, 0, None, None, ())
    order = np.argsort(-counts, kind="stable")[:MOST_COMMON]
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


def _numbers(view: CollectionView, index: int) -> Iterator[np.ndarray]:
    """The values of a column that are not NULL, part by part."""
    for part in view.parts():
        found = part.numbers(index)
        assert found is not None, "the column is of numbers"
        values, nulls = found
        live = _live(part)
        yield values[live] if nulls is None else values[live][~nulls[live]]
