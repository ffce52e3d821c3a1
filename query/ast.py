"""The tree of a statement: what the parser hands to the binder.

    Statement      CreateCollection AlterCollection DropCollection CreateIndex DropIndex
                   Insert Update Delete Begin Commit Rollback Savepoint Release Explain Pragma
                   Checkpoint Optimize Forget Vacuum Copy Analyze Reindex Reembed
                   Unbuilt
    +-- Query      Select Search Values Compound With

The expressions and parts that they are made of stand in nodes.py and are handed on here; its
invariants A1 to A4 hold for all.
"""

from __future__ import annotations

from collections.abc import Mapping

from m2mdb.query.nodes import (
    Assignment,
    Between,
    Binary,
    Case,
    Cast,
    Check,
    Collate,
    ColumnDef,
    ColumnRef,
    CommonTable,
    Decay,
    DerivedTable,
    Expression,
    FunctionCall,
    Fusion,
    In,
    IsNull,
    Join,
    JsonPath,
    Like,
    Literal,
    Node,
    OnConflict,
    Option,
    OrderItem,
    Parameter,
    Query,
    Scalar,
    SelectItem,
    Source,
    Star,
    Statement,
    Subquery,
    TableKey,
    TableName,
    TableParameter,
    Unary,
    VectorLiteral,
    line_and_column,
)

__all__ = [
    "AlterCollection",
    "Analyze",
    "Assignment",
    "Begin",
    "Between",
    "Binary",
    "Case",
    "Cast",
    "Check",
    "Checkpoint",
    "Collate",
    "ColumnDef",
    "ColumnRef",
    "Commit",
    "CommonTable",
    "Compound",
    "Copy",
    "CreateCollection",
    "CreateIndex",
    "Decay",
    "Delete",
    "DerivedTable",
    "DropCollection",
    "DropIndex",
    "Explain",
    "Expression",
    "Forget",
    "FunctionCall",
    "Fusion",
    "In",
    "Insert",
    "IsNull",
    "Join",
    "JsonPath",
    "Like",
    "Literal",
    "Node",
    "OnConflict",
    "Optimize",
    "Option",
    "OrderItem",
    "Parameter",
    "Pragma",
    "Query",
    "Reembed",
    "Reindex",
    "Release",
    "Rollback",
    "Savepoint",
    "Scalar",
    "Search",
    "Select",
    "SelectItem",
    "Source",
    "Star",
    "Statement",
    "Subquery",
    "TableKey",
    "TableName",
    "TableParameter",
    "Unary",
    "Unbuilt",
    "Update",
    "Vacuum",
    "Values",
    "VectorLiteral",
    "With",
    "line_and_column",
]


class CreateCollection(Statement):
    """`CREATE COLLECTION | TABLE [IF NOT EXISTS] name (columns) [WITH (options)]`.

    keys, checks   the constraints behind the columns; a key over one column is set on it
    """

    __slots__ = ("checks", "columns", "if_not_exists", "keys", "name", "options")

    def __init__(
        self,
        name: str,
        if_not_exists: bool,
        columns: list[ColumnDef],
        options: list[Option],
        position: int,
    ) -> None:
        super().__init__(position)
        self.name = name
        self.if_not_exists = if_not_exists
        self.columns = columns
        self.keys: list[TableKey] = []
        self.checks: list[Check] = []
        self.options = options


class Analyze(Statement):
    """`ANALYZE [collection]`; None for all."""

    __slots__ = ("collection",)

    def __init__(self, collection: str | None, position: int) -> None:
        super().__init__(position)
        self.collection = collection


class Reindex(Statement):
    """`REINDEX [collection or index]`; None for all."""

    __slots__ = ("name",)

    def __init__(self, name: str | None, position: int) -> None:
        super().__init__(position)
        self.name = name


class AlterCollection(Statement):
    """`ALTER COLLECTION | TABLE collection …`.

    action      "rename", "rename column", "add column" or "drop column"
    column      the name of the column that is renamed or dropped
    name        the new name of the collection or column
    definition  of the column that is added
    """

    __slots__ = ("action", "collection", "column", "definition", "name")

    def __init__(self, collection: str, action: str, position: int) -> None:
        super().__init__(position)
        self.collection = collection
        self.action = action
        self.column = ""
        self.name = ""
        self.definition: ColumnDef | None = None


class DropCollection(Statement):
    """`DROP COLLECTION | TABLE [IF EXISTS] name`."""

    __slots__ = ("if_exists", "name")

    def __init__(self, name: str, if_exists: bool, position: int) -> None:
        super().__init__(position)
        self.name = name
        self.if_exists = if_exists


class CreateIndex(Statement):
    """`CREATE [UNIQUE] INDEX [IF NOT EXISTS] name ON collection [USING kind] (columns) [WITH (…)]`.

    `using` is in lower case, or None; parse() accepts USING before or behind the columns.
    """

    __slots__ = ("collection", "columns", "if_not_exists", "name", "options", "unique", "using")

    def __init__(self, name: str, collection: str, columns: list[str], position: int) -> None:
        super().__init__(position)
        self.name = name
        self.collection = collection
        self.columns = columns
        self.unique = False
        self.if_not_exists = False
        self.using: str | None = None
        self.options: list[Option] = []


class DropIndex(Statement):
    """`DROP INDEX [IF EXISTS] name`."""

    __slots__ = ("if_exists", "name")

    def __init__(self, name: str, if_exists: bool, position: int) -> None:
        super().__init__(position)
        self.name = name
        self.if_exists = if_exists


class Insert(Statement):
    """`INSERT [OR or_action] INTO collection [(columns)] source [ON CONFLICT …] [RETURNING …]`.

    columns    None: all columns in their order
    rows       lists of equal length; DEFAULT VALUES is one empty row with columns []
    query      a query in place of VALUES (rows is empty then), or None
    or_action  "replace", "ignore", "abort", "fail", "rollback" or None; REPLACE INTO is "replace"
    returning  None: no RETURNING
    """

    __slots__ = ("collection", "columns", "on_conflict", "or_action", "query", "returning", "rows")

    def __init__(self, collection: str, position: int) -> None:
        super().__init__(position)
        self.collection = collection
        self.columns: list[str] | None = None
        self.rows: list[list[Expression]] = []
        self.query: Query | None = None
        self.or_action: str | None = None
        self.on_conflict: OnConflict | None = None
        self.returning: list[SelectItem] | None = None


class Update(Statement):
    """`UPDATE [OR or_action] collection SET … [WHERE …] [RETURNING …]`."""

    __slots__ = ("assignments", "collection", "or_action", "returning", "where")

    def __init__(self, collection: str, assignments: list[Assignment], position: int) -> None:
        super().__init__(position)
        self.collection = collection
        self.assignments = assignments
        self.or_action: str | None = None
        self.where: Expression | None = None
        self.returning: list[SelectItem] | None = None


class Delete(Statement):
    """`DELETE FROM collection [WHERE …] [RETURNING …]`."""

    __slots__ = ("collection", "returning", "where")

    def __init__(
        self,
        collection: str,
        where: Expression | None,
        returning: list[SelectItem] | None,
        position: int,
    ) -> None:
        super().__init__(position)
        self.collection = collection
        self.where = where
        self.returning = returning


class Forget(Statement):
    """`FORGET FROM collection WHERE …`."""

    __slots__ = ("collection", "where")

    def __init__(self, collection: str, where: Expression, position: int) -> None:
        super().__init__(position)
        self.collection = collection
        self.where = where


class Select(Query):
    """`SELECT [DISTINCT] items [FROM source] [WHERE] [GROUP BY] [HAVING] [ORDER BY] [LIMIT]`.

    `VALUES (1, 2), (3, 4)` as a query is a Values node.
    """

    __slots__ = (
        "distinct", "group_by", "having", "items", "limit", "offset", "order_by", "source", "where",
    )  # fmt: skip

    def __init__(self, items: list[SelectItem], position: int) -> None:
        super().__init__(position)
        self.items = items
        self.distinct = False
        self.source: Source | None = None
        self.where: Expression | None = None
        self.group_by: list[Expression] = []
        self.having: Expression | None = None
        self.order_by: list[OrderItem] = []
        self.limit: Expression | None = None
        self.offset: Expression | None = None


class Values(Query):
    """`VALUES (…), (…)` as a query. Not built yet."""

    __slots__ = ("rows",)

    def __init__(self, rows: list[list[Expression]], position: int) -> None:
        super().__init__(position)
        self.rows = rows


class Compound(Query):
    """`left UNION | UNION ALL | EXCEPT | INTERSECT right [ORDER BY] [LIMIT]`. Not built yet."""

    __slots__ = ("left", "limit", "offset", "operator", "order_by", "right")

    def __init__(self, operator: str, left: Query, right: Query, position: int) -> None:
        super().__init__(position)
        self.operator = operator
        self.left = left
        self.right = right
        self.order_by: list[OrderItem] = []
        self.limit: Expression | None = None
        self.offset: Expression | None = None


class With(Query):
    """`WITH name AS (…), … statement`. Not built yet."""

    __slots__ = ("recursive", "statement", "tables")

    def __init__(
        self, tables: list[CommonTable], recursive: bool, statement: Statement, position: int
    ) -> None:
        super().__init__(position)
        self.tables = tables
        self.recursive = recursive
        self.statement = statement


class Search(Query):
    """`SEARCH collection clauses [RETURNING items]`; a clause that is absent is None or False.

    near, match, for_            values: Parameter, Literal, VectorLiteral, Subquery
    k, offset, as_of             values; LIMIT is given as k
    recall, probes, min_score, temperature, seed, diversity   values: Parameter or number Literal
    score                        in lower case: "splat", "similarity"
    """

    __slots__ = (
        "as_of", "collection", "decay", "diversity", "exact", "for_", "fusion", "k", "match",
        "match_column", "min_score", "near", "near_column", "offset", "probes", "recall",
        "returning", "score", "seed", "temperature", "where",
    )  # fmt: skip

    def __init__(self, collection: str, position: int) -> None:
        super().__init__(position)
        self.collection = collection
        self.near_column: str | None = None
        self.near: Expression | None = None
        self.match_column: str | None = None
        self.match: Expression | None = None
        self.for_: Expression | None = None
        self.where: Expression | None = None
        self.k: Expression | None = None
        self.offset: Expression | None = None
        self.fusion: Fusion | None = None
        self.score: str | None = None
        self.recall: Expression | None = None
        self.probes: Expression | None = None
        self.exact = False
        self.min_score: Expression | None = None
        self.decay: Decay | None = None
        self.temperature: Expression | None = None
        self.seed: Expression | None = None
        self.diversity: Expression | None = None
        self.as_of: Expression | None = None
        self.returning: list[SelectItem] | None = None


class Begin(Statement):
    """`BEGIN [DEFERRED | IMMEDIATE | EXCLUSIVE] [TRANSACTION]`; mode in lower case."""

    __slots__ = ("mode",)

    def __init__(self, mode: str, position: int) -> None:
        super().__init__(position)
        self.mode = mode


class Commit(Statement):
    """`COMMIT | END [TRANSACTION]`."""

    __slots__ = ()


class Rollback(Statement):
    """`ROLLBACK [TRANSACTION] [TO [SAVEPOINT] savepoint]`."""

    __slots__ = ("savepoint",)

    def __init__(self, savepoint: str | None, position: int) -> None:
        super().__init__(position)
        self.savepoint = savepoint


class Savepoint(Statement):
    """`SAVEPOINT name`."""

    __slots__ = ("name",)

    def __init__(self, name: str, position: int) -> None:
        super().__init__(position)
        self.name = name


class Release(Statement):
    """`RELEASE [SAVEPOINT] name`."""

    __slots__ = ("name",)

    def __init__(self, name: str, position: int) -> None:
        super().__init__(position)
        self.name = name


class Explain(Statement):
    """`EXPLAIN [ANALYZE | QUERY PLAN] statement`."""

    __slots__ = ("analyze", "statement")

    def __init__(self, analyze: bool, statement: Statement, position: int) -> None:
        super().__init__(position)
        self.analyze = analyze
        self.statement = statement


class Pragma(Statement):
    """`PRAGMA name`, `PRAGMA name = value`, `PRAGMA name(value)`.

    `name` is in lower case; `value` is None, a number, or a str (a word as written, or a string);
    `form` is "" without a value, "=" or "(".
    """

    __slots__ = ("form", "name", "value")

    def __init__(
        self, name: str, value: int | float | str | None, form: str, position: int
    ) -> None:
        super().__init__(position)
        self.name = name
        self.value = value
        self.form = form


class Checkpoint(Statement):
    """`CHECKPOINT [mode]`; mode in lower case, "passive" when none is given."""

    __slots__ = ("mode",)

    def __init__(self, mode: str, position: int) -> None:
        super().__init__(position)
        self.mode = mode


class Optimize(Statement):
    """`OPTIMIZE [c]`; collection is None for all."""

    __slots__ = ("collection",)

    def __init__(self, collection: str | None, position: int) -> None:
        super().__init__(position)
        self.collection = collection


class Reembed(Statement):
    """`REEMBED collection [(column)] USING 'encoder'`; column is None where none is named."""

    __slots__ = ("collection", "column", "encoder")

    def __init__(self, collection: str, column: str | None, encoder: str, position: int) -> None:
        super().__init__(position)
        self.collection = collection
        self.column = column
        self.encoder = encoder


class Copy(Statement):
    """`COPY collection TO | FROM path [(options)]`; path: a Literal with a text, or a Parameter."""

    __slots__ = ("collection", "is_export", "options", "path")

    def __init__(
        self,
        collection: str,
        path: Literal | Parameter,
        options: list[Option],
        is_export: bool,
        position: int,
    ) -> None:
        super().__init__(position)
        self.collection = collection
        self.path = path
        self.options = options
        self.is_export = is_export


class Vacuum(Statement):
    """`VACUUM [INTO target]`; target is a Literal with a text, a Parameter, or None."""

    __slots__ = ("target",)

    def __init__(self, target: Literal | Parameter | None, position: int) -> None:
        super().__init__(position)
        self.target = target


class Unbuilt(Statement):
    """A statement of the language that is not built yet; executing it is NotSupportedError.

    `keyword` names it in messages ("FEEDBACK", "ALTER COLLECTION"); `details` holds its parsed
    parts by name.
    """

    __slots__ = ("details", "keyword")

    def __init__(self, keyword: str, details: Mapping[str, object], position: int) -> None:
        super().__init__(position)
        self.keyword = keyword
        self.details = dict(details)
