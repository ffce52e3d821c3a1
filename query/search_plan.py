"""SEARCH as a statement: its clauses' values, its result list, and what EXPLAIN says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.collection import SegmentPart
from m2mdb.index.text.match_query import parse_match
from m2mdb.pager.errors import DataError, NotSupportedError, ProgrammingError
from m2mdb.query import search_for
from m2mdb.query.ast import Search
from m2mdb.query.binder import Output, outputs_of
from m2mdb.query.constants import walk
from m2mdb.query.correlation import Level
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import ColumnRef, FunctionCall, Node, SelectItem, Star
from m2mdb.query.placed_names import located
from m2mdb.query.plan import Explained, Plan
from m2mdb.query.predicate import Filter, Predicate, compile_predicate
from m2mdb.query.profile import Noted, profile_of
from m2mdb.query.projection import Projection
from m2mdb.query.rescoring import (
    Decay,
    decay_column,
    decay_of,
    diversity_column,
    unit_seconds,
)
from m2mdb.query.result import Result
from m2mdb.query.scope import RowScope, Subqueries
from m2mdb.query.search import (
    COMPUTED,
    UNBUILT_COMPUTED,
    SearchHits,
    SearchRequest,
    candidates_said,
    depth_of,
    fusion_of,
    is_alone,
    run_search,
    searched,
    signals_of,
    text_column,
    vector_column,
    vector_works,
)
from m2mdb.query.search_profile import profiled_search, said_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View
    from m2mdb.query.planning import Planner

_UNBUILT = {"temperature": "TEMPERATURE", "seed": "SEED"}
_VALUES = (
    "near", "match", "for_", "k", "offset", "recall", "probes", "min_score", "as_of",
    "diversity",
)  # fmt: skip


class SearchPlan(Plan):
    """A SEARCH, compiled."""

    __slots__ = (
        "_fusion_options", "_half_life", "_plain", "_predicate", "_projection", "_schema",
        "_statement", "_values",
    )  # fmt: skip

    def __init__(self, statement: Search, view: View, count: int, planner: Planner) -> None:
        super().__init__(count)
        self._statement = statement
        _refuse_unbuilt(statement)
        with located(statement.collection):
            schema = self._schema = view.collection(statement.collection).schema
        self.tables.append((schema.name.lower(), schema))
        subqueries = Subqueries(count)
        if statement.near is not None:
            with located(statement.near_column):
                vector_column(schema, statement.near_column)
        if statement.match is not None:
            with located(statement.match_column):
                text_column(schema, statement.match_column)
        if statement.for_ is not None:
            search_for.sides(schema)
        constant_scope = RowScope(None, subqueries)
        constants = Level(self, constant_scope, (view, planner, subqueries))
        self._values = {
            name: compile_expression(constants.resolve(node), constant_scope)
            for name in _VALUES
            if (node := getattr(statement, name)) is not None
        }
        self._fusion_options = _compile_options(statement, constant_scope)
        self._half_life = _half_life(statement, schema, constants, constant_scope)
        if statement.diversity is not None and statement.near is None and statement.for_ is None:
            diversity_column(schema, -1)
        scope = RowScope(schema, subqueries)
        self._predicate: Predicate | None = None
        if statement.where is not None:
            level = Level(self, scope, (view, planner, subqueries))
            self._predicate = compile_predicate(level.resolve(statement.where), scope)
        hit_scope = RowScope(schema, subqueries, computed=COMPUTED)
        self._projection = Projection(_outputs(statement, schema, hit_scope), hit_scope)
        self.prepare_inner(subqueries, view, planner)

    def columns(self) -> tuple[list[str], list[str | None]]:
        """Names and types of the result's columns."""
        return self._projection.names, self._projection.types

    def run(self, view: View, bindings: Bindings) -> Result:
        """Execute."""
        bindings = self.bind_inner(view, bindings)
        request = self.request(bindings)
        profile = profile_of(bindings)
        if profile is not None:
            hits = profiled_search(
                profile, self._statement, view, request, is_whole=profile.whole is self
            )
        else:
            hits = run_search(view, request)
        projection = self._projection
        return Result(projection.names, projection.rows(hits, bindings), types=projection.types)

    def hits(self, view: View, bindings: Bindings) -> SearchHits:
        """The hits themselves."""
        return run_search(view, self.request(self.bind_inner(view, bindings)))

    def request(self, bindings: Bindings) -> SearchRequest:
        """The clauses with their values."""
        statement = self._statement
        clauses: dict[str, Any] = {
            name: evaluate((), bindings) for name, evaluate in self._values.items()
        }
        for name in ("near", "match", "for_", "as_of"):
            if name in clauses and clauses[name] is None:
                self._refuse_null(name)
        clauses["for_text"] = clauses.pop("for_", None)
        if self._fusion_options:
            clauses["fusion_options"] = {
                name: _option(name, evaluate((), bindings))
                for name, evaluate in self._fusion_options.items()
            }
        if self._half_life is not None:
            clauses["decay"] = self._half_life(bindings)
        return SearchRequest(
            statement.collection,
            near_column=statement.near_column,
            match_column=statement.match_column,
            where=None if self._predicate is None else self._predicate.bind(bindings),
            fusion=None if statement.fusion is None else statement.fusion.name,
            exact=statement.exact,
            score=statement.score,
            **clauses,
        )

    def _refuse_null(self, clause: str) -> None:
        """NULL stands for no clause in a request, but not in a statement."""
        if clause == "as_of":
            raise ProgrammingError("AS OF is None; expected the number of a commit")
        wanted = "a vector" if clause == "near" else "a text"
        clause = clause.rstrip("_")
        raise DataError(f"{clause.upper()} of {self._schema.name} is NULL; expected {wanted}")

    def explain(self, view: View) -> Explained:
        """The sides, the filter and the fusion."""
        statement, schema = self._statement, self._schema
        past = "" if statement.as_of is None else " AS OF A COMMIT"
        lines: Explained = [(0, Noted.of(f"SEARCH {schema.name}{past}", statement))]
        near_column, is_near, is_match = self._sides()
        if is_near:
            column = schema.columns[vector_column(schema, near_column)]
            rows = view.collection(schema.name).count()
            backend = view.database.kernels.name
            shape = f"{column.metric} of {column.dtype}, backend {backend}"
            how = None if statement.exact else self._lists(view)
            if how is not None:
                lines.append((1, f"NEAR {column.name}: {how}, {shape}"))
            else:
                lines.append((1, f"NEAR {column.name}: exact scan of {rows} rows, {shape}"))
                if statement.recall is not None or statement.probes is not None:
                    lines.append((2, "an exact scan satisfies every RECALL and PROBES"))
        if is_match:
            index = text_column(schema, statement.match_column)
            indexes = schema.text_columns if index is None else (index,)
            names = ", ".join(schema.columns[each].name for each in indexes)
            lines.append((1, f"MATCH {names}: BM25 over inverted lists"))
        if statement.where is not None:
            lines.append((1, f"FILTER {schema.name} BEFORE RANKING"))
        lines.append((1, self._explain_fusion()))
        if statement.decay is not None:
            lines.append((1, f"DECAY HALF LIFE ON {statement.decay.column}"))
        if statement.diversity is not None:
            name = schema.columns[diversity_column(schema, self._near_index())].name
            lines.append((1, f"DIVERSITY OF {name} AMONG THE CANDIDATES"))
        return lines + self.explain_inner(view)

    def _lists(self, view: View) -> str | None:
        """How many segments and lists the vector side may probe; None where there are none."""
        schema = self._schema
        column = schema.columns[vector_column(schema, self._sides()[0])]
        collection = view.collection(schema.name)
        parts = [part for part in collection.parts() if isinstance(part, SegmentPart)]
        found = [(part, part.segment.lists(column)) for part in parts]
        counts = [(part.live_count, lists.count) for part, lists in found if lists is not None]
        if not counts:
            return None
        rows, lists = (sum(each) for each in zip(*counts, strict=True))
        scanned = collection.count() - rows
        return f"{lists} lists of {rows} rows in {len(counts)} segments, scan of {scanned} rows"

    def _near_index(self) -> int:
        """The column that NEAR or FOR searches, -1 without."""
        name, is_near, _ = self._sides()
        return vector_column(self._schema, name) if is_near else -1

    def _sides(self) -> tuple[str | None, bool, bool]:
        """The column of NEAR, and which sides are searched, those of FOR among them."""
        statement = self._statement
        if statement.for_ is None:
            near = statement.near is not None
            return statement.near_column, near, statement.match is not None
        index, is_match = search_for.sides(self._schema)
        name = None if index is None else self._schema.columns[index].name
        return name, index is not None, is_match

    def _explain_fusion(self) -> str:
        statement = self._statement
        _, is_near, is_match = self._sides()
        shape = SearchRequest(
            statement.collection,
            near=() if is_near else None,
            match="" if is_match else None,
            fusion=None if statement.fusion is None else statement.fusion.name,
        )
        name = fusion_of(shape)
        return f"FUSION {name}" if name.endswith("_only") else f"FUSION {name} of two sides"

    def details(self, view: View, bindings: Bindings) -> list[str]:
        """What a run has worked with, for EXPLAIN ANALYZE."""
        request = self.request(bindings)
        is_blank = not search_for.settle(view, request)
        collection = searched(view, request)
        parts = collection.parts()
        rows = collection.count()
        found = [f"{rows} rows in {len(parts)} parts"]
        if request.match is not None:
            clauses = " ".join(map(repr, parse_match(str(request.match)).clauses))
            found.append(f"terms: {clauses or 'none'}")
        if request.where is not None:
            passing = sum(int(np.count_nonzero(request.where.mask(part))) for part in parts)
            found.append(f"{passing} of {rows} rows pass WHERE")
            if isinstance(request.where, Filter) and (spared := request.where.sparing(parts)):
                found.append(spared)
        if is_blank:
            return [*found, "FOR has no word: nothing is searched"]
        found += [said_of(work) for work in vector_works(view, request)]
        signals = signals_of(view, request)
        if signals is not None:
            found.append(
                f"signals: confidence {signals.confidence:.3f}, margin {signals.margin:.3g}, "
                f"qerr {signals.qerr:.3g} ({signals.part}, list {signals.list})"
            )
        if not is_alone(request, fusion_of(request)):
            found.append(f"depth {depth_of(request)} a side")
            found.append(candidates_said(view, request))
        return found


def _refuse_unbuilt(statement: Search) -> None:
    for field, keyword in _UNBUILT.items():
        if getattr(statement, field) is not None:
            raise NotSupportedError(f"{keyword} in SEARCH is not built yet")
    if statement.for_ is not None and (statement.near or statement.match) is not None:
        raise ProgrammingError("FOR excludes NEAR and MATCH")
    if statement.near is None and statement.match is None and statement.for_ is None:
        raise ProgrammingError("SEARCH needs NEAR, MATCH or FOR")


def _half_life(
    statement: Search, schema: CollectionSchema, constants: Level, scope: RowScope
) -> Callable[[Bindings], Decay] | None:
    """DECAY at the statement's time; None without it."""
    decay = statement.decay
    if decay is None:
        return None
    with located(decay.column):
        decay_column(schema, decay.column)
    seconds = unit_seconds(decay.unit)
    amount = compile_expression(constants.resolve(decay.amount), scope)

    def made(bindings: Bindings) -> Decay:
        value = amount((), bindings)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        half_life = value * seconds if is_number else value
        said = f"{value!r} {decay.unit}"
        return decay_of(decay.column, half_life, bindings.moment.timestamp(), said)

    return made


def _compile_options(statement: Search, scope: RowScope) -> dict[str, Any]:
    """The options of FUSION by their names in lower case.

    Raises ProgrammingError: one is given twice.
    """
    found: dict[str, Any] = {}
    for option in statement.fusion.options if statement.fusion is not None else ():
        name = option.name.lower()
        if name in found:
            raise ProgrammingError(f"FUSION: {name} is given twice")
        found[name] = compile_expression(option.value, scope)
    return found


def _option(name: str, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ProgrammingError(f"FUSION: {name} = {value!r}; expected a number")


def _outputs(statement: Search, schema: CollectionSchema, scope: RowScope) -> list[Output]:
    """RETURNING, or all columns but vectors and then score."""
    if statement.returning is None:
        names = [schema.columns[index].name for index in schema.scalar_columns]
        return [Output(name, ColumnRef(name, None, 0)) for name in (*names, "score")]
    for item in statement.returning:
        _refuse_unbuilt_columns(item, schema)
    return outputs_of(statement.returning, scope)


def _refuse_unbuilt_columns(item: SelectItem, schema: CollectionSchema) -> None:
    expression: Node | Star = item.expression
    for node in walk(expression):
        if isinstance(node, ColumnRef) and node.name.lower() in UNBUILT_COMPUTED:
            raise NotSupportedError(f"{node.name.lower()} in RETURNING is not built yet")
        if isinstance(node, FunctionCall) and node.name == "count":
            raise ProgrammingError("RETURNING takes no aggregates")
