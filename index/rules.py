"""Rules: the expressions that a schema holds as text, CHECK and computed DEFAULT.

The catalog keeps a text; the query layer, which knows the language, compiles it when it is first
needed and is handed in here (`set_language`), because nothing of this layer may import it.

    CHECK (text)     no row may be there for which the condition is false; NULL passes
    DEFAULT (text)   computed for each row that an INSERT gives no value

Invariants
    RU1 A CHECK is evaluated over all values of a row, in stored form made Python values, before
        anything is written (X1); what it gives depends on these values alone.
    RU2 A text of the catalog that is no such expression is CorruptDatabaseError, and neither is
        evaluated nor passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from m2mdb.pager.errors import CheckFailedError, OperationalError

if TYPE_CHECKING:
    import numpy as np

    from m2mdb.index.collection import CollectionView, Part
    from m2mdb.index.database import Database
    from m2mdb.index.schema import Check, CollectionSchema
    from m2mdb.index.values import StoredColumn


class Compiled(Protocol):
    """The rules of one schema."""

    def failing(
        self, stored: Sequence[StoredColumn], rowids: np.ndarray, check: Callable[[], None]
    ) -> tuple[Check, list[int]] | None:
        """The first CHECK that is false for rows of a batch, and these rows; None where all pass.

        check   raises where the statement is to stop
        """
        ...

    def failing_in(self, part: Part, check: Callable[[], None]) -> tuple[Check, int] | None:
        """The first CHECK that is false for live rows of a part, and the rowid of one of them."""
        ...

    def default(self, column: int, count: int, database: Database) -> list[Any]:
        """The values of a computed DEFAULT for some rows."""
        ...


class Language(Protocol):
    """What the query layer does with the texts."""

    def compiled(self, schema: CollectionSchema) -> Compiled:
        """The rules of a schema; CorruptDatabaseError where a text is none (RU2)."""
        ...

    def renamed(self, schema: CollectionSchema, text: str, old: str, new: str) -> str:
        """A CHECK of a schema with one of its columns under another name."""
        ...

    def moved(self, schema: CollectionSchema, text: str, name: str) -> str:
        """A CHECK of a schema whose collection gets another name."""
        ...

    def names(self, schema: CollectionSchema, text: str) -> set[int]:
        """The columns that a CHECK reads."""
        ...


_language: list[Callable[[], Language]] = []


def set_language(load: Callable[[], Language]) -> None:
    """Hand in what gives the language; it is called when a schema with a rule is first met."""
    _language[:] = [load]


def language() -> Language:
    """The language; OperationalError where nobody has handed one in."""
    if not _language:
        raise OperationalError("a CHECK or a computed DEFAULT needs the query layer")
    return _language[0]()


def has_language() -> bool:
    """Whether rules can be compiled at all."""
    return bool(_language)


def compiled(schema: CollectionSchema) -> Compiled:
    """The rules of a schema, compiled once."""
    known: Compiled | None = schema.rules
    if known is None:
        known = schema.rules = language().compiled(schema)
    return known


def check_rows(
    view: CollectionView,
    stored: Sequence[StoredColumn],
    rowids: np.ndarray,
    check: Callable[[], None],
) -> None:
    """Raise CheckFailedError, an IntegrityError, where a CHECK is false for rows of a batch."""
    if not view.schema.checks:
        return
    found = compiled(view.schema).failing(stored, rowids, check)
    if found is not None:
        condition, rows = found
        raise CheckFailedError(f"CHECK constraint failed: {condition.title} (row {rows[0]})", rows)


def check_parts(view: CollectionView, check: Callable[[], None]) -> None:
    """Raise CheckFailedError where a CHECK is false for a row that is there."""
    for part in view.parts() if view.schema.checks else ():
        found = compiled(view.schema).failing_in(part, check)
        if found is not None:
            condition, rowid = found
            raise CheckFailedError(
                f"CHECK constraint failed: {condition.title} (the row with rowid {rowid})"
            )
