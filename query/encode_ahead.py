"""Encoding ahead: the texts of an INSERT are encoded before it takes the writer lock (GE5).

    INSERT … VALUES, executemany --texts of the sources--> encoder --vectors--> the statement

A server that answers slowly then keeps no other writer waiting. What can be read off the statement
is taken: parameters and literals. Texts that a query or an expression gives, those of UPDATE and
of COPY, are encoded inside the statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2mdb.index import generated
from m2mdb.query.ast import Insert
from m2mdb.query.nodes import Literal, Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from m2mdb.index.database import Database
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View


def encode_ahead(
    database: Database,
    statement: Insert,
    check: Callable[[View], object],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Encode what the statement will ask for, once for each of the rows of parameters.

    check    raises what planning the statement raises, before a text leaves
    """
    if not generated.may_encode_ahead(database, statement.collection):
        return
    with database.reading() as view:
        check(view)
        texts = _texts(statement, view.collection(statement.collection).schema, rows)
    generated.encode_ahead(database, statement.collection, texts)


def _texts(
    statement: Insert, schema: CollectionSchema, rows: Sequence[Sequence[Any]]
) -> dict[str, list[Any]]:
    """The values that columns will get, by the columns' names in lower case."""
    names = statement.columns
    if names is None:
        names = [column.name for column in schema.columns if column.generated is None]
    texts: dict[str, list[Any]] = {}
    for at, name in enumerate(names):
        found = texts.setdefault(name.lower(), [])
        for row in statement.rows:
            node = row[at]
            if isinstance(node, Literal):
                found.append(node.value)
            elif isinstance(node, Parameter):
                found.extend([values[node.index] for values in rows])
    return texts
