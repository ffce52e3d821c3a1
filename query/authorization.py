"""Authorization: what a statement would do, told to the program's authorizer before it is planned.

An authorizer is called as sqlite3 calls it: (action, one, other, "main", None) gives OK, DENY or
IGNORE. What it says holds for the plan: a statement that is kept is not asked about again, and
setting an authorizer drops all plans.

    Statement --authorized--> the same tree, or a copy in which what is ignored is NULL

The action codes are SQLite's. COPY and VACUUM INTO, which touch another file, are ATTACH with its
path, so that an authorizer which keeps SQLite in its file keeps this in its file too.

Invariants
    AU1 Every column that a plan reads was asked for under its collection's name: those that a star
        stands for, and those of WHERE, ORDER BY and RETURNING too.
    AU2 Whatever is neither OK nor IGNORE denies, an error of the authorizer too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import OperationalError
from m2mdb.query import ast, search_for
from m2mdb.query.nodes import (
    ColumnRef,
    FunctionCall,
    Literal,
    Node,
    SelectItem,
    Star,
    TableName,
)
from m2mdb.query.placed_names import PlacedName, located
from m2mdb.query.system_tables import system_schema

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.view import View

SQLITE_OK, SQLITE_DENY, SQLITE_IGNORE = 0, 1, 2
SQLITE_CREATE_INDEX, SQLITE_CREATE_TABLE = 1, 2
SQLITE_DELETE, SQLITE_DROP_INDEX, SQLITE_DROP_TABLE = 9, 10, 11
SQLITE_INSERT, SQLITE_PRAGMA, SQLITE_READ, SQLITE_SELECT = 18, 19, 20, 21
SQLITE_TRANSACTION, SQLITE_UPDATE, SQLITE_ATTACH = 22, 23, 24
SQLITE_ALTER_TABLE, SQLITE_REINDEX, SQLITE_ANALYZE = 26, 27, 28
SQLITE_FUNCTION, SQLITE_SAVEPOINT, SQLITE_RECURSIVE = 31, 32, 33

ACTIONS = {
    value: name.removeprefix("SQLITE_")
    for name, value in sorted(globals().items())
    if name.startswith("SQLITE_") and name not in ("SQLITE_OK", "SQLITE_DENY", "SQLITE_IGNORE")
}
Authorizer = Callable[[int, str | None, str | None, str | None, str | None], int]
_NOWHERE = (SQLITE_SELECT, SQLITE_FUNCTION, SQLITE_TRANSACTION, SQLITE_SAVEPOINT, SQLITE_PRAGMA)
_WRITES = (ast.Insert, ast.Update, ast.Delete, ast.Forget)


def authorizer_of(database: Database) -> Authorizer | None:
    """The authorizer of a database's program, or None."""
    extensions = database.extensions
    return None if extensions is None else extensions.authorizer


def authorized(view: View, statement: Any) -> Any:
    """The statement as it may be planned; itself where there is no authorizer.

    Raises OperationalError: something of it is denied.
    """
    authorizer = authorizer_of(view.database)
    if authorizer is None:
        return statement
    return _Visit(authorizer, view).statement(statement)


def authorized_condition(view: View, collection: str, where: Any) -> Any:
    """A WHERE over a collection as it may be compiled; errors as `authorized` raises them."""
    authorizer = authorizer_of(view.database)
    return where if authorizer is None else _Visit(authorizer, view).condition(collection, where)


def authorize_other(database: Database, statement: Any, path: str | None = None) -> None:
    """Ask about a statement that has no plan; `path` is the file that it touches.

    Raises OperationalError: it is denied.
    """
    authorizer = authorizer_of(database)
    if authorizer is not None:
        for action, one, other in _other_actions(statement, path):
            if asked(authorizer, action, one, other) != SQLITE_OK:
                raise denied(action, one, other)


def authorize_file(
    database: Database, path: str, asks: Sequence[tuple[int, str | None, str | None]]
) -> None:
    """Ask about a file beside the database, and about what is done with its rows.

    Raises OperationalError: one of them is not allowed.
    """
    authorizer = authorizer_of(database)
    if authorizer is not None:
        for action, one, other in [(SQLITE_ATTACH, path, None), *asks]:
            if asked(authorizer, action, one, other) != SQLITE_OK:
                raise denied(action, one, other)


def asked(authorizer: Authorizer, action: int, one: str | None, other: str | None) -> int:
    """The authorizer's answer (AU2)."""
    try:
        answer = authorizer(action, one, other, None if action in _NOWHERE else "main", None)
    except Exception as problem:
        raise OperationalError(
            f"not authorized: the authorizer raised {type(problem).__name__}: {problem}"
        ) from problem
    is_answer = isinstance(answer, int) and answer in (SQLITE_OK, SQLITE_DENY, SQLITE_IGNORE)
    if not is_answer:
        raise OperationalError(f"authorizer malfunction: it gave {answer!r}, not 0, 1 or 2")
    return answer


def denied(action: int, one: str | None, other: str | None) -> OperationalError:
    """The error of what is denied."""
    what = ".".join(part for part in (one, other) if part)
    return OperationalError(f"not authorized: {ACTIONS[action]} {what}".rstrip())


def _other_actions(statement: Any, path: str | None) -> list[tuple[int, str | None, str | None]]:
    """What a statement without a plan does, as (action, one, other)."""
    kind = type(statement).__name__
    if path is not None:
        return [(SQLITE_ATTACH, path, None)]
    match kind:
        case "Begin" | "Commit":
            return [(SQLITE_TRANSACTION, kind.upper(), None)]
        case "Rollback" if statement.savepoint is None:
            return [(SQLITE_TRANSACTION, "ROLLBACK", None)]
        case "Rollback":
            return [(SQLITE_SAVEPOINT, "ROLLBACK", statement.savepoint)]
        case "Savepoint":
            return [(SQLITE_SAVEPOINT, "BEGIN", statement.name)]
        case "Release":
            return [(SQLITE_SAVEPOINT, "RELEASE", statement.name)]
        case "CreateCollection":
            return [(SQLITE_CREATE_TABLE, statement.name, None)]
        case "DropCollection":
            return [(SQLITE_DROP_TABLE, statement.name, None)]
        case "CreateIndex":
            return [(SQLITE_CREATE_INDEX, statement.name, statement.collection)]
        case "DropIndex":
            return [(SQLITE_DROP_INDEX, statement.name, None)]
        case "Pragma":
            value = None if statement.value is None else str(statement.value)
            return [(SQLITE_PRAGMA, statement.name, value)]
        case "Analyze" | "Reindex":
            action = SQLITE_ANALYZE if kind == "Analyze" else SQLITE_REINDEX
            name = getattr(statement, "collection", None) or getattr(statement, "name", None)
            return [(action, name, None)]
    if kind.startswith("Alter") or kind == "Reembed":
        return [(SQLITE_ALTER_TABLE, "main", getattr(statement, "collection", None))]
    keyword = getattr(statement, "keyword", kind).lower()
    return [(SQLITE_PRAGMA, keyword, getattr(statement, "collection", None))]


class _Table:
    """A table that a query reads: its name in the query, its own, and its columns."""

    __slots__ = ("alias", "columns", "hidden", "is_read", "name")

    def __init__(
        self, alias: str, name: str | None, columns: Sequence[str], hidden: Collection[str] = ()
    ) -> None:
        """`name` None: a query in FROM, whose own columns were asked for already.

        hidden  the columns that `*` does not stand for
        """
        self.hidden = hidden
        self.alias = alias.lower()
        self.name = name
        self.columns = {column.lower(): column for column in columns}
        self.is_read = False

    def named(self, column: str) -> str:
        """A column's name as it was declared."""
        return self.columns.get(column.lower(), column)


Scopes = list[list[_Table]]  # the tables of the innermost query first


class _Visit:
    """One statement's way past the authorizer."""

    __slots__ = ("_authorizer", "_commons", "_view")

    def __init__(self, authorizer: Authorizer, view: View) -> None:
        self._authorizer = authorizer
        self._view = view
        self._commons: set[str] = set()  # names of WITH, in lower case

    def _ask(self, action: int, one: str | None, other: str | None = None) -> bool:
        """Whether it is done; False: ignored."""
        answer = asked(self._authorizer, action, one, other)
        if answer == SQLITE_DENY:
            raise denied(action, one, other)
        return answer == SQLITE_OK

    def _must(self, action: int, one: str | None, other: str | None = None) -> None:
        if not self._ask(action, one, other):
            raise denied(action, one, other)

    # Statements

    def statement(self, node: Any) -> Any:
        """A statement that reads or writes collections."""
        if not isinstance(node, _WRITES):
            return self._visit(node, [])
        table = self._collection(node.collection, node.collection)
        name = table.name or node.collection
        made = copy.copy(node)
        if isinstance(made, ast.Insert):
            self._must(SQLITE_INSERT, name)
            conflict = made.on_conflict
            for each in () if conflict is None else conflict.assignments:
                self._must(SQLITE_UPDATE, name, table.named(each.column))
        elif isinstance(made, ast.Update):
            kept = [
                each
                for each in made.assignments
                if self._ask(SQLITE_UPDATE, name, table.named(each.column))
            ]
            if not kept:
                raise denied(SQLITE_UPDATE, name, made.assignments[0].column)
            made.assignments = kept
        else:
            self._must(SQLITE_DELETE, name)
        return self._fields(made, [[table]])

    def condition(self, collection: str, where: Any) -> Any:
        """A WHERE on its own."""
        return self._visit(where, [[self._collection(collection, collection)]])

    def _fields(self, node: Any, scopes: Scopes) -> Any:
        """A copy of a node with each of its fields visited; itself where nothing is ignored."""
        changes = {
            field: new
            for field, value in node.fields().items()
            if (new := self._visit(value, scopes)) is not value
        }
        made = copy.copy(node) if changes else node
        for field, value in changes.items():
            setattr(made, field, value)
        return made

    # Nodes

    def _visit(self, value: Any, scopes: Scopes) -> Any:
        if isinstance(value, list | tuple):
            return self._listed(value, scopes)
        if not isinstance(value, Node):
            return value
        if isinstance(value, ast.With):
            return self._with(value, scopes)
        if isinstance(value, ast.Select):
            return self._select(value, scopes)
        if isinstance(value, ast.Search):
            return self._search(value, scopes)
        if isinstance(value, ColumnRef):
            return self._column(value, scopes)
        if isinstance(value, FunctionCall) and not self._ask(SQLITE_FUNCTION, None, value.name):
            return Literal(None, value.position)
        if isinstance(value, _WRITES):
            return self.statement(value)
        return self._fields(value, scopes)

    def _listed(self, value: Any, scopes: Scopes) -> Any:
        """A list; the star in a result list becomes columns where one of them is ignored."""
        found: list[Any] = []
        changed = False
        for each in value:
            is_star = isinstance(each, SelectItem) and isinstance(each.expression, Star)
            new = self._star(each, scopes) if is_star else [self._visit(each, scopes)]
            changed = changed or len(new) != 1 or new[0] is not each
            found += new
        return type(value)(found) if changed else value

    def _with(self, node: ast.With, scopes: Scopes) -> Any:
        """Names of WITH hide collections of the same name."""
        before = set(self._commons)
        if node.recursive:
            self._must(SQLITE_RECURSIVE, None)
        tables = []
        for table in node.tables:
            tables.append(self._visit(table, scopes))
            self._commons.add(table.name.lower())
        made = copy.copy(node)
        made.tables = tables
        made.statement = self._visit(node.statement, scopes)
        self._commons = before
        return made

    def _select(self, node: ast.Select, scopes: Scopes) -> Any:
        self._must(SQLITE_SELECT, None)
        own: list[_Table] = []
        self._gather(node.source, own)
        made = self._fields(node, [own, *scopes])
        for table in own:
            if table.name is not None and not table.is_read:
                self._must(SQLITE_READ, table.name, "")
        return made

    def _gather(self, source: Any, found: list[_Table]) -> None:
        """The tables of FROM."""
        if isinstance(source, TableName):
            name = PlacedName(source.name, source.position)
            found.append(self._collection(name, source.alias or name))
        elif type(source).__name__ == "Join":
            self._gather(source.left, found)
            self._gather(source.right, found)
        elif source is not None:
            found.append(_Table(source.alias or "", None, ()))

    def _collection(self, name: str, alias: str) -> _Table:
        """A collection or a system table by its name; of one of WITH nothing is asked."""
        if name.lower() in self._commons:
            return _Table(alias, None, ())
        schema: Any = system_schema(name)
        if schema is None:
            with located(name):
                schema = self._view.collection(name).schema
        names = [column.name for column in schema.columns]
        hidden = {names[index] for index in range(len(names)) if index not in schema.shown_columns}
        return _Table(alias, schema.name, names, hidden)

    def _search(self, node: ast.Search, scopes: Scopes) -> Any:
        self._must(SQLITE_SELECT, None)
        table = self._collection(node.collection, node.collection)
        schema = self._view.collection(node.collection).schema
        used = [node.near_column, node.match_column]
        is_by_any = node.near is None and node.diversity is not None
        if (node.near is not None and node.near_column is None) or is_by_any:
            used += [schema.columns[at].name for at in schema.near_columns]
        if node.match is not None and node.match_column is None:
            used += [column.name for column in schema.columns if column.fulltext is not None]
        if node.for_ is not None:
            generated, is_match = search_for.sides(schema)
            texts = schema.text_columns if is_match else ()
            used += [schema.columns[at].name for at in (generated, *texts) if at is not None]
        if node.decay is not None:
            used.append(node.decay.column)
        for name in used:
            if name is not None:
                self._must(SQLITE_READ, table.name, table.named(name))
        made = copy.copy(node)
        if node.returning is None:
            shown = [column.name for column in schema.columns if not column.is_vector]
            items = [self._item(table, name, node.position) for name in shown]
            if any(isinstance(item.expression, Literal) for item in items):
                score = ColumnRef("score", None, node.position)
                made.returning = [*items, SelectItem(score, None, "score", node.position)]
        return self._fields(made, [[table], *scopes])

    def _column(self, node: ColumnRef, scopes: Scopes) -> Any:
        """A name, under the first table that has it."""
        wanted, qualifier = node.name.lower(), (node.table or "").lower()
        for tables in scopes:
            for table in tables:
                if qualifier and qualifier not in (table.alias, "excluded"):
                    continue
                name = "ROWID" if wanted == "rowid" else table.columns.get(wanted)
                if name is not None and table.name is not None:
                    return node if self._read(table, name) else Literal(None, node.position)
        return node

    def _read(self, table: _Table, column: str) -> bool:
        table.is_read = True
        return self._ask(SQLITE_READ, table.name, column)

    def _star(self, item: SelectItem, scopes: Scopes) -> list[SelectItem]:
        """The star itself, or the columns that it stands for where one is ignored (AU1)."""
        star = item.expression
        assert isinstance(star, Star)
        wanted = (star.table or "").lower()
        own = scopes[0] if scopes else []
        tables = [table for table in own if not wanted or table.alias == wanted]
        items = [
            self._item(table, name, star.position)
            for table in tables
            for name in table.columns.values()
            if name not in table.hidden
        ]
        if not any(isinstance(each.expression, Literal) for each in items):
            return [item]
        if any(table.name is None for table in tables):
            raise denied(SQLITE_READ, "*", None)
        return items

    def _item(self, table: _Table, name: str, position: int) -> SelectItem:
        if self._read(table, name):
            return SelectItem(ColumnRef(name, table.alias, position), name, name, position)
        return SelectItem(Literal(None, position), name, name, position)
