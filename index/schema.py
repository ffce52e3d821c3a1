"""Schema: what a collection's columns are, and which values they take.

Columns are strict: a value is stored as the column's type, after a lossless conversion where
SQLite's affinity would make one, or refused with DataError. A type name maps to a type by
SQLite's affinity rules (`VARCHAR(20)` is TEXT, `BIGINT` is INTEGER).

Stored forms, by type (`index.values` converts):

    INTEGER     int in -2**63 .. 2**63 - 1
    REAL        float
    TEXT        str
    BLOB        bytes
    BOOLEAN     bool
    TIMESTAMP   int, microseconds since 1970-01-01T00:00:00 UTC
    JSON        str, JSON text
    VECTOR(d)   a row of float32, float16 or int8 values, bit for bit as given (S20)

Invariants
    C1  A column id is unique in its collection and never used again, whatever the name does.
    C2  Names compare without case, as SQLite's do; the computed names are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

from m2mdb.index.collations import FOLDS, Fold
from m2mdb.pager.errors import ProgrammingError

TYPES = ("INTEGER", "REAL", "TEXT", "BLOB", "BOOLEAN", "TIMESTAMP", "JSON", "VECTOR")
METRICS = ("cosine", "l2", "ip")
VECTOR_DTYPES = {"f32": "<f4", "f16": "<f2", "i8": "|i1"}
COMPUTED = ("rowid", "score", "distance", "bm25", "energy", "confidence", "rank")
MAX_DIMENSION = 65_536  # one vector of float32 then takes 256 KiB
MAX_NAME_BYTES = 1_000  # far beyond any real name
MAX_COLUMNS = 2_000  # SQLite's default limit
MAX_KEY_COLUMNS = 16  # of one B-tree index: its keys are cut at `index.keys.KEY_SIZE`
HINT_CHARACTERS = 64  # of a name that a hint looks at
HINT_NAMES = 500  # that it looks at
MAX_RULE_CHARACTERS = 100_000  # of the text of a CHECK or a computed DEFAULT
MAX_TEXT_BYTES = 1_000_000_000  # SQLite's limit on a string or blob


def type_of(name: str) -> str:
    """The column type that a declared type name means, by SQLite's affinity rules.

    Raises ProgrammingError for TENSOR-like names that no affinity rule knows.
    """
    upper = name.upper()
    if upper in TYPES:
        return upper
    if upper in ("BOOL",):
        return "BOOLEAN"
    if upper.startswith(("TIMESTAMP", "DATETIME")):
        return "TIMESTAMP"
    if "INT" in upper:
        return "INTEGER"
    if any(part in upper for part in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in upper or not upper:
        return "BLOB"
    if any(part in upper for part in ("REAL", "FLOA", "DOUB", "NUMERIC", "DECIMAL")):
        return "REAL"
    raise ProgrammingError(f"unknown column type {name!r}; known are {', '.join(TYPES)}")


class Column:
    """One column of a collection."""

    __slots__ = (
        "collation",
        "default",
        "default_text",
        "dimension",
        "dtype",
        "fulltext",
        "generated",
        "has_default",
        "id",
        "metric",
        "name",
        "not_null",
        "primary_key",
        "since",
        "type",
        "type_name",
        "unique",
    )

    def __init__(self, name: str, type: str, **options: Any) -> None:
        """Options: id, type_name, dimension, dtype, metric, primary_key, unique, not_null,
        default (a literal; its presence sets has_default), default_text (of an expression that is
        computed for each row; `default` is None then), fulltext (dict of options or None),
        generated (`index.generated`: a dict of from, encoder, model and fingerprint, or None;
        of a hidden column also of replaces), collation (of `index.collations`),
        since (the first segment that has the column; older ones have its default: `index.absent`).
        """
        self.name = name
        self.type = type
        self.id: int = options.pop("id", 0)
        self.since: int = options.pop("since", 0)
        self.type_name: str = options.pop("type_name", type)
        self.dimension: int = options.pop("dimension", 0)
        self.dtype: str = options.pop("dtype", "f32")
        self.metric: str = options.pop("metric", "cosine")
        self.primary_key: bool = options.pop("primary_key", False)
        self.unique: bool = options.pop("unique", False)
        self.collation: str = options.pop("collation", "BINARY")
        self.not_null: bool = options.pop("not_null", False)
        self.has_default: bool = options.pop("has_default", "default" in options)
        self.default: Any = options.pop("default", None)
        self.default_text: str | None = options.pop("default_text", None)
        self.fulltext: dict[str, Any] | None = options.pop("fulltext", None)
        self.generated: dict[str, str] | None = options.pop("generated", None)
        if options:
            raise ProgrammingError(f"column {name}: unknown options {', '.join(options)}")

    def shown_default(self, quote: Callable[[Any], Any]) -> str | None:
        """The DEFAULT as a statement would say it, or None without one."""
        if self.default_text is not None:
            return self.default_text
        return str(quote(self.default)) if self.has_default else None

    @property
    def fold(self) -> Fold | None:
        """What its collation makes of a value before it is compared; None: nothing."""
        return FOLDS[self.collation] if self.type in ("TEXT", "JSON") else None

    @property
    def value_type(self) -> str:
        """The type of its values in expressions: `TEXT COLLATE NOCASE` where it has a collation."""
        return self.type if self.fold is None else f"{self.type} COLLATE {self.collation}"

    @property
    def is_vector(self) -> bool:
        """Whether the values are vectors."""
        return self.type == "VECTOR"

    @property
    def is_hidden(self) -> bool:
        """Whether it waits to take another column's place, and `*` leaves it out (RE2)."""
        return self.generated is not None and "replaces" in self.generated

    @property
    def is_key(self) -> bool:
        """Whether two rows may not share a value."""
        return self.primary_key or self.unique

    def declaration(self) -> str:
        """The type as a CREATE statement would say it."""
        if not self.is_vector:
            return self.type_name
        inner = f"{self.dimension}" + (f", {self.dtype}" if self.dtype != "f32" else "")
        return f"VECTOR({inner})"

    def encode(self) -> dict[str, Any]:
        """A JSON-able form; what equals its default is left out."""
        plain = Column("", self.type)
        kept: dict[str, Any] = {"name": self.name, "type": self.type}
        for field in Column.__slots__:
            if field not in kept and getattr(self, field) != getattr(plain, field):
                kept[field] = getattr(self, field)
        if isinstance(self.default, bytes):
            kept["default"] = {"hex": self.default.hex()}
        return kept

    @classmethod
    def decode(cls, fields: dict[str, Any]) -> Column:
        """The column that `encode` described."""
        fields = dict(fields)
        default = fields.get("default")
        if isinstance(default, dict):
            fields["default"] = bytes.fromhex(default["hex"])
        return cls(fields.pop("name"), fields.pop("type"), **fields)


class Check(NamedTuple):
    """A CHECK constraint.

    text    the condition, as it was written
    name    what CONSTRAINT called it, or None
    column  of which it is the constraint, so that it goes with it; None: of the collection
    """

    text: str
    name: str | None = None
    column: str | None = None

    @property
    def title(self) -> str:
        """How a message calls it."""
        return self.text if self.name is None else self.name

    def encode(self) -> dict[str, str]:
        """A JSON-able form."""
        return {key: value for key, value in self._asdict().items() if value is not None}


class IndexInfo:
    """An index: a B-tree over the values of columns, or the text or vector index of one column."""

    __slots__ = ("columns", "id", "kind", "name", "options", "origin", "root", "unique")

    def __init__(
        self,
        name: str,
        *columns: str,
        kind: str = "btree",
        unique: bool = False,
        root: int = 0,
        options: dict[str, Any] | None = None,
        origin: str = "",
    ) -> None:
        """`root` is the B-tree's root page; a text index has none, it lies in the segments.

        options  those of hrm2, see `index.clustering`; a text index's stand in its column
        origin   the constraint over several columns that it upholds, "primary" or "unique"; ""
                 where CREATE INDEX made it
        """
        self.options = options or {}
        self.name = name
        self.columns = columns
        self.kind = kind
        self.unique = unique
        self.root = root
        self.id = root
        self.origin = origin

    @property
    def column(self) -> str:
        """Its only column, or the first one."""
        return self.columns[0]

    def has(self, column: str) -> bool:
        """Whether a column, named without case, is one of its."""
        return column.lower() in (name.lower() for name in self.columns)

    def unbuilt(self) -> IndexInfo:
        """The same index without a tree, for building it anew."""
        return IndexInfo(
            self.name, *self.columns, kind=self.kind, unique=self.unique, origin=self.origin
        )

    def encode(self) -> dict[str, Any]:
        """A JSON-able form; one with several columns is refused by readers that know one only."""
        several = len(self.columns) > 1
        return {
            "name": self.name,
            **({"columns": list(self.columns)} if several else {"column": self.column}),
            "kind": self.kind,
            "unique": self.unique,
            "root": self.root,
            **({"options": self.options} if self.options else {}),
            **({"origin": self.origin} if self.origin else {}),
        }

    @classmethod
    def decode(cls, fields: dict[str, Any]) -> IndexInfo:
        """The index that `encode` described."""
        columns = fields["columns"] if "columns" in fields else [fields["column"]]
        if type(columns) is not list or not columns:
            raise TypeError("the columns of an index are no list")
        return cls(
            fields["name"],
            *columns,
            kind=fields["kind"],
            unique=fields["unique"],
            root=fields["root"],
            options=fields.get("options"),
            origin=fields.get("origin", ""),
        )


class CollectionSchema:
    """The columns and indexes of a collection; immutable once it is in the catalog."""

    __slots__ = (
        "_positions",
        "checks",
        "columns",
        "composite_key",
        "computed_defaults",
        "generated_columns",
        "hashed_columns",
        "hidden_columns",
        "indexes",
        "key_columns",
        "name",
        "near_columns",
        "primary_key",
        "rowid_alias",
        "rules",
        "scalar_columns",
        "shown_columns",
        "text_columns",
        "vector_columns",
    )

    def __init__(
        self,
        name: str,
        columns: tuple[Column, ...],
        indexes: tuple[IndexInfo, ...] = (),
        checks: tuple[Check, ...] = (),
    ) -> None:
        """Raises ProgrammingError: no or doubled columns, computed names, two primary keys."""
        self.name = name
        self.columns = columns
        self.indexes = indexes
        self.checks = checks
        self.rules: Any = None  # `index.rules` keeps what it compiled
        self._positions = {column.name.lower(): i for i, column in enumerate(columns)}
        check_columns(name, columns)
        keys = [i for i, column in enumerate(columns) if column.primary_key]
        self.primary_key: int | None = keys[0] if keys else None
        alias = bool(keys) and columns[keys[0]].type == "INTEGER"
        self.rowid_alias: int | None = self.primary_key if alias else None
        # PRIMARY KEY (a, b): no column alone is the key then, and ids are rowids
        composite = next((each for each in indexes if each.origin == "primary"), None)
        self.composite_key = () if composite is None else self.positions(composite)
        every = range(len(columns))
        self.vector_columns = tuple(i for i in every if columns[i].is_vector)
        self.scalar_columns = tuple(i for i in every if not columns[i].is_vector)
        self.text_columns = tuple(i for i in every if columns[i].fulltext is not None)
        self.key_columns = tuple(i for i in every if columns[i].is_key and i != self.rowid_alias)
        self.generated_columns = tuple(i for i in every if columns[i].generated is not None)
        self.hidden_columns = tuple(i for i in self.generated_columns if columns[i].is_hidden)
        self.shown_columns = tuple(i for i in every if i not in self.hidden_columns)
        # those that a statement can mean without naming them
        self.near_columns = tuple(i for i in self.vector_columns if i not in self.hidden_columns)
        self.computed_defaults = tuple(i for i in every if columns[i].default_text is not None)
        sources = {column.generated["from"].lower() for column in columns if column.generated}
        # segments have the hashes of their values: keys, and what vectors are made of (GE3)
        self.hashed_columns = tuple(
            i for i in every if i in self.key_columns or columns[i].name.lower() in sources
        )

    def position(self, name: str) -> int | None:
        """The index of a column by its name, or None."""
        return self._positions.get(name.lower())

    def column(self, name: str) -> int:
        """The index of a column by its name; ProgrammingError where there is none."""
        if not isinstance(name, str):
            raise ProgrammingError(f"{self.name}: a column's name is a str, not {name!r}")
        found = self._positions.get(name.lower())
        if found is None:
            raise ProgrammingError(f"no such column: {name} in {self.name}{self.hint(name)}")
        return found

    def positions(self, info: IndexInfo) -> tuple[int, ...]:
        """The indexes of an index's columns, in its order."""
        return tuple([self.column(name) for name in info.columns])

    def folds(self, info: IndexInfo) -> tuple[Fold | None, ...]:
        """What the collations of an index's columns make of their values."""
        return tuple([self.columns[index].fold for index in self.positions(info)])

    def hint(self, name: str) -> str:
        """`; did you mean …?` where a column is spelled alike, else nothing."""
        close = closest(name, self._positions)
        return f"; did you mean {self.columns[self._positions[close]].name}?" if close else ""

    def index(self, name: str) -> IndexInfo | None:
        """An index of this collection by its name."""
        for info in self.indexes:
            if info.name.lower() == name.lower():
                return info
        return None

    def btree_on(self, column_index: int) -> IndexInfo | None:
        """A B-tree index on a column, if there is one: on it alone, or on it and others behind."""
        name = self.columns[column_index].name.lower()
        fitting = [
            info for info in self.indexes if info.kind == "btree" and info.column.lower() == name
        ]
        return min(fitting, key=lambda info: len(info.columns), default=None)


def hinted(message: str, name: str, known: Iterable[str]) -> str:
    """`message; did you mean …?` where a name is spelled like one that is known.

    As it is where it gives a hint already.
    """
    close = None if "did you mean" in message else closest(name, known)
    return f"{message}; did you mean {close}?" if close else message


def closest(name: str, known: Iterable[str]) -> str | None:
    """The name, in small letters, that is spelled most alike; None where none is near.

    Comparing takes the square of the lengths, so long names and very many are left out.
    """
    from difflib import get_close_matches

    if len(name) > HINT_CHARACTERS:
        return None
    short = islice((other for other in known if len(other) <= HINT_CHARACTERS), HINT_NAMES)
    return next(iter(get_close_matches(name.lower(), list(short), 1)), None)


def check_columns(collection: str, columns: tuple[Column, ...]) -> None:
    """Raise ProgrammingError where the columns cannot form a collection (C2)."""
    check_name(collection)
    if not columns:
        raise ProgrammingError(f"collection {collection} has no columns")
    if len(columns) > MAX_COLUMNS:
        raise ProgrammingError(
            f"collection {collection} has {len(columns)} columns; the limit is {MAX_COLUMNS}"
        )
    seen: set[str] = set()
    for column in columns:
        _check_column(collection, column)
        if column.name.lower() in seen:
            raise ProgrammingError(f"duplicate column name: {column.name} in {collection}")
        seen.add(column.name.lower())
    if sum(column.primary_key for column in columns) > 1:
        raise ProgrammingError(f"collection {collection} has more than one primary key")
    for column in columns:
        if column.generated is not None:
            _check_generated(collection, column, columns)


def _check_generated(collection: str, column: Column, columns: tuple[Column, ...]) -> None:
    """An encoder makes float vectors of texts."""
    assert column.generated is not None
    where = f"column {column.name} of {collection}"
    name = column.generated["from"]
    source = next((each for each in columns if each.name.lower() == name.lower()), None)
    if source is None:
        raise ProgrammingError(f"{where}: no such column: {name}, which it is generated from")
    if source.type != "TEXT":
        raise ProgrammingError(
            f"{where}: it is generated from {source.name}, which is {source.type}; wanted is TEXT"
        )
    if not column.is_vector:
        raise ProgrammingError(f"{where}: only a VECTOR column can be generated by an encoder")
    other = column.generated.get("replaces")
    if other is not None:
        replaced = next((each for each in columns if each.name.lower() == other.lower()), None)
        if replaced is None or replaced.generated is None or replaced.is_hidden:
            raise ProgrammingError(f"{where}: {other}, which it replaces, is no generated column")
    if column.dtype == "i8":
        raise ProgrammingError(f"{where}: encoders give floats; a generated column is f32 or f16")


def check_name(name: str) -> None:
    """Raise ProgrammingError for a name that is empty, too long or not valid Unicode."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ProgrammingError(f"the name {name!r} is not valid Unicode") from None
    if not 1 <= size <= MAX_NAME_BYTES or "\0" in name:
        raise ProgrammingError(
            f"the name {name[:40]!r} has {size} bytes; a name has 1 to {MAX_NAME_BYTES} bytes and "
            "no null character"
        )


def _check_column(collection: str, column: Column) -> None:
    check_name(column.name)
    where = f"column {column.name} of {collection}"
    if column.name.lower() in COMPUTED:
        raise ProgrammingError(f"{where}: {column.name} is a computed name and cannot be a column")
    if column.type not in TYPES:
        raise ProgrammingError(f"{where}: unknown type {column.type}")
    if column.fulltext is not None and column.type not in ("TEXT", "JSON"):
        raise ProgrammingError(f"{where}: FULLTEXT needs TEXT or JSON, not {column.type}")
    if column.collation not in FOLDS:
        raise ProgrammingError(
            f"{where}: no such collation: {column.collation}; a column has one of "
            f"{', '.join(FOLDS)}, those of a program stand in expressions"
        )
    if not column.is_vector:
        return
    if column.collation != "BINARY":
        raise ProgrammingError(f"{where}: a vector has no COLLATE {column.collation}")
    if not 1 <= column.dimension <= MAX_DIMENSION:
        raise ProgrammingError(
            f"{where}: dimension {column.dimension} is not in 1..{MAX_DIMENSION}"
        )
    if column.dtype not in VECTOR_DTYPES:
        raise ProgrammingError(f"{where}: vector type {column.dtype} is not f32, f16 or i8")
    if column.metric not in METRICS:
        raise ProgrammingError(f"{where}: metric {column.metric} is not cosine, l2 or ip")
    if column.is_key:
        raise ProgrammingError(f"{where}: a vector cannot be a key")
