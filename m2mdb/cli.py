"""The command line: `m2mdb query | info | import | check | dump | load | recover | demo | warmup`.

Exit codes: 0 done, 1 something is wrong (an error, a fault found), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import Error, InterfaceError, OperationalError
from m2mdb.tools import add_tools
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
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        # What is left in the buffer would be written, and fail, once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"m2mdb: cannot write the output: {error.strerror}", file=sys.stderr)
        return WRONG
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
    sub = _add_command(commands, "info", "what a database file holds", "")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(command=info)
    add_tools(commands, _add_command)
    _add_demo(commands)
    sub = commands.add_parser("warmup", help="compile and cache the search kernels")
    sub.set_defaults(command=warmup)
    return top


QUERY_EXAMPLES = """\
examples:
  m2mdb query notes.m2m "SELECT id, topic FROM notes WHERE topic = ?" --param ui
  m2mdb query notes.m2m "SEARCH notes NEAR ? MATCH ? K 3 RETURNING id, score" \\
      --param @query.npy --param "dark mode"
  m2mdb query notes.m2m "SELECT * FROM notes WHERE id = :id" --param id=n1 --json
  m2mdb query notes.m2m "SEARCH notes FOR ? K 3" --param "dark mode" --encoder words=hashing

A statement commits when it succeeds. CREATE makes the file where there is none.
A parameter is JSON (5, 1.5, true, null, "5", [0.1, 0.2]) or else text; @FILE.npy is the array of a
file. Texts in a table are cut; --json prints them whole. docs/language.md has all statements.
"""
IMPORT_EXAMPLES = """\
examples:
  m2mdb import words.m2m glosses docs.jsonl.gz --vectors vectors.npy --key id --fulltext text
  m2mdb import notes.m2m notes notes.csv --fulltext body --encoder hashing
  m2mdb import notes.m2m notes more.csv --key id --append --on-conflict ignore

Types come from all documents: BOOLEAN, INTEGER, REAL, TEXT, and JSON for lists and objects. Nothing
is written before all of them were read. Then each batch is a transaction: a refused row ends the
import and is named by its line, and the batches before it stay.
"""


def _add_command(commands: Any, name: str, help: str, examples: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=help[:1].upper() + help[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("file", metavar="FILE", help="the database file")
    return sub


def _add_query(commands: Any) -> None:
    sub = _add_command(commands, "query", "run one statement and print its rows", QUERY_EXAMPLES)
    sub.add_argument("statement", metavar="STATEMENT", help="one statement, as one argument")
    sub.add_argument(
        "--param",
        dest="parameters",
        metavar="VALUE|@FILE.npy",
        action="append",
        default=[],
        help="a value for the next ?, or NAME=VALUE for :NAME; JSON, else text",
    )
    text = "what ENCODER 'NAME' means, such as NAME=hashing or NAME=ollama:MODEL"
    add = sub.add_argument
    add("--encoder", dest="encoders", metavar="NAME=WHAT", action="append", default=[], help=text)
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub.set_defaults(command=query)


def _add_import(commands: Any) -> None:
    what = "create a collection from JSON Lines or CSV"
    sub = _add_command(commands, "import", what, IMPORT_EXAMPLES)
    add = sub.add_argument
    add("collection", metavar="COLLECTION", help="the collection to create")
    add("docs", metavar="DOCS", help="a .jsonl or .csv file (UTF-8), also packed as .gz")
    add("--vectors", metavar="V.npy", help="a matrix whose row i is the vector of document i")
    add("--vector-column", default="embedding", metavar="NAME", help="default: embedding")
    add("--key", metavar="NAME", help="the column that is the primary key")
    text = "a column to index for MATCH; may be given several times"
    add("--fulltext", metavar="NAME", action="append", default=[], help=text)
    metrics = "of the vector column, default: cosine"
    add("--metric", choices=("cosine", "l2", "ip"), default="cosine", help=metrics)
    add("--encoder", metavar="NAME", help="make the vectors from texts; built in: hashing")
    text = "the column that --encoder reads, default: the only --fulltext one"
    add("--encode", metavar="NAME", help=text)
    add("--dimensions", type=positive, metavar="N", help="how many --encoder's vectors have")
    add("--append", action="store_true", help="add to the collection where it exists")
    rule = "what a row does whose key exists: end the import (default), take its place, or nothing"
    add("--on-conflict", choices=("error", "replace", "ignore"), default="error", help=rule)
    add("--batch", type=positive, default=10_000, metavar="ROWS", help="per commit; default 10,000")
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


def encoders_of(texts: Sequence[str]) -> dict[str, str]:
    """The encoders of `--encoder NAME=WHAT`, by their names."""
    found = {}
    for text in texts:
        name, _, what = text.partition("=")
        if not name or not what:
            raise InterfaceError(f"--encoder {text}: expected NAME=WHAT, such as words=hashing")
        found[name] = what
    return found


def opened(
    path: str, *, create: bool = False, encoders: dict[str, str] | None = None
) -> Connection:
    """The database of a path, for reading only where the file does not let us write.

    Raises OperationalError where there is no file and `create` is not given.
    """
    from m2mdb.opening import connect

    if not create and not path.startswith("file:") and not os.path.exists(path):
        raise OperationalError(f"{path}: no such file")
    read_only = os.path.exists(path) and not os.access(path, os.W_OK)
    return connect(path, autocommit=True, read_only=read_only, encoders=encoders)


def query(options: argparse.Namespace) -> int:
    """`m2mdb query`: one statement, its rows as a table or as JSON."""
    from m2mdb.language import Language
    from m2mdb.tables import Progress, as_json, table

    creates = options.statement.lstrip()[:6].upper() == "CREATE"
    con = opened(options.file, create=creates, encoders=encoders_of(options.encoders))
    progress = Progress("working:")
    con.set_work_handler(progress.at)
    try:
        parameters = bound(options.parameters, Language().names(options.statement))
        cursor = con.execute(options.statement, parameters)
        progress.close()
        if cursor.description is None:
            changes = max(cursor.rowcount, 0)
            print(as_json({"changes": changes}) if options.json else f"{changes} rows changed")
            return OK
        names = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
    finally:
        progress.close()
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
