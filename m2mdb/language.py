"""Language: the one place of the face that loads the parser and the executor.

It is imported at a connection's first statement, so that a program which uses collections alone
never pays for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from m2mdb.adapters import ADAPTERS
from m2mdb.columns import read_table
from m2mdb.pager.errors import InterfaceError, PlacedFault
from m2mdb.query import binding, bound, copying
from m2mdb.query.ast import Forget
from m2mdb.query.authorization import authorized_condition
from m2mdb.query.binding import Parameters, bind
from m2mdb.query.correlation import Level
from m2mdb.query.executor import execute, execute_many, plan_query
from m2mdb.query.extensions import planning
from m2mdb.query.lexer import Lexer
from m2mdb.query.limits import check_statement
from m2mdb.query.parser import iterate_script, parse
from m2mdb.query.plan import Planned
from m2mdb.query.predicate import Filter, compile_predicate
from m2mdb.query.scope import RowScope, Subqueries
from m2mdb.query.syntax import SyntaxFault, placed
from m2mdb.searching import around

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.view import View
    from m2mdb.query.result import Result


class LateFiles:
    """COPY's files; their formats are loaded at the first COPY."""

    def is_lasting(self, path: str) -> bool:
        """See `query.copying.Files`."""
        from m2mdb.copying import OsFiles

        return OsFiles().is_lasting(path)

    def open_reader(self, *about: Any) -> Any:
        """See `query.copying.Files`."""
        from m2mdb.copying import OsFiles

        return OsFiles().open_reader(*about)

    def open_writer(self, *about: Any) -> Any:
        """See `query.copying.Files`."""
        from m2mdb.copying import OsFiles

        return OsFiles().open_writer(*about)


binding.ADAPTERS = ADAPTERS
bound.READ[:] = [read_table]
copying.FILES[:] = [LateFiles()]

KEPT_CONDITIONS = 256  # compiled ones; all go when there are more


class Language:
    """Statements and conditions as texts, run on a database."""

    __slots__ = ()

    def run(self, database: Database, statement: str, parameters: Parameters) -> Result:
        """Parse (or find in the database's cache), bind and run one statement."""
        if type(statement) is not str:
            statement = checked(statement)
        return execute(database, statement, parameters)

    def run_many(
        self, database: Database, statement: str, parameters: Iterable[Parameters]
    ) -> Result:
        """Run one statement for each of the parameters, all or nothing."""
        return execute_many(database, checked(statement), parameters)

    def split(self, script: str) -> Iterator[str]:
        """The statements of a script, each found when it is asked for."""
        for statement in iterate_script(checked(script)):
            yield script[statement.position : statement.end]

    def names(self, statement: str) -> tuple[str, ...]:
        """The names of a statement's parameters; none where it uses `?`."""
        return parse(checked(statement)).parameter_names

    def check_condition(self, where: str) -> None:
        """ProgrammingError where a text is more, or less, than one condition."""
        parsed_condition(checked(where))

    def condition(
        self, kept: dict[Any, Any], view: View, collection: str, where: str, parameters: Parameters
    ) -> Filter:
        """A bound WHERE over a collection's rows, compiled once for each text and schema.

        `kept` holds the compiled conditions of the connection.
        """
        key = collection, checked(where)
        plan: ConditionPlan | None = kept.get(key)
        if plan is None or not plan.is_valid(view):
            plan = ConditionPlan(view, collection, where)
            if len(kept) >= KEPT_CONDITIONS:
                kept.clear()
            kept[key] = plan
        return plan.bound(view, parameters)


HEAD = "FORGET FROM c WHERE "  # before a condition; nothing but a condition goes on from it


def parsed_condition(where: str) -> Forget:
    """A statement that forgets what a condition holds for.

    Raises ProgrammingError where the text is no condition, or more than one.
    """
    with around(HEAD):
        statement = parse(f"{HEAD}{where}")
    assert isinstance(statement, Forget)
    return statement


class ConditionPlan(Planned):
    """A WHERE on its own, with its subqueries."""

    __slots__ = ("_predicate", "_statement")

    def __init__(self, view: View, collection: str, where: str) -> None:
        """Raises ProgrammingError where the text is no condition, or more than one."""
        statement = parsed_condition(where)
        check_statement(view.database, statement)
        super().__init__(statement.parameter_count)
        schema = view.collection(collection).schema
        self.tables.append((schema.name.lower(), schema))
        subqueries = Subqueries(statement.parameter_count)
        self._statement = statement
        try:
            with planning(view.database):
                condition = authorized_condition(view, schema.name, statement.where)
                scope = RowScope(schema, subqueries)
                level = Level(self, scope, (view, plan_query, subqueries))
                level.clause = "WHERE"
                self._predicate = compile_predicate(level.resolve(condition), scope)
                self.prepare_inner(subqueries, view, plan_query)
        except PlacedFault as fault:
            raise fault.kind(placed(str(fault), where, fault.position - len(HEAD))) from None

    def bound(self, view: View, parameters: Any) -> Filter:
        """The condition with its parameters and its subqueries' values."""
        bindings = bind(self._statement, parameters)
        bindings.check = view.database.check_interrupted
        bindings.clock = view.database.now
        return self._predicate.bind(self.bind_inner(view, bindings))


def complete_statement(statement: str) -> bool:
    """Whether a text ends a statement: its last `;` is in no string and no comment."""
    lexer = Lexer({})
    start = 0
    try:
        while start >= 0:
            tokens = lexer.cut(checked(statement), start)
            if tokens.next_start < 0:
                return len(tokens.kinds) == 1 and start > 0
            start = tokens.next_start
    except SyntaxFault:
        return False
    return False


def checked(statement: object) -> str:
    """The text, or InterfaceError where it is no str."""
    if not isinstance(statement, str):
        raise InterfaceError(f"a statement is a str, not {type(statement).__name__}")
    return statement
