"""EXPLAIN: a plan's lines as rows (id, parent, detail), as SQLite's EXPLAIN QUERY PLAN gives them.

With ANALYZE the statement is run as well: each line tells rows and time of its step, those of the
steps below it included, and a last line those of the whole and the pages of trees that it read;
below it stands what was in memory before (`query.tier_hits`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2mdb.query.functions import Bindings
from m2mdb.query.plan import Explained, Plan
from m2mdb.query.profile import KEY, CountedPages, Profile
from m2mdb.query.result import Result
from m2mdb.query.search_plan import SearchPlan
from m2mdb.wal.transaction import Transaction

if TYPE_CHECKING:
    from m2mdb.index.view import View
    from m2mdb.query.tier_hits import TierHits

COLUMNS = ["id", "parent", "detail"]


def explained(lines: Explained, run: tuple[Plan, View, Bindings, TierHits] | None) -> Result:
    """The rows of EXPLAIN; `run`: what ANALYZE executes, on what, and what was in memory before."""
    if run is not None:
        lines = _analyzed(lines, *run)
    rows: list[tuple[Any, ...]] = []
    parents: list[int] = [0]
    for number, (depth, text) in enumerate(lines, 1):
        del parents[depth + 1 :]
        rows.append((number, parents[-1], str(text)))
        parents.append(number)
    return Result(list(COLUMNS), rows, types=["INTEGER", "INTEGER", "TEXT"])


def _analyzed(
    lines: Explained, plan: Plan, view: View, bindings: Bindings, tiers: TierHits
) -> Explained:
    """Run a statement; each line tells the rows and the time of its step, a last one the whole."""
    details: list[str] = []
    if isinstance(plan, SearchPlan):
        details = plan.details(view, bindings.program_values(plan.parameter_count))
    profile = bindings.shared[KEY] = Profile(view.database.store.vfs.monotonic, plan)
    start = profile.clock()
    result, counted = _counted(plan, view, bindings)
    elapsed = (profile.clock() - start) * 1000
    count = len(result.rows) if result.columns is not None else result.rowcount
    noun = "rows" if result.columns is not None else "rows changed"
    pages, hot = (None, 0) if counted is None else (counted.count, counted.hot)
    read = "" if pages is None else f", {pages} tree pages read"
    whole = f"ANALYZE: {count} {noun} in {elapsed:.3f} ms{read}"
    told = [(depth, profile.told(text)) for depth, text in lines]
    details.append(tiers.said(pages, hot))
    return [*told, (0, whole), *((1, text) for text in details if text)]


def _counted(plan: Plan, view: View, bindings: Bindings) -> tuple[Result, CountedPages | None]:
    """The result, and what pages of trees it took; None where the statement writes."""
    if isinstance(view.pages, Transaction):
        return plan.run(view, bindings), None
    own = view.pages
    counted: Any = CountedPages(own)
    view.pages = counted
    try:
        return plan.run(view, bindings), counted
    finally:
        view.pages = own
