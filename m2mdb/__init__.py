"""m2mdb: the database that AI programs keep their memory in.

    import m2mdb

    con = m2mdb.connect("memory.m2m")

The module follows PEP 249; `Collection` is the face for arrays. Importing it loads neither NumPy,
nor the engine, nor the parser: each comes with its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2mdb.adapters import (
    PARSE_COLNAMES,
    PARSE_DECLTYPES,
    register_adapter,
    register_converter,
)
from m2mdb.connection import Connection
from m2mdb.cursor import Cursor
from m2mdb.dbapi import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    Date,
    DateFromTicks,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    apilevel,
    paramstyle,
    threadsafety,
)
from m2mdb.opening import connect
from m2mdb.pager.errors import (
    CheckFailedError,
    CorruptDatabaseError,
    DatabaseBusyError,
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    LongReaderWarning,
    LostCommitsWarning,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    StaleSnapshotError,
    StatementInterruptedError,
    Warning,
)
from m2mdb.row import Row
from m2mdb.version import VERSION as __version__

if TYPE_CHECKING:
    from m2mdb.categories import Categories
    from m2mdb.collection import Collection
    from m2mdb.context import Context, Passage, approximate_tokens
    from m2mdb.encoder_registry import FunctionEncoder
    from m2mdb.encoders import HashingEncoder
    from m2mdb.hits import Hit, Hits
    from m2mdb.index.receipts import Receipt
    from m2mdb.language import complete_statement
    from m2mdb.query.authorization import (
        SQLITE_ALTER_TABLE,
        SQLITE_ANALYZE,
        SQLITE_ATTACH,
        SQLITE_CREATE_INDEX,
        SQLITE_CREATE_TABLE,
        SQLITE_DELETE,
        SQLITE_DENY,
        SQLITE_DROP_INDEX,
        SQLITE_DROP_TABLE,
        SQLITE_FUNCTION,
        SQLITE_IGNORE,
        SQLITE_INSERT,
        SQLITE_OK,
        SQLITE_PRAGMA,
        SQLITE_READ,
        SQLITE_RECURSIVE,
        SQLITE_REINDEX,
        SQLITE_SAVEPOINT,
        SQLITE_SELECT,
        SQLITE_TRANSACTION,
        SQLITE_UPDATE,
    )
    from m2mdb.query.protocol import PrepareProtocol
    from m2mdb.searching import match_text

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "PARSE_COLNAMES",
    "PARSE_DECLTYPES",
    "ROWID",
    "SQLITE_ALTER_TABLE",
    "SQLITE_ANALYZE",
    "SQLITE_ATTACH",
    "SQLITE_CREATE_INDEX",
    "SQLITE_CREATE_TABLE",
    "SQLITE_DELETE",
    "SQLITE_DENY",
    "SQLITE_DROP_INDEX",
    "SQLITE_DROP_TABLE",
    "SQLITE_FUNCTION",
    "SQLITE_IGNORE",
    "SQLITE_INSERT",
    "SQLITE_OK",
    "SQLITE_PRAGMA",
    "SQLITE_READ",
    "SQLITE_RECURSIVE",
    "SQLITE_REINDEX",
    "SQLITE_SAVEPOINT",
    "SQLITE_SELECT",
    "SQLITE_TRANSACTION",
    "SQLITE_UPDATE",
    "STRING",
    "Binary",
    "Categories",
    "CheckFailedError",
    "Collection",
    "Connection",
    "Context",
    "CorruptDatabaseError",
    "Cursor",
    "DataError",
    "DatabaseBusyError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "FunctionEncoder",
    "HashingEncoder",
    "Hit",
    "Hits",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "LongReaderWarning",
    "LostCommitsWarning",
    "NotSupportedError",
    "OperationalError",
    "Passage",
    "PrepareProtocol",
    "ProgrammingError",
    "Receipt",
    "Row",
    "StaleSnapshotError",
    "StatementInterruptedError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "__version__",
    "apilevel",
    "approximate_tokens",
    "complete_statement",
    "connect",
    "match_text",
    "paramstyle",
    "register_adapter",
    "register_converter",
    "threadsafety",
]

_LATER = {
    "Categories": "m2mdb.categories",
    "Collection": "m2mdb.collection",
    "Context": "m2mdb.context",
    "FunctionEncoder": "m2mdb.encoder_registry",
    "HashingEncoder": "m2mdb.encoders",
    "Hit": "m2mdb.hits",
    "Hits": "m2mdb.hits",
    "Receipt": "m2mdb.index.receipts",
    "Passage": "m2mdb.context",
    "approximate_tokens": "m2mdb.context",
    "PrepareProtocol": "m2mdb.query.protocol",
    "complete_statement": "m2mdb.language",
    "match_text": "m2mdb.searching",
}
_CODES = "m2mdb.query.authorization"  # where the authorizer's constants stand


def __getattr__(name: str) -> Any:
    """What needs NumPy, loaded when it is named."""
    module = _CODES if name.startswith("SQLITE_") and name in __all__ else _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    """The public names, those that are loaded later too."""
    return sorted(__all__)
