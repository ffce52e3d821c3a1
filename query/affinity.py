"""Affinity: how a value becomes a number, a text or a moment where an operator wants one.

Values in expressions are None, int, float, str, bytes, bool (as 0 and 1), datetime (TIMESTAMP,
aware, UTC) and NumPy vectors. The rules are SQLite's; TIMESTAMP is a storage class beside them.

Invariants
    X1  An int that leaves this module fits 64 bits; what does not becomes a float.
    X2  No NaN leaves: it is NULL, as in SQLite.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

from m2mdb.index.values import refused_constant
from m2mdb.pager.errors import DataError, ProgrammingError

Value = Any

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
NUMERIC, TEXT, NONE, TIME = "numeric", "text", "none", "time"
AFFINITIES = {
    "INTEGER": NUMERIC,
    "REAL": NUMERIC,
    "NUMERIC": NUMERIC,
    "BOOLEAN": NUMERIC,
    "TEXT": TEXT,
    "JSON": TEXT,
    "TIMESTAMP": TIME,
}
COLLATED = (" COLLATE NOCASE", " COLLATE RTRIM")  # behind a type, or alone: `Column.value_type`
AFFINITIES |= {
    type + behind: affinity for type, affinity in AFFINITIES.items() for behind in COLLATED
}
_SPACE = " \t\n\v\f\r"
_PREFIX = re.compile(r"[ \t\n\v\f\r]*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)", re.ASCII)
_INTEGER_PREFIX = re.compile(r"[ \t\n\v\f\r]*([+-]?\d+)", re.ASCII)


def base_type(type: str | None) -> str | None:
    """A column type without its collation; None: any type."""
    if type is None or not type.endswith(COLLATED):
        return type
    return type.partition(" COLLATE ")[0] or None


def shown(value: object) -> str:
    """A value for messages, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _integer(digits: str) -> int | None:
    """A signed run of digits as an integer; None beyond 64 bits (X1)."""
    short = digits.lstrip("+-0")
    if len(short) > 19:
        return None
    value = int(short or "0")
    value = -value if digits[0] == "-" else value
    return value if INT64_MIN <= value <= INT64_MAX else None


def _number(numeral: str) -> int | float:
    """The number that a well-formed numeral means."""
    if numeral.lstrip("+-").isdigit():
        value = _integer(numeral)
        if value is not None:
            return value
    return float(numeral)


def number_prefix(text: str) -> int | float:
    """The number at the start of a text; 0 where there is none."""
    found = _PREFIX.match(text)
    return _number(found.group(1)) if found else 0


def to_number(value: Value) -> int | float | None:
    """An operand of arithmetic: text gives the number at its start.

    Raises DataError for a TIMESTAMP or a vector, which are no numbers.
    """
    kind = type(value)
    if kind is int or kind is float or value is None:
        number: int | float | None = value
        return number
    if kind is bool:
        return int(value)
    if kind is str:
        return number_prefix(value)
    if kind is bytes:
        return number_prefix(value.decode("utf-8", "replace"))
    raise DataError(f"{type_name(value)} {shown(value)} is not a number")


def to_integer(value: Value) -> int | None:
    """The integer of an operand: a real is cut towards zero and held to 64 bits; of a text, only
    its leading integer counts.
    """
    if type(value) is bytes:
        value = value.decode("utf-8", "replace")
    if type(value) is not str:
        number = to_number(value)
        return clamp(number) if isinstance(number, float) else number
    found = _INTEGER_PREFIX.match(value)
    if not found:
        return 0
    digits = found.group(1)
    integer = _integer(digits)
    if integer is None:
        return INT64_MIN if digits[0] == "-" else INT64_MAX
    return integer


def clamp(number: float) -> int:
    """A real as a 64-bit integer, cut towards zero (X1)."""
    if number != number:
        return 0
    if number <= -9.2233720368547758e18:
        return INT64_MIN
    return INT64_MAX if number >= 9.2233720368547758e18 else int(number)


def cast_integer(value: Value) -> int | None:
    """`CAST(value AS INTEGER)`; of a moment, its microseconds."""
    return microseconds(value) if isinstance(value, datetime.datetime) else to_integer(value)


def real_text(value: float) -> str:
    """A real as text: 15 digits and always a point, as SQLite writes it."""
    if value in (float("inf"), float("-inf")):
        return "Inf" if value > 0 else "-Inf"
    text = f"{value + 0.0:.15g}"  # -0.0 is written as 0.0
    if "." in text:
        return text
    mantissa, mark, exponent = text.partition("e")
    return f"{mantissa}.0{mark}{exponent}"


def to_text(value: Value) -> str | None:
    """A value as text: bytes as UTF-8, a TIMESTAMP in ISO form.

    Raises DataError for a vector.
    """
    kind = type(value)
    text: str
    if value is None:
        return None
    if kind is str:
        text = value
        return text
    if kind is int:
        return str(value)
    if kind is float:
        return real_text(value)
    if kind is bool:
        return "1" if value else "0"
    if kind is bytes:
        text = value.decode("utf-8", "replace")
        return text
    if isinstance(value, datetime.datetime):
        return time_text(value)
    raise DataError(f"{type_name(value)} {shown(value)} is not a text")


def utf8(text: str) -> bytes:
    """A text as bytes; DataError where it has surrogates, which no file can hold."""
    try:
        return text.encode()
    except UnicodeEncodeError as problem:
        raise DataError(f"text {shown(text)} is not valid Unicode: {problem}") from None


def time_text(value: datetime.datetime) -> str:
    """A moment in ISO 8601, in UTC, without the offset: it sorts as the moments do."""
    return value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(" ")


def to_time(value: Value) -> datetime.datetime | None:
    """A moment from a datetime, a date or an ISO 8601 text; naive means UTC.

    Raises DataError for anything else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value.strip())
        except ValueError:
            raise DataError(
                f"{shown(value)} is not a time; expected a datetime or ISO 8601 text"
            ) from None
    elif isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime.datetime):
        raise DataError(f"{shown(value)} is not a time; expected a datetime or ISO 8601 text")
    if value.tzinfo is None:
        return value.replace(tzinfo=datetime.UTC)
    return value.astimezone(datetime.UTC)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


def microseconds(value: datetime.datetime) -> int:
    """Microseconds since 1970, the stored form of a TIMESTAMP."""
    return (value - _EPOCH) // _MICROSECOND


def time_of(value: int) -> datetime.datetime:
    """The moment of a number of microseconds; DataError outside the years 1 to 9999."""
    try:
        return _EPOCH + datetime.timedelta(microseconds=value)
    except OverflowError:
        raise DataError(f"{value} microseconds lie outside the years 1 to 9999") from None


def numeral(text: str) -> int | float | None:
    """The number that a text is, with nothing but blanks around it; else None."""
    found = _PREFIX.match(text)
    if not found or text[found.end() :].strip(_SPACE):
        return None
    return _number(found.group(1))


def apply_numeric(value: Value) -> Value:
    """Numeric affinity: a text that is a whole numeral becomes a number, all else stays."""
    if type(value) is not str:
        return value
    number = numeral(value)
    if number is None:
        return value
    return shortened(number) if type(number) is float else number


def shortened(number: float) -> int | float:
    """A real as the integer it equals, where 15 digits surely tell it: below 2**51, as SQLite."""
    if -(2.0**51) <= number < 2.0**51 and number == int(number):
        return int(number)
    return number


def apply_text(value: Value) -> Value:
    """Text affinity: a number becomes text, all else stays."""
    kind = type(value)
    return to_text(value) if kind is int or kind is float or kind is bool else value


def apply_time(value: Value) -> Value:
    """Time affinity: a text, a date or an integer of microseconds since 1970, as INSERT takes them,
    becomes a moment, NULL stays; DataError for the rest.
    """
    if type(value) is datetime.datetime and value.tzinfo is datetime.UTC:
        return value
    return time_of(value) if type(value) is int else to_time(value)


APPLY: dict[str, Callable[[Value], Value]] = {
    NUMERIC: apply_numeric,
    TEXT: apply_text,
    TIME: apply_time,
}


def type_name(value: Value) -> str:
    """`typeof(value)`: null, integer, real, text, blob, boolean, timestamp or vector.

    A list or dict that a program has bound keeps its Python name.
    """
    kind = type(value)
    if kind is int:
        return "integer"
    if kind is str:
        return "text"
    if value is None:
        return "null"
    if kind is float:
        return "real"
    if kind is bool:
        return "boolean"
    if kind is bytes:
        return "blob"
    if isinstance(value, datetime.datetime):
        return "timestamp"
    return "vector" if hasattr(value, "dtype") else kind.__name__


def truth(value: Value) -> bool | None:
    """Whether a value counts as true; None for NULL.

    Raises DataError for a vector.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, datetime.datetime):
        return True
    return to_number(value) != 0


def cast_type(name: str) -> str:
    """The type that CAST means by a name, by SQLite's rules; NUMERIC where none fits.

    Raises ProgrammingError: VECTOR and TENSOR are no types to cast to.
    """
    upper = name.upper()
    if upper in AFFINITIES and not upper.endswith(COLLATED):
        return upper
    if upper.startswith(("VECTOR", "TENSOR")):
        raise ProgrammingError(f"CAST to {name} is not possible")
    for part, found in _CAST_PARTS:
        if part in upper:
            return found
    return "NUMERIC"


_CAST_PARTS = (
    ("DATETIME", "TIMESTAMP"), ("TIMESTAMP", "TIMESTAMP"), ("BOOL", "BOOLEAN"), ("INT", "INTEGER"),
    ("CHAR", "TEXT"), ("CLOB", "TEXT"), ("TEXT", "TEXT"), ("BLOB", "BLOB"), ("REAL", "REAL"),
    ("FLOA", "REAL"), ("DOUB", "REAL"),
)  # fmt: skip


def cast(value: Value, type: str) -> Value:
    """`CAST(value AS type)`, with `type` as `cast_type` gives it."""
    return None if value is None else _CASTS[type](value)


def _cast_real(value: Value) -> float:
    if isinstance(value, datetime.datetime):
        return float(microseconds(value))
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if isinstance(text, str):
        found = _PREFIX.match(text)
        return float(found.group(1)) if found else 0.0  # '-0' keeps its sign
    return float(to_number(value) or 0)


def _cast_numeric(value: Value) -> int | float:
    if isinstance(value, str | bytes):
        number = to_number(value)
        assert number is not None
        return shortened(number) if type(number) is float else number
    given: int | float = value
    return given


def _cast_blob(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if hasattr(value, "tobytes"):
        return bytes(value.tobytes())
    return utf8(to_text(value) or "")


def _cast_time(value: Value) -> datetime.datetime | None:
    return time_of(value) if type(value) is int else to_time(value)


def _cast_json(value: Value) -> str | None:
    import json

    text = to_text(value)
    try:
        json.loads(text or "", parse_constant=refused_constant)
    except ValueError as problem:
        raise DataError(f"malformed JSON: {shown(value)}: {problem}") from None
    return text


_CASTS: dict[str, Callable[[Value], Value]] = {
    "INTEGER": cast_integer,
    "REAL": _cast_real,
    "NUMERIC": _cast_numeric,
    "BOOLEAN": truth,
    "TEXT": to_text,
    "JSON": _cast_json,
    "BLOB": _cast_blob,
    "TIMESTAMP": _cast_time,
}
