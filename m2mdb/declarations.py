"""What `create_collection` takes: the columns of a collection with their declarations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from m2mdb.pager.errors import InterfaceError, ProgrammingError


def declarations_of(name: str, schema: object) -> list[tuple[str, str]]:
    """The columns of `create_collection` with their declarations.

    Raises InterfaceError where they are no dict and no pairs, ProgrammingError where there are
    none.
    """
    pairs = list(schema.items() if isinstance(schema, Mapping) else _items(name, schema))
    for pair in pairs:
        is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not is_pair or not all(isinstance(part, str) for part in pair):
            raise InterfaceError(
                f"schema of {name}: {pair!r} is no column with its declaration; wanted is such as "
                '{"id": "TEXT PRIMARY KEY", "body": "TEXT FULLTEXT"}'
            )
    if not pairs:
        raise ProgrammingError(f"schema of {name}: a collection needs a column")
    return pairs


def _items(name: str, schema: object) -> Iterable[Any]:
    if not isinstance(schema, Iterable):
        raise InterfaceError(
            f"schema of {name} is {type(schema).__name__}; wanted is a dict of column names and "
            "declarations"
        )
    return schema
