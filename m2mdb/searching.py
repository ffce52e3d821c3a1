"""Searching: `Collection.search` and `search_batch`, from arguments to arrays.

Without `where` no parser is loaded; with it, the condition is parsed and compiled once for each
text and schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.hits import Hits
from m2mdb.index.values import check_query_vector
from m2mdb.pager.errors import DataError, InterfaceError, ProgrammingError
from m2mdb.query.limits import check_count
from m2mdb.query.search import (
    SearchRequest,
    effort_of,
    returned_columns,
    run_search,
    vector_column,
)

if TYPE_CHECKING:
    from m2mdb.connection import Connection
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View
    from m2mdb.query.search import Condition

Array = np.ndarray[Any, Any]


_MATCH_SYNTAX = str.maketrans(dict.fromkeys('"+-^~*:', " "))


def match_text(text: str) -> str:
    """Words as MATCH takes them, without any of its signs: for text that a person has typed.

    Raises InterfaceError: not a str.
    """
    if not isinstance(text, str):
        raise InterfaceError(f"match_text() takes a str, not {type(text).__name__}")
    return text.translate(_MATCH_SYNTAX)


def column_of(clause: str, value: Any) -> tuple[str | None, Any]:
    """What `near` or `match` searches: the column that a dict of one names, and the value.

    Raises ProgrammingError where a dict holds none or several, InterfaceError for a key that is
    no name, or for None.
    """
    if not isinstance(value, dict):
        return None, value
    if len(value) != 1:
        names = ", ".join(map(str, value)) or "none"
        raise ProgrammingError(f"{clause} names {len(value)} columns ({names}); wanted is one")
    ((column, value),) = value.items()
    if not isinstance(column, str):
        raise InterfaceError(f"{clause}: column {column!r} is {type(column).__name__}, not a str")
    if value is None:
        raise InterfaceError(f"{clause}: there is nothing to search {column!r} for, but None")
    return column, value


def only_row(vector: Any) -> Any:
    """An array of shape (1, d), an encoder's answer for one text, as its only row."""
    if isinstance(vector, np.ndarray) and vector.ndim == 2 and len(vector) == 1:
        return vector[0]
    return vector


def check_near(schema: CollectionSchema, request: SearchRequest) -> None:
    """ProgrammingError where several columns could be meant: it says how to name one."""
    if request.near is not None and request.near_column is None and len(schema.vector_columns) > 1:
        names = [schema.columns[index].name for index in schema.vector_columns]
        raise ProgrammingError(
            f"{schema.name} has several VECTOR columns ({', '.join(names)}); "
            f'name one: near={{"{names[0]}": vector}}, or NEAR {names[0]} ? in a statement'
        )


def check_where(where: object) -> None:
    """InterfaceError where a condition is no text: it says what one looks like."""
    if where is not None and not isinstance(where, str):
        column = next(iter(where), "topic") if isinstance(where, dict) else "topic"
        raise InterfaceError(
            f"where is {type(where).__name__}; wanted is the text of a condition, such as "
            f'where="{column} = ?", with its values in params=(…,)'
        )


def hits_of(view: View, request: SearchRequest, returning: str | Sequence[str] | None) -> Hits:
    """The hits of a request, with the columns that are wanted."""
    if isinstance(returning, str):
        returning = [name.strip() for name in returning.split(",")]
    schema = view.collection(request.collection).schema
    check_near(schema, request)
    names, sources = returned_columns(schema, returning)
    found = run_search(view, request)
    return Hits(names, found.rows(sources), found.ids, found.scores)


def condition(
    connection: Connection, view: View, collection: str, where: str | None, params: Any
) -> Condition | None:
    """A bound WHERE, None where there is none."""
    if where is None:
        return None
    check_where(where)
    from m2mdb.connection import language

    return language().condition(connection.conditions, view, collection, where, params)


def batch(
    view: View, pattern: SearchRequest, queries: Sequence[tuple[Any, Any]]
) -> tuple[Array, Array]:
    """Keys and scores of a request for each (vector, text), as matrices of k columns."""
    collection = view.collection(pattern.collection)
    check_near(collection.schema, pattern)
    check_count(view.database, pattern.k)
    if pattern.match is None:
        ids, scores = batch_near(view, pattern, [vector for vector, _ in queries])
    else:
        ids, scores = [], []
        for pattern.near, pattern.match in queries:
            found = run_search(view, pattern)
            ids.append(found.ids)
            scores.append(found.scores)
    return padded(collection, ids, scores, pattern.k)


def batch_near(
    view: View, pattern: SearchRequest, queries: Sequence[Any]
) -> tuple[list[Array], list[Array]]:
    """Keys and scores for vectors alone: all queries share each reading of the vectors."""
    from m2mdb.index.nearest import nearest_many

    collection = view.collection(pattern.collection)
    index = vector_column(collection.schema, pattern.near_column)
    column = collection.schema.columns[index]
    rows = [check_query_vector(column, query, collection.schema.name) for query in queries]
    wanted = min(pattern.k, sum(part.size for part in collection.parts()))
    if not rows or not wanted:
        return [np.empty(0, np.int64)] * len(rows), [np.empty(0)] * len(rows)
    where = pattern.where
    masks = None if where is None else [where.mask(part) for part in collection.parts()]
    effort, backend, matrix = effort_of(pattern), view.database.kernels, np.stack(rows)
    found = nearest_many(collection, index, matrix, wanted, backend, masks, effort=effort)
    ids = [keys_of(collection, hits.rowids, hits.places) for hits in found]
    return ids, [hits.scores.astype(np.float64) for hits in found]


def keys_of(collection: CollectionView, rowids: Array, places: Sequence[tuple[int, int]]) -> Array:
    """The primary keys of found rows, or their rowids where there is no key."""
    key = collection.schema.primary_key
    if key is None or key == collection.schema.rowid_alias:
        return rowids
    keys = np.empty(len(places), object)
    keys[:] = [row[0] for row in collection.rows(places, [key])]
    return keys


def padded(
    collection: CollectionView, ids: Sequence[Array], scores: Sequence[Array], k: int
) -> tuple[Array, Array]:
    """Rows of unequal length as matrices of k columns."""
    schema = collection.schema
    is_rowid = schema.primary_key is None or schema.primary_key == schema.rowid_alias
    all_ids = np.full((len(ids), k), -1 if is_rowid else None, np.int64 if is_rowid else object)
    all_scores = np.full((len(ids), k), np.nan)
    for row, (keys, values) in enumerate(zip(ids, scores, strict=True)):
        all_ids[row, : len(keys)] = keys
        all_scores[row, : len(values)] = values
    return all_ids, all_scores


def queries_of(near: Any, match: Any) -> list[tuple[Any, Any]]:
    """The (vector, text) pairs of a batch.

    Raises ProgrammingError where there is neither, InterfaceError where one is no sequence,
    DataError where their lengths differ.
    """
    for name, value in (("near", near), ("match", match)):
        if isinstance(value, str | bytes) or (value is not None and not hasattr(value, "__len__")):
            raise InterfaceError(f"{name} of a batch is a sequence, not {type(value).__name__}")
    if near is None and match is None:
        raise ProgrammingError("search_batch needs near, match or both")
    if near is None:
        return [(None, text) for text in match]
    if match is None:
        return [(vector, None) for vector in near]
    if len(near) != len(match):
        raise DataError(f"a batch of {len(near)} vectors and {len(match)} texts; give one a query")
    return list(zip(near, match, strict=True))
