"""Loading: `m2mdb dump` and `m2mdb load`, a database to a file of statements and back.

    the file in pieces --> statements --> INSERTs of constants, gathered --> one insertion
                                     \\--> the others, one by one

A dump is loaded in one transaction, so that what is wrong in it leaves nothing behind. A dump may
hold what `m2mdb.dumping` writes, and statements that change rows; none that touches other files.

Invariants
    LD1 NEW is made by the load alone: where it cannot be finished, no file stays.
    LD2 Memory is bounded by GATHERED_BYTES and the longest statement, not by the dump.
    LD3 A dump that ends inside its transaction was cut short, and is refused.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from m2mdb.dumping import statements
from m2mdb.pager.errors import (
    DataError,
    Error,
    InterfaceError,
    ProgrammingError,
)
from m2mdb.pager.io_errors import io_error
from m2mdb.query import ast
from m2mdb.query.nodes import Literal, Unary, VectorLiteral
from m2mdb.query.parser import parse
from m2mdb.query.words import quoted
from m2mdb.tables import Progress

if TYPE_CHECKING:
    from m2mdb.connection import Connection
    from m2mdb.index.view import View
    from m2mdb.query.ast import Statement
    from m2mdb.query.nodes import Expression

CHUNK = 1 << 20  # characters that are read at a time, doubled inside a long statement
GATHERED_ROWS = 100_000  # of an insertion
GATHERED_BYTES = 64 << 20
_TOKEN = re.compile(
    r"""'[^']*+'? | "[^"]*+"? | --[^\n]*+\n? | /\*(?:[^*]++|\*(?!/))*+(?:\*/)?
        | ; | [^;'"\-/]++ | [-/]""",
    re.VERBOSE,
)
_MAY_BE_CUT = "'\"-/"  # how tokens begin that a piece of the file may end in
_ALLOWED = (
    ast.Insert, ast.Update, ast.Delete, ast.CreateCollection, ast.CreateIndex, ast.DropCollection,
    ast.DropIndex, ast.Pragma, ast.Begin, ast.Commit,
)  # fmt: skip
_PLACE = re.compile(r" \(line (\d+), column (\d+)\)$")


# ------------------------------------------------------------------------- dump


def dump(connection: Connection, names: list[str], output: str | None) -> int:
    """Write the statements to a file, or to stdout; returns how many rows there were.

    The file is there when all of it is written, or stays as it was. Links are followed; a pipe or
    a device is written to, not replaced.
    """
    if output is None:
        return _write(connection, names, _as_text(sys.stdout, "utf-8"))
    real = os.path.realpath(output)
    for mine in (connection.path, connection.path + "-wal", connection.path + "-shm"):
        if real == mine or (os.path.exists(real) and _is_file(mine, real)):
            raise InterfaceError(f"{output} is the database itself or one of its files")
    try:
        if os.path.lexists(real) and not stat.S_ISREG(os.stat(real).st_mode):  # raises of a circle
            with open(real, "w", encoding="utf-8", newline="") as file:  # a pipe, a device
                return _write(connection, names, file)
        return _replace(connection, names, real)
    except OSError as error:
        raise io_error(error, "write", output) from error


def _as_text(stream: IO[str], encoding: str) -> IO[str]:
    """A standard stream in the encoding of files, its line ends left as they are."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding=encoding, newline="")
    return stream


def _is_file(path: str, other: str) -> bool:
    return os.path.exists(path) and os.path.samefile(path, other)


def _replace(connection: Connection, names: list[str], path: str) -> int:
    """Write a file of its own, which takes the other's place when it is whole."""
    partial = f"{path}.{os.getpid()}.part"
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            rows = _write(connection, names, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    return rows


def _write(connection: Connection, names: list[str], file: IO[str]) -> int:
    progress = Progress("dumping rows:")

    def write(view: View) -> None:
        for statement in statements(view, names or None, progress.add):
            file.write(statement)
            file.write("\n")

    connection.read(write)
    progress.close()
    return progress.done


# ------------------------------------------------------------------------- splitting


class Place(NamedTuple):
    """Where a statement begins in its file, from 1."""

    line: int
    column: int

    def behind(self, text: str) -> Place:
        """The place behind a text that begins here."""
        lines = text.count("\n")
        if not lines:
            return Place(self.line, self.column + len(text))
        return Place(self.line + lines, len(text) - text.rindex("\n"))


def split(file: IO[str]) -> Iterator[tuple[str, Place]]:
    """The statements of a file, each with its semicolon, and where it begins."""
    text, start, scanned, place, size = "", 0, 0, Place(1, 1), CHUNK
    is_whole = False
    while True:
        end, scanned = _end_of_statement(text, scanned, is_whole)
        if end < 0 and not is_whole:
            piece = file.read(size)
            is_whole = not piece
            text, start, scanned, size = text[start:] + piece, 0, scanned - start, size * 2
            continue
        statement = text[start : end if end >= 0 else len(text)]
        stripped = statement.lstrip()
        if stripped not in ("", ";"):
            yield stripped, place.behind(statement[: len(statement) - len(stripped)])
        if end < 0:
            return
        place = place.behind(statement)
        start, scanned, size = end, end, CHUNK


def _end_of_statement(text: str, start: int, is_whole: bool) -> tuple[int, int]:
    """The end of the statement in which `start` lies, -1 where the text does not have it.

    Then also where to go on when there is more text: a token that ends with it may be cut.
    """
    for found in _TOKEN.finditer(text, start):
        if found[0] == ";":
            return found.end(), found.end()
        if found.end() == len(text) and not is_whole and found[0][0] in _MAY_BE_CUT:
            return -1, found.start()
    return -1, len(text)


# ------------------------------------------------------------------------- load


def load(path: str, source: str, page_size: int = 4096) -> dict[str, Any]:
    """Make a database from a dump, `-` for stdin; what was made, for people and JSON.

    Raises OperationalError where the database exists; what is wrong in the dump as the error that
    it is, with file and line.
    """
    from m2mdb.opening import connect, new_file

    real = new_file(path)
    with contextlib.ExitStack() as stack:
        if source == "-":
            file: IO[str] = _as_text(sys.stdin, "utf-8-sig")
        else:
            file = stack.enter_context(open(source, encoding="utf-8-sig", newline=""))
            file.read(0)
        start = time.perf_counter()
        connection = connect(path, autocommit=True, page_size=page_size)
        try:
            job = Load(connection, file, "stdin" if source == "-" else source)
            job.run()
        except BaseException:
            connection.close()
            for name in (real, real + "-wal", real + "-shm"):
                with contextlib.suppress(OSError):
                    os.unlink(name)
            raise
        connection.close()
    return {
        "path": path,
        "statements": job.statements,
        "rows": job.rows,
        "seconds": round(time.perf_counter() - start, 3),
    }


class Load:
    """One dump on its way into a database."""

    def __init__(self, connection: Connection, file: IO[str], name: str) -> None:
        self.connection = connection
        self.file = file
        self.name = name
        self.statements = 0
        self.rows = 0
        self.is_open = False  # inside the dump's own transaction
        self.gathered = Gathered()
        self.progress = Progress("loading rows:")

    def run(self) -> None:
        """Run all statements in one transaction (LD1, LD3)."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            for text, place in split(self.file):
                self.statement(text, place)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name} is not UTF-8: {error}") from None
        self.flush()
        self.progress.close()
        if not self.statements:
            raise DataError(f"{self.name} holds no statement")
        if self.is_open:
            raise DataError(f"{self.name} is cut short: its transaction has no COMMIT")
        self.connection.commit()

    def statement(self, text: str, place: Place) -> None:
        """Run one statement, or gather it with those before it."""
        try:
            tree = parse(text)
        except ProgrammingError as error:
            if str(error).startswith("empty statement"):
                return  # comments alone
            raise self.placed(error, place) from None
        except Error as error:
            raise self.placed(error, place) from None
        self.statements += 1
        if not isinstance(tree, _ALLOWED):
            word = text.split()[0].upper()
            raise self.placed(ProgrammingError(f"{word} does not belong in a dump"), place)
        if isinstance(tree, ast.Begin | ast.Commit):
            self.is_open = isinstance(tree, ast.Begin)
            return
        rows = constant_rows(tree)
        if rows is None or not isinstance(tree, ast.Insert):
            self.flush()
            try:
                self.connection.execute(text)
            except Error as error:
                raise self.placed(error, place) from error
            return
        if not self.gathered.fits(tree):
            self.flush()
        self.gathered.add(tree, rows, (len(text), place))
        if self.gathered.is_full:
            self.flush()

    def flush(self) -> None:
        """Insert what was gathered."""
        gathered, self.gathered = self.gathered, Gathered()
        if not gathered.rows:
            return
        try:
            self.connection.executemany(gathered.statement(), gathered.rows)
        except Error as error:
            raise self.placed(*gathered.located(error)) from error
        self.rows += len(gathered.rows)
        self.progress.add(len(gathered.rows))

    def placed(self, error: Error, place: Place) -> Error:
        """The error with the place in the file, which a parser's place in the statement refines."""
        text = str(error)
        found = _PLACE.search(text)
        if found is not None:
            line, column = int(found[1]), int(found[2])
            column += place.column - 1 if line == 1 else 0
            place, text = Place(place.line + line - 1, column), text[: found.start()]
            return type(error)(f"{self.name}, line {place.line}, column {place.column}: {text}")
        return type(error)(f"{self.name}, line {place.line}: {text}")


class Gathered:
    """INSERTs of constants into the same columns, to be one insertion."""

    def __init__(self) -> None:
        self.tree: ast.Insert | None = None
        self.rows: list[list[Any]] = []
        self.size = 0
        self.places: list[tuple[int, Place]] = []  # the first row of each statement

    @property
    def is_full(self) -> bool:
        """Whether it is time to insert (LD2)."""
        return len(self.rows) >= GATHERED_ROWS or self.size >= GATHERED_BYTES

    def fits(self, tree: ast.Insert) -> bool:
        """Whether a statement names the same columns."""
        known = self.tree
        return known is None or (
            known.collection == tree.collection and known.columns == tree.columns
        )

    def add(self, tree: ast.Insert, rows: list[list[Any]], where: tuple[int, Place]) -> None:
        """Take the rows of a statement of some length, and its place."""
        self.tree = tree
        self.places.append((len(self.rows), where[1]))
        self.rows += rows
        self.size += where[0]

    def statement(self) -> str:
        """The INSERT with parameters."""
        tree = self.tree
        assert tree is not None
        names = "" if tree.columns is None else f" ({', '.join(map(quoted, tree.columns))})"
        marks = ", ".join("?" * len(self.rows[0]))
        return f"INSERT INTO {quoted(tree.collection)}{names} VALUES ({marks})"

    def located(self, error: Error) -> tuple[Error, Place]:
        """An error with the place of the statement whose row it names, else of the first."""
        from m2mdb.query.copying import ROW

        found = ROW.search(str(error))
        row = int(found[1] or found[2]) if found is not None else 0
        first, place = [each for each in self.places if each[0] <= row][-1]
        if found is None:
            return error, place
        text = str(error)
        text = f"{text[: found.start()]}, row {row - first + 1} of VALUES{text[found.end() :]}"
        return type(error)(text), place


def constant_rows(tree: Statement) -> list[list[Any]] | None:
    """The rows of a plain INSERT of constants; None where it is something else."""
    if not isinstance(tree, ast.Insert) or not tree.rows or tree.returning is not None:
        return None
    if tree.or_action is not None or tree.on_conflict is not None:
        return None
    width = len(tree.rows[0])
    if not width or (tree.columns is not None and len(tree.columns) != width):
        return None
    try:
        return [[_constant(value) for value in row] for row in tree.rows]
    except TypeError:
        return None


def _constant(node: Expression) -> Any:
    """The value of a literal; TypeError where it is none."""
    if type(node) is Literal:
        return node.value
    if type(node) is VectorLiteral:
        return node.values
    if type(node) is Unary and node.operator in "-+" and type(node.operand) is Literal:
        value = node.operand.value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value if node.operator == "-" else value
    raise TypeError
