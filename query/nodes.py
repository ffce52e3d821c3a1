"""Nodes of the tree of a statement: the bases, the expressions and the parts of statements.

    Node
    +-- Expression   Literal Parameter ColumnRef Unary Binary ... Subquery
    +-- parts        SelectItem Star OrderItem ColumnDef Assignment OnConflict TableName ...
    +-- Statement    the base; the statements themselves stand in ast.py
        +-- Query    those that give rows and may stand in parentheses

Invariants
    A1  `position` is the offset, in characters, of the node's first character in the statement's
        text; two nodes that differ in their place alone are equal.
    A2  Names stand as they were written (quotes removed); they are compared without case.
    A3  A node holds no meaning: names are unresolved, types unchecked, defaults absent (None).
    A4  `Parameter.index` is the slot of the value to bind, from 0, for `?` and for `:name`.
"""

from __future__ import annotations

from typing import TypeAlias

Scalar: TypeAlias = "bool | int | float | str | bytes | None"

_UNCOMPARED = frozenset({"position", "text", "end", "default_text"})


class Node:
    """Base of all nodes: equality by fields (A1) and a readable repr."""

    __slots__ = ("position",)

    position: int

    def __init__(self, position: int) -> None:
        self.position = position

    def fields(self) -> dict[str, object]:
        """Every field by name, the base classes' first."""
        return {name: getattr(self, name) for name in field_names(type(self))}

    def children(self) -> list[object]:
        """The values of all fields: nodes, lists and tuples of nodes, and plain values."""
        return [getattr(self, name) for name in field_names(type(self))]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, Node)
        mine, others = self.fields(), other.fields()
        return all(_same(mine[key], others[key]) for key in mine if key not in _UNCOMPARED)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{key}={value!r}" for key, value in self.fields().items() if key not in _UNCOMPARED
        )
        return f"{type(self).__name__}({shown})"


_field_names: dict[type, tuple[str, ...]] = {}


def field_names(cls: type) -> tuple[str, ...]:
    """The names of a node class's fields, the base classes' first."""
    known = _field_names.get(cls)
    if known is None:
        slots = (vars(base).get("__slots__", ()) for base in reversed(cls.__mro__))
        known = _field_names[cls] = tuple(name for names in slots for name in names)
    return known


def _same(one: object, other: object) -> bool:
    """Equal and of one type: 1, 1.0 and True are different literals, and a name is a text."""
    return (type(one) is type(other) or isinstance(one, str)) and (one == other or one != one)


# Statements' bases


class Statement(Node):
    """Base of all statements; parse() sets the fields below on the outermost one.

    text             the text that was parsed: a whole script, if the statement stands in one
    end              where the statement ends in it, its semicolon not included
    parameter_count  how many values are to be bound
    parameter_names  the names in the order of their slots; empty when `?` is used
    """

    __slots__ = ("end", "parameter_count", "parameter_names", "text")

    def __init__(self, position: int) -> None:
        self.position = position
        self.text = ""
        self.end = 0
        self.parameter_count = 0
        self.parameter_names: tuple[str, ...] = ()

    def own_text(self) -> str:
        """The statement's own text."""
        return self.text[self.position : self.end]


class Query(Statement):
    """Base of the statements that give rows and may stand in parentheses."""

    __slots__ = ()


# Expressions


class Expression(Node):
    """Base of the nodes that have a value."""

    __slots__ = ()


class Literal(Expression):
    """A constant: NULL is None, TRUE and FALSE are bools."""

    __slots__ = ("value",)

    def __init__(self, value: Scalar, position: int) -> None:
        self.position = position
        self.value = value


class Parameter(Expression):
    """`?`, `?2` or `:name`; `name` is None for the forms with a question mark (A4)."""

    __slots__ = ("index", "name")

    def __init__(self, index: int, name: str | None, position: int) -> None:
        self.position = position
        self.index = index
        self.name = name


class ColumnRef(Expression):
    """`name` or `table.name`; `rowid` and the computed columns of SEARCH too."""

    __slots__ = ("name", "table")

    def __init__(self, name: str, table: str | None, position: int) -> None:
        self.position = position
        self.name = name
        self.table = table


class Unary(Expression):
    """A prefix operator: `-`, `+`, `~` or `NOT`."""

    __slots__ = ("operand", "operator")

    def __init__(self, operator: str, operand: Expression, position: int) -> None:
        self.position = position
        self.operator = operator
        self.operand = operand


class Binary(Expression):
    """`|| * / % + - & | << >> <-> <#> <=> < <= > >= = != IS "IS NOT" AND OR`.

    `==` is given as `=`, `<>` as `!=`, IS [NOT] DISTINCT FROM as IS NOT or IS. Chains of AND
    and of OR are balanced trees, so that a long one is not a deep one.
    """

    __slots__ = ("left", "operator", "right")

    def __init__(self, operator: str, left: Expression, right: Expression, position: int) -> None:
        self.position = position
        self.operator = operator
        self.left = left
        self.right = right


class JsonPath(Expression):
    """`operand -> path` (JSON) and `operand ->> path` (SQL value); operator says which."""

    __slots__ = ("operand", "operator", "path")

    def __init__(self, operator: str, operand: Expression, path: Expression, position: int) -> None:
        self.position = position
        self.operator = operator
        self.operand = operand
        self.path = path


class Like(Expression):
    """`operand [NOT] LIKE pattern [ESCAPE escape]`; operator is `LIKE` or `GLOB`."""

    __slots__ = ("escape", "negated", "operand", "operator", "pattern")

    def __init__(
        self,
        operator: str,
        operand: Expression,
        pattern: Expression,
        escape: Expression | None,
        negated: bool,
        position: int,
    ) -> None:
        self.position = position
        self.operator = operator
        self.operand = operand
        self.pattern = pattern
        self.escape = escape
        self.negated = negated


class Between(Expression):
    """`operand [NOT] BETWEEN low AND high`."""

    __slots__ = ("high", "low", "negated", "operand")

    def __init__(
        self,
        operand: Expression,
        low: Expression,
        high: Expression,
        negated: bool,
        position: int,
    ) -> None:
        self.position = position
        self.operand = operand
        self.low = low
        self.high = high
        self.negated = negated


class In(Expression):
    """`operand [NOT] IN (values)`, `IN ?` or `IN (SELECT …)`.

    `values` is a list of expressions, or the one Parameter bound to a sequence (`IN ?`), or a
    Subquery. `IN (?)` is a list of one expression.
    """

    __slots__ = ("negated", "operand", "values")

    values: list[Expression] | Expression

    def __init__(
        self,
        operand: Expression,
        values: list[Expression] | Expression,
        negated: bool,
        position: int,
    ) -> None:
        self.position = position
        self.operand = operand
        self.values = values
        self.negated = negated


class IsNull(Expression):
    """`operand IS NULL`, `ISNULL`; negated: `IS NOT NULL`, `NOT NULL`, `NOTNULL`."""

    __slots__ = ("negated", "operand")

    def __init__(self, operand: Expression, negated: bool, position: int) -> None:
        self.position = position
        self.operand = operand
        self.negated = negated


class Case(Expression):
    """`CASE [operand] WHEN … THEN … [ELSE …] END`."""

    __slots__ = ("operand", "otherwise", "whens")

    def __init__(
        self,
        operand: Expression | None,
        whens: list[tuple[Expression, Expression]],
        otherwise: Expression | None,
        position: int,
    ) -> None:
        self.position = position
        self.operand = operand
        self.whens = whens
        self.otherwise = otherwise


class Cast(Expression):
    """`CAST(operand AS type_name)`; the name's words are joined by one space."""

    __slots__ = ("operand", "type_name")

    def __init__(self, operand: Expression, type_name: str, position: int) -> None:
        self.position = position
        self.operand = operand
        self.type_name = type_name


class FunctionCall(Expression):
    """`name(arguments)`; `name` in lower case; `star` for `count(*)`.

    CURRENT_TIMESTAMP, CURRENT_DATE and CURRENT_TIME are calls without arguments.
    """

    __slots__ = ("arguments", "distinct", "name", "star")

    def __init__(
        self,
        name: str,
        arguments: list[Expression],
        star: bool,
        distinct: bool,
        position: int,
    ) -> None:
        self.position = position
        self.name = name
        self.arguments = arguments
        self.star = star
        self.distinct = distinct


class VectorLiteral(Expression):
    """`[0.1, -2, 3e-4]`: the components as floats."""

    __slots__ = ("values",)

    def __init__(self, values: list[float], position: int) -> None:
        self.position = position
        self.values = values


class Collate(Expression):
    """`operand COLLATE name`."""

    __slots__ = ("collation", "operand")

    def __init__(self, operand: Expression, collation: str, position: int) -> None:
        self.position = position
        self.operand = operand
        self.collation = collation


class Subquery(Expression):
    """`(SELECT …)` as a value, in IN, or (exists) as `EXISTS (SELECT …)`."""

    __slots__ = ("exists", "query")

    def __init__(self, query: Query, exists: bool, position: int) -> None:
        self.position = position
        self.query = query
        self.exists = exists


# Parts of statements


class Star(Node):
    """`*` or `table.*` in a list of results."""

    __slots__ = ("table",)

    def __init__(self, table: str | None, position: int) -> None:
        self.position = position
        self.table = table


class SelectItem(Node):
    """One result: an expression or a star, its alias, and its text as written."""

    __slots__ = ("alias", "expression", "label")

    def __init__(
        self, expression: Expression | Star, alias: str | None, label: str, position: int
    ) -> None:
        self.position = position
        self.expression = expression
        self.alias = alias
        self.label = label


class OrderItem(Node):
    """`expression [ASC | DESC] [NULLS FIRST | LAST]`; `nulls_first` None: SQLite's default."""

    __slots__ = ("descending", "expression", "nulls_first")

    def __init__(
        self, expression: Expression, descending: bool, nulls_first: bool | None, position: int
    ) -> None:
        self.position = position
        self.expression = expression
        self.descending = descending
        self.nulls_first = nulls_first


class TableName(Node):
    """A collection in FROM; as_of: the value of AS OF, or None."""

    __slots__ = ("alias", "as_of", "name")

    def __init__(self, name: str, alias: str | None, position: int) -> None:
        self.position = position
        self.name = name
        self.alias = alias
        self.as_of: Expression | None = None


class TableParameter(Node):
    """`FROM :table`: an Arrow object bound as a table. Not built yet."""

    __slots__ = ("alias", "parameter")

    def __init__(self, parameter: Parameter, alias: str | None, position: int) -> None:
        self.position = position
        self.parameter = parameter
        self.alias = alias


class TableCall(Node):
    """`FROM json_each(…) [AS alias]`."""

    __slots__ = ("alias", "arguments", "name")

    def __init__(
        self, name: str, arguments: list[Expression], alias: str | None, position: int
    ) -> None:
        self.position = position
        self.name = name
        self.arguments = arguments
        self.alias = alias


class DerivedTable(Node):
    """`FROM (SELECT … | SEARCH …) [AS alias]`. Not built yet."""

    __slots__ = ("alias", "query")

    def __init__(self, query: Query, alias: str | None, position: int) -> None:
        self.position = position
        self.query = query
        self.alias = alias


class Join(Node):
    """`left [INNER | LEFT | CROSS] JOIN right [ON … | USING (…)]`; kind in lower case.

    A comma is a cross join. Not built yet.
    """

    __slots__ = ("kind", "left", "on", "right", "using")

    def __init__(self, kind: str, left: Source, right: Source, position: int) -> None:
        self.position = position
        self.kind = kind
        self.left = left
        self.right = right
        self.on: Expression | None = None
        self.using: list[str] = []


class Assignment(Node):
    """`column = value` in SET."""

    __slots__ = ("column", "value")

    def __init__(self, column: str, value: Expression, position: int) -> None:
        self.position = position
        self.column = column
        self.value = value


class OnConflict(Node):
    """`ON CONFLICT [(columns)] DO NOTHING | UPDATE SET … [WHERE …]`; action in lower case."""

    __slots__ = ("action", "assignments", "columns", "where")

    def __init__(
        self,
        columns: list[str] | None,
        action: str,
        assignments: list[Assignment],
        where: Expression | None,
        position: int,
    ) -> None:
        self.position = position
        self.columns = columns
        self.action = action
        self.assignments = assignments
        self.where = where


class Option(Node):
    """`name = value` in WITH (…), FULLTEXT (…), FUSION … (…): a bare word is a str Literal."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: Expression, position: int) -> None:
        self.position = position
        self.name = name
        self.value = value


class Check(Node):
    """`[CONSTRAINT name] CHECK (condition)`: the condition, and its text as written."""

    __slots__ = ("condition", "name", "text")

    def __init__(self, text: str, condition: Expression, position: int) -> None:
        self.position = position
        self.text = text
        self.condition = condition
        self.name: str | None = None


class TableKey(Node):
    """`PRIMARY KEY (columns)` or `UNIQUE (columns)` over several; kind "primary" or "unique"."""

    __slots__ = ("columns", "kind")

    def __init__(self, kind: str, columns: list[str], position: int) -> None:
        self.position = position
        self.kind = kind
        self.columns = columns


class ColumnDef(Node):
    """One column of CREATE; a PRIMARY KEY (c) or UNIQUE (c) behind the columns is set here too.

    type_name      words joined by one space, as written; "" when there is none
    type_arguments `VECTOR(384, f16)` gives [384, "f16"]
    metric         as written, or None
    default        an expression, or None: has no DEFAULT
    default_text   the expression as written in parentheses, or None
    fulltext       the options, empty for a bare FULLTEXT, or None: no FULLTEXT
    generated_from, encoder, encoder_options   `FROM body ENCODER 'minilm' [(options)]`
    """

    __slots__ = (
        "checks", "collation", "default", "default_text", "encoder", "encoder_options",
        "fulltext", "generated_from", "metric", "name", "not_null", "primary_key", "type_arguments",
        "type_name", "unique",
    )  # fmt: skip

    def __init__(self, name: str, position: int) -> None:
        self.position = position
        self.name = name
        self.type_name = ""
        self.type_arguments: list[int | float | str] = []
        self.metric: str | None = None
        self.collation: str | None = None
        self.primary_key = False
        self.unique = False
        self.not_null = False
        self.checks: list[Check] = []
        self.default: Expression | None = None
        self.default_text: str | None = None
        self.fulltext: list[Option] | None = None
        self.generated_from: str | None = None
        self.encoder: str | None = None
        self.encoder_options: list[Option] = []


class Decay(Node):
    """`DECAY HALF LIFE 30 DAYS ON created`; unit as written."""

    __slots__ = ("amount", "column", "unit")

    def __init__(self, amount: Expression, unit: str, column: str, position: int) -> None:
        self.position = position
        self.amount = amount
        self.unit = unit
        self.column = column


class Fusion(Node):
    """`FUSION name [(k = 60)]`; name in lower case."""

    __slots__ = ("name", "options")

    def __init__(self, name: str, options: list[Option], position: int) -> None:
        self.position = position
        self.name = name
        self.options = options


class CommonTable(Node):
    """`name [(columns)] AS (query)` in WITH. Not built yet."""

    __slots__ = ("columns", "name", "query")

    def __init__(self, name: str, columns: list[str], query: Query, position: int) -> None:
        self.position = position
        self.name = name
        self.columns = columns
        self.query = query


Source: TypeAlias = "TableName | TableParameter | TableCall | DerivedTable | Join"


def line_and_column(text: str, position: int) -> tuple[int, int]:
    """Line and column of a position, both from 1."""
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
