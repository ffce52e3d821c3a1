"""Functions: the scalar functions of the language, on values, with SQLite's results.

Each entry of FUNCTIONS is the function and the least and greatest number of its arguments (None:
no limit). Those that need the statement's clock or randomness stand in CONTEXT_FUNCTIONS.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from m2mdb.pager.errors import DataError, OperationalError
from m2mdb.query.affinity import (
    INT64_MIN,
    Value,
    apply_numeric,
    real_text,
    time_text,
    to_integer,
    to_number,
    to_text,
    type_name,
    utf8,
)
from m2mdb.query.formatting import printf
from m2mdb.query.jsonpath import (
    json_array_length,
    json_extract,
    json_type,
    json_valid,
    minify,
)
from m2mdb.query.mathematics import MATHEMATICS
from m2mdb.query.pattern import glob, like

SLICE = 2048  # rows that a closure is run over between two checks for an interrupt
MAX_VALUE_BYTES = 1_000_000_000  # SQLite's limit on a string or blob
_LOWER = {letter: letter + 32 for letter in range(ord("A"), ord("Z") + 1)}
_UPPER = {letter + 32: letter for letter in range(ord("A"), ord("Z") + 1)}


def _abs(value: Value) -> Value:
    if isinstance(value, str | bytes):
        return abs(float(to_number(value) or 0))
    number = to_number(value)
    if number == INT64_MIN and type(number) is int:
        raise DataError(f"integer overflow: abs({number})")
    return None if number is None else abs(number)


def _lower(value: Value) -> Value:
    text = to_text(value)
    if text is None or text.isascii():
        return text and text.lower()
    return text.translate(_LOWER)


def _upper(value: Value) -> Value:
    text = to_text(value)
    if text is None or text.isascii():
        return text and text.upper()
    return text.translate(_UPPER)


def _length(value: Value) -> Value:
    if type(value) is bytes:
        return len(value)
    text = to_text(value)
    return None if text is None else len(text)


def _substr(value: Value, start: Value, length: Value = MAX_VALUE_BYTES) -> Value:
    source = value if type(value) is bytes else to_text(value)
    first, count = to_integer(start), to_integer(length)
    if source is None or source == b"" or first is None or count is None:
        return None
    backwards = count < 0
    count = abs(count)
    if first < 0:
        first += len(source)
        if first < 0:
            count = max(count + first, 0)
            first = 0
    elif first > 0:
        first -= 1
    elif count > 0:
        count -= 1
    if backwards:
        first -= count
        count += min(first, 0)
        first = max(first, 0)
    return source[first : first + count]


def _strip(cut: Callable[[str, str], str]) -> Callable[..., Value]:
    def run(value: Value, characters: Value = " ") -> Value:
        text, unwanted = to_text(value), to_text(characters)
        if text is None or unwanted is None:
            return None
        return cut(text, unwanted) if unwanted else text

    return run


def _replace(value: Value, old: Value, new: Value) -> Value:
    text, wanted, other = to_text(value), to_text(old), to_text(new)
    if text is None or wanted is None:
        return None
    if not wanted or other is None:
        return None if wanted else text if type(value) is bytes else value
    grown = len(text) + text.count(wanted) * (len(other) - len(wanted))
    if grown > MAX_VALUE_BYTES:
        raise DataError(f"replace() would give {grown} characters; the limit is 10**9")
    return text.replace(wanted, other)


def _round(value: Value, digits: Value = 0) -> Value:
    number, places = to_number(value), to_integer(digits)
    if number is None or places is None:
        return None
    number = float(number)
    if abs(number) >= 2.0**52:
        return number
    places = max(0, min(places, 30))
    if places == 0:
        return float(int(number + (0.5 if number >= 0 else -0.5)))
    exact = Decimal(real_text(number))
    exponent = exact.as_tuple().exponent
    assert isinstance(exponent, int), "a number has one, infinity is above"
    if exponent >= -places:
        return float(exact)
    return float(exact.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))


def _instr(value: Value, part: Value) -> Value:
    if value is None or part is None:
        return None
    if type(value) is bytes and type(part) is bytes:
        return value.find(part) + 1
    return (to_text(value) or "").find(to_text(part) or "") + 1


def _hex(value: Value) -> Value:
    if type(value) is bytes:
        return value.hex().upper()
    return utf8(to_text(value) or "").hex().upper()


def _quote(value: Value) -> Value:
    if value is None:
        return "NULL"
    if type(value) is bytes:
        return f"X'{value.hex().upper()}'"
    if isinstance(value, str | datetime.datetime):
        return "'" + str(to_text(value)).replace("'", "''") + "'"
    if type(value) is not float:
        return to_text(value)
    if value in (float("inf"), float("-inf")):
        return "9e999" if value > 0 else "-9e999"
    text = real_text(value)
    return text if float(text) == value else f"{value:.20e}"


def _unicode(value: Value) -> Value:
    text = to_text(value)
    return ord(text[0]) if text else None


def _char(*values: Value) -> Value:
    codes = [to_integer(value) or 0 for value in values]
    return "".join(chr(code) if 0 <= code <= 0x10FFFF else "\ufffd" for code in codes)


def _sign(value: Value) -> Value:
    number = apply_numeric(value)
    if not isinstance(number, int | float):
        return None
    return (number > 0) - (number < 0)


def _zeroblob(size: Value) -> Value:
    count = max(to_integer(size) or 0, 0)
    if count > MAX_VALUE_BYTES:
        raise DataError(f"zeroblob({count}): the limit is {MAX_VALUE_BYTES} bytes")
    return bytes(count)


def _like_function(pattern: Value, text: Value, escape: Value = None) -> Value:
    return like(text, pattern, escape)


def _glob_function(pattern: Value, text: Value) -> Value:
    return glob(text, pattern)


def _unhex(value: Value, ignored: Value = "") -> Value:
    """Bytes of hexadecimal digits; NULL for anything else. `ignored` may stand between pairs."""
    text, between = to_text(value), to_text(ignored)
    if text is None or between is None:
        return None
    pairs, index = [], 0
    while index < len(text):
        if text[index] in between and text[index] not in _HEX:
            index += 1
            continue
        pair = text[index : index + 2]
        if len(pair) < 2 or not set(pair) <= _HEX:
            return None
        pairs.append(pair)
        index += 2
    return bytes.fromhex("".join(pairs))


_HEX = frozenset("0123456789abcdefABCDEF")


def _octet_length(value: Value) -> Value:
    if type(value) is bytes:
        return len(value)
    text = to_text(value)
    return None if text is None else len(utf8(text))


def _concat(*values: Value) -> Value:
    return "".join(to_text(value) or "" for value in values)


def _concat_ws(separator: Value, *values: Value) -> Value:
    mark = to_text(separator)
    if mark is None:
        return None
    return mark.join([to_text(value) or "" for value in values if value is not None])


def _soundex(value: Value) -> Value:
    letters = [each for each in (to_text(value) or "").upper() if "A" <= each <= "Z"]
    if not letters:
        return "?000"
    found, last = letters[0], _SOUNDS.get(letters[0], "")
    for letter in letters[1:]:
        sound = _SOUNDS.get(letter, "")
        if sound and sound != last:
            found += sound
        last = sound
    return found[:4].ljust(4, "0")


_SOUNDS = {
    letter: digit
    for digit, letters in zip("123456", ("BFPV", "CGJKQSXZ", "DT", "L", "MN", "R"), strict=True)
    for letter in letters
}


FUNCTIONS: dict[str, tuple[Callable[..., Value], int, int | None]] = {
    **MATHEMATICS,
    "abs": (_abs, 1, 1),
    "char": (_char, 0, None),
    "concat": (_concat, 1, None),
    "concat_ws": (_concat_ws, 2, None),
    "format": (printf, 1, None),
    "glob": (_glob_function, 2, 2),
    "hex": (_hex, 1, 1),
    "instr": (_instr, 2, 2),
    "json": (minify, 1, 1),
    "json_array_length": (json_array_length, 1, 2),
    "json_extract": (json_extract, 1, None),
    "json_type": (json_type, 1, 2),
    "json_valid": (json_valid, 1, 1),
    "length": (_length, 1, 1),
    "like": (_like_function, 2, 3),
    "lower": (_lower, 1, 1),
    "ltrim": (_strip(str.lstrip), 1, 2),
    "octet_length": (_octet_length, 1, 1),
    "printf": (printf, 1, None),
    "quote": (_quote, 1, 1),
    "replace": (_replace, 3, 3),
    "round": (_round, 1, 2),
    "rtrim": (_strip(str.rstrip), 1, 2),
    "sign": (_sign, 1, 1),
    "soundex": (_soundex, 1, 1),
    "substr": (_substr, 2, 3),
    "substring": (_substr, 2, 3),
    "trim": (_strip(str.strip), 1, 2),
    "typeof": (type_name, 1, 1),
    "unhex": (_unhex, 1, 2),
    "unicode": (_unicode, 1, 1),
    "upper": (_upper, 1, 1),
    "zeroblob": (_zeroblob, 1, 1),
}


def _unchecked() -> None:
    """What is not run on a database is not stopped either."""


class Bindings(list[Any]):
    """The values bound to a statement's parameters, and what is one moment for all of it.

    Behind the program's values stand those of the statement's own subqueries.

    outer   the values that a correlated subquery reads of the row around it
    shared  what the statement's queries have in common: rows of the tables of WITH
    """

    __slots__ = ("_memo", "_moment", "check", "clock", "outer", "shared", "view")

    def __init__(self, values: Any = ()) -> None:
        super().__init__(values)
        self._moment: datetime.datetime | None = None
        self._memo: dict[object, Any] | None = None
        self.check: Callable[[], None] = _unchecked  # raises where the statement is to stop
        self.clock: Callable[[], float] | None = None  # the connection's, seconds since 1970
        self.view: Any = None  # the View that the statement runs on, once it does
        self.outer: tuple[Any, ...] = ()
        self.shared: dict[Any, Any] = {}

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """What `make` gives, computed once for this run of the statement."""
        if self._memo is None:
            self._memo = {}
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def program_values(self, count: int) -> Bindings:
        """The first values alone, at the same moment: what a subquery is bound to."""
        other = Bindings(self[:count])
        other._moment = self.moment
        other.check, other.clock, other.view = self.check, self.clock, self.view
        other.outer, other.shared = self.outer, self.shared
        return other

    def _now(self) -> datetime.datetime:
        """The connection's clock; the machine's where no statement runs."""
        clock = self.clock if self.view is None else self.view.database.now
        if clock is None:
            return datetime.datetime.now(datetime.UTC)
        return datetime.datetime.fromtimestamp(clock(), datetime.UTC)

    @property
    def moment(self) -> datetime.datetime:
        """The statement's time: the same however often it is asked for."""
        if self._moment is None:
            try:
                self._moment = self._now()
            except OSError as problem:
                raise OperationalError(f"the clock cannot be read: {problem}") from problem
        return self._moment


def random_bytes(bindings: Bindings, count: int) -> bytes:
    """Random bytes from the Vfs of the file that the statement runs on.

    OperationalError where it runs on none: what is planned has no random number yet.
    """
    if bindings.view is None:
        raise OperationalError("random() gives nothing before the statement runs")
    found: bytes = bindings.view.database.store.vfs.random(count)
    return found


def _random(bindings: Bindings) -> Value:
    return int.from_bytes(random_bytes(bindings, 8), "little", signed=True)


def randomblob(bindings: Bindings, size: Value) -> Value:
    """So many random bytes, one at least; DataError beyond what a value may have."""
    count = max(to_integer(size) or 0, 1)
    if count > MAX_VALUE_BYTES:
        raise DataError(f"randomblob({count}): the limit is {MAX_VALUE_BYTES} bytes")
    return random_bytes(bindings, count)


def _timestamp_text(bindings: Bindings) -> Value:
    return time_text(bindings.moment.replace(microsecond=0))


def _of_database(name: str) -> Callable[[Bindings], Value]:
    """What the connection knows of the statements before this one; 0 where there is none."""
    return lambda bindings: 0 if bindings.view is None else getattr(bindings.view.database, name)


CONTEXT_FUNCTIONS: dict[str, Callable[[Bindings], Value]] = {
    "changes": _of_database("changes"),
    "last_insert_rowid": _of_database("last_rowid"),
    "total_changes": _of_database("total_changes"),
    "current_date": lambda bindings: bindings.moment.date().isoformat(),
    "current_time": lambda bindings: _timestamp_text(bindings)[11:],
    "current_timestamp": _timestamp_text,
    "random": _random,
}
