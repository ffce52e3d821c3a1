"""PRAGMA: settings and checks, each by its name; unknown ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from m2mdb.index.schema import closest
from m2mdb.pager.errors import NotSupportedError, ProgrammingError
from m2mdb.query.ast import Pragma
from m2mdb.query.functions import FUNCTIONS
from m2mdb.query.result import Result
from m2mdb.query.vacuum import freelist_count, incremental_vacuum, page_count

if TYPE_CHECKING:
    from m2mdb.index.database import Database

PragmaValue = int | float | str | None
CHECKPOINT_MODES = ("passive", "full", "restart", "truncate")
SYNCHRONOUS = ("off", "normal", "full")
_SYNCHRONOUS_NAMES = {"0": "off", "1": "normal", "2": "full", "3": "full", "extra": "full"}
_SWITCH = {"1": True, "on": True, "true": True, "0": False, "off": False, "false": False}
MAX_HEADER_VALUE = 2**31 - 1  # the header has a signed number of 32 bits
MAX_TIMEOUT = 2**31 - 1  # milliseconds


def run_pragma(database: Database, statement: Pragma) -> Result:
    """One PRAGMA.

    Raises ProgrammingError: an unknown name or value.
    """
    run = _PRAGMAS.get(statement.name)
    if run is None:
        close = closest(statement.name, _PRAGMAS)
        hint = f"did you mean {close}? " if close else ""
        known = ", ".join(sorted(_PRAGMAS))
        raise ProgrammingError(f"unknown PRAGMA {statement.name}; {hint}known are {known}")
    return run(database, statement.value)


def _one(name: str, value: int | str) -> Result:
    return Result([name], [(value,)])


def _integrity_check(database: Database, value: PragmaValue) -> Result:
    return _checked(database, quick=False)


def _quick_check(database: Database, value: PragmaValue) -> Result:
    return _checked(database, quick=True)


def _checked(database: Database, *, quick: bool) -> Result:
    from m2mdb.index.integrity import check_database

    faults = check_database(database, quick=quick)
    name = "quick_check" if quick else "integrity_check"
    return Result([name], [(fault,) for fault in faults] or [("ok",)])


def checkpoint(database: Database, mode: str) -> Result:
    """`PRAGMA wal_checkpoint(mode)` and `CHECKPOINT mode`: one row (busy, log, checkpointed).

    Raises ProgrammingError: an unknown mode. OperationalError: inside a transaction.
    """
    mode = mode.lower()
    if mode not in CHECKPOINT_MODES:
        raise ProgrammingError(
            f"checkpoint mode {mode!r}: expected one of {', '.join(CHECKPOINT_MODES)}"
        )
    return Result(["busy", "log", "checkpointed"], [tuple(database.checkpoint(mode))])


def _wal_checkpoint(database: Database, value: PragmaValue) -> Result:
    return checkpoint(database, "passive" if value is None else str(value))


def _synchronous(database: Database, value: PragmaValue) -> Result:
    if value is not None:
        word = str(value).lower()
        word = _SYNCHRONOUS_NAMES.get(word, word)
        if word not in SYNCHRONOUS:
            raise ProgrammingError(
                f"PRAGMA synchronous = {value}: expected off, normal or full (0, 1 or 2)"
            )
        database.store.synchronous = word
        return Result()
    return _one("synchronous", SYNCHRONOUS.index(database.store.synchronous))


def _busy_timeout(database: Database, value: PragmaValue) -> Result:
    if value is not None:
        if type(value) is not int or not 0 <= value <= MAX_TIMEOUT:
            raise ProgrammingError(
                f"PRAGMA busy_timeout = {value}: expected milliseconds in 0..{MAX_TIMEOUT}"
            )
        database.store.timeout = value / 1000
    return _one("timeout", round(database.store.timeout * 1000))


def _journal_size_limit(database: Database, value: PragmaValue) -> Result:
    """Bytes that the log keeps when it is begun anew; -1: all that it has."""
    if value is not None:
        if type(value) is not int:
            raise ProgrammingError(f"PRAGMA journal_size_limit = {value}: expected bytes, or -1")
        database.store.journal_size_limit = max(-1, value)
    return _one("journal_size_limit", database.store.journal_size_limit)


def _memory_budget(database: Database, value: PragmaValue) -> Result:
    """Bytes of the mapped file that may stay in memory between statements; 0: all."""
    if value is not None:
        if type(value) is not int or value < 0:
            raise ProgrammingError(f"PRAGMA memory_budget = {value}: expected bytes, 0 or more")
        from m2mdb.index.residence import Budget

        database.budget = Budget(database, value) if value else None
    return _one("memory_budget", database.budget.limit if database.budget else 0)


def _wal_autocheckpoint(database: Database, value: PragmaValue) -> Result:
    """Frames in the log after which a commit checkpoints; 0 never does."""
    if value is not None:
        if type(value) is not int or value < 0:
            raise ProgrammingError(
                f"PRAGMA wal_autocheckpoint = {value}: expected pages of the log, 0 or more"
            )
        database.store.wal_autocheckpoint = value
    return _one("wal_autocheckpoint", database.store.wal_autocheckpoint)


def _table_info(database: Database, value: PragmaValue) -> Result:
    names = ["cid", "name", "type", "notnull", "dflt_value", "pk"]
    if value is None:
        raise ProgrammingError("PRAGMA table_info(name) needs a collection")
    quote = FUNCTIONS["quote"][0]
    with database.reading() as view:
        schema = view.collection(str(value)).schema
        columns = [schema.columns[index] for index in schema.shown_columns]
    composite = [schema.columns[index].name for index in schema.composite_key]
    rows = [
        (
            number,
            column.name,
            column.declaration(),
            int(column.not_null),
            column.shown_default(quote),
            composite.index(column.name) + 1
            if column.name in composite
            else int(column.primary_key),
        )
        for number, column in enumerate(columns)
    ]
    return Result(names, rows)


def _header_value(name: str) -> Callable[[Database, PragmaValue], Result]:
    def run(database: Database, value: PragmaValue) -> Result:
        if value is None:
            return _one(name, database.header_value(name))
        if type(value) is not int or not 0 <= value <= MAX_HEADER_VALUE:
            raise ProgrammingError(
                f"PRAGMA {name} = {value}: expected an integer in 0..{MAX_HEADER_VALUE}"
            )
        database.set_header_value(name, value)
        return Result()

    return run


def _keep_commits(database: Database, value: PragmaValue) -> Result:
    """Set it, and give the commits that AS OF can name: (keep_commits, oldest, newest)."""
    if value is not None:
        if type(value) is not int or value < 0:
            raise ProgrammingError(
                f"PRAGMA keep_commits = {value}: expected a number of commits, 0 or more"
            )
        with database.reading() as view:
            unchanged = view.catalog.keep_commits == value
        if not unchanged:
            with database.writing() as write:
                write.set_keep_commits(value)
    with database.reading() as view:
        row = (view.catalog.keep_commits, view.oldest_commit(), view.commit)
    return Result(["keep_commits", "oldest_commit", "newest_commit"], [row])


def _page_size(database: Database, value: PragmaValue) -> Result:
    size = database.store.page_size
    if value is not None and value != size:
        raise NotSupportedError(
            f"PRAGMA page_size = {value}: the file has pages of {size} bytes, which cannot be "
            "changed"
        )
    return _one("page_size", size)


def _counted(
    name: str, count: Callable[[Database], int]
) -> Callable[[Database, PragmaValue], Result]:
    def run(database: Database, value: PragmaValue) -> Result:
        if value is not None:
            raise ProgrammingError(f"PRAGMA {name} = {value}: it is counted and cannot be set")
        return _one(name, count(database))

    return run


def _compute(database: Database, value: PragmaValue) -> Result:
    if value is not None:
        database.compute = str(value).lower()
        return Result()
    return _one("compute", database.compute)


def _secure_delete(database: Database, value: PragmaValue) -> Result:
    """As SQLite's: of this connection; what it frees is zeroed at a checkpoint (S26)."""
    if value is not None:
        word = str(value).lower()
        if word not in _SWITCH:
            raise ProgrammingError(f"PRAGMA secure_delete = {value}: expected on or off (1 or 0)")
        database.store.secure_delete = _SWITCH[word]
    return _one("secure_delete", int(database.store.secure_delete))


def _author(database: Database, value: PragmaValue) -> Result:
    """Whose name the commits of this connection bear in m2m_history."""
    if value is not None:
        from m2mdb.index.moments import checked_author

        database.author = checked_author(value)
        return Result()
    return Result(["author"], [(database.author,)])


def _give_generated(database: Database, value: PragmaValue) -> Result:
    """Until the transaction ends, values of generated columns are taken as given (GE2)."""
    if value is not None:
        word = str(value).lower()
        if word not in _SWITCH:
            raise ProgrammingError(f"PRAGMA give_generated = {value}: expected on or off (1 or 0)")
        database.give_generated = _SWITCH[word]
    return _one("give_generated", int(database.give_generated))


def _recall_audit(database: Database, value: PragmaValue) -> Result:
    """Sample every so many searches; or what the sampled ones find (`index.audit`)."""
    if value is not None:
        if type(value) is not int or not 0 <= value <= MAX_HEADER_VALUE:
            raise ProgrammingError(
                f"PRAGMA recall_audit = {value}: expected 0 (off) or how many searches to sample "
                f"one of, up to {MAX_HEADER_VALUE}"
            )
        database.audit.set(value)
        return Result()
    with database.reading() as view:
        rows = database.audit.measured(view)
    names = ["collection", "column", "searches", "audited", "recall", "asked", "lower"]
    return Result(names, [tuple(row) for row in rows])


_PRAGMAS: dict[str, Callable[[Database, PragmaValue], Result]] = {
    "author": _author,
    "application_id": _header_value("application_id"),
    "busy_timeout": _busy_timeout,
    "compute": _compute,
    "freelist_count": _counted("freelist_count", freelist_count),
    "give_generated": _give_generated,
    "incremental_vacuum": incremental_vacuum,
    "integrity_check": _integrity_check,
    "journal_size_limit": _journal_size_limit,
    "keep_commits": _keep_commits,
    "memory_budget": _memory_budget,
    "page_count": _counted("page_count", page_count),
    "page_size": _page_size,
    "quick_check": _quick_check,
    "recall_audit": _recall_audit,
    "secure_delete": _secure_delete,
    "synchronous": _synchronous,
    "table_info": _table_info,
    "user_version": _header_value("user_version"),
    "wal_autocheckpoint": _wal_autocheckpoint,
    "wal_checkpoint": _wal_checkpoint,
}
