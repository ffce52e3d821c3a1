"""Encoding ahead: the texts of a statement are encoded before it takes the writer lock (GE5).

    INSERT … VALUES, executemany --texts of the sources--> encoder --vectors--> the statement
    INSERT … SELECT, UPDATE      --at a snapshot-----------^

A server that answers slowly then keeps no other writer waiting. Of VALUES, parameters and literals
are taken. The query of an INSERT, and the rows and values of an UPDATE, are looked at in a snapshot
first and once more under the lock, where the texts that another writer has changed meanwhile are
encoded, as are those of expressions in VALUES and of statements that read bound tables. Nothing is
looked at twice where no generated column is made of what the statement writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2mdb.index import generated
from m2mdb.query.ast import Insert, Update
from m2mdb.query.dml import UpdatePlan
from m2mdb.query.insert import InsertPlan
from m2mdb.query.nodes import Literal, Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from m2mdb.index.database import Database
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View
    from m2mdb.query.plan import Plan


def encode_ahead(
    database: Database,
    statement: Insert | Update,
    check: Callable[[View], Plan],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Encode what the statement will ask for, once for each of the rows of parameters.

    rows     Bindings; for VALUES also sequences of parameters
    check    gives the plan; raises what planning the statement raises, before a text leaves
    """
    if not generated.may_encode_ahead(database, statement.collection):
        return
    with database.reading() as view:
        plan = check(view)
        schema = view.collection(statement.collection).schema
        if isinstance(statement, Insert) and statement.query is None:
            texts = _texts(statement, schema, rows)
        elif isinstance(plan, InsertPlan | UpdatePlan):
            texts = _found_texts(plan, view, schema, rows)
        else:
            return
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


def _found_texts(
    plan: InsertPlan | UpdatePlan, view: View, schema: CollectionSchema, rows: Sequence[Any]
) -> dict[str, list[Any]]:
    """The values that columns would get at this snapshot; none where no text is made of them."""
    sources = {generated.source_of(schema, index) for index in schema.generated_columns}
    names = {schema.columns[index].name.lower() for index in sources}
    texts: dict[str, list[Any]] = {}
    if names.isdisjoint(plan.written_names()):
        return texts
    for bindings in rows:
        for name, values in plan.values_at(view, bindings).items():
            texts.setdefault(name, []).extend(values)
    return texts
