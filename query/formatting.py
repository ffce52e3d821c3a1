"""Formatting: printf() and format(), with SQLite's conversions.

`%d %i %u %f %e %g %x %X %o %c %s %q %Q %w %z %%` with flags `- + space 0 # , !`, width and
precision (each a number or `*`). A missing argument counts as NULL.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal

from m2mdb.pager.errors import DataError
from m2mdb.query.affinity import Value, to_integer, to_number, to_text

MAX_WIDTH = 1_000_000  # a format must not take the memory of the machine
MAX_ROUNDED = 20  # decimals beyond those are all zeros or printed as they are
_DIRECTIVE = re.compile(r"%([-+ 0#,!]*)(\d+|\*)?(?:\.(\d+|\*)?)?(?:ll|l)?(.)?", re.DOTALL)


class _Arguments:
    """The arguments, taken one after another."""

    __slots__ = ("values",)

    def __init__(self, values: tuple[Value, ...]) -> None:
        self.values = list(reversed(values))

    def take(self) -> Value:
        return self.values.pop() if self.values else None

    def number(self, text: str | None) -> int | None:
        """A width or precision: digits, `*` or nothing.

        Raises DataError: too large.
        """
        if text is None:
            return None
        value = (to_integer(self.take()) or 0) if text == "*" else int(text[:10])
        if abs(value) > MAX_WIDTH:
            raise DataError(f"printf: width {value} exceeds the limit of {MAX_WIDTH}")
        return value


def printf(pattern: Value, *values: Value) -> Value:
    """`printf(format, …)`; NULL for a NULL or empty format."""
    text = to_text(pattern)
    if not text:
        return None
    arguments = _Arguments(values)
    parts: list[str] = []
    index = 0
    for found in _DIRECTIVE.finditer(text):
        parts.append(text[index : found.start()])
        index = found.end()
        kind = found.group(4)
        if found.group(0) == "%":  # at the end, as SQLite has it
            return "".join([*parts, "%"])
        if kind is None or kind not in _CONVERSIONS:
            return "".join(parts) or None
        flags = found.group(1)
        width = arguments.number(found.group(2)) or 0
        has_precision = "." in found.group(0)
        precision = arguments.number(found.group(3)) or 0 if has_precision else None
        if width < 0:
            flags, width = flags + "-", -width
        if precision is not None:
            precision = abs(precision)  # as in SQLite; `%.*f` may be given a negative one
        parts.append(_padded(_CONVERSIONS[kind](arguments, flags, precision, kind), flags, width))
    parts.append(text[index:])
    return "".join(parts)


def _padded(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and text[-1:].isdigit():
        sign = text[: len(text) - len(text.lstrip("+- "))]
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _sign(flags: str, negative: bool) -> str:
    if negative:
        return "-"
    return "+" if "+" in flags else " " if " " in flags else ""


def _integer(arguments: _Arguments, flags: str, precision: int | None, kind: str) -> str:
    value = to_integer(arguments.take()) or 0
    if kind == "u":
        value &= 2**64 - 1
    digits = str(abs(value)).rjust(precision or 0, "0")
    if "," in flags:
        digits = f"{int(digits):,}"
    return _sign(flags, value < 0) + digits


def _radix(arguments: _Arguments, flags: str, precision: int | None, kind: str) -> str:
    value = (to_integer(arguments.take()) or 0) & (2**64 - 1)
    prefix = "0" + (kind if kind != "o" else "") if "#" in flags and value else ""
    return prefix + format(value, kind).rjust(precision or 0, "0")


def _float(arguments: _Arguments, flags: str, precision: int | None, kind: str) -> str:
    value = float(to_number(arguments.take()) or 0)
    if value in (float("inf"), float("-inf")):
        return _sign(flags, value < 0) + "Inf"
    digits = 6 if precision is None else precision
    alternate = "#" if "#" in flags else ""
    grouped = "," if "," in flags else ""
    rounded = _rounded(abs(value), digits, kind.lower())
    text = format(rounded, f"{alternate}{grouped}.{digits}{kind}")
    if "!" in flags and "." not in text:
        mantissa, mark, exponent = text.partition("e")
        text = f"{mantissa}.0{mark}{exponent}"
    return _sign(flags, value < 0) + text


def _rounded(value: float, digits: int, kind: str) -> float | Decimal:
    """The value cut to its digits; ties, as its 16 digits tell them, go away from zero."""
    exact = Decimal(f"{value:.16g}")
    kept: float | Decimal = value
    if kind == "f":
        place = -digits
        kept = exact
    else:
        place = exact.adjusted() - (digits if kind == "e" else max(digits, 1) - 1)
    exponent = exact.as_tuple().exponent
    assert isinstance(exponent, int), "infinities and NaN are told before"
    if digits >= MAX_ROUNDED or not exact or exponent >= place:
        return kept
    cut = exact.quantize(Decimal(1).scaleb(place), ROUND_HALF_UP)
    return cut if kind == "f" else float(cut)


def _character(arguments: _Arguments, flags: str, precision: int | None, kind: str) -> str:
    return (to_text(arguments.take()) or "")[:1] * max(precision or 1, 1)


def _text(arguments: _Arguments, flags: str, precision: int | None, kind: str) -> str:
    value = to_text(arguments.take())
    if value is None:
        return {"Q": "NULL", "q": "(NULL)", "w": "(NULL)"}.get(kind, "")
    value = value[:precision]
    if kind == "q":
        return value.replace("'", "''")
    if kind == "Q":
        return "'" + value.replace("'", "''") + "'"
    return value.replace('"', '""') if kind == "w" else value


def _percent(arguments: _Arguments, flags: str, precision: int | None, kind: str) -> str:
    return "%"


_CONVERSIONS: dict[str, Callable[[_Arguments, str, int | None, str], str]] = {
    **dict.fromkeys("diu", _integer),
    **dict.fromkeys("xXo", _radix),
    **dict.fromkeys("fFeEgG", _float),
    **dict.fromkeys("szqQw", _text),
    "c": _character,
    "%": _percent,
}
