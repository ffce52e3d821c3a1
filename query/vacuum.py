"""VACUUM, VACUUM INTO, and the PRAGMAs that tell of free pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import ProgrammingError
from m2mdb.query.authorization import authorize_other
from m2mdb.query.nodes import Literal, Parameter
from m2mdb.query.result import Result

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.vacuum import Vacuumed
    from m2mdb.query.ast import Vacuum
    from m2mdb.query.functions import Bindings


def run_vacuum(database: Database, statement: Vacuum, bindings: Bindings) -> Result:
    """VACUUM: one row of what became of the file; VACUUM INTO: one row of the file it wrote.

    Raises OperationalError: inside a transaction, or the new file exists. ProgrammingError: its
    path is no text.
    """
    target = statement.target
    if target is None:
        authorize_other(database, statement)
        from m2mdb.index.vacuum import vacuum

        return _report(vacuum(database))
    from m2mdb.index.copying import copy_into

    value = bindings[target.index] if isinstance(target, Parameter) else None
    path = target.value if isinstance(target, Literal) else value
    if not isinstance(path, str) or not path or "\0" in path or _is_special(path):
        raise ProgrammingError(f"VACUUM INTO {path!r}: expected the path of a new file")
    authorize_other(database, statement, path)
    return Result(["path", "pages"], [(path, copy_into(database, path))])


def _is_special(path: str) -> bool:
    """Whether a connection to the name would mean another place than a file of that name."""
    return path == ":memory:" or path.startswith("file:")


def incremental_vacuum(database: Database, value: int | float | str | None) -> Result:
    """`PRAGMA incremental_vacuum(N)`; without N or below 1 as far as it goes, as in SQLite."""
    from m2mdb.index.vacuum import ALL, incremental_vacuum

    if value is not None and type(value) is not int:
        raise ProgrammingError(f"PRAGMA incremental_vacuum({value}): expected a number of pages")
    most = value if type(value) is int and value > 0 else ALL
    return _report(incremental_vacuum(database, most))


def _report(done: Vacuumed) -> Result:
    return Result(["pages_before", "pages_after", "bytes_given_back", "remaining"], [tuple(done)])


def freelist_count(database: Database) -> int:
    """Pages of the database that nothing uses."""
    from m2mdb.index.vacuum import free_pages

    with database.reading() as view:
        return free_pages(view.pages)


def page_count(database: Database) -> int:
    """Pages of the database, free ones too."""
    with database.reading() as view:
        return view.pages.page_count
