"""Tools: the commands that check, dump, load and recover a file, as the command line has them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import CorruptDatabaseError, Error, OperationalError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.connection import Connection

OK, WRONG, NOT_RUN = 0, 1, 2
PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
Add = Callable[[Any, str, str, str], argparse.ArgumentParser]

CHECK_EXAMPLES = """\
examples:
  m2mdb check notes.m2m
  m2mdb check notes.m2m --quick --json

Reads every page, block and log frame, and compares every index with the rows (--quick leaves that
out). The file is not changed. Each fault is a line that names the place and the reason; the exit
code is 0 where there is none, 1 where there are some, 2 where the file cannot be looked at. What a
fault has left of a file is saved by m2mdb recover.
"""
DUMP_EXAMPLES = """\
examples:
  m2mdb dump notes.m2m > notes.sql
  m2mdb dump notes.m2m notes people --output some.sql

Writes the statements that build an equal database, at one commit, while others go on writing.
Vectors are x'…': their bytes, little-endian float32 (int8 of i8 columns), so that not a bit
is lost. m2mdb load reads it back.
"""
LOAD_EXAMPLES = """\
examples:
  m2mdb load new.m2m notes.sql
  m2mdb dump old.m2m | m2mdb load new.m2m -

All of the dump is one transaction: where a statement is wrong, its line is named and NEW is not
made. NEW must not exist.
"""


RECOVER_EXAMPLES = """\
examples:
  m2mdb recover damaged.m2m saved.m2m

Saves every row whose bytes verify, and says what is lost. DAMAGED (and its -wal, where it is there)
is only read; close all connections to it first. NEW must not exist. The exit code is 0 where
nothing was damaged, 1 where something was: NEW is there then too; 2 where nothing could be done.
docs/tools.md has the details.
"""


def add_tools(commands: Any, add: Add) -> None:
    """Add the commands; `add` makes one with a FILE."""
    what = "check every byte and every index of a database file"
    sub = add(commands, "check", what, CHECK_EXAMPLES)
    sub.add_argument("--quick", action="store_true", help="do not compare indexes with the rows")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(command=check)

    sub = add(commands, "dump", "write a database as statements", DUMP_EXAMPLES)
    sub.add_argument("collections", metavar="COLLECTION", nargs="*", help="default: all")
    sub.add_argument("--output", metavar="X", help="the file to write; default: stdout")
    sub.set_defaults(command=dump)

    sub = add(commands, "load", "make a database from a dump", LOAD_EXAMPLES)
    sub.add_argument("dump", metavar="DUMPFILE", help="the statements, - for stdin")
    size = "bytes of a page of the new file, default: 4096"
    sub.add_argument("--page-size", type=int, choices=PAGE_SIZES, default=4096, help=size)
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(command=load)

    sub = add(commands, "recover", "save the rows of a damaged file", RECOVER_EXAMPLES)
    sub.add_argument("new", metavar="NEW", help="the file to make")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(command=recover)


def reading(path: str) -> Connection:
    """The database of a path, opened so that no byte of it changes.

    A file or folder that we cannot write takes no mark, so it is read as one that nobody writes,
    unless somebody has it open.
    """
    from m2mdb.opening import connect

    if path.startswith("file:"):
        return connect(path, autocommit=True, read_only=True)
    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise OperationalError(f"{path}: no such file")
    ours = os.access(real, os.W_OK) and os.access(os.path.dirname(real), os.W_OK)
    if ours or os.path.isdir(real) or os.path.exists(real + "-shm"):
        return connect(path, autocommit=True, read_only=True)
    from urllib.parse import quote

    return connect(f"file:{quote(real)}?immutable=1", autocommit=True)


def not_run(error: Exception) -> int:
    """Say why nothing could be done; its exit code is not the one of a damaged file."""
    print(f"m2mdb: {error}", file=sys.stderr)
    return NOT_RUN


def check(options: argparse.Namespace) -> int:
    """`m2mdb check`: exit code 1 where a fault is found, 2 where the file cannot be looked at."""
    from m2mdb.tables import as_json

    pragma = "quick_check" if options.quick else "integrity_check"
    try:
        con = reading(options.file)
        try:
            faults = [row[0] for row in con.execute(f"PRAGMA {pragma}") if row[0] != "ok"]
        finally:
            con.close()
    except CorruptDatabaseError as error:
        faults = [str(error)]  # it cannot even be opened
    except (OperationalError, ProgrammingError) as error:
        return not_run(error)
    if options.json:
        print(as_json({"file": options.file, "ok": not faults, "faults": faults}))
    else:
        print("\n".join(faults) if faults else f"{options.file}: ok")
    return WRONG if faults else OK


def dump(options: argparse.Namespace) -> int:
    """`m2mdb dump`: the statements, to stdout or a file."""
    from m2mdb import loading

    con = reading(options.file)
    try:
        loading.dump(con, options.collections, options.output)
    finally:
        con.close()
    return OK


def load(options: argparse.Namespace) -> int:
    """`m2mdb load`: a new database from a dump."""
    from m2mdb import loading
    from m2mdb.tables import as_json

    made = loading.load(options.file, options.dump, options.page_size)
    if options.json:
        print(as_json(made))
    else:
        text = f"{made['statements']:,} statements, {made['rows']:,} rows"
        print(f"{options.file}: {text} in {made['seconds']:.1f} s", file=sys.stderr)
    return OK


def recover(options: argparse.Namespace) -> int:
    """`m2mdb recover`: what can be read of a damaged file, in a new one."""
    from m2mdb import recovering
    from m2mdb.tables import as_json

    try:
        report = recovering.recover(options.file, options.new)
    except Error as error:
        return not_run(error)
    print(as_json(report) if options.json else recovering.text(report))
    return OK if report["complete"] and not report["damage"] else WRONG
