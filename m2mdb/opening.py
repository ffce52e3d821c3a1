"""Opening: what a path, a URI or `:memory:` means, and `connect`.

URI names are `file:` and a path with options: `mode=ro|rw|rwc|memory`, `immutable=1`, `nolock=1`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from types import EllipsisType
from typing import TYPE_CHECKING, Literal

from m2mdb.clock import seconds_of
from m2mdb.connection import Connection
from m2mdb.isolation import checked_level
from m2mdb.pager.errors import (
    CorruptDatabaseError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)

if TYPE_CHECKING:
    from m2mdb.clock import Clock
    from m2mdb.encoder_registry import Encoders
    from m2mdb.index.database import Database
    from m2mdb.index.rules import Language
    from m2mdb.index.text.analysis import Tokenizer
    from m2mdb.pager.vfs import Vfs
    from m2mdb.wal.store import StoreOptions

MODES = ("ro", "rw", "rwc", "memory")
SYNCHRONOUS = ("full", "normal", "off")
PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)


def connect(
    path: str | os.PathLike[str],
    timeout: float = 5.0,
    autocommit: bool = False,
    check_same_thread: bool = False,
    *,
    isolation_level: str | EllipsisType | None = ...,
    cached_statements: int = 128,
    read_only: bool = False,
    uri: bool = True,
    page_size: int = 4096,
    compute: str = "auto",
    encoders: Encoders | None = None,
    synchronous: Literal["full", "normal", "off"] = "full",
    untrusted: bool = False,
    detect_types: int = 0,
    tokenizers: Mapping[str, Tokenizer] | None = None,
    clock: Clock | None = None,
) -> Connection:
    """Open a database file, made where there is none, or `:memory:`.

    timeout            seconds to wait for another connection's lock
    autocommit         True: each statement commits itself unless BEGIN is open
    check_same_thread  True: only this thread may use the connection
    isolation_level    sqlite3's name of it: None for autocommit=True; "", "DEFERRED", "IMMEDIATE"
                       or "EXCLUSIVE" for False
    cached_statements  as sqlite3 takes it, and without effect
    read_only          open for reading only, as `mode=ro` in a URI
    uri                names that start with `file:` are URIs
    page_size          bytes of a page of a new file
    compute            kernels: "auto", "numpy" or "numba"
    encoders           what ENCODER 'name' means, by name: encoders, callables, or texts such as
                       "sentence-transformers:NAME" (see `m2mdb.encoder_registry`)
    synchronous        "full" (durable at each commit), "normal" (at checkpoints) or "off"
    untrusted          the file came from someone else: it must be there, is read without a map,
                       kept within tighter limits, and checked whole before the first row is read
    detect_types       PARSE_DECLTYPES, PARSE_COLNAMES or both: values go through the converters of
                       `register_converter`
    tokenizers         callables from a text to its tokens, by the names FULLTEXT gives them
    clock              a callable that gives the time of `datetime('now')`, DECAY and so on:
                       seconds since 1970 or a datetime

    Raises InterfaceError for a wrong argument, OperationalError where the file cannot be opened,
    CorruptDatabaseError where it is no database, NotSupportedError for a newer format. Warns of
    commits that a damaged log has lost (LostCommitsWarning).
    """
    wanted = target(path, uri=uri, read_only=read_only)
    autocommit = autocommit_of(autocommit, isolation_level, cached_statements)
    now = check_options(timeout, page_size, synchronous, detect_types, clock)
    from m2mdb.index import rules
    from m2mdb.index.database import Database

    rules.set_language(_rules)

    options = _store_options(wanted, page_size, timeout, synchronous, untrusted)
    refuse_empty(wanted.path, options)
    database = Database.open(
        vfs_of(wanted), wanted.path, options, compute=compute, autocommit=bool(autocommit)
    )
    database.tokenizers = dict(tokenizers or {})
    database.clock = now
    if options.untrusted:
        admit(database)
    thread = threading.get_ident() if check_same_thread else None
    connection = Connection(
        database, wanted.path, encoders=encoders, thread=thread, detect_types=detect_types
    )
    if isinstance(isolation_level, str):
        connection.isolation_level = isolation_level
    return told(connection)


def _store_options(
    wanted: Target, page_size: int, timeout: float, synchronous: str, untrusted: bool
) -> StoreOptions:
    """What the store is told of the arguments."""
    from m2mdb.wal.store import StoreOptions

    return StoreOptions(
        read_only=wanted.mode == "ro" or wanted.immutable,
        create=wanted.mode in ("rwc", "memory"),
        immutable=wanted.immutable,
        no_lock=wanted.no_lock,
        page_size=page_size,
        timeout=float(timeout),
        synchronous=synchronous,
        untrusted=bool(untrusted) and wanted.mode != "memory",
    )


def _rules() -> Language:
    """What compiles CHECK and DEFAULT, loaded with the first collection that has them."""
    from m2mdb.query import rules

    return rules.Language()


def refuse_empty(path: str, options: StoreOptions) -> None:
    """CorruptDatabaseError for an untrusted file of no bytes, which would become a new one."""
    if options.untrusted and os.path.isfile(path) and not os.path.getsize(path):
        raise CorruptDatabaseError(f"{path} is refused as untrusted: it is empty")


def told(connection: Connection) -> Connection:
    """Warn of commits that a damaged log has lost; where that is an error, close."""
    try:
        connection.tell_of_lost_commits()
    except BaseException:  # the caller has made it an error
        connection.close()
        raise
    return connection


def admit(database: Database) -> None:
    """Check an untrusted file whole; one that is refused is closed."""
    from m2mdb.index.untrusted import admit as check

    try:
        check(database)
    except BaseException:
        database.close()
        raise


def autocommit_of(
    autocommit: bool, isolation_level: str | EllipsisType | None, cached_statements: int
) -> bool:
    """Whether each statement commits itself, said in one of two ways.

    Raises InterfaceError where both are said and differ, or an argument cannot be.
    """
    if isinstance(cached_statements, bool) or not isinstance(cached_statements, int):
        raise InterfaceError(f"cached_statements is {cached_statements!r}, not an int")
    if isolation_level is ... or isolation_level is None:
        return bool(autocommit) or isolation_level is None
    checked_level(isolation_level)
    if autocommit:
        raise InterfaceError(f"autocommit=True and isolation_level={isolation_level!r} differ")
    return False


def check_options(
    timeout: float,
    page_size: int,
    synchronous: str,
    detect_types: int = 0,
    clock: Clock | None = None,
) -> Callable[[], float] | None:
    """The clock, checked; InterfaceError or ProgrammingError for an option that cannot be."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise InterfaceError(f"timeout is {type(timeout).__name__}, not a number of seconds")
    if not 0 <= timeout < float("inf"):
        raise ProgrammingError(f"timeout {timeout} is not a number of seconds from 0")
    if page_size not in PAGE_SIZES:
        raise ProgrammingError(f"page_size {page_size!r} is not one of {PAGE_SIZES}")
    if synchronous not in SYNCHRONOUS:
        raise ProgrammingError(f"synchronous {synchronous!r} is not full, normal or off")
    if isinstance(detect_types, bool) or detect_types not in (0, 1, 2, 3):
        raise InterfaceError(
            f"detect_types is {detect_types!r}, not PARSE_DECLTYPES, PARSE_COLNAMES or 0"
        )
    return None if clock is None else seconds_of(clock)


def vfs_of(wanted: Target) -> Vfs:
    """The file system that a target lies in; each database in memory has its own."""
    if wanted.mode == "memory":
        from m2mdb.pager.memory_vfs import MemoryVfs

        return MemoryVfs()
    from m2mdb.pager.os_vfs import OsVfs

    return OsVfs()


class Target:
    """What is to be opened, and how."""

    __slots__ = ("immutable", "mode", "no_lock", "path")

    def __init__(self, path: str, mode: str) -> None:
        self.path = path
        self.mode = mode
        self.immutable = False
        self.no_lock = False


def target(path: str | os.PathLike[str], *, uri: bool = True, read_only: bool = False) -> Target:
    """The meaning of a name given to `connect`.

    Raises InterfaceError for a wrong type, an empty name, and a URI it does not understand.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InterfaceError(f"the path is {type(path).__name__}, not str or os.PathLike")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise InterfaceError(f"the path is {type(name).__name__}, not str")
    if not name:
        raise InterfaceError('the path is empty; ":memory:" names a database in memory')
    _check_encoding(name)
    mode = "ro" if read_only else "rwc"
    if name == ":memory:":
        return Target(name, "memory")
    if uri and name.startswith("file:"):
        return uri_target(name, mode)
    return Target(os.path.realpath(name), mode)


def uri_target(uri: str, mode: str) -> Target:
    """The meaning of a `file:` URI."""
    from urllib.parse import parse_qsl, unquote, urlsplit

    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise InterfaceError(f"{uri}: the authority {parts.netloc!r} is not this machine")
    path = unquote(parts.path)
    found = Target(path, mode)
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key == "mode":
            if value not in MODES:
                raise InterfaceError(f"{uri}: mode {value!r} is not ro, rw, rwc or memory")
            found.mode = value if mode != "ro" or value == "memory" else "ro"
        elif key == "immutable":
            found.immutable = flag(uri, key, value)
        elif key == "nolock":
            found.no_lock = flag(uri, key, value)
        else:
            raise InterfaceError(f"{uri}: unknown option {key!r}; known: mode, immutable, nolock")
    if found.mode == "memory" or path == ":memory:":
        found.mode = "memory"
        found.path = ":memory:"
    elif not path:
        raise InterfaceError(f"{uri}: the path is empty")
    else:
        _check_encoding(path)
        found.path = os.path.realpath(path)
    return found


def _check_encoding(name: str) -> None:
    if "\0" in name:
        raise InterfaceError(f"the path {name!r} holds a null character")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise InterfaceError(f"the path {name!r} cannot be a file's name: {error}") from None


def new_file(path: str) -> str:
    """The real path of a file that is to be made, by a name as `connect` takes it.

    Raises OperationalError where it or one of its own is there, InterfaceError where the name
    means no file that could be made and kept.
    """
    wanted = target(path)
    if wanted.mode != "rwc" or wanted.immutable:
        raise InterfaceError(f"{path}: this names no new file that could be written and kept")
    for name in (path, wanted.path, wanted.path + "-wal", wanted.path + "-shm"):
        if os.path.lexists(name):
            raise OperationalError(f"{name} exists; wanted is the name of a new file")
    return wanted.path


def flag(uri: str, key: str, value: str) -> bool:
    """A yes or no of a URI."""
    if value.lower() in ("1", "true", "yes", "on"):
        return True
    if value.lower() in ("0", "false", "no", "off"):
        return False
    raise InterfaceError(f"{uri}: {key} is {value!r}, not 0 or 1")
