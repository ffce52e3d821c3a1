"""CREATE, ALTER and DROP: from the tree of a definition to a schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.index.schema import MAX_RULE_CHARACTERS, CollectionSchema, Column, IndexInfo, type_of
from m2mdb.index.schema import Check as SchemaCheck
from m2mdb.index.values import store_scalar
from m2mdb.pager.errors import NotSupportedError, ProgrammingError
from m2mdb.query.ast import (
    AlterCollection,
    Analyze,
    CreateCollection,
    CreateIndex,
    DropCollection,
    DropIndex,
    Reindex,
)
from m2mdb.query.constants import is_constant, walk
from m2mdb.query.expression import compile_expression
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import (
    Check,
    ColumnDef,
    Expression,
    FunctionCall,
    Literal,
    Option,
    Parameter,
)
from m2mdb.query.placed_names import column_index, located
from m2mdb.query.rules import check_condition, check_default
from m2mdb.query.scope import RowScope, Subqueries

if TYPE_CHECKING:
    from m2mdb.index.view import WriteView


def create_collection(write: WriteView, statement: CreateCollection) -> None:
    """CREATE COLLECTION.

    Raises ProgrammingError: the name is taken, a column that cannot be, an encoder that is not
    there. NotSupportedError: TENSOR, WITH.
    """
    if statement.if_not_exists and statement.name.lower() in write.catalog.by_name:
        return
    options = option_values(statement.options, f"collection {statement.name}")
    first = options.pop("next_rowid", 1)
    if options:
        raise NotSupportedError(f"WITH ({next(iter(options))} = …) is not built yet")
    if type(first) is not int or not 1 <= first < 2**63:
        raise ProgrammingError(
            f"collection {statement.name}: next_rowid = {first!r}: expected an integer above 0"
        )
    columns = tuple(_column(definition, statement.name) for definition in statement.columns)
    keys = [key for key in statement.keys if key.kind == "primary"]
    if len(keys) + sum(column.primary_key for column in columns) > 1:
        raise ProgrammingError(f"collection {statement.name} has more than one primary key")
    for name in {name.lower() for key in keys for name in key.columns}:
        for column in columns:
            column.not_null |= column.name.lower() == name
    of_columns = [
        each for definition in statement.columns for each in _checks(definition.checks, definition)
    ]
    checks = (*of_columns, *_checks(statement.checks))
    schema = CollectionSchema(statement.name, columns, checks=checks)
    for column in columns:
        if column.has_default:
            store_scalar(column, column.default, schema.name)
    _check_rules(schema, [*statement.columns], statement.checks)
    write.create_collection(schema, first)
    for key in statement.keys:
        write.create_key(schema.name, key.columns, key.kind)


def _checks(checks: Sequence[Check], definition: ColumnDef | None = None) -> list[SchemaCheck]:
    """CHECKs as the schema keeps them."""
    column = None if definition is None else definition.name
    return [SchemaCheck(check.text, check.name, column) for check in checks]


def _check_rules(
    schema: CollectionSchema, definitions: Sequence[ColumnDef], checks: Sequence[Check]
) -> None:
    """Refuse what cannot be a CHECK or a computed DEFAULT of the collection."""
    for check in [*(each for column in definitions for each in column.checks), *checks]:
        if len(check.text) > MAX_RULE_CHARACTERS:
            raise ProgrammingError(
                f"CHECK of {schema.name}: {len(check.text):,} characters; the limit is "
                f"{MAX_RULE_CHARACTERS:,}"
            )
        check_condition(check.condition, schema)
    for definition in definitions:
        column = schema.columns[schema.column(definition.name)]
        if column.default_text is not None and definition.default is not None:
            check_default(definition.default, column, schema.name)


def _column(definition: ColumnDef, collection: str) -> Column:
    where = f"column {definition.name} of {collection}"
    words = definition.type_name.upper().split()
    if words[:1] == ["TENSOR"]:
        raise NotSupportedError(f"{where}: TENSOR is not built yet")
    options: dict[str, Any] = {
        "primary_key": definition.primary_key,
        "unique": definition.unique,
        "not_null": definition.not_null,
        "collation": (definition.collation or "BINARY").upper(),
        "fulltext": _fulltext(definition.fulltext, where),
    }
    if words[:1] == ["VECTOR"]:
        return _vector(definition, options, where)
    if definition.generated_from is not None:
        raise ProgrammingError(f"{where}: FROM … ENCODER belongs to VECTOR columns")
    if definition.metric is not None:
        raise ProgrammingError(f"{where}: METRIC belongs to VECTOR columns")
    if definition.default is not None:
        if _is_computed(definition.default):
            text = definition.default_text or getattr(definition.default, "name", "").upper()
            options.update(default_text=text, has_default=True)
        else:
            options["default"] = _default(definition.default, where)
    arguments = ", ".join(map(str, definition.type_arguments))
    declared = f"{definition.type_name}({arguments})" if arguments else definition.type_name
    return Column(definition.name, type_of(definition.type_name), type_name=declared, **options)


def _vector(definition: ColumnDef, options: dict[str, Any], where: str) -> Column:
    """`VECTOR(dimension [, dtype]) [METRIC metric]`."""
    if definition.default is not None:
        raise ProgrammingError(f"{where}: a VECTOR column takes no DEFAULT")
    arguments = definition.type_arguments
    if not arguments or type(arguments[0]) is not int or len(arguments) > 2:
        shown = ", ".join(map(str, arguments))
        raise ProgrammingError(
            f"{where}: VECTOR({shown}) needs a dimension and may have f32, f16 or i8 behind it"
        )
    dtype = str(arguments[1]).lower() if len(arguments) == 2 else "f32"
    metric = (definition.metric or "cosine").lower()
    return Column(definition.name, "VECTOR", dimension=arguments[0], dtype=dtype, metric=metric,
                  generated=_generated(definition, where), **options)  # fmt: skip


def _generated(definition: ColumnDef, where: str) -> dict[str, str] | None:
    """`FROM source ENCODER 'name' [(model = 'id', fingerprint = 'digest')]`; the options are what
    a dump says of vectors that it brings along.
    """
    if definition.generated_from is None or definition.encoder is None:
        return None
    options = option_values(definition.encoder_options, f"{where}, ENCODER")
    if options and set(options) != {"model", "fingerprint"}:
        raise ProgrammingError(
            f"{where}: ENCODER takes model and fingerprint, both or none, not {', '.join(options)}"
        )
    for name, value in options.items():
        if not isinstance(value, str) or not value:
            raise ProgrammingError(f"{where}: ENCODER {name} = {value!r}; expected a text")
    return {"from": definition.generated_from, "encoder": definition.encoder, **options}


def _is_computed(default: Expression) -> bool:
    """Whether a DEFAULT is kept as a text and computed for each row: where it calls a function."""
    return any(isinstance(each, FunctionCall) for each in walk(default))


def _fulltext(options: Sequence[Option] | None, where: str) -> dict[str, Any] | None:
    return None if options is None else option_values(options, where)


def option_values(options: Sequence[Option], where: str) -> dict[str, Any]:
    """Options as a dict by their names in lower case.

    Raises ProgrammingError: one is given twice, or its value depends on something.
    """
    found: dict[str, Any] = {}
    for option in options:
        name = option.name.lower()
        if name in found:
            raise ProgrammingError(f"{where}: {option.name} is given twice")
        found[name] = _default(option.value, f"{where}, {option.name}")
    return found


def _default(node: Expression, where: str) -> Any:
    """The value of a DEFAULT, which is computed now and stored.

    Raises ProgrammingError: it holds a column, a parameter or a subquery.
    """
    for each in walk(node):
        if isinstance(each, Parameter):
            raise ProgrammingError(f"{where}: a default value takes no parameter")
    subqueries = Subqueries(0)
    if not isinstance(node, Literal) and not is_constant(node):
        raise ProgrammingError(f"{where}: default value is not constant")
    evaluate = compile_expression(node, RowScope(None, subqueries))
    if subqueries.found:
        raise ProgrammingError(f"{where}: default value is not constant")
    return evaluate((), Bindings())


def alter_collection(write: WriteView, statement: AlterCollection) -> None:
    """ALTER COLLECTION.

    Raises ProgrammingError: unknown names, names that are taken, a column that is a key or has an
    index. IntegrityError: a NOT NULL column without a default where there are rows.
    """
    name, action = statement.collection, statement.action
    with located(name):
        schema = write.collection(name).schema
    if action == "rename":
        write.rename_collection(name, statement.name)
    elif action == "rename column":
        column_index(schema, statement.column)
        write.rename_column(name, statement.column, statement.name)
    elif action == "drop column":
        with located(statement.column):
            write.drop_column(name, statement.column)
    else:
        assert statement.definition is not None, action
        column = _column(statement.definition, schema.name)
        checks = _checks(statement.definition.checks, statement.definition)
        if checks:
            grown = CollectionSchema(schema.name, (*schema.columns, column))
            _check_rules(grown, [statement.definition], [])
        write.add_column(name, column, checks)


def drop_collection(write: WriteView, statement: DropCollection) -> None:
    """DROP COLLECTION."""
    if statement.if_exists and statement.name.lower() not in write.catalog.by_name:
        return
    with located(statement.name):
        write.drop_collection(statement.name)


def create_index(write: WriteView, statement: CreateIndex) -> None:
    """CREATE INDEX.

    Raises ProgrammingError: the name is taken, an unknown column or kind, several columns of
    another kind than btree. IntegrityError: UNIQUE over equal values.
    """
    if statement.if_not_exists and write.catalog.index_owner(statement.name) is not None:
        return
    where = f"index {statement.name}"
    kind = statement.using or "btree"
    if statement.unique and kind != "btree":
        raise ProgrammingError(f"{where}: only a btree index can be UNIQUE, not {kind}")
    with located(statement.collection):
        schema = write.collection(statement.collection).schema
    for name in statement.columns:
        column_index(schema, name)
    columns = [str(name) for name in statement.columns]  # without their places
    info = IndexInfo(statement.name, *columns, kind=kind, unique=statement.unique)
    options = option_values(statement.options, where)
    write.create_index(statement.collection, info, options)


def drop_index(write: WriteView, statement: DropIndex) -> None:
    """DROP INDEX."""
    if statement.if_exists and write.catalog.index_owner(statement.name) is None:
        return
    with located(statement.name):
        write.drop_index(statement.name)


def analyze(write: WriteView, statement: Analyze) -> None:
    """ANALYZE: one collection, or all."""
    for name in write.names() if statement.collection is None else [statement.collection]:
        with located(name):
            write.analyze(name)


def reindex(write: WriteView, statement: Reindex) -> None:
    """REINDEX: all indexes, a collection's, or one."""
    with located(statement.name):
        write.reindex(statement.name)
