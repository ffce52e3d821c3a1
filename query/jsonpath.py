"""JSON: documents and their text, paths into them, `->`, `->>` and json_extract.

Numbers keep the text that they were written with. Of the equal keys of an object the first counts.
A path is `$.user.name`, `$[0].x`, `$[#-1]`, `$."a key"`; or, for the operators, an index, a
label, or labels joined by points (`user.name`), where no label with those points is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from m2mdb.pager.errors import DataError, ProgrammingError
from m2mdb.query.affinity import INT64_MAX, INT64_MIN, Value, real_text, shown, to_text

MISSING = object()
quoted: Callable[[str], str] = json.encoder.encode_basestring
_STEP = re.compile(r'\.(?:"((?:[^"\\]|\\.)*)"|([^.\[]+))|\[(#?-?\d*)\]')
Step = str | tuple[bool, int]  # a label, or (counts from the end, number)


class Numeral(float):
    """A real of a document, with its text."""

    __slots__ = ("text",)

    def __new__(cls, text: str) -> Numeral:
        """The number that the text means."""
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str


class MinusZero(int):
    """The integer -0 of a document, which is written as it was."""

    def __str__(self) -> str:
        return "-0"


def _integer(text: str) -> int:
    return MinusZero() if text == "-0" else int(text)


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        for key, value in reversed(pairs):
            made[key] = value
    return made


_HOOKS: dict[str, Any] = {
    "parse_float": Numeral, "parse_constant": _refused, "object_pairs_hook": _object
}  # fmt: skip
_DECODER: Any = json.JSONDecoder(**_HOOKS)
_PLAIN_DECODER: Any = json.JSONDecoder(parse_constant=_refused)
_decode, _scan = _DECODER.decode, _DECODER.scan_once
_decode_exactly = json.JSONDecoder(parse_int=_integer, **_HOOKS).decode
SHARED_CHARACTERS = 1 << 16  # of a text whose document is kept till the next one is read
_shared: tuple[Value, Any] = (None, None)
_plain: tuple[Value, Any] = (None, None)
scan_plainly = _PLAIN_DECODER.scan_once


def load(text: Value) -> Any:
    """The document of a JSON text.

    Raises DataError: malformed JSON.
    """
    source = text if type(text) is str else to_text(text) or ""
    if "-0" not in source:
        try:
            document, end = _scan(source, 0)
            if end == len(source):
                return document
        except (StopIteration, ValueError, RecursionError):
            pass  # blanks before it, or a fault that is told below
    try:
        return _decode_exactly(source) if "-0" in source else _decode(source)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"malformed JSON: {shown(source)}: {problem}") from None


def read(text: Value) -> Any:
    """As `load`, for reading only: several parts of one text are read of one document."""
    global _shared
    known, document = _shared
    if known is text and type(text) is str:
        return document
    document = load(text)
    if type(text) is str and len(text) <= SHARED_CHARACTERS:
        _shared = text, document
    return document


def dump(document: Any) -> str:
    """A document as compact JSON text.

    Raises DataError: it is nested too deep.
    """
    try:
        return _text(document)
    except RecursionError:
        raise DataError("JSON is nested too deep") from None


def _text(document: Any) -> str:
    kind = type(document)
    if kind is str:
        return quoted(document)
    if kind is Numeral:
        return str(document.text)
    if kind is dict:
        return "{" + ",".join([f"{quoted(k)}:{_text(v)}" for k, v in document.items()]) + "}"
    if kind is list:
        return "[" + ",".join(map(_text, document)) + "]"
    if document is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[document]
    return real_json(document) if kind is float else str(document)


def real_json(value: float) -> str:
    """A real as a JSON number; an infinity as one that is beyond all reals."""
    if value in (float("inf"), float("-inf")):
        return "9e999" if value > 0 else "-9e999"
    return real_text(value)


@lru_cache(maxsize=256)
def steps_of(path: str) -> tuple[Step, ...]:
    """The steps of a path that begins with `$`.

    Raises ProgrammingError: a malformed path.
    """
    if not path.startswith("$"):
        raise ProgrammingError(f"malformed JSON path {path!r} at character 1; it begins with $")
    steps: list[Step] = []
    index = 1
    while index < len(path):
        found = _STEP.match(path, index)
        if found is None:
            raise ProgrammingError(f"malformed JSON path {path!r} at character {index + 1}")
        quoted, label, number = found.groups()
        try:
            if number is not None:
                steps.append(_index_step(number, path))
            else:
                steps.append(json.loads(f'"{quoted}"') if quoted is not None else label)
        except ValueError as problem:  # of an escape, a control character, too many digits
            place = f"malformed JSON path {shown(path)} at character {index + 1}"
            raise ProgrammingError(f"{place}: {problem}") from None
        index = found.end()
    return tuple(steps)


def _index_step(number: str, path: str) -> Step:
    from_end = number.startswith("#")
    digits = number.removeprefix("#")
    if not digits and from_end:
        return True, 0
    if not digits or (digits.startswith("-") != from_end) or digits == "-":
        raise ProgrammingError(f"malformed JSON path {path!r}: [{number}]")
    return from_end, int(digits)


def walk(document: Any, steps: tuple[Step, ...]) -> Any:
    """What stands at the end of the steps, or MISSING."""
    for step in steps:
        if isinstance(step, str):
            if not isinstance(document, dict) or step not in document:
                return MISSING
            document = document[step]
        else:
            from_end, number = step
            if not isinstance(document, list):
                return MISSING
            place = len(document) + number if from_end else number
            if not 0 <= place < len(document):
                return MISSING
            document = document[place]
    return document


def follow(document: Any, path: Value) -> Any:
    """What stands at an operator's path: an index, a `$` path, a label or dotted labels."""
    if type(path) is int:
        return walk(document, ((path < 0, path),))
    label = to_text(path) or ""
    if label.startswith("$"):
        return walk(document, steps_of(label))
    found = walk(document, (label,))
    if found is MISSING and "." in label:
        return walk(document, tuple(label.split(".")))
    return found


def sql_value(document: Any) -> Value:
    """A part of a document as an SQL value; objects and arrays stay JSON text."""
    if type(document) is str or document is None:
        return document
    if isinstance(document, dict | list):
        return dump(document)
    if isinstance(document, bool):
        return int(document)
    if isinstance(document, float):
        return float(document)
    if isinstance(document, int) and not INT64_MIN <= document <= INT64_MAX:
        return float(document)
    return int(document) if type(document) is MinusZero else document


def arrow(text: Value, path: Value) -> Value:
    """`text -> path`: JSON text, or NULL where there is nothing."""
    if text is None or path is None:
        return None
    found = follow(read(text), path)
    return None if found is MISSING else dump(found)


def double_arrow(text: Value, path: Value) -> Value:
    """`text ->> path`: an SQL value, or NULL where there is nothing."""
    if text is None or path is None:
        return None
    found = follow(read(text), path)
    return None if found is MISSING else sql_value(found)


def json_extract(text: Value, *paths: Value) -> Value:
    """`json_extract(text, path, …)`: a value; for several paths a JSON array of them."""
    if text is None or any(path is None for path in paths) or not paths:
        return None
    document = read(text)
    found = [walk(document, steps_of(to_text(path) or "")) for path in paths]
    if len(paths) == 1:
        return None if found[0] is MISSING else sql_value(found[0])
    return dump([None if part is MISSING else part for part in found])


def extractor(path: Value) -> Callable[[Value], Value] | None:
    """json_extract() of one path that is known; None for one that has to be refused, and NULL."""
    try:
        steps = steps_of(path) if type(path) is str else None
    except ProgrammingError:
        return None
    if steps is None:
        return None
    return _reader(steps, lambda text: json_extract(text, path))


def double_arrow_at(path: Value) -> Callable[[Value], Value] | None:
    """`->>` with a label that is known and has no point; None for all other paths."""
    if type(path) is not str or path.startswith("$") or "." in path:
        return None
    return _reader((path,), lambda text: double_arrow(text, path))


def _reader(steps: tuple[Step, ...], exactly: Callable[[Value], Value]) -> Callable[[Value], Value]:
    """What reads a number or a text at some steps; all that takes care is read exactly.

    Without the hooks a document is decoded in half the time, but of equal keys the last counts,
    and numbers lose their text. So a label on the way has to stand in the text once at most, no
    key may be written in another way, and what is found may be no object and no array.
    """
    labels = [quoted(step) for step in steps if isinstance(step, str)]
    is_plain = all("\\" not in label for label in labels)

    def run(text: Value) -> Value:
        if type(text) is not str or not is_plain or "\\" in text:
            return exactly(text)
        for label in labels:
            if text.count(label) > 1:
                return exactly(text)
        document = _plainly(text)
        found = walk(document, steps)
        kind = type(found)
        if kind is dict or kind is list or document is MISSING:
            return exactly(text)
        return None if found is MISSING else sql_value(found)

    return run


def _plainly(text: str) -> Any:
    """A document decoded without the hooks; MISSING where that cannot be."""
    global _plain
    known, document = _plain
    if known is text:
        return document
    try:
        document, end = scan_plainly(text, 0)
    except (StopIteration, ValueError, RecursionError):
        return MISSING
    if end != len(text):
        return MISSING
    if end <= SHARED_CHARACTERS:
        _plain = text, document
    return document


def json_valid(text: Value) -> Value:
    """`json_valid(text)`: 1 or 0, NULL for NULL."""
    if text is None:
        return None
    if type(text) is str and _plainly(text) is not MISSING:
        return 1
    try:
        load(text)
    except DataError:
        return 0
    return 1


def _at(text: Value, path: Value) -> Any:
    return walk(read(text), steps_of(to_text(path) or ""))


def json_array_length(text: Value, path: Value = "$") -> Value:
    """`json_array_length(text [, path])`: 0 where it is no array."""
    if text is None or path is None:
        return None
    found = _at(text, path)
    if found is MISSING:
        return None
    return len(found) if isinstance(found, list) else 0


_TYPE_NAMES: dict[type, str] = {
    dict: "object", list: "array", str: "text", int: "integer", type(None): "null",
}  # fmt: skip


def json_type(text: Value, path: Value = "$") -> Value:
    """`json_type(text [, path])`: object, array, text, integer, real, true, false or null."""
    if text is None or path is None:
        return None
    found = _at(text, path)
    return None if found is MISSING else type_of(found)


def type_of(document: Any) -> str:
    """What a part of a document is: object, array, text, integer, real, true, false or null."""
    if isinstance(document, bool):
        return "true" if document else "false"
    if isinstance(document, MinusZero):
        return "integer"
    return "real" if isinstance(document, float) else _TYPE_NAMES[type(document)]


def minify(text: Value) -> Value:
    """`json(text)`: the same document without spaces."""
    return None if text is None else dump(load(text))
