"""EXPLAIN: a plan's lines as rows (id, parent, detail), as SQLite's EXPLAIN QUERY PLAN gives them.

With ANALYZE the statement is run as well, and lines with its rows and time follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2mdb.query.functions import Bindings
from m2mdb.query.plan import Explained, Plan
from m2mdb.query.result import Result
from m2mdb.query.search_plan import SearchPlan

if TYPE_CHECKING:
    from m2mdb.index.view import View

COLUMNS = ["id", "parent", "detail"]


def explained(lines: Explained, run: tuple[Plan, View, Bindings] | None) -> Result:
    """The rows of EXPLAIN; `run`: what ANALYZE executes, and on what."""
    if run is not None:
        lines = lines + _analyzed(*run)
    rows: list[tuple[Any, ...]] = []
    parents: list[int] = [0]
    for number, (depth, text) in enumerate(lines, 1):
        del parents[depth + 1 :]
        rows.append((number, parents[-1], text))
        parents.append(number)
    return Result(list(COLUMNS), rows, types=["INTEGER", "INTEGER", "TEXT"])


def _analyzed(plan: Plan, view: View, bindings: Bindings) -> Explained:
    details: list[str] = []
    if isinstance(plan, SearchPlan):
        details = plan.details(view, bindings.program_values(plan.parameter_count))
    clock = view.database.store.vfs.monotonic
    start = clock()
    result = plan.run(view, bindings)
    elapsed = (clock() - start) * 1000
    count = len(result.rows) if result.columns is not None else result.rowcount
    noun = "rows" if result.columns is not None else "rows changed"
    return [(0, f"ANALYZE: {count} {noun} in {elapsed:.3f} ms"), *((1, text) for text in details)]
