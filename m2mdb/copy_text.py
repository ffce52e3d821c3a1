"""JSON Lines and CSV, as COPY reads and writes them.

    column      in JSON Lines                      in CSV
    INTEGER …   number                             digits
    REAL        number; infinity as "inf"          digits, inf
    BOOLEAN     true, false                        true, false
    TEXT        string                             the text, quoted where it has to be
    TIMESTAMP   ISO 8601 with its zone             the same
    JSON        the value itself, as it is spelled its text
    BLOB        base64                             base64
    VECTOR      array of numbers                   the same, as text
    NULL        null                               nothing; an empty text is ""

CSV is RFC 4180 with UTF-8 and a line of names; lines may end in LF too.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from m2mdb.documents import open_text, read_jsonl, spelled
from m2mdb.index.slices import watched
from m2mdb.pager.errors import DataError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema, Column
    from m2mdb.index.slices import Check
    from m2mdb.query.columnar import Column as Values

Batch = tuple[Mapping[str, Any], int]
INT8_MIN, INT8_MAX = -128, 127
ONE_LINE = {ord("\n"): " ", ord("\r"): " "}  # JSON has them between values only
NO_JSON = re.compile("NaN|Infinity")
INFINITE = ("inf", "-inf")  # as both formats write a REAL beyond all numbers


# Values


def plain_value(value: Any, type: str) -> Any:
    """A value as JSON has it."""
    if value is None:
        return None
    if type == "JSON":
        return json.loads(value)
    if type == "BLOB":
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return value


def member_text(value: Any, type: str) -> str:
    """A value as it stands in a line of JSON; a JSON column's text as it is, in one line."""
    if type == "JSON" and isinstance(value, str):
        return value.translate(ONE_LINE)
    return json.dumps(plain_value(value, type), ensure_ascii=False, allow_nan=False)


def text_value(value: Any, type: str) -> str | None:
    """A value as a field of CSV; None for NULL."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, np.ndarray):
        return json.dumps(value.tolist())
    return str(plain_value(value, type))


def given_value(value: Any, column: Column, place: str) -> Any:
    """A value of a file as the column takes it."""
    if value is None:
        return None
    if column.type == "BLOB" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise DataError(f"{place}, {column.name}: is no base64: {error}") from error
    if column.is_vector:
        return _vector(value, column, place)
    if column.type == "REAL" and isinstance(value, str) and value in INFINITE:
        return float(value)
    return value


def _vector(value: Any, column: Column, place: str) -> Any:
    """A list of numbers, or the text of one; integers for an i8 column."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}, {column.name}: is no list of numbers: {error}") from error
    is_list = column.dtype == "i8" and isinstance(value, list)
    if is_list and all(type(each) is int and INT8_MIN <= each <= INT8_MAX for each in value):
        return np.array(value, np.int8)
    return value


class TextReader:
    """What both formats share: an open text and the columns by their names."""

    def __init__(self, path: str, schema: CollectionSchema, options: Mapping[str, Any]) -> None:
        self.path = path
        self.schema = schema
        self.total: int | None = None
        self.lines: list[int] = []
        self.file: IO[str] = open_text(path)

    def batches_of(
        self,
        rows: Iterator[tuple[int, Mapping[str, Any]]],
        count: int,
        take: Callable[..., Any],
        check: Check,
    ) -> Iterator[Batch]:
        """Rows with their lines as columns; a name that a row lacks is NULL in it."""
        rows = watched(rows, check)
        while some := list(islice(rows, count)):
            self.lines = [line for line, _ in some]
            names = dict.fromkeys(name for _, row in some for name in row)
            for name in names:
                if self.schema.position(name) is None:
                    self.check_name(name, next(line for line, row in some if name in row))
            yield (
                {
                    name: [take(row.get(name), name, line) for line, row in watched(some, check)]
                    for name in names
                },
                len(some),
            )

    def check_name(self, name: str, line: int) -> None:
        """Raise ProgrammingError, with the line, where no column has a name."""
        try:
            self.schema.column(name)
        except ProgrammingError as error:
            raise ProgrammingError(f"{self.path}, line {line}: {error}") from None

    def take(self, value: Any, name: str, line: int) -> Any:
        """A value for the column of a name; ProgrammingError where there is no such column."""
        column = self.schema.columns[self.schema.column(name)]
        return given_value(value, column, f"{self.path}, line {line}")

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def new_text(path: str) -> IO[str]:
    """A file of UTF-8 text, to be closed by whoever has it."""
    return Path(path).open("w", encoding="utf-8", newline="")


class TextWriter:
    """What both formats share."""

    def __init__(
        self, path: str, schema: CollectionSchema, options: Mapping[str, Any], rows: int
    ) -> None:
        shown = [schema.columns[index] for index in schema.shown_columns]
        self.columns = [column.name for column in shown]
        self.types = [column.type for column in shown]
        self.file = new_text(path)

    def rows(
        self, columns: list[Values], shape: Callable[[Any, str], Any], check: Check
    ) -> Iterator[Any]:
        """A batch by rows, each value as the format has it."""
        shaped = [
            [shape(value, type) for value in watched(column.values(), check)]
            for column, type in zip(columns, self.types, strict=True)
        ]
        return watched(zip(*shaped, strict=True), check)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


# JSON Lines


class JsonlReader(TextReader):
    """An object a line; empty lines are passed over."""

    def batches(self, rows: int, check: Check) -> Iterator[Batch]:
        """See `query.copying.FileReader`."""
        if any(column.type == "JSON" for column in self.schema.columns):
            lines = read_jsonl(self.file, self.path, spelled)
            return self.batches_of(iter(lines), rows, self.take_spelled, check)
        return self.batches_of(iter(read_jsonl(self.file, self.path)), rows, self.take, check)

    def take_spelled(self, member: tuple[Any, str] | None, name: str, line: int) -> Any:
        """A JSON column takes any value as it is spelled, a string too; `null` is NULL.

        JSON has one word for both, and files of others mean NULL by it.
        """
        value, text = member or (None, "null")
        column = self.schema.columns[self.schema.column(name)]
        if column.type != "JSON" or value is None:
            return self.take(value, name, line)
        if NO_JSON.search(text):  # which Python reads as a number
            _refuse_constants(text, f"{self.path}, line {line}, {name}")
        return text


def _refuse_constants(text: str, place: str) -> None:
    def refuse(word: str) -> None:
        raise DataError(f"{place}: is no JSON: {word}")

    json.loads(text, parse_constant=refuse)


class JsonlWriter(TextWriter):
    """An object a line, with every column."""

    def write(self, columns: list[Values], check: Check) -> None:
        """Add a batch."""
        names = [json.dumps(name, ensure_ascii=False) for name in self.columns]
        for row in self.rows(columns, member_text, check):
            members = [f"{name}: {text}" for name, text in zip(names, row, strict=True)]
            self.file.write("{" + ", ".join(members) + "}\n")


# CSV


def check_delimiter(options: Mapping[str, Any]) -> str:
    """The option `delimiter`; ProgrammingError where it is not one character that may be one."""
    delimiter = options.get("delimiter", ",")
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ProgrammingError(f"COPY: delimiter {delimiter!r} is not one character")
    return delimiter


class CsvReader(TextReader):
    """Records under a line of names."""

    def __init__(self, path: str, schema: CollectionSchema, options: Mapping[str, Any]) -> None:
        mark = re.escape(check_delimiter(options))
        self.field = re.compile(rf'(?:"((?:[^"]|"")*+)"|([^"\r\n{mark}]++)?)({mark}|\Z)')
        super().__init__(path, schema, options)

    def batches(self, rows: int, check: Check) -> Iterator[Batch]:
        """See `query.copying.FileReader`."""
        records = self.records()
        _, names = next(records, (1, []))
        if None in names or len(set(names)) < len(names):
            raise DataError(f"{self.path}, line 1: expected the names of columns, each once")
        for name in names:  # without rows nobody else would ask for them
            self.check_name(str(name), 1)
        return self.batches_of(self._named(records, names), rows, self.take, check)

    def _named(
        self, records: Iterator[tuple[int, list[str | None]]], names: list[Any]
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for line, record in records:
            if record == [None] and len(names) > 1:
                continue  # an empty line
            if len(record) != len(names):
                raise DataError(
                    f"{self.path}, line {line}: {len(record)} fields, the first line names "
                    f"{len(names)}"
                )
            yield line, dict(zip(names, record, strict=True))

    def records(self) -> Iterator[tuple[int, list[str | None]]]:
        """Each record with the line that it ends on; an empty field is None, "" is a text."""
        pending, started = "", 0
        for number, line in enumerate(self.file, 1):
            pending = pending + line if pending else line
            started = started or number
            if pending.count('"') % 2:
                continue  # inside a quoted field that holds a line's end
            yield number, self._fields(pending.rstrip("\r\n"), number)
            pending, started = "", 0
        if pending:
            raise DataError(f"{self.path}, line {started}: a quoted field does not end")

    def _fields(self, text: str, line: int) -> list[str | None]:
        found: list[str | None] = []
        at = 0
        while True:
            match = self.field.match(text, at)
            if match is None:
                raise DataError(f"{self.path}, line {line}: a quote stands in the midst of a field")
            quoted, bare, end = match.groups()
            found.append(bare if quoted is None else quoted.replace('""', '"'))
            at = match.end()
            if not end:
                return found


class CsvWriter(TextWriter):
    """A line of names, then a record for each row."""

    def __init__(
        self, path: str, schema: CollectionSchema, options: Mapping[str, Any], rows: int
    ) -> None:
        self.delimiter = check_delimiter(options)
        super().__init__(path, schema, options, rows)
        self.file.write(self.delimiter.join(map(self.field, self.columns)) + "\r\n")

    def field(self, text: str | None) -> str:
        """A field, quoted where it is empty or holds a mark."""
        if text is None:
            return ""
        if text and self.delimiter not in text and not any(mark in text for mark in '"\r\n'):
            return text
        return '"' + text.replace('"', '""') + '"'

    def write(self, columns: list[Values], check: Check) -> None:
        """Add a batch."""
        for row in self.rows(columns, text_value, check):
            self.file.write(self.delimiter.join(map(self.field, row)) + "\r\n")
