"""Searching: `Collection.search` and `search_batch`, from arguments to arrays.

Without `where` no parser is loaded; with it, the condition is parsed and compiled once for each
text and schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from threading import get_ident
from types import NoneType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from weakref import ref

import numpy as np

from m2mdb.hits import Hits
from m2mdb.index.prepared import MOST_INSERTED, prepared
from m2mdb.index.query_vectors import check_query_vector, check_query_vectors
from m2mdb.pager.errors import (
    DataError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from m2mdb.query.limits import check_count
from m2mdb.query.search import (
    ROWID,
    SearchRequest,
    effort_of,
    returned_columns,
    run_search,
    vector_column,
)
from m2mdb.query.search_for import plain_words
from m2mdb.row import Names

if TYPE_CHECKING:
    from m2mdb.connection import Connection
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.compiled import CompiledSearch
    from m2mdb.index.found import Found
    from m2mdb.index.prepared import Prepared
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View
    from m2mdb.query.predicate import Filter
    from m2mdb.query.rescoring import Decay

Array = np.ndarray[Any, Any]
S = TypeVar("S")

PLAIN_CLAUSES = frozenset(  # types of a search's clauses by which it can be looked up
    product(
        (str,), (str, NoneType), (int,), (int,), (float, NoneType), (int, NoneType), (bool,),
        (float, NoneType), (str, tuple, NoneType),
    )
)  # fmt: skip
KEPT_SHAPES = 256  # all go when there are more


class LastSearch(NamedTuple, Generic[S]):
    """The clauses of a search that wanted no columns, and what came of them."""

    shape: S
    k: int
    offset: int
    recall: float | None
    probes: int | None
    exact: bool
    min_score: float | None

    def is_again(self, clauses: tuple[Any, ...]) -> bool:
        """Whether `clauses` and `returning`, the last of them, are the very same."""
        k, offset, recall, probes, exact, min_score, returning = clauses
        return (
            returning.__class__ is list and not returning
            and k is self.k and offset is self.offset and recall is self.recall
            and probes is self.probes and exact is self.exact and min_score is self.min_score
        )  # fmt: skip


def match_text(text: str) -> str:
    """Words as MATCH takes them, without any of its signs: for text that a person has typed.

    Raises InterfaceError: not a str.
    """
    if not isinstance(text, str):
        raise InterfaceError(f"match_text() takes a str, not {type(text).__name__}")
    return plain_words(text)


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


def fusion_from(fusion: Any) -> tuple[str | None, dict[str, float]]:
    """The method of a fusion and its options: `"rrf"` or `("weighted", {"vector": 0.3})`.

    Raises InterfaceError: neither of the two. ProgrammingError: an option is no number.
    """
    name, options = fusion, {}
    if isinstance(fusion, tuple | list) and len(fusion) == 2 and isinstance(fusion[1], Mapping):
        name, options = fusion
    if name is not None and not isinstance(name, str):
        raise InterfaceError(
            f"fusion is {fusion!r}; wanted is a method such as 'weighted', or one with its options "
            "such as ('weighted', {'vector': 0.3, 'text': 0.7})"
        )
    for option, value in options.items():
        if not isinstance(value, int | float | np.number) or isinstance(value, bool):
            raise ProgrammingError(f"FUSION: {option} = {value!r}; expected a number")
    return name, {str(option).lower(): value for option, value in options.items()}


def checked_name(name: Any) -> str:
    """A collection's name; InterfaceError where it is no text."""
    if not isinstance(name, str):
        raise InterfaceError(f"a collection's name is {name!r}; wanted is a str")
    return name


def decay_from(view: View, decay: Any) -> Decay:
    """Half-life decay as `{"column": days}` or `{"column": timedelta}` says it, as of now.

    Raises ProgrammingError: none or several columns, or no positive half life.
    """
    from m2mdb.query.rescoring import UNITS, decay_of

    if not isinstance(decay, Mapping):
        raise InterfaceError(f"decay is {type(decay).__name__}; wanted is a dict of column: days")
    column, half_life = column_of("decay", dict(decay))
    assert column is not None
    said = repr(half_life)
    if isinstance(half_life, int | float | np.number) and not isinstance(half_life, bool):
        seconds, said = half_life * UNITS["day"], f"{half_life!r} days"
    elif hasattr(half_life, "total_seconds"):
        seconds = half_life.total_seconds()
    else:
        raise ProgrammingError(
            f"decay: half life of {column!r} is {half_life!r}; wanted are days or a timedelta"
        )
    return decay_of(column, seconds, view.database.now(), said)


def only_row(vector: Any) -> Any:
    """An array of shape (1, d), an encoder's answer for one text, as its only row."""
    if isinstance(vector, np.ndarray) and vector.ndim == 2 and len(vector) == 1:
        return vector[0]
    return vector


def check_near(schema: CollectionSchema, request: SearchRequest) -> None:
    """ProgrammingError where several columns could be meant: it says how to name one."""
    if request.near is not None and request.near_column is None and len(schema.near_columns) > 1:
        names = [schema.columns[index].name for index in schema.near_columns]
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


def check_condition(where: str | None) -> None:
    """InterfaceError where a condition is no text, ProgrammingError where it is not one."""
    check_where(where)
    if where is not None:
        from m2mdb.connection import language

        language().check_condition(where)


def hits_of(view: View, request: SearchRequest, returning: str | Sequence[str] | None) -> Hits:
    """The hits of a request, with the columns that are wanted."""
    schema = view.collection(request.collection).schema
    check_near(schema, request)
    names, sources = returned_columns(schema, names_of(returning))
    found = run_search(view, request)
    return Hits(Names(tuple(names)), found.rows(sources), found.ids, found.scores)


class Shape:
    """What a search asked again and again keeps: its clauses, checked against a schema."""

    __slots__ = ("key", "min_score", "names", "schema", "sources", "start", "stop")

    def __init__(
        self, view: View, request: SearchRequest, returning: str | Sequence[str] | None
    ) -> None:
        """Raises what `hits_of` raises for the columns."""
        schema = self.schema = view.collection(request.collection).schema
        check_near(schema, request)
        names, self.sources = returned_columns(schema, names_of(returning))
        self.names = Names(tuple(names))
        self.start, self.stop = request.offset, request.offset + request.k
        self.min_score = request.min_score
        key = schema.primary_key
        self.key = None if key is None or key == schema.rowid_alias else key

    def cut(self, ids: Array, scores: Array) -> Hits:
        """Hits without columns, of ids and scores from the best on, by OFFSET and MIN SCORE."""
        if self.start or self.min_score is not None:
            stop = self.stop
            if self.min_score is not None:
                stop = min(stop, int(np.count_nonzero(scores >= self.min_score)))
            ids, scores = ids[self.start : stop], scores[self.start : stop]
        return Hits(self.names, [()] * len(ids), ids, scores)


class NearShape(Shape):
    """A search by a vector alone, but for the vector: its clauses, checked against a schema.

    Programs ask the same again with another vector, so a connection keeps the last ones.
    """

    __slots__ = (
        "collection", "column", "compiled", "effort", "index",
    )  # fmt: skip

    def __init__(
        self, view: View, request: SearchRequest, returning: str | Sequence[str] | None
    ) -> None:
        """Raises what `hits_of` raises for the clauses."""
        super().__init__(view, request, returning)
        self.collection = request.collection
        self.index = vector_column(self.schema, request.near_column)
        self.column = self.schema.columns[self.index]
        self.effort = effort_of(request)
        check_count(view.database, self.stop)
        self.compiled: Callable[[], CompiledSearch | None] = nothing  # a reference: a view owns it

    def hits_at_once(self, connection: Connection, near: Any) -> Hits | None:
        """The hits for a vector by one compiled call; None where it is not to be had."""
        compiled = self.compiled()
        if compiled is None:
            return None
        with connection.lock:
            if connection.taken or connection.thread not in (None, get_ident()):
                return None
            if not compiled.is_current(connection.database):
                return None
            found = compiled.answer(near)
        if found is None:
            return None
        return self.cut(*found)

    def _found(
        self, view: View, collection: CollectionView, ready: Prepared, query: Array
    ) -> Found:
        """The rows for a vector that was checked."""
        found = ready.nearest(query, self.stop, None, self.effort, view.database.kernels)
        self.compile(view, ready)
        return found

    def compile(self, view: View, ready: Prepared) -> None:
        """Have the next search be one compiled call, where it can be."""
        if self.key is None and not self.sources:
            compiled = ready.compiled(view, self.stop, self.effort)
            self.compiled = nothing if compiled is None else ref(compiled)

    def hits(self, view: View, collection: CollectionView, near: Any) -> Hits | None:
        """The hits for a vector; None where the search is to go by steps."""
        backend = view.database.kernels
        kernels = backend.ranking()
        if kernels is None or self.stop > MOST_INSERTED:
            return None
        ready = prepared(collection, self.index, kernels)
        if ready is None:
            return None
        query = check_query_vector(self.column, near, self.schema.name)
        found = self._found(view, collection, ready, query)
        if self.start or self.min_score is not None:
            stop = self.stop
            if self.min_score is not None:
                stop = min(stop, int(np.count_nonzero(found.scores >= self.min_score)))
            found = found.between(self.start, stop)
        ids, rows = found.rowids, None
        if self.key is not None:
            ids = np.empty(len(found), object)
            ids[:] = self._column(collection, found, self.key)
        if self.sources:
            columns = [self._column(collection, found, source) for source in self.sources]
            rows = list(zip(*columns, strict=True))
        return Hits(self.names, [()] * len(ids) if rows is None else rows, ids, found.scores)

    def _column(self, collection: CollectionView, found: Found, source: int | str) -> list[Any]:
        """The values of a source, as `SearchHits.column` gives them."""
        if source == "score":
            values = found.scores
        elif source in ("rowid", ROWID, self.schema.rowid_alias):
            values = found.rowids
        elif source == "distance":
            assert found.distances is not None
            values = found.distances
        elif source == "rank":
            return list(range(self.start + 1, self.start + 1 + len(found)))
        elif isinstance(source, int):
            return collection.column_at(source, found.places)
        else:
            return [None] * len(found)  # bm25
        return list(values.tolist())


def nothing() -> None:
    """As a dead reference."""


def near_hits(
    connection: Connection, key: tuple[Any, ...], near: Any, tried: NearShape | None
) -> Hits | None:
    """The hits of a search by a vector alone; None where it is to go by steps.

    key  collection, column, k, offset, recall, probes, exact, min_score and returning, each of
         the one type that can be looked up
    tried  a shape that could not search at once
    """
    shapes = connection.shapes
    shape: NearShape | None = shapes.get(key)
    if shape is not None and shape is not tried:
        hits = shape.hits_at_once(connection, near)
        if hits is not None:
            return hits
    request = None if shape is not None else _near_request(key)
    with connection.lock, connection.reading() as view:
        collection = view.collection(key[0])
        if shape is None or shape.schema is not collection.schema:
            shape = NearShape(view, request or _near_request(key), key[-1])
            if len(shapes) >= KEPT_SHAPES:
                shapes.clear()
            shapes[key] = shape
        return shape.hits(view, collection, near)


def _near_request(key: tuple[Any, ...]) -> SearchRequest:
    collection, column, k, offset, recall, probes, exact, min_score, _ = key
    return SearchRequest(
        collection, near=(), near_column=column, k=k, offset=offset, recall=recall, probes=probes,
        exact=exact, min_score=min_score,
    )  # fmt: skip


def names_of(returning: str | Sequence[str] | None) -> Sequence[str] | None:
    """The names of columns that a text names, between commas."""
    if isinstance(returning, str):
        return [name.strip() for name in returning.split(",")]
    return returning


@contextmanager
def around(head: str) -> Iterator[str]:
    """Within it the places that errors tell count in `where`, and not in the statement around it.

    head  what the statement has before the condition, one line; given on
    """
    try:
        yield head
    except (ProgrammingError, NotSupportedError) as error:
        found = _PLACE.search(str(error))
        if found is None:  # behind the condition's first line places are the same
            raise
        column = int(found[1]) - len(head)
        place = f" (line 1, column {column})" if column > 0 else ""
        raise type(error)(str(error)[: found.start()] + place) from None


_PLACE = re.compile(r" \(line 1, column (\d+)\)$")


def condition(
    connection: Connection, view: View, collection: str, where: str | None, params: Any
) -> Filter | None:
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


def batch_of_vectors(view: View, pattern: SearchRequest, near: Any) -> tuple[Array, Array] | None:
    """`batch` for vectors alone, all of them at once; None where they go one by one."""
    collection = view.collection(pattern.collection)
    kernels = view.database.kernels.ranking()
    if kernels is None or pattern.k > MOST_INSERTED or not len(near):
        return None
    check_near(collection.schema, pattern)
    index = vector_column(collection.schema, pattern.near_column)
    ready = prepared(collection, index, kernels)
    if ready is None:
        return None
    column, where = collection.schema.columns[index], pattern.where
    queries = check_query_vectors(column, near, collection.schema.name)
    check_count(view.database, pattern.k)
    masks = None if where is None else [where.mask(part) for part in collection.parts()]
    effort, backend = effort_of(pattern), view.database.kernels
    try:
        found = ready.nearest_many(queries, pattern.k, masks, effort, backend)
    except MemoryError as problem:
        raise _too_large(collection, len(queries), pattern.k) from problem
    key = collection.schema.primary_key
    if key is None or key == collection.schema.rowid_alias:
        return found.rowids, found.scores
    keys = np.full(found.rowids.size, None, object)
    parts = collection.parts()
    for part, places, ordinals in found.by_part():
        keys[places] = parts[part].few_values(key, ordinals.tolist())
    return keys.reshape(found.rowids.shape), found.scores


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
    """Rows of unequal length as matrices of k columns.

    Raises OperationalError where there is no memory for them.
    """
    schema = collection.schema
    is_rowid = schema.primary_key is None or schema.primary_key == schema.rowid_alias
    shape = len(ids), k
    try:
        all_scores = np.full(shape, np.nan)
        all_ids = np.full(shape, -1 if is_rowid else None, np.int64 if is_rowid else object)
    except (MemoryError, ValueError) as problem:  # the latter: beyond what an address can be
        raise _too_large(collection, *shape) from problem
    for row, (keys, values) in enumerate(zip(ids, scores, strict=True)):
        all_ids[row, : len(keys)] = keys
        all_scores[row, : len(values)] = values
    return all_ids, all_scores


def _too_large(collection: CollectionView, queries: int, k: int) -> OperationalError:
    """What to raise where the matrices of a batch cannot be had."""
    rows = sum(part.size for part in collection.parts())
    return OperationalError(
        f"search_batch of {collection.schema.name}: no memory for {queries:,} queries with "
        f"k = {k:,} each; the collection has {rows:,} rows"
    )


def check_batch(near: Any, match: Any) -> None:
    """The errors of `queries_of` that the types of its arguments show."""
    for name, value in (("near", near), ("match", match)):
        if isinstance(value, str | bytes) or (value is not None and not hasattr(value, "__len__")):
            raise InterfaceError(f"{name} of a batch is a sequence, not {type(value).__name__}")
    if near is None and match is None:
        raise ProgrammingError("search_batch needs near, match or both")
    first = near[0] if isinstance(near, list | tuple | np.ndarray) and len(near) else ()
    if isinstance(first, int | float | np.number):
        raise DataError("near of a batch is one vector; wanted is a matrix, or a list of vectors")


def queries_of(near: Any, match: Any) -> list[tuple[Any, Any]]:
    """The (vector, text) pairs of a batch.

    Raises ProgrammingError where there is neither, InterfaceError where one is no sequence,
    DataError where their lengths differ.
    """
    check_batch(near, match)
    if near is None:
        return [(None, text) for text in match]
    if match is None:
        return [(vector, None) for vector in near]
    if len(near) != len(match):
        raise DataError(f"a batch of {len(near)} vectors and {len(match)} texts; give one a query")
    return list(zip(near, match, strict=True))
