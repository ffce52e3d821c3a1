"""Searching by a vector and a text at once: what `Collection.search` keeps of it between calls.

As `searching.NearShape` for a vector alone: the clauses are checked against a schema once, and kept
by their values. FUSION rrf without a condition goes this way; all else goes by steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.hits import Hits
from m2mdb.index.compiled_hybrid import CompiledHybrid, compiled_hybrid
from m2mdb.index.prepared_hybrid import MOST_DEPTH, Joined, Sides, hybrid
from m2mdb.index.query_vectors import check_query_vector
from m2mdb.pager.errors import InterfaceError
from m2mdb.query.fusion import METHODS
from m2mdb.query.limits import check_count
from m2mdb.query.search import (
    ROWID,
    SearchRequest,
    depth_of,
    effort_of,
    text_column,
    vector_column,
)
from m2mdb.searching import KEPT_SHAPES, Shape

if TYPE_CHECKING:
    from m2mdb.connection import Connection
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.view import View

Key = tuple[Any, ...]  # collection, columns of near and match, and the clauses of `_request`
BY_STEPS = ("distance", "bm25")  # columns that a side may have to measure rows for


class HybridShape(Shape):
    """A search by a vector and a text, but for these: its clauses, checked against a schema."""

    __slots__ = (
        "column", "compiled", "is_possible", "sides",
    )  # fmt: skip

    def __init__(
        self, view: View, request: SearchRequest, returning: str | Sequence[str] | None
    ) -> None:
        """Raises what `searching.hits_of` raises for the clauses."""
        super().__init__(view, request, returning)
        schema = self.schema
        near = vector_column(schema, request.near_column)
        self.column = schema.columns[near]
        words = text_column(schema, request.match_column)
        check_count(view.database, self.stop)
        depth = depth_of(request)
        defaults = METHODS["rrf"][1]
        weights = np.array([defaults["k"], defaults["vector"], defaults["text"]])
        self.sides = Sides(near, words, depth, weights, effort_of(request))
        is_measured = any(source in BY_STEPS for source in self.sources)
        self.compiled: CompiledHybrid | None = None
        self.is_possible = depth <= MOST_DEPTH and not is_measured

    def hits_at_once(self, connection: Connection, near: Any, text: Any) -> Hits | None:
        """The hits for a vector and a text by one compiled call; None where it is not to be had."""
        compiled = self.compiled
        side = None if compiled is None else compiled.near()
        if compiled is None or side is None or type(text) is not str:
            return None
        with connection.lock:
            if connection.taken or connection.thread not in (None, get_ident()):
                return None
            if not side.is_current(connection.database):
                return None
            found = compiled.answer(side, near, text)
        if found is None:
            return None
        return self.cut(*found)

    def compile(self, view: View, collection: CollectionView) -> None:
        """Have the next search be one compiled call, where it can be."""
        if self.key is not None or self.sources:
            return
        side = None if self.compiled is None else self.compiled.near()
        if side is not None and side.is_current(view.database):
            return  # it was this text alone that it had not
        self.compiled = None
        sides = self.sides
        ready = collection.prepared.get(sides.near)
        if ready is None or sides.depth > sum([part.size for part in collection.parts()]):
            return
        near = ready.compiled(view, sides.depth, sides.effort)
        if near is not None:
            self.compiled = compiled_hybrid(collection, near, sides.match, sides.weights, self.stop)

    def hits(self, view: View, collection: CollectionView, near: Any, text: Any) -> Hits | None:
        """The hits for a vector and a text; None where the search is to go by steps."""
        if not self.is_possible:
            return None
        query = check_query_vector(self.column, near, self.schema.name)
        words = parsed(text)
        found = hybrid(collection, self.sides, query, words, self.stop, view.database.kernels)
        if found is None:
            return None
        self.compile(view, collection)
        start, stop, scores = self.start, min(self.stop, len(found.scores)), found.scores
        if self.min_score is not None:
            stop = min(stop, int(np.count_nonzero(scores >= self.min_score)))
        stop = max(start, stop)
        ids, scores = found.rows[0, start:stop], scores[start:stop]
        rows: list[tuple[Any, ...]] | None = None
        if self.sources or self.key is not None:
            values = _Values(self, collection, found, (start, stop))
            if self.sources:
                columns = [values.column(source) for source in self.sources]
                rows = list(zip(*columns, strict=True))
            if self.key is not None:
                keys = np.empty(len(ids), object)
                keys[:] = values.column(self.key)
                ids = keys
        return Hits(self.names, [()] * len(ids) if rows is None else rows, ids, scores)


class _Values:
    """The columns of some hits, read when they are asked for."""

    __slots__ = ("_bounds", "_collection", "_found", "_places", "_shape")

    def __init__(
        self, shape: HybridShape, collection: CollectionView, found: Joined, bounds: tuple[int, int]
    ) -> None:
        self._shape = shape
        self._collection = collection
        self._found = found
        self._bounds = bounds
        self._places: list[tuple[int, int]] | None = None

    def column(self, source: int | str) -> list[Any]:
        """The values of a source, as `SearchHits.column` gives them."""
        start, stop = self._bounds
        if source in (ROWID, "rowid", self._shape.schema.rowid_alias):
            rowids: list[Any] = self._found.rows[0, start:stop].tolist()
            return rowids
        if source == "score":
            scores: list[Any] = self._found.scores[start:stop].tolist()
            return scores
        if source == "rank":
            return list(range(start + 1, stop + 1))
        assert isinstance(source, int)
        if self._places is None:
            self._places = self._found.places(start, stop)
        return self._collection.column_at(source, self._places)


def parsed(text: Any) -> Any:
    """A match text; InterfaceError where it is none."""
    from m2mdb.index.text.match_query import parse_match

    if not isinstance(text, str):
        raise InterfaceError(f"MATCH takes a str, not {type(text).__name__}")
    return parse_match(text)


def hybrid_hits(
    connection: Connection, key: Key, near: Any, text: Any, tried: HybridShape | None = None
) -> Hits | None:
    """The hits of a search by a vector and a text; None where it is to go by steps.

    key    collection, columns of near and match, k, offset, recall, probes, exact, min_score
           and returning, each of the one type that can be looked up
    tried  what could not search at once
    """
    shapes = connection.shapes
    shape: HybridShape | None = shapes.get(key)
    if shape is not None and shape is not tried:
        hits = shape.hits_at_once(connection, near, text)
        if hits is not None:
            return hits
    request = None if shape is not None else _request(key)
    with connection.lock, connection.reading() as view:
        collection = view.collection(key[0])
        if shape is None or shape.schema is not collection.schema:
            shape = HybridShape(view, request or _request(key), key[-1])
            if len(shapes) >= KEPT_SHAPES:
                shapes.clear()
            shapes[key] = shape
        return shape.hits(view, collection, near, text)


def _request(key: Key) -> SearchRequest:
    collection, near, match, k, offset, recall, probes, exact, min_score, _ = key
    return SearchRequest(
        collection, near=(), near_column=near, match="", match_column=match, k=k, offset=offset,
        recall=recall, probes=probes, exact=exact, min_score=min_score,
    )  # fmt: skip
