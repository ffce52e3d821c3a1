"""m2mdb: the database that AI programs keep their memory in.

    import m2mdb

    con = m2mdb.connect("memory.m2m")

The module follows PEP 249; `Collection` is the face for arrays. Importing it loads neither NumPy,
nor the engine, nor the parser: each comes with its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    from m2mdb.collection import Collection
    from m2mdb.encoders import HashingEncoder
    from m2mdb.hits import Hit, Hits
    from m2mdb.index.receipts import Receipt
    from m2mdb.searching import match_text

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Collection",
    "Connection",
    "CorruptDatabaseError",
    "Cursor",
    "DataError",
    "DatabaseBusyError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
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
    "connect",
    "match_text",
    "paramstyle",
    "threadsafety",
]

_LATER = {
    "Collection": "m2mdb.collection",
    "HashingEncoder": "m2mdb.encoders",
    "Hit": "m2mdb.hits",
    "Hits": "m2mdb.hits",
    "Receipt": "m2mdb.index.receipts",
    "match_text": "m2mdb.searching",
}


def __getattr__(name: str) -> Any:
    """What needs NumPy, loaded when it is named."""
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    """The public names, those that are loaded later too."""
    return sorted(__all__)
