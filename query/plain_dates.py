"""Plain dates: the time functions for time values as they mostly are, without taking them apart.

    '2024-05-06', '2024-05-06 07:08:09', with T too     valid days and times, nothing behind
    a TIMESTAMP                                          in UTC
    an integer behind which stands 'unixepoch' alone     of the years 0 to 9999
    a text of these behind which stand modifiers that move whole days: '+1 month', 'weekday 1' …

All that is asked of such a value stands in its text `YYYY-MM-DD HH:MM:SS`, at places that follow
from the function alone; whatever else is given is MISSED, and `query.dates` works it out.

Invariants
    PD1 What is not MISSED is what `query.dates` gives.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from functools import lru_cache

from m2mdb.query.affinity import Value
from m2mdb.query.dates import DAY, EPOCH, LAST_SECOND, TIME_FUNCTIONS, calendar, julian

MISSED = object()
FIRST_PLAIN = -62_167_219_200  # 0000-01-01, in seconds since 1970
Way = Callable[[Value], Value | object]

PLAIN = (
    r"(?:\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])"
    r"|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"|\d\d(?:0[48]|[2468][048]|[13579][26])-02-29)"
    r"(?:[ T](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)?"
)
_is_plain = re.compile(PLAIN, re.ASCII).fullmatch
_moves_days = re.compile(
    r"[+-]?\d{1,4} (?:day|month|year)s?|start of (?:day|month|year)|weekday [0-6]", re.ASCII
).fullmatch
KEPT_DAYS = 1 << 15  # that one call in a statement has moved
_LAYOUT = "????-??-?? ??:??:??"  # of a moment's text
_CODES: dict[str, tuple[int, int]] = {
    "Y": (0, 4), "m": (5, 7), "d": (8, 10), "H": (11, 13), "M": (14, 16), "S": (17, 19),
    "F": (0, 10), "T": (11, 19), "R": (11, 16),
}  # fmt: skip
_PATTERNS = {"date": "%F", "time": "%T", "datetime": "%F %T"}


@lru_cache(maxsize=1 << 15)
def _midnight(day: str) -> int:
    """The seconds since 1970 at which a day begins."""
    return (julian(int(day[:4]), int(day[5:7]), int(day[8:10])) - EPOCH) // 1000


@lru_cache(maxsize=1 << 15)
def _day_text(number: int) -> str:
    """The day so many days behind 1970-01-01."""
    year, month, day = calendar(number * DAY + EPOCH)
    return f"{year:04d}-{month:02d}-{day:02d} "


@lru_cache(maxsize=86_400)
def _passed(clock: str) -> int:
    """The seconds since midnight at a time of day."""
    return int(clock[:2]) * 3600 + int(clock[3:5]) * 60 + int(clock[6:])


@lru_cache(maxsize=86_400)
def _clock_text(second: int) -> str:
    """A time of day."""
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def _seconds(text: str) -> int:
    """The seconds since 1970 of a moment's text."""
    return _midnight(text[:10]) + int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])


def _julian_day(text: str) -> float:
    return (_seconds(text) * 1000 + EPOCH) / DAY


def way_of(name: str, pattern: Value, modifiers: list[Value]) -> Way | None:
    """The quick way of a function with these constants, or None.

    pattern  of strftime; of no matter for the others
    """
    if name == "unixepoch":
        finish: Callable[[str], Value] | None = _seconds
    elif name == "julianday":
        finish = _julian_day
    else:
        text = pattern if name == "strftime" else _PATTERNS.get(name)
        finish = _formatter(text) if isinstance(text, str) else None
    if finish is None:
        return None
    if not modifiers:
        return _of_plain(finish, name != "julianday")
    if modifiers == ["unixepoch"]:
        return _of_seconds(finish)
    texts = [each for each in modifiers if isinstance(each, str) and _moves_days(each)]
    return _of_moved(finish, texts) if len(texts) == len(modifiers) else None


def cut_of(name: str, pattern: Value) -> tuple[int, int] | None:
    """From where to where a moment's text is cut, where that is all that a function does."""
    text = pattern if name == "strftime" else _PATTERNS.get(name)
    places = _places(text) if isinstance(text, str) else None
    if places is None or len(places) != 1 or isinstance(places[0], str):
        return None
    return places[0]


def _of_plain(finish: Callable[[str], Value], takes_moments: bool) -> Way:
    """`takes_moments`: nothing is asked that is finer than a second."""

    def run(value: Value) -> Value | object:
        if type(value) is str:
            if _is_plain(value) is None:
                return MISSED
            if len(value) == 10:
                value += " 00:00:00"
            elif value[10] == "T":
                value = value.replace("T", " ")
            return finish(value)
        if type(value) is datetime.datetime and takes_moments and value.tzinfo is datetime.UTC:
            return finish(value.isoformat(" "))
        return MISSED

    return run


def _of_moved(finish: Callable[[str], Value], modifiers: list[str]) -> Way:
    """Days are moved once each; the time of day stays, but where `start of` drops it."""
    keeps_clock = not any(each.startswith("start") for each in modifiers)
    moved: dict[str, str | None] = {}
    datetime_of = TIME_FUNCTIONS["datetime"][0]

    def run(value: Value) -> Value | object:
        if type(value) is not str or _is_plain(value) is None:
            return MISSED
        day = value[:10]
        if day not in moved:
            if len(moved) >= KEPT_DAYS:
                moved.clear()
            moved[day] = datetime_of(_no_clock, day, *modifiers)
        found = moved[day]
        if found is None or len(found) != 19:  # before the year 0 a sign stands in front
            return MISSED
        if keeps_clock and len(value) > 10:
            found = f"{found[:11]}{value[11:]}"
        return finish(found)

    return run


def _no_clock() -> datetime.datetime:
    """A day that is given needs no present moment."""
    raise AssertionError("a plain day is no `now`")


def _of_seconds(finish: Callable[[str], Value]) -> Way:
    def run(value: Value) -> Value | object:
        if type(value) is int and FIRST_PLAIN <= value <= LAST_SECOND:
            day, second = divmod(value, 86_400)
            return finish(_day_text(day) + _clock_text(second))
        return MISSED

    return run


def _formatter(pattern: str) -> Callable[[str], Value] | None:
    """What cuts a moment's text as a pattern says; None where it asks for more than is in it."""
    joined = _places(pattern)
    if joined is None:
        return None
    if len(joined) == 1 and isinstance(joined[0], tuple):
        start, stop = joined[0]
        return lambda text: text[start:stop]
    cuts = [slice(*part) if isinstance(part, tuple) else part for part in joined]
    return lambda text: "".join([part if isinstance(part, str) else text[part] for part in cuts])


def _places(pattern: str) -> list[tuple[int, int] | str] | None:
    """A pattern as characters and parts of a moment's text, from where to where; or None."""
    parts: list[tuple[int, int] | str] = []
    pieces = re.split(r"%(.?)", pattern, flags=re.DOTALL)
    for at, piece in enumerate(pieces):
        if at % 2 == 0:
            parts += list(piece)
        elif piece == "%":
            parts.append("%")
        elif piece in _CODES:
            parts.append(_CODES[piece])
        else:
            return None
    joined: list[tuple[int, int] | str] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(last, tuple):  # what stands there anyway is cut out with it
            if part != "?" and _LAYOUT[last[1] : last[1] + 1] == part:
                joined[-1] = (last[0], last[1] + 1)
                continue
            if isinstance(part, tuple) and part[0] == last[1]:
                joined[-1] = (last[0], part[1])
                continue
        joined.append(part)
    return joined
