"""Functions on texts that MATCH has found: highlight() and snippet(), in RETURNING of a SEARCH.

    highlight(column [, before, behind])
    snippet(column [, before, behind, gap, terms])

As those of SQLite's FTS5: `before` and `behind` stand around each word or phrase that was looked
for, `gap` where a snippet leaves the text out, which is at most `terms` long. A row that the vector
side alone has found is given without marks; a snippet of it is its beginning.

What was looked for is a value of the hit's row, under a name that no column can have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2mdb.index.delta import indexable_text
from m2mdb.pager.errors import ProgrammingError
from m2mdb.query.affinity import Value, to_text
from m2mdb.query.markers import MARKER
from m2mdb.query.nodes import ColumnRef, FunctionCall
from m2mdb.query.scope import RowScope, Scope

if TYPE_CHECKING:
    from m2mdb.query.conditions import Compile, Evaluator, Row
    from m2mdb.query.functions import Bindings

BEFORE, BEHIND, GAP, TERMS = "<b>", "</b>", "…", 12
MOST_TERMS = 1000


def compile_highlight(node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    """The closure of `highlight(column, before, behind)`.

    Raises ProgrammingError: outside RETURNING of a SEARCH, or of no FULLTEXT column.
    """
    column, marker, kind = _places(node, scope)
    arguments = [compile(each, scope) for each in node.arguments[1:]]

    def run(row: Row, bindings: Bindings) -> Value:
        text = indexable_text(kind, row[column])
        if text is None:
            return None
        before, behind = _texts([each(row, bindings) for each in arguments], (BEFORE, BEHIND))
        looked_for: Any = row[marker]
        return looked_for.highlight(text, before, behind)

    return run


def compile_snippet(node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    """The closure of `snippet(column, before, behind, gap, terms)`; errors as `highlight`'s."""
    column, marker, kind = _places(node, scope)
    arguments = [compile(each, scope) for each in node.arguments[1:]]

    def run(row: Row, bindings: Bindings) -> Value:
        text = indexable_text(kind, row[column])
        if text is None:
            return None
        given = [each(row, bindings) for each in arguments]
        before, behind, gap = _texts(given[:3], (BEFORE, BEHIND, GAP))
        terms = given[3] if len(given) > 3 else TERMS
        if type(terms) is not int or not 1 <= terms <= MOST_TERMS:
            raise ProgrammingError(
                f"snippet(): {terms!r} terms; expected a whole number from 1 to {MOST_TERMS}"
            )
        looked_for: Any = row[marker]
        return looked_for.snippet(text, before, behind, gap, terms)

    return run


def _places(node: FunctionCall, scope: Scope) -> tuple[int, int, str]:
    """Where the row has the column's value, and the Marker; and the column's type."""
    is_hit = isinstance(scope, RowScope) and "bm25" in scope.computed
    if not is_hit or not isinstance(scope, RowScope) or scope.schema is None:
        raise ProgrammingError(f"{node.name}() stands in RETURNING of a SEARCH, nowhere else")
    column = node.arguments[0]
    if not isinstance(column, ColumnRef):
        raise ProgrammingError(f"{node.name}() takes the name of a FULLTEXT column first")
    place = scope.column(column).position
    index = scope.schema.position(column.name)
    if index is None or scope.schema.columns[index].fulltext is None:
        raise ProgrammingError(f"{node.name}(): {column.name} is no FULLTEXT column")
    return place, scope.position(f"{MARKER}{index}"), scope.schema.columns[index].type


def _texts(given: list[Value], defaults: tuple[str, ...]) -> list[str]:
    """Arguments as texts; NULL is nothing, and what is not given has its default."""
    found = [to_text(value) or "" for value in given]
    return [*found, *defaults[len(found) :]]
