"""Searching under a condition: `Collection.search(near=…, where=…)`, asked again and again.

    asked once: noted --again: its clauses are checked and kept--> FilteredShape
    FilteredShape --the newest commit, and all of it by lists and codes--> one compiled call
                  --else--> by steps, under the condition's masks

What is kept belongs to one condition and one set of values. It is left alone as soon as the
condition would be compiled anew: where the schema changed, or a function or a collation came.
"""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from m2mdb.query.search import SearchRequest
from m2mdb.searching import PLAIN_CLAUSES, NearShape, condition, nothing, only_row

if TYPE_CHECKING:
    from collections.abc import Hashable

    from m2mdb.connection import Connection
    from m2mdb.hits import Hits
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.found import Found
    from m2mdb.index.prepared import Prepared
    from m2mdb.index.view import View
    from m2mdb.query.predicate import Filter

KEPT = 256  # searches under conditions; all go when there are more
MOST_FAILURES = 3  # compiled calls in a row that leave their searches to the steps
TEXTS = (str, bytes)
PLAIN = (int, float, bool, NoneType, *TEXTS)  # types of parameters that can be part of a key
MOST_CHARACTERS = 1024  # of such a text
MOST_VALUES = 16


class FilteredShape(NearShape):
    """A search by a vector under a condition with its values, but for the vector."""

    __slots__ = ("bound", "failures", "plan", "where")

    def __init__(self, view: View, request: SearchRequest, where: str, returning: Any) -> None:
        """Raises what `NearShape` raises."""
        super().__init__(view, request, returning)
        self.where = where
        self.plan: Any = None  # the condition as the connection keeps it
        self.bound: Filter | None = None  # the same with its values, while a search is made
        self.failures = 0

    def hits_at_once(self, connection: Connection, near: Any) -> Hits | None:
        """The hits for a vector by one compiled call; None where it is not to be had."""
        plan = self.plan
        if plan is None or self.failures >= MOST_FAILURES or self.compiled() is None:
            return None
        if connection.conditions.get((self.collection, self.where)) is not plan:
            return None
        hits = super().hits_at_once(connection, near)
        self.failures = self.failures + 1 if hits is None else 0
        return hits

    def hits_under(self, connection: Connection, view: View, params: Any, near: Any) -> Hits | None:
        """The hits for a vector at a snapshot; None where the search is to go by other steps.

        Raises what the condition and the vector raise.
        """
        self.bound = condition(connection, view, self.collection, self.where, params)
        plan = connection.conditions.get((self.collection, self.where))
        if plan is not self.plan:  # what was compiled answers by a collation, or a right, of before
            self.plan, self.compiled, self.failures = plan, nothing, 0
        try:
            return self.hits(view, view.collection(self.collection), near)
        finally:
            self.bound = None

    def _found(
        self, view: View, collection: CollectionView, ready: Prepared, query: np.ndarray
    ) -> Found:
        """The rows for a vector that was checked."""
        bound = self.bound
        assert bound is not None
        masks = [bound.mask(part) for part in collection.parts()]
        found = ready.nearest(query, self.stop, masks, self.effort, view.database.kernels)
        if bound.key is not None and self.key is None and not self.sources:
            compiled = ready.compiled_under(view, self.stop, self.effort, masks, bound.key)
            if compiled is not None and compiled is not self.compiled():
                self.compiled, self.failures = ref(compiled), 0
        return found


def filtered_hits(
    connection: Connection, name: str, near: Any, where: Any, params: Any, clauses: tuple[Any, ...]
) -> Hits | None:
    """The hits of a search by a vector under a condition; None where it is to go by other steps.

    clauses  k, offset, recall, probes, exact, min_score and returning
    """
    if type(near) is not np.ndarray or type(where) is not str:
        return None
    values = _values(params)
    if type(clauses[-1]) is list:
        clauses = (*clauses[:-1], tuple(clauses[-1]))
    if values is None or (str, NoneType, *map(type, clauses)) not in PLAIN_CLAUSES:
        return None
    key = (name, *clauses, where, values)
    kept = connection.filtered
    try:
        shape: FilteredShape | None = kept[key]
    except KeyError:
        if len(kept) >= KEPT:
            kept.clear()
        kept[key] = None
        return None
    except TypeError:  # a name of a column that cannot be looked up
        return None
    if near.ndim == 2:
        near = only_row(near)
    if shape is not None:
        hits = shape.hits_at_once(connection, near)
        if hits is not None:
            return hits
    with connection.lock, connection.reading() as view:
        if shape is None or shape.schema is not view.collection(name).schema:
            k, offset, recall, probes, exact, min_score, returning = clauses
            request = SearchRequest(
                name, near=(), k=k, offset=offset, recall=recall, probes=probes, exact=exact,
                min_score=min_score,
            )  # fmt: skip
            shape = kept[key] = FilteredShape(view, request, where, returning)
        return shape.hits_under(connection, view, params, near)


def _values(params: Any) -> Hashable | None:
    """A key of parameters that differ in anything where these do; None where there is none."""
    if type(params) not in (tuple, list) or len(params) > MOST_VALUES:
        return None
    found: list[Any] = []
    for value in params:
        kind = type(value)
        if kind not in PLAIN or (kind in TEXTS and len(value) > MOST_CHARACTERS):
            return None
        found += (kind, value.hex() if kind is float else value)  # -0.0 is not 0.0
    return tuple(found)
