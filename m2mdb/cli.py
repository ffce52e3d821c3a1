"""The command line: `m2mdb query | info | import | check | demo | warmup`.

Exit codes: 0 done, 1 something is wrong (an error, a fault found), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import Error, InterfaceError, OperationalError
from m2mdb.version import VERSION

if TYPE_CHECKING:
    from m2mdb.connection import Connection

OK, WRONG, USAGE = 0, 1, 2
INTERRUPTED = WRONG


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    try:
        options = parser().parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        code = int(options.command(options))
        sys.stdout.flush()
        return code
    except Error as error:
        print(f"m2mdb: {error}", file=sys.stderr)
        return WRONG
    except OSError as error:
        return _os_error(error)
    except KeyboardInterrupt:
        print("m2mdb: interrupted", file=sys.stderr)
        return INTERRUPTED


def _os_error(error: OSError) -> int:
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    print(f"m2mdb: {error}", file=sys.stderr)
    return WRONG


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="m2mdb", description="An embedded database for the memory of AI programs."
    )
    top.add_argument("--version", action="version", version=f"m2mdb {VERSION}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _add_query(commands)
    _add_import(commands)
    for name, help, command in (
        ("info", "what a database file holds", info),
        ("check", "check every byte and every index of a database file", check),
    ):
        sub = commands.add_parser(name, help=help, description=help)
        sub.add_argument("file", metavar="FILE")
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(command=command)
    _add_demo(commands)
    sub = commands.add_parser("warmup", help="compile and cache the search kernels")
    sub.set_defaults(command=warmup)
    return top


def _add_query(commands: Any) -> None:
    sub = commands.add_parser("query", help="run one statement and print its rows")
    sub.add_argument("file", metavar="FILE")
    sub.add_argument("statement", metavar="STATEMENT")
    sub.add_argument(
        "--param",
        dest="parameters",
        metavar="VALUE|@FILE.npy",
        action="append",
        default=[],
        help="a value for the next ?, or NAME=VALUE for :NAME; JSON, else text",
    )
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(command=query)


def _add_import(commands: Any) -> None:
    sub = commands.add_parser("import", help="create a collection from JSON Lines or CSV")
    sub.add_argument("file", metavar="FILE")
    sub.add_argument("collection", metavar="COLLECTION")
    sub.add_argument("docs", metavar="DOCS", help=".jsonl or .csv, also .gz")
    sub.add_argument("--vectors", metavar="V.npy", help="row i is the vector of document i")
    sub.add_argument("--vector-column", default="embedding", metavar="NAME")
    sub.add_argument("--key", metavar="NAME", help="the column that is the primary key")
    sub.add_argument(
        "--fulltext", metavar="NAME", action="append", default=[], help="a column to index"
    )
    sub.add_argument("--metric", choices=("cosine", "l2", "ip"), default="cosine")
    sub.add_argument("--encoder", metavar="NAME", help="encode the texts: hashing")
    sub.add_argument("--encode", metavar="NAME", help="the column that --encoder reads")
    sub.add_argument("--dimensions", type=int, metavar="N", help="of --encoder's vectors")
    sub.add_argument("--append", action="store_true", help="add to an existing collection")
    sub.add_argument("--on-conflict", choices=("error", "replace", "ignore"), default="error")
    sub.add_argument("--batch", type=positive, default=10_000, metavar="ROWS", help="per commit")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(command=import_)


def _add_demo(commands: Any) -> None:
    sub = commands.add_parser(
        "demo", help="hybrid search over Python's own documentation, and a kill survived"
    )
    sub.add_argument("--path", metavar="FILE", help="where to build the database; it is kept")
    sub.add_argument("--keep", action="store_true", help="keep the database file")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(command=demo)


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def opened(path: str, *, create: bool = False) -> Connection:
    """The database of a path, for reading only where the file does not let us write.

    Raises OperationalError where there is no file and `create` is not given.
    """
    from m2mdb.opening import connect

    if not create and not path.startswith("file:") and not os.path.exists(path):
        raise OperationalError(f"{path}: no such file")
    read_only = os.path.exists(path) and not os.access(path, os.W_OK)
    return connect(path, autocommit=True, read_only=read_only)


def query(options: argparse.Namespace) -> int:
    """`m2mdb query`: one statement, its rows as a table or as JSON."""
    from m2mdb.language import Language
    from m2mdb.tables import as_json, table

    creates = options.statement.lstrip()[:6].upper() == "CREATE"
    con = opened(options.file, create=creates)
    try:
        parameters = bound(options.parameters, Language().names(options.statement))
        cursor = con.execute(options.statement, parameters)
        if cursor.description is None:
            changes = max(cursor.rowcount, 0)
            print(as_json({"changes": changes}) if options.json else f"{changes} rows changed")
            return OK
        names = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
    finally:
        con.close()
    if options.json:
        print(as_json([dict(zip(names, row, strict=True)) for row in rows]))
    else:
        print(table(names, rows))
    return OK


def bound(texts: Sequence[str], names: Sequence[str]) -> Any:
    """The parameters of a statement whose `:names` are given (none: it uses `?`)."""
    if not names:
        return [parameter(text) for text in texts]
    values = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise InterfaceError(f"--param {text}: the statement wants NAME=VALUE for {names}")
        values[name.lstrip(":")] = parameter(value)
    return values


def parameter(text: str) -> Any:
    """A value of the command line: `@file.npy` is its array, JSON is its value, else a text."""
    import json

    if text.startswith("@"):
        from m2mdb.arrays import load_array

        return load_array(text[1:], f"parameter {text}")
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    if isinstance(value, (dict, list)) and not all(isinstance(v, (int, float)) for v in value):
        return text
    return value


def info(options: argparse.Namespace) -> int:
    """`m2mdb info`: collections, rows, bytes, commit."""
    from m2mdb.inspection import describe, report
    from m2mdb.tables import as_json

    con = opened(options.file)
    try:
        found = describe(con)
    finally:
        con.close()
    print(as_json(found) if options.json else report(found))
    return OK


def check(options: argparse.Namespace) -> int:
    """`m2mdb check`: exit code 1 where a fault is found."""
    from m2mdb.tables import as_json

    con = opened(options.file)
    try:
        faults = [row[0] for row in con.execute("PRAGMA integrity_check") if row[0] != "ok"]
    finally:
        con.close()
    if options.json:
        print(as_json({"file": options.file, "ok": not faults, "faults": faults}))
    else:
        print("\n".join(faults) if faults else f"{options.file}: ok")
    return WRONG if faults else OK


def import_(options: argparse.Namespace) -> int:
    """`m2mdb import`: a collection from documents and vectors."""
    from m2mdb.importing import Import, Interrupted
    from m2mdb.tables import as_json

    con = opened(options.file, create=True)
    try:
        job = Import(con, options)
        code = OK
        try:
            job.run()
        except Interrupted:
            code = INTERRUPTED
            print(f"m2mdb: interrupted; {job.added} rows are committed", file=sys.stderr)
    finally:
        con.close()
    for warning in job.warnings:
        print(f"m2mdb: {warning}", file=sys.stderr)
    print(as_json(job.summary()) if options.json else job.text())
    return code


def demo(options: argparse.Namespace) -> int:
    """`m2mdb demo`: build, search, kill, reopen, check."""
    from m2mdb.demo import Demo

    return OK if Demo(options.path, keep=options.keep, json=options.json).run() else WRONG


def warmup(options: argparse.Namespace) -> int:
    """`m2mdb warmup`: compile the kernels now, so that no search has to wait for them."""
    from m2mdb.inspection import compile_kernels

    print(compile_kernels())
    return OK
