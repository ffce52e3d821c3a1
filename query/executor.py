"""The executor: runs statements on a database.

    text or tree --prepare, kept by text--> Prepared --bind--> --reading | writing--> Result

A prepared statement keeps its plan and makes it anew when the schemas it was made for are gone.
A writing statement is atomic: any error undoes it alone.

Invariants
    K1  Nothing of a statement that raised is left: no row, no lock that it took first.
    K2  Preparing changes nothing; planning sees the schema of the very snapshot that it runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from m2mdb.index.generated import may_encode_ahead
from m2mdb.index.slices import SLICE_NUMBERS, Check, emptied, kinds_of, slices, watched
from m2mdb.pager.errors import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    PlacedFault,
    ProgrammingError,
)
from m2mdb.query import ddl
from m2mdb.query.ast import (
    AlterCollection,
    Analyze,
    Begin,
    Checkpoint,
    Commit,
    Compound,
    Copy,
    CreateCollection,
    CreateIndex,
    Delete,
    DropCollection,
    DropIndex,
    Explain,
    Forget,
    Insert,
    Optimize,
    Pragma,
    Query,
    Reembed,
    Reindex,
    Release,
    Rollback,
    Savepoint,
    Search,
    Select,
    Statement,
    Unbuilt,
    Update,
    Vacuum,
    Values,
    With,
)
from m2mdb.query.authorization import authorize_other, authorized
from m2mdb.query.binding import Parameters, bind
from m2mdb.query.bound import bound
from m2mdb.query.compound import CompoundPlan, ValuesPlan
from m2mdb.query.conflicts import roll_back
from m2mdb.query.copying import run_copy
from m2mdb.query.dml import DeletePlan, UpdatePlan
from m2mdb.query.encode_ahead import encode_ahead
from m2mdb.query.explain import explained
from m2mdb.query.extensions import planning
from m2mdb.query.forget import ForgetPlan, receipt_result
from m2mdb.query.insert import InsertPlan
from m2mdb.query.limits import check_statement
from m2mdb.query.nodes import TableParameter
from m2mdb.query.placed_names import column_index, located
from m2mdb.query.plan import Plan
from m2mdb.query.planning import Planner
from m2mdb.query.pragma import checkpoint, run_pragma
from m2mdb.query.result import Result
from m2mdb.query.search_plan import SearchPlan
from m2mdb.query.select import plan_select
from m2mdb.query.syntax import placed
from m2mdb.query.tier_hits import TierHits
from m2mdb.query.tree import nodes_of
from m2mdb.query.vacuum import run_vacuum

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.view import View, WriteView

__all__ = ["Prepared", "Result", "execute", "execute_many"]

KEPT_STATEMENTS = 256  # prepared ones of a database; the least recently used goes first
_TOO_DEEP = "the statement is nested too deep"


def _plan_query(query: Query, view: View, count: int, planner: Planner) -> Plan:
    """The plan of a statement that gives rows."""
    if isinstance(query, Select):
        return plan_select(query, view, count, planner)
    if isinstance(query, Search):
        return SearchPlan(query, view, count, planner)
    if isinstance(query, Compound):
        return CompoundPlan(query, view, count, planner)
    if isinstance(query, Values):
        return ValuesPlan(query, view, count, planner)
    assert isinstance(query, With), query
    return plan_statement(query, view, count, planner)


plan_query = Planner(_plan_query)


def plan_statement(
    statement: Statement, view: View, count: int, planner: Planner = plan_query
) -> Plan:
    """The plan of a statement with `count` parameters that reads or writes collections.

    Raises what planning raises. NotSupportedError: WITH RECURSIVE.
    """
    if isinstance(statement, With):
        if statement.recursive:
            raise NotSupportedError("WITH RECURSIVE is not built yet; WITH without it is")
        inner = planner.with_tables(statement.tables, view, count)
        return plan_statement(statement.statement, view, count, inner)
    if isinstance(statement, Query):
        return planner(statement, view, count)
    if isinstance(statement, Insert):
        return InsertPlan(statement, view, count, planner)
    if isinstance(statement, Update):
        return UpdatePlan(statement, view, count, planner)
    if isinstance(statement, Forget):
        return ForgetPlan(statement, view, count, planner)
    assert isinstance(statement, Delete), statement
    return DeletePlan(statement, view, count, planner)


def within(statement: Statement) -> Statement:
    """The statement behind WITH; any other is itself."""
    return statement.statement if isinstance(statement, With) else statement


def planned(statement: Statement, view: View, count: int, text: str = "") -> Plan:
    """As `plan_statement`, with the program's functions, and where its authorizer agrees.

    `text`: what the statement stands in, where it is a part of another one.
    """
    try:
        if view.database.extensions is None:
            return plan_statement(statement, view, count)
        with planning(view.database):
            return plan_statement(authorized(view, statement), view, count)
    except PlacedFault as fault:
        raise _with_place(fault, text or statement.text) from None


def _with_place(fault: PlacedFault, text: str) -> DatabaseError:
    """What the program sees of a fault; a tree that was made without a text has no places."""
    return fault.kind(placed(str(fault), text, fault.position) if text else str(fault))


class Prepared:
    """A statement and, for those that need one, its plan."""

    __slots__ = ("_plan", "has_tables", "inner", "is_query", "is_write", "statement")

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        inner = self.inner = within(statement)
        bound_tables = nodes_of(statement, TableParameter)
        self.has_tables = statement.parameter_count > 0 and next(bound_tables, None) is not None
        self.is_query = isinstance(inner, Query)
        self.is_write = isinstance(inner, Insert | Update | Delete | Forget)
        self._plan: Plan | None = None

    def plan(self, view: View) -> Plan:
        """The plan, made anew where the schemas have changed (S15)."""
        plan = self._plan
        if plan is None or not plan.is_valid(view):
            statement = self.statement
            plan = self._plan = planned(statement, view, statement.parameter_count)
        return plan


def execute(database: Database, statement: str | Statement, parameters: Parameters = ()) -> Result:
    """Run one statement.

    Raises what the statement raises; then nothing of it is done (K1).
    """
    database.forget_interrupt()
    try:
        prepared = _prepared(database, statement)
        if isinstance(prepared.statement, Explain):
            return _explain(database, prepared.statement, parameters)
        if prepared.has_tables:
            return _run_unkept(database, prepared, parameters)
        bindings = bind(prepared.statement, parameters)
        bindings.check, bindings.clock = database.check_interrupted, database.now
        if prepared.is_query:
            with database.reading() as view:
                return prepared.plan(view).run(view, bindings)
        if prepared.is_write:
            try:
                if isinstance(prepared.inner, Insert | Update):
                    encode_ahead(database, prepared.inner, prepared.plan, [bindings])
                with database.writing() as view:
                    result = prepared.plan(view).run(view, bindings)
            except IntegrityError:
                roll_back(database, prepared.inner)
                raise
            finally:
                database.ahead.clear()
            _note(database, prepared.statement, result)
            _raise_failure(result)
            is_forget = isinstance(prepared.statement, Forget)
            return receipt_result(database, result) if is_forget else result
        if isinstance(prepared.statement, Copy):
            return run_copy(database, prepared.statement, bindings)
        if isinstance(prepared.statement, Vacuum):
            return run_vacuum(database, prepared.statement, bindings)
        return _run_other(database, prepared.statement)
    except PlacedFault as fault:
        text = statement if isinstance(statement, str) else statement.text
        raise _with_place(fault, text) from None
    except RecursionError:
        raise ProgrammingError(_TOO_DEEP) from None


def _note(database: Database, statement: Statement, result: Result) -> None:
    """What changes() and last_insert_rowid() say from now on."""
    database.changes = max(0, result.rowcount)
    if result.lastrowid is not None and isinstance(within(statement), Insert):
        database.last_rowid = result.lastrowid


def _run_unkept(database: Database, prepared: Prepared, parameters: Parameters) -> Result:
    """A statement that reads bound tables: its plan is made for their columns, and for one run."""
    statement = prepared.statement
    with bound(statement, parameters) as others:
        bindings = bind(statement, others)
        bindings.check, bindings.clock = database.check_interrupted, database.now
        try:
            with database.writing() if prepared.is_write else database.reading() as view:
                result = planned(statement, view, statement.parameter_count).run(view, bindings)
        except IntegrityError:
            roll_back(database, prepared.inner)
            raise
        if prepared.is_write:
            _note(database, statement, result)
            _raise_failure(result)
        return result


def _raise_failure(result: Result) -> None:
    """What ended an OR FAIL, now that the statement is done (CF2)."""
    if result.failure is not None:
        result.failure.kept_rows = max(0, result.rowcount)
        raise result.failure


def execute_many(
    database: Database, statement: str | Statement, parameters: Iterable[Parameters]
) -> Result:
    """Run INSERT, UPDATE or DELETE for each of the parameters, all or nothing.

    Raises ProgrammingError: another statement, or one with RETURNING.
    """
    database.forget_interrupt()
    prepared = _prepared(database, statement)
    tree = prepared.statement
    inner = within(tree)
    if not isinstance(inner, Insert | Update | Delete) or inner.returning is not None:
        raise ProgrammingError(
            "executemany() takes INSERT, UPDATE and DELETE without RETURNING only"
        )
    if not isinstance(parameters, Iterable):
        raise InterfaceError(f"executemany() takes rows of parameters, not {parameters!r}")
    try:
        given = list(watched(parameters, database.check_interrupted))
        if isinstance(inner, Insert | Update) and not prepared.has_tables:
            _encode_many(database, prepared, given)
        with database.writing() as write:
            result = _run_many(database, prepared, (write, given))
        _raise_failure(result)
        return result
    except IntegrityError:
        roll_back(database, inner)
        raise
    except RecursionError:
        raise ProgrammingError(_TOO_DEEP) from None
    finally:
        database.ahead.clear()


def _run_many(
    database: Database, prepared: Prepared, work: tuple[WriteView, list[Parameters]]
) -> Result:
    """All runs, by one insertion where that can be."""
    write, given = work
    tree = prepared.statement
    if prepared.has_tables:
        return _run_each(database, None, tree, work)
    plan = prepared.plan(write)
    if isinstance(plan, InsertPlan) and given:
        rows = _positional(tree, given, database.check_interrupted)
        result = None if rows is None else plan.run_many(write, rows)
        if result is not None:
            _note(database, tree, result)
            emptied(database.check_interrupted, given)
            return result
    result = _run_each(database, plan, tree, work)
    emptied(database.check_interrupted, given)
    return result


def _encode_many(database: Database, prepared: Prepared, given: list[Parameters]) -> None:
    """The texts of all runs, before the first (GE5)."""
    inner = prepared.inner
    assert isinstance(inner, Insert | Update)
    if may_encode_ahead(database, inner.collection):
        rows = None
        if isinstance(inner, Insert) and inner.query is None:
            rows = _positional(prepared.statement, given, database.check_interrupted)
        if rows is None:
            rows = [bind(prepared.statement, each) for each in given]
            for bindings in rows:
                bindings.check, bindings.clock = database.check_interrupted, database.now
        encode_ahead(database, inner, prepared.plan, rows)


def _positional(statement: Statement, given: list[Parameters], check: Check) -> list[Any] | None:
    """The parameters where all are tuples or lists of the right length; None for others."""
    count = statement.parameter_count
    if statement.parameter_names or not count:
        return None
    if not kinds_of(given, check) <= {tuple, list}:
        return None
    for some in slices(len(given), SLICE_NUMBERS >> 1, check):
        if set(map(len, given[some])) != {count}:
            return None
    return given


def _run_each(
    database: Database,
    plan: Plan | None,
    statement: Statement,
    work: tuple[WriteView, list[Parameters]],
) -> Result:
    """One run for each of the parameters, inside one writing statement.

    Without a plan the statement reads bound tables, and is planned for those of each run.
    """
    write, given = work
    total, last, failure = 0, None, None
    for parameters in given:
        database.check_interrupted()
        with nullcontext(parameters) if plan else bound(statement, parameters) as others:
            bindings = bind(statement, others)
            bindings.check, bindings.clock = database.check_interrupted, database.now
            run = plan or planned(statement, write, statement.parameter_count)
            result = run.run(write, bindings)
            _note(database, statement, result)
        total += result.rowcount
        last = result.lastrowid if result.lastrowid is not None else last
        failure = result.failure
        if failure is not None:
            break
    whole = Result(rowcount=total, lastrowid=last)
    whole.failure = failure
    return whole


def _prepared(database: Database, statement: str | Statement) -> Prepared:
    """The prepared statement of a text, from those that are kept or made now."""
    plans: dict[str, Prepared] = database.plans
    text = statement if isinstance(statement, str) else statement.text
    found = plans.pop(text, None)
    if found is None:
        if isinstance(statement, str):
            from m2mdb.query.parser import parse

            statement = parse(statement)
        check_statement(database, statement)
        found = Prepared(statement)
        if not text:
            return found
        while len(plans) >= KEPT_STATEMENTS:
            del plans[next(iter(plans))]
    plans[text] = found
    return found


def _run_other(database: Database, statement: Statement) -> Result:
    """Statements without a plan."""
    authorize_other(database, statement)
    run = _OTHERS.get(type(statement))
    if run is None:
        keyword = getattr(statement, "keyword", type(statement).__name__.upper())
        raise NotSupportedError(f"{keyword} is not built yet")
    return run(database, statement) or Result()


def _explain(database: Database, statement: Explain, parameters: Parameters) -> Result:
    """EXPLAIN plans and tells, and needs no values; with ANALYZE it also runs."""
    inner = statement.statement
    is_write = isinstance(within(inner), Insert | Update | Delete | Forget)
    if not is_write and not isinstance(inner, Query):
        return explained([(0, type(inner).__name__)], None)
    bindings = bind(statement, parameters) if statement.analyze or parameters else None
    if not statement.analyze:
        bindings = None
    with database.writing() if is_write and statement.analyze else database.reading() as view:
        plan = planned(inner, view, statement.parameter_count, statement.text)
        run = None if bindings is None else (plan, view, bindings, TierHits(plan, view))
        return explained(plan.explain(view), run)


def _ddl(run: Callable[[WriteView, Any], None]) -> Callable[[Database, Any], None]:
    def execute_ddl(database: Database, statement: Any) -> None:
        with database.writing() as write:
            run(write, statement)

    return execute_ddl


def _begin(database: Database, statement: Begin) -> None:
    database.begin(statement.mode)


def _commit(database: Database, statement: Commit) -> None:
    if not database.in_transaction:
        raise ProgrammingError("cannot commit - no transaction is active")
    database.commit()


def _rollback(database: Database, statement: Rollback) -> None:
    if statement.savepoint is not None:
        database.rollback_to(statement.savepoint)
        return
    if not database.in_transaction:
        raise ProgrammingError("cannot rollback - no transaction is active")
    database.rollback()


def _savepoint(database: Database, statement: Savepoint) -> None:
    database.savepoint(statement.name)


def _release(database: Database, statement: Release) -> None:
    database.release(statement.name)


def _checkpoint(database: Database, statement: Checkpoint) -> Result:
    return checkpoint(database, statement.mode)


def _optimize(database: Database, statement: Optimize) -> Result:
    from m2mdb.index.optimize import optimize

    with located(statement.collection):
        reports = optimize(database, statement.collection)
    columns = ["collection", "segments_before", "segments_after", "rows"]
    rows = [(r.collection, r.segments_before, r.segments_after, r.rows) for r in reports]
    return Result(columns, rows)


def _reembed(database: Database, statement: Reembed) -> Result:
    from m2mdb.index.reembedding import Reembedded, reembed

    with database.reading() as view:
        with located(statement.collection):
            schema = view.collection(statement.collection).schema
        if statement.column is not None:
            column_index(schema, statement.column)
    done = reembed(database, statement.collection, statement.encoder, statement.column)
    return Result(list(Reembedded._fields), [tuple(done)])


_OTHERS: dict[type[Statement], Callable[[Database, Any], Result | None]] = {
    AlterCollection: _ddl(ddl.alter_collection),
    Analyze: _ddl(ddl.analyze),
    Begin: _begin,
    Checkpoint: _checkpoint,
    Commit: _commit,
    CreateCollection: _ddl(ddl.create_collection),
    CreateIndex: _ddl(ddl.create_index),
    DropCollection: _ddl(ddl.drop_collection),
    DropIndex: _ddl(ddl.drop_index),
    Optimize: _optimize,
    Pragma: run_pragma,
    Reembed: _reembed,
    Reindex: _ddl(ddl.reindex),
    Release: _release,
    Rollback: _rollback,
    Savepoint: _savepoint,
}
assert Unbuilt not in _OTHERS
