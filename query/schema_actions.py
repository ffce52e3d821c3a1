"""Actions of the statements that define collections and indexes, and of those not built yet.

A function is named as its rule, or as the alias behind `->`, in grammar.lark. A column's
constraints come as pairs of a field of ColumnDef and its value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from m2mdb.index.schema import closest
from m2mdb.query.ast import (
    AlterCollection,
    Analyze,
    Copy,
    CreateCollection,
    CreateIndex,
    DropCollection,
    DropIndex,
    Forget,
    Optimize,
    Reembed,
    Reindex,
    Unbuilt,
    Vacuum,
)
from m2mdb.query.nodes import (
    Check,
    ColumnDef,
    Expression,
    Literal,
    Node,
    Option,
    Parameter,
    TableKey,
)
from m2mdb.query.statement_actions import Clause
from m2mdb.query.syntax import SyntaxFault, UnbuiltFault

Constraint = tuple[str, object]
TypeArgument = int | float | str
Name = tuple[str, bool]
Items = tuple[list[ColumnDef], list[TableKey], list[Check]]


class Written(NamedTuple):
    """An expression of the schema, with its text."""

    text: str
    expression: Expression


class Generated(NamedTuple):
    """What `FROM source ENCODER 'name' [(options)]` says of a column."""

    source: str
    encoder: str
    options: list[Option]


# CREATE, DROP


def create_collection(
    start: int, name: Name, items: Items, options: list[Option]
) -> CreateCollection:
    """The whole CREATE COLLECTION."""
    columns, keys, checks = items
    statement = CreateCollection(name[0], name[1], columns, options, start)
    statement.keys, statement.checks = keys, checks
    return statement


def column_items(start: int, *items: ColumnDef | TableKey | Constraint) -> Items:
    """The columns, and the constraints that stand behind them; keys over one are set on it."""
    columns = [item for item in items if isinstance(item, ColumnDef)]
    keys = [item for item in items if isinstance(item, TableKey)]
    checks = [item[1] for item in items if isinstance(item, tuple)]
    several = [key for key in keys if _several(key, columns)]
    return columns, several, [check for check in checks if isinstance(check, Check)]


def _several(key: TableKey, columns: list[ColumnDef]) -> bool:
    """Whether a key is over several columns; one over a single column is set on it."""
    words = "PRIMARY KEY" if key.kind == "primary" else "UNIQUE"
    known = {column.name.lower(): column for column in columns}
    for at, name in enumerate(key.columns):
        if name.lower() not in known:
            close = closest(name, known)
            hint = f"; did you mean {known[close].name}?" if close else ""
            raise SyntaxFault(f"{words} ({name}): no such column: {name}{hint}", key.position)
        if name.lower() in (earlier.lower() for earlier in key.columns[:at]):
            raise SyntaxFault(f"{words}: column {name} stands twice", key.position)
    if len(key.columns) > 1:
        return True
    column = known[key.columns[0].lower()]
    setattr(column, "primary_key" if key.kind == "primary" else "unique", True)
    return False


def new_name(start: int, name: str) -> Name:
    """A name to be made."""
    return name, False


def new_name_if_absent(start: int, name: str) -> Name:
    """`IF NOT EXISTS name`."""
    return name, True


def old_name(start: int, name: str) -> Name:
    """A name to be dropped."""
    return name, False


def old_name_if_present(start: int, name: str) -> Name:
    """`IF EXISTS name`."""
    return name, True


def table_options(start: int, options: list[Option] | None = None) -> list[Option]:
    """`WITH (options)`, or none; STRICT and WITHOUT ROWID change nothing."""
    return options or []


def table_primary_key(start: int, columns: list[str]) -> TableKey:
    """`PRIMARY KEY (columns)`."""
    return TableKey("primary", columns, start)


def table_unique(start: int, columns: list[str]) -> TableKey:
    """`UNIQUE (columns)`."""
    return TableKey("unique", columns, start)


def condition_text(start: int, text: str, condition: Expression) -> Written:
    """An expression of the schema, with its text."""
    return Written(text, condition)


def check(start: int, written: Written) -> Constraint:
    """`CHECK (condition)` of a column."""
    return "check", Check(written.text, written.expression, start)


table_check = check


def named_constraint(
    start: int, name: str, constraint: Constraint | TableKey
) -> Constraint | TableKey:
    """`CONSTRAINT name …`: the name counts for CHECK, which is refused by it."""
    if isinstance(constraint, tuple) and isinstance(constraint[1], Check):
        constraint[1].name = name
    return constraint


def foreign_key(start: int, *parts: object) -> Constraint:
    """`FOREIGN KEY …`: not built yet."""
    raise UnbuiltFault("FOREIGN KEY is not built yet", start)


def references(start: int, *parts: object) -> Constraint:
    """`REFERENCES …`: not built yet."""
    raise UnbuiltFault("REFERENCES is not built yet", start)


def column_collation(start: int, name: str) -> Constraint:
    """`COLLATE name` of a column."""
    return "collation", name


def column_definition(
    start: int, name: str, type_: tuple[str, list[TypeArgument]], *constraints: Constraint
) -> ColumnDef:
    """One column."""
    column = ColumnDef(name, start)
    column.type_name, column.type_arguments = type_
    for field, value in constraints:
        if field == "generated":
            assert isinstance(value, Generated)
            column.generated_from, column.encoder, column.encoder_options = value
        elif field == "check":
            assert isinstance(value, Check)
            column.checks.append(value)
        elif field == "default_text":
            assert isinstance(value, Written)
            column.default_text, column.default = value
        elif field:
            setattr(column, field, value)
    return column


def type(start: int, *parts: str | tuple[TypeArgument]) -> tuple[str, list[TypeArgument]]:
    """The words of a type, and its arguments."""
    words = [part for part in parts if isinstance(part, str)]
    return " ".join(words), [part[0] for part in parts if not isinstance(part, str)]


def type_argument(start: int, value: Literal | str) -> tuple[TypeArgument]:
    """A number or a word between a type's parentheses."""
    if isinstance(value, str):
        return (value,)
    assert isinstance(value.value, int | float)
    return (value.value,)


def primary_key(start: int) -> Constraint:
    """`PRIMARY KEY`."""
    return "primary_key", True


def unique(start: int) -> Constraint:
    """`UNIQUE`."""
    return "unique", True


def not_null(start: int) -> Constraint:
    """`NOT NULL`."""
    return "not_null", True


def nullable(start: int) -> Constraint:
    """`NULL`: says nothing."""
    return "", None


def default(start: int, value: Expression) -> Constraint:
    """`DEFAULT value`."""
    return "default", value


def computed_default(start: int, written: Written) -> Constraint:
    """`DEFAULT (expression)`."""
    return "default_text", written


def metric(start: int, name: str) -> Constraint:
    """`METRIC name`."""
    return "metric", name


def fulltext(start: int, options: list[Option] | None = None) -> Constraint:
    """`FULLTEXT [(options)]`."""
    return "fulltext", options or []


def generated(
    start: int, source: str, encoder: Literal, options: list[Option] | None = None
) -> Constraint:
    """`FROM source ENCODER 'name' [(options)]`."""
    assert isinstance(encoder.value, str)  # the grammar takes a text alone
    return "generated", Generated(source, encoder.value, options or [])


def options(start: int, *items: Option) -> list[Option]:
    """`name = value, …`."""
    return list(items)


def option(start: int, name: str, value: Expression) -> Option:
    """`name = value`."""
    return Option(name, value, start)


def text_literal(start: int, word: str) -> Literal:
    """A bare word as a value."""
    return Literal(word, start)


def drop_collection(start: int, name: Name) -> DropCollection:
    """`DROP COLLECTION`."""
    return DropCollection(name[0], name[1], start)


def create_index(
    start: int, is_unique: bool, name: Name, collection: str, *rest: Any
) -> CreateIndex:
    """`CREATE INDEX`; USING may stand before or behind the columns."""
    using_before, columns, using_behind, options = rest
    if using_before is not None and using_behind is not None:
        raise SyntaxFault("USING stands twice", start)
    statement = CreateIndex(name[0], collection, columns, start)
    statement.if_not_exists = name[1]
    statement.unique = is_unique
    statement.using = using_before or using_behind
    statement.options = options
    return statement


def yes(start: int) -> bool:
    """An optional word that stands."""
    return True


def no(start: int) -> bool:
    """An optional word that does not."""
    return False


def indexed_columns(start: int, *columns: str) -> list[str]:
    """`(column [ASC | DESC], …)`."""
    return list(columns)


def using(start: int, name: str | None = None) -> str | None:
    """`USING kind`, or none."""
    return None if name is None else name.lower()


def with_options(start: int, options: list[Option] | None = None) -> list[Option]:
    """`WITH (options)`, or none."""
    return options or []


def drop_index(start: int, name: Name) -> DropIndex:
    """`DROP INDEX`."""
    return DropIndex(name[0], name[1], start)


def alter_rename(start: int, collection: str, name: str) -> AlterCollection:
    """`ALTER COLLECTION c RENAME TO d`."""
    statement = AlterCollection(collection, "rename", start)
    statement.name = name
    return statement


def alter_rename_column(start: int, collection: str, column: str, name: str) -> AlterCollection:
    """`ALTER COLLECTION c RENAME COLUMN a TO b`."""
    statement = AlterCollection(collection, "rename column", start)
    statement.column, statement.name = column, name
    return statement


def alter_add(start: int, collection: str, column: ColumnDef) -> AlterCollection:
    """`ALTER COLLECTION c ADD COLUMN …`."""
    statement = AlterCollection(collection, "add column", start)
    statement.definition = column
    return statement


def alter_drop(start: int, collection: str, column: str) -> AlterCollection:
    """`ALTER COLLECTION c DROP COLUMN a`."""
    statement = AlterCollection(collection, "drop column", start)
    statement.column = column
    return statement


# Not built yet


def reindex(start: int, name: str | None = None) -> Reindex:
    """`REINDEX [c]`."""
    return Reindex(name, start)


def vacuum(start: int, target: Literal | Parameter | None = None) -> Vacuum:
    """`VACUUM [INTO target]`."""
    return Vacuum(target, start)


def analyze(start: int, name: str | None = None) -> Analyze:
    """`ANALYZE [c]`."""
    return Analyze(name, start)


def feedback(start: int, collection: str, place: Clause, *judgements: Constraint) -> Unbuilt:
    """`FEEDBACK c NEAR value RELEVANT (…) IRRELEVANT (…)`."""
    details = {"collection": collection, **place.fields}
    for kind, values in judgements:
        if kind in details:
            raise SyntaxFault(f"{kind.upper()} stands twice", start)
        details[kind] = values
    return Unbuilt("FEEDBACK", details, start)


def relevant(start: int, values: object) -> Constraint:
    """`RELEVANT (…)`."""
    return "relevant", values


def irrelevant(start: int, values: object) -> Constraint:
    """`IRRELEVANT (…)`."""
    return "irrelevant", values


def energy(start: int, collection: str, place: Clause) -> Unbuilt:
    """`ENERGY c NEAR value`."""
    return Unbuilt("ENERGY", {"collection": collection, **place.fields}, start)


def explore(start: int, collection: str, *clauses: Clause) -> Unbuilt:
    """`EXPLORE c K n`."""
    details: dict[str, object] = {"collection": collection}
    for clause in clauses:
        details |= clause.fields
    return Unbuilt("EXPLORE", details, start)


def consolidate(start: int, collection: str, threshold: Node | None = None) -> Unbuilt:
    """`CONSOLIDATE c [THRESHOLD t]`."""
    details = {"collection": collection, "threshold": threshold, "dry_run": False}
    return Unbuilt("CONSOLIDATE", details, start)


def consolidate_dry(start: int, collection: str, threshold: Node | None = None) -> Unbuilt:
    """`CONSOLIDATE c [THRESHOLD t] DRY RUN`."""
    details = {"collection": collection, "threshold": threshold, "dry_run": True}
    return Unbuilt("CONSOLIDATE", details, start)


def undo(start: int, collection: str, commit: Node) -> Unbuilt:
    """`UNDO c TO n`."""
    return Unbuilt("UNDO", {"collection": collection, "commit": commit}, start)


def optimize(start: int, name: str | None = None) -> Optimize:
    """`OPTIMIZE [c]`."""
    return Optimize(name, start)


def forget(start: int, collection: str, condition: Expression | None) -> Forget:
    """`FORGET FROM c WHERE …`."""
    if condition is None:
        raise SyntaxFault("FORGET needs WHERE; WHERE true forgets every row", start)
    return Forget(collection, condition, start)


def reembed(start: int, collection: str, encoder: Literal) -> Reembed:
    """`REEMBED c USING 'name'`."""
    return Reembed(collection, None, str(encoder.value), start)


def reembed_column(start: int, collection: str, column: str, encoder: Literal) -> Reembed:
    """`REEMBED c (column) USING 'name'`."""
    return Reembed(collection, column, str(encoder.value), start)


def copy_to(start: int, collection: str, path: Literal | Parameter, options: list[Option]) -> Copy:
    """`COPY c TO 'path'`."""
    return Copy(collection, path, options, True, start)


def copy_from(
    start: int, collection: str, path: Literal | Parameter, options: list[Option]
) -> Copy:
    """`COPY c FROM 'path'`."""
    return Copy(collection, path, options, False, start)


def copy_options(start: int, options: list[Option] | None = None) -> list[Option]:
    """`(options)`, or none."""
    return options or []
