"""What a connection with limits may read and write (`pager.limits`).

    reading   `index.untrusted` compares the whole file before the first row is given out
    writing   `check_catalog` compares a schema, `check_values` what is about to be stored

Both ask the same functions, so that a connection writes nothing that it would refuse to open.

Invariants
    LI1 Under FORMAT, the limits of every file, nothing is looked at here: `index.schema` and
        `index.values` hold them already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from m2mdb.pager.errors import DataError, ProgrammingError
from m2mdb.pager.limits import FORMAT

if TYPE_CHECKING:
    from m2mdb.index.catalog import Catalog
    from m2mdb.index.schema import CollectionSchema, Column
    from m2mdb.index.values import StoredColumn
    from m2mdb.pager.limits import Limits

LONG_TYPES = ("TEXT", "BLOB", "JSON")  # whose values have a length


def beyond(what: str, found: int, limit: int) -> Iterator[str]:
    """A line that says so where a number is beyond its limit."""
    if found > limit:
        yield f"{found} {what}, the limit is {limit}"


def catalog_excesses(catalog: Catalog, limits: Limits) -> Iterator[str]:
    """What of the collections and their schemas is beyond the limits."""
    yield from beyond("collections", len(catalog.by_id), limits.collections)
    for entry in catalog.by_id.values():
        what = f"of {entry.schema.name[:40]!r}"
        yield from _schema_excesses(entry.schema, what, limits)
        yield from beyond(f"segments {what}", len(entry.records), limits.segments)


def _schema_excesses(schema: CollectionSchema, what: str, limits: Limits) -> Iterator[str]:
    yield from beyond(f"columns {what}", len(schema.columns), limits.columns)
    yield from beyond(f"indexes {what}", len(schema.indexes), limits.indexes)
    named = [schema.name, *[c.name for c in schema.columns], *[i.name for i in schema.indexes]]
    longest = max(len(name.encode()) for name in named)
    yield from beyond(f"bytes in a name {what}", longest, limits.name_bytes)
    dimension = max((c.dimension for c in schema.columns), default=0)
    yield from beyond(f"dimensions {what}", dimension, limits.dimension)


def check_catalog(catalog: Catalog, limits: Limits) -> None:
    """Raise ProgrammingError where a changed schema is beyond the limits."""
    if limits is FORMAT:
        return
    for problem in catalog_excesses(catalog, limits):
        raise ProgrammingError(f"on an untrusted file: {problem}")


def check_values(schema: CollectionSchema, stored: Sequence[StoredColumn], limits: Limits) -> None:
    """Raise DataError where a value in stored form is longer than the limits allow."""
    if limits is FORMAT:
        return
    for column, values in zip(schema.columns, stored, strict=True):
        if column.type in LONG_TYPES and isinstance(values, list):
            for problem in long_values(schema.name, column, values, limits):
                raise DataError(f"on an untrusted file: {problem}")


def long_values(
    name: str, column: Column, values: Sequence[str | bytes | None], limits: Limits
) -> Iterator[str]:
    """The longest of some values of a column, where that is beyond the limit."""
    longest = 0
    for value in values:
        if value is not None and len(value) * 4 > limits.value_bytes:  # UTF-8 takes at most four
            raw = value if isinstance(value, bytes) else value.encode()
            longest = max(longest, len(raw))
    yield from beyond(f"bytes in a value of {name}.{column.name}", longest, limits.value_bytes)
