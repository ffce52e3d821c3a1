"""Documents: the objects of a JSON Lines file or the records of a CSV file, with their lines.

A document's line is the one on which it ends: a CSV field may hold line breaks.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from m2mdb.pager.errors import DataError, OperationalError

Document = dict[str, Any]
Numbered = tuple[int, Document]


class _Repeating(dict[str, Any]):
    """An object in which a key stands twice; as in the language, the first counts."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> Document:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeating = _Repeating()
    for key, value in pairs:
        if key in repeating:
            repeating.key = key
        repeating.setdefault(key, value)
    return repeating


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_BLANK = re.compile(r"[ \t\r\n]*")


def read_documents(path: str) -> Iterator[Numbered]:
    """The documents of a .jsonl or .csv file, packed with gzip or not, with their lines.

    Raises DataError naming the line that is malformed, OperationalError where there is no file.
    """
    name = path.removesuffix(".gz")
    try:
        with open_text(path) as file:
            yield from (read_csv if name.endswith(".csv") else read_jsonl)(file, path)
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise OperationalError(f"{path}: {error.strerror or error}") from error


def open_text(path: str) -> IO[str]:
    """The file as UTF-8 text."""
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return Path(path).open(encoding="utf-8-sig", newline="")


def read_jsonl(
    file: IO[str], path: str, decode: Callable[[str], Any] = _DECODER.decode
) -> Iterator[Numbered]:
    """One JSON object a line; empty lines are passed over.

    decode   what makes a document of a line; ValueError where it is no JSON
    """
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            document = decode(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        if isinstance(document, _Repeating):
            raise DataError(f"{path}, line {number}: the key {document.key!r} stands twice")
        if not isinstance(document, dict):
            raise DataError(
                f"{path}, line {number}: {type(document).__name__}, wanted is an object"
            )
        yield number, document


def spelled(line: str) -> Any:
    """A line's object, each member as its value and the text that stands there.

    What is no object is given as it is. Raises ValueError: no JSON.
    """
    at = _after(line, 0)
    if line[at : at + 1] != "{":
        return _DECODER.decode(line)
    pairs: list[tuple[str, Any]] = []
    at = _after(line, at + 1)
    while line[at : at + 1] != "}" or pairs:
        if line[at : at + 1] != '"':
            raise json.JSONDecodeError(
                "Expecting property name enclosed in double quotes", line, at
            )
        key, at = _DECODER.raw_decode(line, at)
        at = _after(line, at, ":")
        value, end = _DECODER.raw_decode(line, at)
        pairs.append((key, (value, line[at:end])))
        at = _after(line, end)
        if line[at : at + 1] == "}":
            break
        at = _after(line, at, ",")
    if _after(line, at + 1) < len(line):
        raise json.JSONDecodeError("Extra data", line, at + 1)
    return _object(pairs)


def _blank(line: str, at: int) -> int:
    found = _BLANK.match(line, at)
    assert found is not None, "it matches no blanks too"
    return found.end()


def _after(line: str, at: int, mark: str = "") -> int:
    """Where what follows a mark begins."""
    at = _blank(line, at)
    if not line.startswith(mark, at):
        raise json.JSONDecodeError(f"Expecting {mark!r}", line, at)
    return _blank(line, at + len(mark))


def read_csv(file: IO[str], path: str) -> Iterator[Numbered]:
    """One record a line under a line of names; numbers become numbers, nothing becomes NULL."""
    import csv

    csv.field_size_limit(1 << 30)
    reader = csv.reader(file)
    try:
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise DataError(f"{path}, line 1: expected the names of columns, each once")
        for record in reader:
            if not record:
                continue
            if len(record) != len(names):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(record)} fields, "
                    f"the first line names {len(names)}"
                )
            yield reader.line_num, dict(zip(names, map(csv_value, record), strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def csv_value(text: str) -> Any:
    """A field as a number where writing the number gives the same text back."""
    if not text:
        return None
    if text[-1].isdigit() and text[0] in "-0123456789":
        try:
            number: int | float = float(text) if "." in text or "e" in text else int(text)
        except ValueError:
            return text
        if str(number) == text and math.isfinite(number):
            return number
    return text
