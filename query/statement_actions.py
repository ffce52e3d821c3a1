"""Actions of the grammar's statements that read or change rows, and of transactions.

A function is named as its rule, or as the alias behind `->`, in grammar.lark. It is called with
the position of its first token and the rule's children. The clauses of SEARCH come as Clause.
"""

from __future__ import annotations

from m2mdb.query.ast import (
    Begin,
    Checkpoint,
    Commit,
    Compound,
    Delete,
    Explain,
    Insert,
    Pragma,
    Release,
    Rollback,
    Savepoint,
    Search,
    Select,
    Update,
    Values,
    With,
)
from m2mdb.query.nodes import (
    Assignment,
    ColumnRef,
    CommonTable,
    Decay,
    DerivedTable,
    Expression,
    Fusion,
    Join,
    Literal,
    Node,
    OnConflict,
    Option,
    OrderItem,
    Parameter,
    Query,
    SelectItem,
    Source,
    Star,
    Statement,
    TableCall,
    TableName,
    TableParameter,
)
from m2mdb.query.rows import spread
from m2mdb.query.syntax import SyntaxFault

Limit = tuple[Expression | None, Expression | None]


class Clause:
    """One clause of SEARCH: its word, its group (each once) and the fields that it sets."""

    __slots__ = ("fields", "group", "start", "word")

    def __init__(self, word: str, group: str, start: int, **fields: object) -> None:
        self.word = word
        self.group = group
        self.start = start
        self.fields = fields


# SEARCH


def search(start: int, collection: str, *rest: Clause | list[SelectItem] | None) -> Search:
    """The whole statement; a clause that stands twice is a fault that names it."""
    statement = Search(collection, start)
    seen: dict[str, Clause] = {}
    for part in rest:
        if not isinstance(part, Clause):
            statement.returning = part
            continue
        earlier = seen.setdefault(part.group, part)
        if earlier is not part:
            raise SyntaxFault(_repeated(earlier.word, part.word), part.start)
        for name, value in part.fields.items():
            setattr(statement, name, value)
    return statement


def _repeated(earlier: str, later: str) -> str:
    if earlier == later:
        return f"near {later}: {later} stands twice; each clause of SEARCH may stand once"
    return f"near {later}: {earlier} and {later} exclude each other"


def near(start: int, *parts: object) -> Clause:
    """`NEAR [column] value`."""
    column = parts[0] if len(parts) == 2 else None
    return Clause("NEAR", "NEAR", start, near=parts[-1], near_column=column)


def match(start: int, *parts: object) -> Clause:
    """`MATCH [column] value`."""
    column = parts[0] if len(parts) == 2 else None
    return Clause("MATCH", "MATCH", start, match=parts[-1], match_column=column)


def for_text(start: int, value: Expression) -> Clause:
    """`FOR value`."""
    return Clause("FOR", "FOR", start, for_=value)


def search_where(start: int, condition: Expression) -> Clause:
    """`WHERE condition`."""
    return Clause("WHERE", "WHERE", start, where=condition)


def count(start: int, word: str, value: Expression) -> Clause:
    """`K value`, `LIMIT value`."""
    return Clause(word.upper(), "K", start, k=value)


def skip(start: int, value: Expression) -> Clause:
    """`OFFSET value`."""
    return Clause("OFFSET", "OFFSET", start, offset=value)


def fusion(start: int, name: str, options: list[Option] | None = None) -> Clause:
    """`FUSION name [(options)]`."""
    return Clause("FUSION", "FUSION", start, fusion=Fusion(name.lower(), options or [], start))


def score(start: int, word: str, name: str) -> Clause:
    """`SCORE splat | similarity`."""
    return Clause("SCORE", "SCORE", start, score=name.lower())


def effort(start: int, word: str, value: Expression | None = None) -> Clause:
    """`RECALL value`, `PROBES value` or `EXACT`: one of them."""
    word = word.upper()
    if word == "EXACT":
        return Clause(word, "effort", start, exact=True)
    return Clause(word, "effort", start, **{word.lower(): value})


def min_score(start: int, value: Expression) -> Clause:
    """`MIN SCORE value`."""
    return Clause("MIN SCORE", "MIN SCORE", start, min_score=value)


def decay(start: int, amount: Expression, unit: str, column: str) -> Clause:
    """`DECAY HALF LIFE amount unit ON column`."""
    return Clause("DECAY", "DECAY", start, decay=Decay(amount, unit, column, start))


def temperature(start: int, value: Expression, seed: Expression | None = None) -> Clause:
    """`TEMPERATURE value [SEED value]`."""
    return Clause("TEMPERATURE", "TEMPERATURE", start, temperature=value, seed=seed)


def diversity(start: int, value: Expression) -> Clause:
    """`DIVERSITY value`."""
    return Clause("DIVERSITY", "DIVERSITY", start, diversity=value)


def as_of(start: int, value: Expression) -> Clause:
    """`AS OF value`."""
    return Clause("AS OF", "AS OF", start, as_of=value)


# SELECT


def query(start: int, body: Query, order: list[OrderItem], bounds: Limit) -> Query:
    """A SELECT or compound with its ORDER BY and LIMIT."""
    if isinstance(body, Select | Compound):
        body.order_by = order
        body.limit, body.offset = bounds
    elif order or bounds[0] is not None:
        raise SyntaxFault("VALUES takes no ORDER BY and no LIMIT", start)
    return body


def compound(start: int, left: Query, operator: str, right: Query) -> Query:
    """Two SELECT joined by UNION and the like."""
    return Compound(operator, left, right, start)


def compound_operator(start: int, *words: str) -> str:
    """`UNION [ALL]`, `EXCEPT`, `INTERSECT`."""
    return " ".join(words).upper()


def select(
    start: int,
    distinct: bool,
    items: list[SelectItem],
    source: Source | None,
    where: Expression | None,
    group_by: list[Expression],
    having: Expression | None,
) -> Select:
    """A SELECT up to its HAVING."""
    statement = Select(items, start)
    statement.distinct = distinct
    statement.source = source
    statement.where, statement.group_by, statement.having = where, group_by, having
    return statement


def quantifier(start: int, word: str = "ALL") -> bool:
    """`DISTINCT` or `ALL`: whether distinct."""
    return word.upper() == "DISTINCT"


def results(start: int, *items: SelectItem) -> list[SelectItem]:
    """The list behind SELECT and RETURNING."""
    return list(items)


def result(start: int, label: str, value: Expression | Star, alias: object = None) -> SelectItem:
    """One result; the label is its text, or the column's own name."""
    if alias is not None:
        name = alias.value if isinstance(alias, Literal) else alias
        assert isinstance(name, str)
        return SelectItem(value, name, name, start)
    return SelectItem(value, None, value.name if isinstance(value, ColumnRef) else label, start)


def every_column(start: int, table: str | None = None) -> Star:
    """`*`, `table.*`."""
    return Star(table, start)


def from_clause(start: int, source: Source | None = None) -> Source | None:
    """`FROM source`, or none."""
    return source


def table(start: int, name: str, alias: str | None = None) -> Source:
    """A collection."""
    return TableName(name, alias, start)


def table_as_of(start: int, name: str, commit: Expression, alias: str | None = None) -> Source:
    """A collection as it stood right after a commit."""
    source = TableName(name, alias, start)
    source.as_of = commit
    return source


def table_parameter(start: int, parameter: Parameter, alias: str | None = None) -> Source:
    """An Arrow object bound as a table."""
    return TableParameter(parameter, alias, start)


def table_call(start: int, name: str, *rest: Expression | str) -> Source:
    """`json_each(…)`."""
    alias = rest[-1] if isinstance(rest[-1], str) else None
    return TableCall(name, [each for each in rest if not isinstance(each, str)], alias, start)


def derived_table(start: int, query: Query, alias: str | None = None) -> Source:
    """A query in parentheses."""
    return DerivedTable(query, alias, start)


def comma_join(start: int, left: Source, right: Source) -> Source:
    """`left, right`."""
    return Join("cross", left, right, start)


def join(start: int, left: Source, kind: str, right: Source, condition: object) -> Source:
    """`left … JOIN right …`."""
    node = Join(kind, left, right, start)
    if isinstance(condition, list):
        node.using = condition
    else:
        assert condition is None or isinstance(condition, Expression)
        node.on = condition
    return node


def join_kind(start: int, *words: str) -> str:
    """`INNER`, `LEFT OUTER` …: in lower case, without OUTER."""
    return words[0].lower() if words else "inner"


def join_on(start: int, condition: Expression | None = None) -> Expression | None:
    """`ON condition`, or none."""
    return condition


def join_using(start: int, columns: list[str]) -> list[str]:
    """`USING (columns)`."""
    return columns


def where(start: int, condition: Expression | None = None) -> Expression | None:
    """`WHERE condition`, or none."""
    return condition


def group_by(start: int, *keys: Expression) -> list[Expression]:
    """`GROUP BY keys`, or none."""
    return list(keys)


def having(start: int, condition: Expression | None = None) -> Expression | None:
    """`HAVING condition`, or none."""
    return condition


def order_by(start: int, *items: OrderItem) -> list[OrderItem]:
    """`ORDER BY items`, or none."""
    return list(items)


def ordering(start: int, value: Expression, *words: str) -> OrderItem:
    """`expression [ASC | DESC] [NULLS FIRST | LAST]`."""
    upper = [word.upper() for word in words]
    nulls_first = upper[-1] == "FIRST" if "NULLS" in upper else None
    return OrderItem(value, "DESC" in upper, nulls_first, start)


def limit(start: int, count: Expression | None = None, skipped: Expression | None = None) -> Limit:
    """`LIMIT count [OFFSET skipped]`, or none."""
    return count, skipped


def offset_and_limit(start: int, skipped: Expression, count: Expression) -> Limit:
    """`LIMIT skipped, count`."""
    return count, skipped


def values(start: int, *rows: list[Expression]) -> Values:
    """`VALUES rows`."""
    for row in rows:
        if len(row) != len(rows[0]):
            message = f"all rows of VALUES must have {len(rows[0])} values, not {len(row)}"
            raise SyntaxFault(message, row[0].position)
    return Values(list(rows), start)


def row(start: int, *items: Expression) -> list[Expression]:
    """One row of VALUES."""
    return list(items)


def with_statement(start: int, tables: list[CommonTable], body: Statement) -> With:
    """`WITH tables body`."""
    return With(tables, False, body, start)


def with_recursive(start: int, tables: list[CommonTable], body: Statement) -> With:
    """`WITH RECURSIVE tables body`."""
    return With(tables, True, body, start)


def common_tables(start: int, *tables: CommonTable) -> list[CommonTable]:
    """The tables of WITH."""
    return list(tables)


def common_table(start: int, name: str, *rest: object) -> CommonTable:
    """`name [(columns)] AS (query)`."""
    columns = rest[0] if len(rest) == 2 else []
    body = rest[-1]
    assert isinstance(columns, list)
    assert isinstance(body, Query)
    return CommonTable(name, columns, body, start)


# INSERT, UPDATE, DELETE


def insert(
    start: int,
    or_action: str | None,
    collection: str,
    columns: list[str] | None,
    source: Query | tuple[Query, OnConflict] | None,
    returning: list[SelectItem] | None,
) -> Insert:
    """INSERT of rows or of a query."""
    statement = Insert(collection, start)
    statement.or_action = or_action
    statement.columns = columns
    statement.returning = returning
    if isinstance(source, tuple):
        source, statement.on_conflict = source
    if isinstance(source, Values):
        statement.rows = source.rows
    elif source is None:
        _refuse_columns(statement)
        statement.columns, statement.rows = [], [[]]
    else:
        statement.query = source
    return statement


def _refuse_columns(statement: Insert) -> None:
    if statement.columns is not None:
        raise SyntaxFault("DEFAULT VALUES takes no list of columns", statement.position)


def insert_verb(start: int, *words: str) -> str | None:
    """`INSERT [OR action] INTO`, `REPLACE INTO`: the action, or None."""
    if len(words) == 2:
        return "replace" if words[0].upper() == "REPLACE" else None
    return words[2].lower()


def columns(start: int, names: list[str] | None = None) -> list[str] | None:
    """`(columns)`, or none."""
    return names


def upsert(start: int, source: Query, conflict: OnConflict) -> tuple[Query, OnConflict]:
    """VALUES or a query with ON CONFLICT."""
    return source, conflict


def default_values(start: int) -> None:
    """`DEFAULT VALUES`."""


def conflict_column(start: int, names: list[str] | None = None) -> list[str] | None:
    """`(columns)`, or none."""
    return names


def conflict_nothing(start: int, columns: list[str] | None) -> OnConflict:
    """`ON CONFLICT … DO NOTHING`."""
    return OnConflict(columns, "nothing", [], None, start)


def conflict_update(
    start: int,
    columns: list[str] | None,
    assignments: list[Assignment],
    condition: Expression | None,
) -> OnConflict:
    """`ON CONFLICT … DO UPDATE SET …`."""
    return OnConflict(columns, "update", assignments, condition, start)


def assignments(start: int, *items: Assignment | list[Assignment]) -> list[Assignment]:
    """The list of SET."""
    found: list[Assignment] = []
    for item in items:
        found += item if isinstance(item, list) else [item]
    return found


def row_assignment(start: int, columns: list[str], value: Expression) -> list[Assignment]:
    """`(a, b) = (1, 2)`, `(a, b) = (SELECT …)`."""
    values = [value] if len(columns) == 1 else spread(value, len(columns), start)
    return [Assignment(name, each, start) for name, each in zip(columns, values, strict=True)]


def assignment(start: int, column: str, value: Expression) -> Assignment:
    """`column = value`."""
    return Assignment(column, value, start)


def returning(start: int, items: list[SelectItem] | None = None) -> list[SelectItem] | None:
    """`RETURNING items`, or none."""
    return items


def update(
    start: int,
    or_action: str | None,
    collection: str,
    changes: list[Assignment],
    condition: Expression | None,
    returned: list[SelectItem] | None,
) -> Update:
    """The whole UPDATE."""
    statement = Update(collection, changes, start)
    statement.or_action = or_action
    statement.where = condition
    statement.returning = returned
    return statement


def update_or(start: int, action: str | None = None) -> str | None:
    """`OR action`, or none."""
    return None if action is None else action.lower()


def delete(
    start: int,
    collection: str,
    condition: Expression | None,
    returned: list[SelectItem] | None,
) -> Delete:
    """The whole DELETE."""
    return Delete(collection, condition, returned, start)


# Transactions and settings


def begin(start: int, mode: str, *words: str) -> Begin:
    """`BEGIN`."""
    return Begin(mode, start)


def transaction_mode(start: int, word: str = "deferred") -> str:
    """The mode of BEGIN."""
    return word.lower()


def commit(start: int) -> Commit:
    """`COMMIT`, `END`."""
    return Commit(start)


def rollback(start: int, name: str | None = None) -> Rollback:
    """`ROLLBACK [TO name]`."""
    return Rollback(name, start)


def savepoint(start: int, name: str) -> Savepoint:
    """`SAVEPOINT name`."""
    return Savepoint(name, start)


def release(start: int, name: str) -> Release:
    """`RELEASE name`."""
    return Release(name, start)


def checkpoint(start: int, mode: str = "passive") -> Checkpoint:
    """`CHECKPOINT [mode]`."""
    return Checkpoint(mode.lower(), start)


def explain(start: int, statement: Statement) -> Explain:
    """`EXPLAIN [QUERY PLAN] statement`."""
    return Explain(False, statement, start)


def explain_analyze(start: int, statement: Statement) -> Explain:
    """`EXPLAIN ANALYZE statement`."""
    return Explain(True, statement, start)


def pragma(start: int, name: str) -> Pragma:
    """`PRAGMA name`."""
    return Pragma(name.lower(), None, "", start)


def pragma_set(start: int, name: str, value: Node | str) -> Pragma:
    """`PRAGMA name = value`."""
    return Pragma(name.lower(), _plain(value), "=", start)


def pragma_call(start: int, name: str, value: Node | str) -> Pragma:
    """`PRAGMA name(value)`."""
    return Pragma(name.lower(), _plain(value), "(", start)


def _plain(value: Node | str) -> int | float | str:
    plain = value.value if isinstance(value, Literal) else value
    assert isinstance(plain, int | float | str)
    return plain
