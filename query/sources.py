"""Sources: what may stand in FROM, one table at a time; `query.join` puts several together.

    collection, collection AS OF n     the collection's view
    system table                       rows made for the statement
    (SELECT …), table of WITH          rows of a query, run when the statement runs
    nothing                            one row without columns

A `TableSource` is one of them with a WHERE of its own; it gives the rows that pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from m2mdb.index.schema import hinted
from m2mdb.pager.errors import NotSupportedError, PlacedFault, ProgrammingError
from m2mdb.query.access import Access
from m2mdb.query.bound import bound_view
from m2mdb.query.estimates import Figures
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import Bindings
from m2mdb.query.lists import NO_TABLE, ListSchema, ListView
from m2mdb.query.nodes import (
    ColumnRef,
    DerivedTable,
    Expression,
    Node,
    Source,
    TableCall,
    TableName,
    TableParameter,
)
from m2mdb.query.plan import Explained, Plan
from m2mdb.query.planner import plan_access
from m2mdb.query.profile import Noted, profile_of
from m2mdb.query.rewriting import rewritten
from m2mdb.query.scope import RowScope, Subqueries
from m2mdb.query.selection import Selection
from m2mdb.query.system_tables import TABLE_NAMES, system_schema, system_view
from m2mdb.query.table_functions import Lateral, function_of, schema_of

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View
    from m2mdb.query.join_scope import JoinScope
    from m2mdb.query.planning import Common, Planner
    from m2mdb.query.result import Result

Opener = Callable[["View", Bindings], Any]  # gives the CollectionView or ListView to read


class Leaf:
    """One table of FROM.

    name     what may stand before a column's point, in lower case; "" for none
    tables   the schemas that it was planned for
    plan     of the query that gives its rows, or None
    is_past  whether it is read AS OF a commit
    figures  what is known of a collection, for estimates; None for the others
    lateral  of a table function that is called for each row of what is left of it, or None
    """

    __slots__ = (
        "figures", "is_past", "lateral", "name", "open", "plan", "schema", "tables", "title",
    )  # fmt: skip

    def __init__(self, open: Opener, schema: Any, name: str | None, title: str) -> None:
        self.open = open
        self.schema = schema
        self.name = (name or schema.name).lower()
        self.title = title
        self.tables: list[tuple[str, CollectionSchema]] = []
        self.plan: Plan | None = None
        self.is_past = False
        self.figures: Figures | None = None
        self.lateral: Lateral | None = None


class Context:
    """What planning a source needs: the snapshot, the planner and the statement's subqueries."""

    __slots__ = ("count", "planner", "subqueries", "view")

    def __init__(self, view: View, planner: Planner, subqueries: Subqueries) -> None:
        self.view = view
        self.planner = planner
        self.subqueries = subqueries
        self.count = subqueries.first


def leaf_of(source: Source | None, context: Context, before: JoinScope | None = None) -> Leaf:
    """A table of FROM, ready to be opened; `before` gives the names of those left of it.

    Raises ProgrammingError: no such collection. NotSupportedError: FROM ? is not built yet.
    """
    if source is None:
        return Leaf(lambda view, bindings: ListView(NO_TABLE, [()]), NO_TABLE, None, "CONSTANT ROW")
    if isinstance(source, DerivedTable):
        return _derived(source, context)
    if isinstance(source, TableCall):
        return _call(source, context, before)
    if isinstance(source, TableParameter):
        opened = bound_view(source.parameter.index)
        return Leaf(lambda view, bindings: opened, opened.schema, source.alias, "BOUND TABLE")
    if not isinstance(source, TableName):
        raise NotSupportedError(f"{type(source).__name__} in FROM is not built yet")
    common = context.planner.common.get(source.name.lower())
    if common is not None:
        if source.as_of is not None:
            raise PlacedFault(f"{source.name} AS OF: a table of WITH has no past", source.position)
        return _common(source, common, context)
    return _collection(source, context)


def _collection(source: TableName, context: Context) -> Leaf:
    name = source.name
    system = system_schema(name)
    title = source.alias or name
    if system is not None:
        if source.as_of is not None:
            raise PlacedFault(
                f"{name} AS OF: a system table shows the present alone", source.position
            )
        return Leaf(lambda view, bindings: system_view(view, name), system, source.alias, title)
    try:
        collection = context.view.collection(name)
    except ProgrammingError as problem:
        others = (*TABLE_NAMES, *context.planner.common)
        raise PlacedFault(hinted(str(problem), name, others), source.position) from None
    schema, lower = collection.schema, name.lower()
    title = source.alias or schema.name
    if source.as_of is None:
        leaf = Leaf(lambda view, bindings: view.collection(lower), schema, source.alias, title)
        leaf.figures = Figures(collection)
    else:
        leaf = _past(source, schema, context)
    leaf.tables.append((lower, schema))
    return leaf


def _past(source: TableName, schema: CollectionSchema, context: Context) -> Leaf:
    """A collection AS OF a commit: its schema is the present one, or it cannot be read."""
    assert source.as_of is not None
    commit = compile_expression(source.as_of, RowScope(None, context.subqueries))
    lower = source.name.lower()

    def open_past(view: View, bindings: Bindings) -> Any:
        return view.collection_as_of(lower, commit((), bindings))

    title = f"{source.alias or schema.name} AS OF A COMMIT"
    leaf = Leaf(open_past, schema, source.alias, title)
    leaf.is_past = True
    return leaf


def _derived(source: DerivedTable, context: Context) -> Leaf:
    """A query in FROM."""
    plan = context.planner(source.query, context.view, context.count)
    names, types = plan.columns()
    schema = ListSchema(source.alias or "", list(zip(names, types, strict=True)))
    count = context.count

    def open_rows(view: View, bindings: Bindings) -> ListView:
        own = bindings.program_values(count)
        rows = _profiled(plan, own, lambda: plan.run(view, own)).made(own.check)
        return ListView(schema, rows, bindings.check)

    leaf = Leaf(open_rows, schema, source.alias, source.alias or "(query)")
    leaf.tables.extend(plan.all_tables())
    leaf.plan = plan
    return leaf


def _common(source: TableName, common: Common, context: Context) -> Leaf:
    """A table of WITH."""
    plan = common.plan(context.planner)
    types = plan.columns()[1]
    schema = ListSchema(source.alias or source.name, list(zip(common.names, types, strict=True)))
    count = context.count

    def open_rows(view: View, bindings: Bindings) -> ListView:
        own = bindings.program_values(count)
        rows = _profiled(plan, own, lambda: common.rows(view, own)).made(own.check)
        return ListView(schema, rows, bindings.check)

    leaf = Leaf(open_rows, schema, source.alias, schema.name)
    leaf.tables.extend(plan.all_tables())
    leaf.plan = plan
    return leaf


def _call(source: TableCall, context: Context, before: JoinScope | None) -> Leaf:
    """A table function: of constants and outer columns, or for each row of what is left of it."""
    function = function_of(source.name, len(source.arguments), source.position)
    schema = schema_of(function, source.name)
    outer = context.planner.outer
    is_lateral = False

    def placed(node: Node) -> Node | None:
        nonlocal is_lateral
        if not isinstance(node, ColumnRef):
            return None
        if before is not None and before.has(node):
            is_lateral = True
            return node
        return (None if outer is None else outer.column(node)) or node

    arguments = [rewritten(each, placed) for each in source.arguments]
    title = source.alias or source.name
    if is_lateral and before is not None:
        leaf = Leaf(lambda view, bindings: ListView(schema, []), schema, source.alias, title)
        compiled = [compile_expression(each, before) for each in arguments]
        leaf.lateral = Lateral(function, compiled, before)
        return leaf
    constant = RowScope(None, context.subqueries)
    given = [compile_expression(each, constant) for each in arguments]

    def open_rows(view: View, bindings: Bindings) -> ListView:
        values = [each((), bindings) for each in given]
        return ListView(schema, (), bindings.check, function.call(bindings.check, *values))

    return Leaf(open_rows, schema, source.alias, title)


def _profiled(plan: Plan, bindings: Bindings, run: Callable[[], Result]) -> Result:
    """What a query in FROM gives, noted where somebody wants to know."""
    profile = profile_of(bindings) if bindings.shared else None
    if profile is None:
        return run()
    start = profile.clock()
    found = run()
    profile.note(plan, len(found.made(bindings.check)), start)
    return found


class TableSource:
    """The rows of one table that pass WHERE."""

    __slots__ = ("access", "leaf", "scope")

    def __init__(self, leaf: Leaf, scope: RowScope) -> None:
        self.leaf = leaf
        self.scope = scope
        self.access = Access(None)

    def resolve(self, resolve: Callable[[Expression], Expression]) -> None:
        """A table has no conditions of its own."""

    def conditions(self) -> list[Expression]:
        """No ON."""
        return []

    def restrict(self, where: Expression | None) -> None:
        """Plan the access for a WHERE."""
        leaf = self.leaf
        self.access = plan_access(
            where, self.scope, with_indexes=not leaf.is_past, figures=leaf.figures
        )

    def open(self, view: View, bindings: Bindings) -> Any:
        """The collection or list to read."""
        return self.leaf.open(view, bindings)

    def select(self, view: View, bindings: Bindings) -> Selection:
        """The rows, in rowid order."""
        check = view.database.check_interrupted
        return self.access.select(self.leaf.open(view, bindings), bindings, check)

    def explain(self, view: View) -> Explained:
        """How the rows are found, below it the query that gives them."""
        return [(0, self.access.describe(self.leaf.title)), *explained_leaf(self.leaf, view)]


def explained_leaf(leaf: Leaf, view: View) -> Explained:
    """The query that gives a table's rows."""
    if leaf.plan is None:
        return []
    lines: Explained = [(1, Noted.of("MATERIALIZE", leaf.plan))]
    return lines + [(depth + 2, text) for depth, text in leaf.plan.explain(view)]
