"""FORGET: rows go with every trace of them, and a receipt says so (S26).

plan --run, in the statement--> receipt's number --statement ended--> one row, the receipt
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.index.view import WriteView
from m2mdb.query.ast import Forget
from m2mdb.query.dml import WritePlan
from m2mdb.query.functions import Bindings
from m2mdb.query.plan import Explained
from m2mdb.query.planner import plan_access
from m2mdb.query.result import Result
from m2mdb.query.scope import ROWID, Subqueries

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.view import View
    from m2mdb.query.planning import Planner

COLUMNS = ["rows", "commit", "digest", "status", "holders", "receipt"]
TYPES: list[str | None] = ["INTEGER", "INTEGER", "TEXT", "TEXT", "TEXT", "INTEGER"]


class ForgetPlan(WritePlan):
    """FORGET: finds rows as DELETE does."""

    __slots__ = ("_access",)

    def __init__(self, statement: Forget, view: View, count: int, planner: Planner) -> None:
        subqueries = Subqueries(count)
        super().__init__(statement.collection, None, (view, planner, subqueries))
        self._access = plan_access(self.condition(statement.where), self.scope)
        self.prepare_inner(subqueries, view, planner)

    def columns(self) -> tuple[list[str], list[str | None]]:
        """The receipt's."""
        return COLUMNS, TYPES

    def run(self, view: View, bindings: Bindings) -> Result:
        """Forget inside a writing statement; the result is completed by `receipt_result`."""
        assert isinstance(view, WriteView), "the executor runs writes in writing()"
        write = view
        bindings = self.bind_inner(view, bindings)
        collection = view.collection(self.name)
        rows = self._access.select(collection, bindings, view.database.check_interrupted)
        rowids = rows.column(ROWID)
        return Result(rowcount=len(rowids), lastrowid=write.forget(self.name, rowids))

    def explain(self, view: View) -> Explained:
        """How the rows are found."""
        name = self.schema.name
        described = self._access.describe(name)
        return [(0, f"FORGET FROM {name}"), (1, described), *self.explain_inner(view)]


def receipt_result(database: Database, result: Result) -> Result:
    """The receipt as it stands once the statement has ended, and maybe its transaction."""
    from m2mdb.index.scrubbing import written_receipt

    assert result.lastrowid is not None, "FORGET gives its receipt's number"
    found = written_receipt(database, result.lastrowid)
    row = (found.rows, found.commit, found.digest, found.status, found.holders, found.number)
    return Result(COLUMNS, [row], rowcount=found.rows, types=TYPES)
