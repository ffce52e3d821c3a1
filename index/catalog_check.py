"""What the catalog may say: numbers, names and places that cannot be are refused when it is read.

Pages have checksums, so damage does not come this far; a file that somebody made does. What passes
here can be used without a thought of its bounds: names are texts, numbers have room to grow, and
no two segments share a page of the file, so that all of them together are no larger than it.

Invariants
    CC1 Every number that is counted up has 2**16 steps at least to its end.
    CC2 Column ids and names are distinct, and so are the names of collections.
    CC3 Each extent belongs to one segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from m2mdb.index.list_counts import LEAST_LISTS, LISTS, MOST_LISTS
from m2mdb.index.needs import newer
from m2mdb.index.schema import (
    MAX_COLUMNS,
    MAX_KEY_COLUMNS,
    MAX_RULE_CHARACTERS,
    CollectionSchema,
    Column,
    IndexInfo,
)
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.header import LARGEST_NUMBER

if TYPE_CHECKING:
    from m2mdb.index.catalog import Catalog, CollectionEntry
    from m2mdb.index.segment import SegmentRecord

_ROOM = 1 << 16  # CC1
GENERATED_FIELDS = {"from", "encoder", "model", "fingerprint"}  # each a text
_LAST_32 = (1 << 32) - 1 - _ROOM
_DEFAULTS = (type(None), bool, int, float, str, bytes)
_COLUMN_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "type": (str,),
    "type_name": (str,),
    "id": (int,),
    "since": (int,),
    "dimension": (int,),
    "dtype": (str,),
    "metric": (str,),
    "primary_key": (bool,),
    "unique": (bool,),
    "collation": (str,),
    "not_null": (bool,),
    "has_default": (bool,),
    "default": _DEFAULTS,
    "default_text": (type(None), str),
    "checked": (bool,),
    "fulltext": (type(None), dict),
    "generated": (type(None), dict),
}
RETRAIN = (None, "auto", "manual")  # the option of an hrm2 index
_INDEX_TYPES: dict[str, type] = {"name": str, "kind": str, "unique": bool, "origin": str}
_ORIGINS = ("", "primary", "unique")


def check_fields(fields: Iterable[Any], where: str) -> None:
    """Raise TypeError where the JSON of columns has a value of another type than its field.

    Raises NotSupportedError: a field that this build does not know.
    """
    for column in fields:
        unknown = column.keys() - _COLUMN_TYPES.keys()
        if unknown:
            raise newer(where, f"the field {min(unknown)!r} of a column")
        for name, value in column.items():
            if name == "default" and type(value) is dict:
                continue  # bytes, in hex
            if type(value) not in _COLUMN_TYPES[name]:
                raise TypeError(f"{name} of a column is {type(value).__name__}")
        of = column.get("generated")
        if of is not None and (
            set(of) - {"replaces"} != GENERATED_FIELDS
            or any(type(value) is not str for value in of.values())
        ):
            raise TypeError(f"a generated column is described by {sorted(of)[:8]}")


def check_description(schema: CollectionSchema, roots: Iterable[Any]) -> None:
    """Raise TypeError or ValueError where a description cannot be one (CC2)."""
    for root in (*roots, *[index.root for index in schema.indexes if index.kind == "btree"]):
        _check_number("a root", root, 2, (1 << 32) - 1)
    ids = [column.id for column in schema.columns]
    if len(set(ids)) != len(ids) or not all(0 <= id_ <= _LAST_32 for id_ in ids):
        raise ValueError(f"columns have the ids {ids[:20]}")
    for column in schema.columns:
        _check_number(f"the first segment of column {column.id}", column.since, 0, _LAST_32)
        if column.since and column.is_key:
            raise ValueError(f"column {column.id} is a key that was added later")
    for index in schema.indexes:
        _check_index(schema, index)
    if (
        sum(index.origin == "primary" for index in schema.indexes)
        + len([column for column in schema.columns if column.primary_key])
        > 1
    ):
        raise ValueError("a collection has two primary keys")
    for check in schema.checks:
        _check_rule(check.text, check.name, check.column)
        if check.column is not None and schema.position(check.column) is None:
            raise ValueError("a CHECK is of no column")
    if len(schema.checks) > MAX_COLUMNS:
        raise ValueError(f"a collection has {len(schema.checks)} CHECKs")
    for column in schema.columns:
        _check_rule(column.default_text or "", None, None)
    names = [index.name.lower() for index in schema.indexes]
    if len(set(names)) != len(names):
        raise ValueError("two indexes have one name")


def _check_rule(text: Any, *names: Any) -> None:
    """The text of a rule is bounded here; that it is an expression shows when it is compiled."""
    if type(text) is not str or any(type(name) not in (str, type(None)) for name in names):
        raise TypeError("a CHECK is described by other things than texts")
    if len(text) > MAX_RULE_CHARACTERS:
        raise ValueError(f"a rule has {len(text)} characters; the limit is {MAX_RULE_CHARACTERS}")


def _check_index(schema: CollectionSchema, index: IndexInfo) -> None:
    for name, kind in _INDEX_TYPES.items():
        if type(getattr(index, name)) is not kind:
            raise TypeError(f"{name} of an index is {type(getattr(index, name)).__name__}")
    if not isinstance(index.options, dict) or index.options.get("retrain") not in RETRAIN:
        raise ValueError(f"index {index.name[:40]!r} has options that it does not take")
    if LISTS in index.options:
        number = index.options[LISTS]
        _check_number(f"lists of index {index.name[:40]!r}", number, LEAST_LISTS, MOST_LISTS)
    what = f"index {index.name[:40]!r}"
    names = [name.lower() for name in index.columns if type(name) is str]
    if len(names) != len(index.columns) or len(set(names)) != len(names):
        raise ValueError(f"{what} has columns twice, or of no name")
    if len(names) > (MAX_KEY_COLUMNS if index.kind == "btree" else 1):
        raise ValueError(f"{what} has {len(names)} columns")
    if index.origin not in _ORIGINS or (
        index.origin and (len(names) < 2 or not index.unique or index.kind != "btree")
    ):
        raise ValueError(f"{what} upholds no constraint that there is: {index.origin[:40]!r}")
    for name in names:
        position = schema.position(name)
        if position is None:
            raise ValueError(f"{what} is on no column")
        column: Column = schema.columns[position]
        if index.kind == "btree" and column.is_vector:
            raise ValueError(f"{what} has vectors as keys")
        if index.origin == "primary" and not column.not_null:
            raise ValueError(f"{what}, a primary key, is on a column that may be NULL")


def _check_number(what: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} is {value!r:.40}, expected {low} to {high}")


def check_catalog(catalog: Catalog, where: str) -> None:
    """Raise CorruptDatabaseError where the catalog cannot be one (CC1, CC2, CC3)."""
    if len(catalog.by_name) != len(catalog.by_id):
        raise CorruptDatabaseError(f"{where}: two collections have one name")
    try:
        _check_number("the next collection", catalog.next_id, 1, _LAST_32)
        for entry in catalog.by_id.values():
            _check_entry(entry)
    except ValueError as problem:
        raise CorruptDatabaseError(f"{where}: {problem}") from None
    places = sorted(
        (extent.start_page, extent.page_count)
        for entry in catalog.by_id.values()
        for record in _records(entry)
        for extent in record.extents
    )
    for (start, count), (following, _) in pairwise(places):
        if start + count > following:
            raise CorruptDatabaseError(f"{where}: page {following} is in two extents")


def _records(entry: CollectionEntry) -> Iterator[SegmentRecord]:
    yield from entry.records.values()
    yield from getattr(entry, "past", {}).values()


def _check_entry(entry: CollectionEntry) -> None:
    what = f"collection {entry.id}"
    _check_number("the number of a collection", entry.id, 0, _LAST_32)
    _check_number(f"base sequence of {what}", entry.base_sequence, 0, LARGEST_NUMBER)
    _check_number(f"next rowid of {what}", entry.next_rowid, 0, 1 << 63)
    _check_number(f"next segment of {what}", entry.next_segment, 0, _LAST_32)
    _check_number(f"next column of {what}", entry.next_column, 0, _LAST_32)
    for record in _records(entry):
        _check_number(f"a segment of {what}", record.id, 1, _LAST_32)
        _check_number(f"rows of segment {record.id} of {what}", record.rows, 1, (1 << 32) - 1)
        for number in (record.commit, record.version):
            _check_number(f"a number of segment {record.id} of {what}", number, 0, LARGEST_NUMBER)
        if not record.extents:
            raise ValueError(f"segment {record.id} of {what} has no extent")
