"""Rules: CHECK and computed DEFAULT, from their text to what the index layer runs (`index.rules`).

A CHECK is compiled as the predicate `NOT (condition)`: rows that it finds are refused, and NULL,
which is neither true nor false, passes. A batch stands in for a part of the collection, so that
the terms of `query.predicate` see columns at once.

    text --parse, as the one result of a SELECT--> expression --refused? compiled--> Predicate

Invariants
    RL1 A rule reads the columns of its row and constants: no parameter, no subquery, no aggregate,
        no function of the program's, and, in a CHECK, none whose value may change.
    RL2 A text is a rule only where the whole of it is one expression.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from m2mdb.index import rules
from m2mdb.index.schema import MAX_RULE_CHARACTERS, Check, CollectionSchema, Column
from m2mdb.index.segment import SCALAR_PARTS
from m2mdb.index.values import StoredColumn, VectorData, python_value
from m2mdb.pager.errors import (
    CorruptDatabaseError,
    NotSupportedError,
    PlacedFault,
    ProgrammingError,
)
from m2mdb.query import extensions
from m2mdb.query.ast import Select
from m2mdb.query.constants import walk
from m2mdb.query.dates import TIME_FUNCTIONS
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import CONTEXT_FUNCTIONS, Bindings
from m2mdb.query.nodes import (
    ColumnRef,
    Expression,
    FunctionCall,
    Literal,
    Parameter,
    Subquery,
    Unary,
)
from m2mdb.query.predicate import Predicate, compile_predicate
from m2mdb.query.scope import RowScope, Subqueries
from m2mdb.query.words import quoted

if TYPE_CHECKING:
    import datetime

    from m2mdb.index.collection import Part
    from m2mdb.index.database import Database

_CHANGING = frozenset({*CONTEXT_FUNCTIONS, "randomblob"})
_OF_SEARCH = frozenset({"highlight", "snippet"})
_BEFORE = "SELECT ("
LEAST_ARRAY = 64  # rows of a batch; fewer are evaluated one by one


def check_condition(condition: Expression, schema: CollectionSchema) -> None:
    """Raise ProgrammingError where an expression cannot be a CHECK of a collection (RL1)."""
    where = "CHECK constraints"
    _refuse_foreign(condition, where)
    for node in walk(condition):
        if isinstance(node, FunctionCall) and _is_changing(node):
            raise ProgrammingError(
                f"non-deterministic function {node.name}() prohibited in {where}"
            )
    with _unplaced(f"CHECK of {schema.name}"):
        _compiled_check(condition, schema)


def check_default(value: Expression, column: Column, collection: str) -> None:
    """Raise ProgrammingError where an expression cannot be a computed DEFAULT (RL1)."""
    where = f"column {column.name} of {collection}"
    _refuse_foreign(value, f"DEFAULT of {where}")
    if any(isinstance(node, ColumnRef) for node in walk(value)):
        raise ProgrammingError(f"{where}: default value is not constant")
    if column.is_vector:
        raise ProgrammingError(f"{where}: a VECTOR column takes no DEFAULT")
    with _unplaced(f"DEFAULT of {where}"):
        _compiled_default(value)


@contextlib.contextmanager
def _unplaced(where: str) -> Iterator[None]:
    """What the language says of a rule, as an error that programs know."""
    try:
        yield
    except PlacedFault as fault:
        raise fault.kind(f"{where}: {fault}") from None


def _refuse_foreign(node: Expression, where: str) -> None:
    for each in walk(node):
        if isinstance(each, Subquery):
            raise ProgrammingError(f"subqueries prohibited in {where}")
        if isinstance(each, Parameter):
            raise ProgrammingError(f"parameters prohibited in {where}")
        if isinstance(each, FunctionCall) and each.name in _OF_SEARCH:
            raise ProgrammingError(f"{each.name}() prohibited in {where}: it tells of a search")


def _is_changing(call: FunctionCall) -> bool:
    """Whether a function's value may change while its arguments do not."""
    if call.name in _CHANGING:
        return True
    if call.name not in TIME_FUNCTIONS:
        return False
    first = 1 if call.name == "strftime" else 0
    given = call.arguments[first:]
    return not given or any(
        isinstance(each, Literal) and str(each.value).lower() in ("now", "localtime", "utc")
        for each in given
    )


def expression_of(text: str) -> Expression:
    """The expression that a rule's text is.

    Raises ProgrammingError or NotSupportedError: it is none (RL2).
    """
    from m2mdb.query.parser import parse

    if len(text) > MAX_RULE_CHARACTERS:
        raise ProgrammingError(
            f"a rule of {len(text):,} characters; the limit is {MAX_RULE_CHARACTERS:,}"
        )
    tree = parse(f"{_BEFORE}{text}\n)")
    if isinstance(tree, Select) and len(tree.items) == 1:
        found = tree.items[0].expression
        bare = Select(tree.items, tree.position)
        bare.text, bare.end = tree.text, tree.end
        if tree == bare and tree.items[0].alias is None and isinstance(found, Expression):
            return found
    raise ProgrammingError(f"{text[:80]!r} is no expression")


class _Fixed(Bindings):
    """Bindings without a clock: what a CHECK gives is the same at any time (RU1)."""

    __slots__ = ()

    @property
    def moment(self) -> datetime.datetime:
        """Raises ProgrammingError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ProgrammingError("non-deterministic use of a date function in a CHECK constraint")


class _Batch:
    """Rows in stored form as a part: see `query.predicate.Part`."""

    __slots__ = ("_schema", "_stored", "live", "rowids", "size")

    def __init__(
        self, schema: CollectionSchema, stored: Sequence[StoredColumn], rowids: np.ndarray
    ) -> None:
        self._schema = schema
        self._stored = stored
        self.rowids = rowids
        self.size = len(rowids)
        self.live: np.ndarray | None = None

    def values(self, column_index: int, ordinals: np.ndarray | None = None) -> list[Any]:
        """Python values."""
        values = self._stored[column_index]
        column = self._schema.columns[column_index]
        if isinstance(values, VectorData):
            there = values.present
            found: list[Any] = [
                row if there is None or there[at] else None for at, row in enumerate(values.matrix)
            ]
        elif column.type == "TIMESTAMP":
            found = [python_value(column, value) for value in values]
        else:
            found = values
        return found if ordinals is None else [found[at] for at in ordinals.tolist()]

    def numbers(self, column_index: int) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Values and NULL mask of a numeric column; None where the rows are few."""
        column = self._schema.columns[column_index]
        if self.size < LEAST_ARRAY or column.type not in SCALAR_PARTS:
            return None
        values = self._stored[column_index]
        assert isinstance(values, list)
        dtype = SCALAR_PARTS[column.type][1]
        if None not in values:
            return np.array(values, dtype), None
        nulls = np.fromiter((value is None for value in values), bool, len(values))
        return np.array([0 if value is None else value for value in values], dtype), nulls


def _compiled_check(condition: Expression, schema: CollectionSchema) -> Predicate:
    """What finds the rows for which a condition is false; the program's functions do not count."""
    with extensions.none():
        scope = RowScope(schema, Subqueries(0))
        return compile_predicate(Unary("NOT", condition, condition.position), scope)


def _compiled_default(value: Expression) -> Callable[[Bindings], Any]:
    with extensions.none():
        evaluate = compile_expression(value, RowScope(None, Subqueries(0)))
    return lambda bindings: evaluate((), bindings)


class _AtDatabase:
    """What `Bindings` asks of a view, where a row is written without a statement."""

    __slots__ = ("database",)

    def __init__(self, database: Database) -> None:
        self.database = database


class Rules:
    """The compiled rules of one schema; see `index.rules.Compiled`."""

    __slots__ = ("_checks", "_defaults", "_schema")

    def __init__(self, schema: CollectionSchema) -> None:
        """Raises CorruptDatabaseError where a text is no rule (RU2)."""
        self._schema = schema
        self._checks: list[tuple[Check, Predicate]] = []
        self._defaults: dict[int, Callable[[Bindings], Any]] = {}
        text = ""
        try:
            for check in schema.checks:
                text = check.text
                condition = expression_of(text)
                check_condition(condition, schema)
                self._checks.append((check, _compiled_check(condition, schema)))
            for index in schema.computed_defaults:
                text = schema.columns[index].default_text or ""
                value = expression_of(text)
                check_default(value, schema.columns[index], schema.name)
                self._defaults[index] = _compiled_default(value)
        except (ProgrammingError, NotSupportedError, RecursionError) as problem:
            raise CorruptDatabaseError(
                f"collection {schema.name}: {text[:80]!r} in its description is no CHECK or "
                f"DEFAULT: {problem}"
            ) from problem

    def failing(
        self, stored: Sequence[StoredColumn], rowids: np.ndarray, check: Callable[[], None]
    ) -> tuple[Check, list[int]] | None:
        """See `index.rules.Compiled`."""
        batch = _Batch(self._schema, stored, rowids)
        return next(
            ((each, rows.tolist()) for each, rows in self._found(batch, check) if len(rows)), None
        )

    def failing_in(self, part: Part, check: Callable[[], None]) -> tuple[Check, int] | None:
        """See `index.rules.Compiled`."""
        for each, rows in self._found(part, check):
            if len(rows):
                return each, int(part.rowids[rows[0]])
        return None

    def _found(self, part: Any, check: Callable[[], None]) -> Any:
        """Each CHECK with the rows for which it is false, as they are wanted."""
        for each, predicate in self._checks:
            bindings = _Fixed()
            bindings.check = check
            yield each, np.flatnonzero(predicate.bind(bindings).mask(part))

    def default(self, column: int, count: int, database: Database) -> list[Any]:
        """See `index.rules.Compiled`."""
        bindings = Bindings()
        bindings.view = _AtDatabase(database)
        return self.default_in(column, count, bindings)

    def default_in(self, column: int, count: int, bindings: Bindings) -> list[Any]:
        """The values of a computed DEFAULT for some rows of a statement."""
        make = self._defaults[column]
        return [make(bindings) for _ in range(count)]


class Language:
    """See `index.rules.Language`."""

    def compiled(self, schema: CollectionSchema) -> Rules:
        """See `index.rules.Language`."""
        return Rules(schema)

    def renamed(self, schema: CollectionSchema, text: str, old: str, new: str) -> str:
        """See `index.rules.Language`."""
        places = []
        for node in _columns(schema, text):
            if node.name.lower() == old.lower():
                places.append((node.position, 2 if node.table is not None else 0))
        return _replaced(text, places, new)

    def moved(self, schema: CollectionSchema, text: str, name: str) -> str:
        """See `index.rules.Language`."""
        places = [(node.position, 0) for node in _columns(schema, text) if node.table is not None]
        return _replaced(text, places, name)

    def names(self, schema: CollectionSchema, text: str) -> set[int]:
        """See `index.rules.Language`."""
        found = (schema.position(node.name) for node in _columns(schema, text))
        return {index for index in found if index is not None}


def _columns(schema: CollectionSchema, text: str) -> list[ColumnRef]:
    """The names of columns in a rule of the catalog."""
    try:
        return [node for node in walk(expression_of(text)) if isinstance(node, ColumnRef)]
    except (ProgrammingError, NotSupportedError) as problem:
        raise CorruptDatabaseError(
            f"collection {schema.name}: {text[:80]!r} in its description is no CHECK: {problem}"
        ) from problem


def _replaced(text: str, places: Sequence[tuple[int, int]], name: str) -> str:
    """The text with the token so many behind each place written as a name."""
    from m2mdb.query.parser import lexer

    tokens = lexer().cut(_BEFORE + text)
    for position, behind in sorted(places, reverse=True):
        at = tokens.starts.index(position) + behind
        start, end = tokens.starts[at] - len(_BEFORE), tokens.ends[at] - len(_BEFORE)
        text = text[:start] + quoted(name) + text[end:]
    return text


_LANGUAGE = Language()
rules.set_language(lambda: _LANGUAGE)
