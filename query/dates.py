"""Dates and times: `date time datetime julianday unixepoch strftime timediff`, as in SQLite.

A moment is a number of milliseconds since the Julian day 0 (noon of 24 November 4714 BC), in UTC,
of the proleptic Gregorian calendar; it lies in the years -4713 to 9999. A time value is

    YYYY-MM-DD, then perhaps a blank or T and HH:MM, HH:MM:SS or HH:MM:SS.SSS, then Z or [+-]HH:MM
    HH:MM and the like alone (of 2000-01-01), `now`, a TIMESTAMP
    a number: a Julian day, or by a modifier seconds since 1970

Modifiers are applied from the left. Whatever is no time value or no modifier gives NULL.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable

from m2mdb.query.affinity import Value, apply_numeric, microseconds, to_text

DAY = 86_400_000
NOON = DAY // 2
EPOCH = 210_866_760_000_000  # 1970-01-01
FIRST_YEAR = -4713  # of which moments are but the last weeks
LAST = 464_269_060_799_999  # 9999-12-31 23:59:59.999
FIRST_SECOND, LAST_SECOND = -210_866_760_000, 253_402_300_799  # since 1970
FIRST_RAW = 5_373_484.5  # the first number that is no Julian day

_TIME = r"(\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?"
_ZONE = r"[ \t\n\v\f\r]*(?:([+-])(\d\d):(\d\d)|[zZ])?[ \t\n\v\f\r]*"
_MOMENT = re.compile(rf"(-?)(\d{{4}})-(\d\d)-(\d\d)[ \t\n\v\f\rT]*(?:{_TIME}{_ZONE})?", re.ASCII)
_CLOCK = re.compile(_TIME + _ZONE, re.ASCII)
_SHIFT = re.compile(r"([+-]?)" + _TIME + r"[ \t\n\v\f\r]*", re.ASCII)
_SPAN = re.compile(r"([+-])(\d{4})-(\d\d)-(\d\d)(?: (\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?)?", re.ASCII)
_AMOUNT = re.compile(
    r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[ \t\n\v\f\r]+([a-z]+)", re.ASCII | re.IGNORECASE
)
_NAMES_DAYS = re.compile("weekday |start of |.*(?:month|year)s?$")  # what needs the calendar
_UNITS: dict[str, tuple[float, float]] = {  # the greatest amount, and seconds
    "second": (4.6427e14, 1.0), "minute": (7.7379e12, 60.0), "hour": (1.2897e11, 3600.0),
    "day": (5373485.0, 86400.0), "month": (176546.0, 2592000.0), "year": (14713.0, 31536000.0),
}  # fmt: skip


class _Moment:
    """A moment that modifiers change; `raw` is a number whose meaning they may still choose."""

    __slots__ = ("day", "fraction", "raw", "time")

    def __init__(
        self, time: int | None, raw: float | None = None, day: tuple[int, int, int] | None = None
    ) -> None:
        self.time = time
        self.raw = raw
        self.fraction = False  # whether `subsec` asked for milliseconds
        # The day as a text or `start of` gave it, until the next modifier: it may be no day of its
        # month, as in 2023-02-30, or lie before the first moment.
        self.day = day


def julian(year: int, month: int, day: int) -> int:
    """The midnight that begins a day; months and days may lie outside of their year and month."""
    year += (month - 1) // 12
    month = (month - 1) % 12 + 1
    if month <= 2:
        year, month = year - 1, month + 12
    century = int(year / 100)  # cut towards zero, as SQLite has it for the years before 0
    days = (1461 * (year + 4716)) // 4 + (306001 * (month + 1)) // 10000
    return (days + day + 2 - century + int(century / 4) - 1525) * DAY + NOON


def calendar(time: int) -> tuple[int, int, int]:
    """Year, month and day of a moment."""
    day = (time + NOON) // DAY
    shifted = int((day - 1867216.25) / 36524.25)
    day += 1 + shifted - int(shifted / 4) + 1524
    year = int((day - 122.1) / 365.25)
    rest = day - int(365.25 * year)
    month = int(rest / 30.6001)
    day_of_month = rest - int(30.6001 * month)
    month = month - 1 if month < 14 else month - 13
    return (year - 4716 if month > 2 else year - 4715), month, day_of_month


def _since_midnight(time: int) -> int:
    return (time + NOON) % DAY


def _milliseconds(hour: str, minute: str, second: str | None, fraction: str | None) -> int | None:
    """A time of day; None where it is none."""
    h, m, s = int(hour), int(minute), int(second or 0)
    if h > 24 or m > 59 or s > 59:
        return None
    return (h * 60 + m) * 60_000 + int((s + float(fraction or 0)) * 1000 + 0.5)


def _zone(sign: str | None, hour: str | None, minute: str | None) -> int | None:
    """An offset from UTC in milliseconds; None where it is none."""
    if hour is None or minute is None:
        return 0
    if int(hour) > 14 or int(minute) > 59:
        return None
    offset = (int(hour) * 60 + int(minute)) * 60_000
    return -offset if sign == "-" else offset


def _of_text(text: str, now: Callable[[], datetime.datetime]) -> _Moment | None:
    found = _MOMENT.fullmatch(text)
    if found is not None:
        sign, year, month, day = found.group(1, 2, 3, 4)
        if not 1 <= int(month) <= 12 or not 1 <= int(day) <= 31:
            return None
        date = (-int(year) if sign else int(year), int(month), int(day))
        kept = date if date[0] >= FIRST_YEAR else None
        return _clocked(julian(*date), found.group(5, 6, 7, 8), found.group(9, 10, 11), kept)
    found = _CLOCK.fullmatch(text)
    if found is not None:
        return _clocked(julian(2000, 1, 1), found.group(1, 2, 3, 4), found.group(5, 6, 7))
    if text.lower() == "now":
        return _Moment(_of_datetime(now()))
    number = apply_numeric(text)
    return None if isinstance(number, str) else _of_number(float(number))


def _clocked(
    midnight: int,
    clock: tuple[str | None, ...],
    zone: tuple[str | None, ...],
    date: tuple[int, int, int] | None = None,
) -> _Moment | None:
    """A day with a time of it and an offset."""
    if clock[0] is None or clock[1] is None:
        return _Moment(midnight, day=date)
    passed = _milliseconds(clock[0], clock[1], clock[2], clock[3])
    offset = _zone(*zone)
    if passed is None or offset is None:
        return None
    return _Moment(midnight + passed - offset, day=None if offset else date)


def _of_number(number: float) -> _Moment:
    is_day = 0.0 <= number < FIRST_RAW
    return _Moment(int(number * DAY + 0.5) if is_day else None, number)


def _of_datetime(value: datetime.datetime) -> int:
    return EPOCH + microseconds(value) // 1000


def _parsed(value: Value, now: Callable[[], datetime.datetime]) -> _Moment | None:
    if isinstance(value, datetime.datetime):
        return _Moment(_of_datetime(value))
    if isinstance(value, int | float):
        return _of_number(float(value))
    text = to_text(value)
    return None if text is None else _of_text(text, now)


def moment(values: tuple[Value, ...], now: Callable[[], datetime.datetime]) -> _Moment | None:
    """The moment of a time value and its modifiers; None where one of them is wrong."""
    found = _parsed(values[0], now) if values else _Moment(_of_datetime(now()))
    if found is None:
        return None
    for index, value in enumerate(values[1:]):
        text = to_text(value)
        if text is None or not _modify(found, text.lower(), index == 0):
            return None
    if found.time is None or not 0 <= found.time <= LAST:
        return None
    return found


def _modify(found: _Moment, text: str, is_first: bool) -> bool:
    """Apply a modifier; False where it is none."""
    if text in ("auto", "julianday", "unixepoch"):
        return is_first and _read_as(found, text)
    if text in ("subsec", "subsecond"):
        found.fraction = True
        return True
    if found.time is None:
        return False
    found.raw = None
    if found.day is None and not 0 <= found.time <= LAST and _NAMES_DAYS.match(text):
        return False
    changed = _modified(found, text)
    if not text.startswith("start of "):
        found.day = None
    return changed


def _modified(found: _Moment, text: str) -> bool:
    """Apply a modifier that changes the moment; False where it is none."""
    if text in ("utc", "localtime"):
        return _zoned(found, text)
    if text.startswith("weekday "):
        return _weekday(found, apply_numeric(text[8:]))
    if text.startswith("start of "):
        return _start(found, text[9:])
    return _add(found, text)


def _read_as(found: _Moment, text: str) -> bool:
    """What a number means; `auto` takes any time value."""
    number = found.raw
    if text == "auto":
        if number is None or found.time is not None:
            return True
        if FIRST_SECOND <= number <= LAST_SECOND:
            found.time = int(number * 1000 + EPOCH + 0.5)
            return True
        return False
    if number is None or (text == "julianday" and found.time is None):
        return False
    if text == "unixepoch":
        time = number * 1000 + EPOCH
        if not 0 <= time <= LAST:
            return False
        found.time = int(time + 0.5)
    found.raw = None
    return True


def _zoned(found: _Moment, text: str) -> bool:
    """From UTC to the local time of the machine, or back."""
    assert found.time is not None
    try:
        wall = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=found.time - EPOCH)
        if text == "localtime":
            there = wall.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)
        else:
            there = wall.astimezone().astimezone(datetime.UTC).replace(tzinfo=None)
    except (OverflowError, ValueError, OSError):
        return False
    found.time += (there - wall) // datetime.timedelta(milliseconds=1)
    return True


def _weekday(found: _Moment, number: Value) -> bool:
    """On to the next such day of the week, Sunday being 0."""
    assert found.time is not None
    if not isinstance(number, int | float) or number != int(number) or not 0 <= number < 7:
        return False
    today = ((found.time + 3 * NOON) // DAY) % 7
    found.time += int((number - today) % 7) * DAY
    return True


def _day_of(found: _Moment) -> tuple[int, int, int]:
    """Year, month and day, as they were given where they were."""
    assert found.time is not None
    return found.day or calendar(found.time)


def _start(found: _Moment, unit: str) -> bool:
    """Back to the beginning of the year, the month or the day."""
    assert found.time is not None
    year, month, day = _day_of(found)
    if unit == "month":
        day = 1
    elif unit == "year":
        month = day = 1
    elif unit != "day":
        return False
    found.time = julian(year, month, day)
    found.day = (year, month, day)
    return True


def _add(found: _Moment, text: str) -> bool:
    """`+3 days`, `-01:30`, `+0001-02-03 04:05`."""
    assert found.time is not None
    amount = _AMOUNT.fullmatch(text)
    if amount is not None:
        return _add_units(found, float(amount.group(1)), amount.group(2))
    shift = _SHIFT.fullmatch(text)
    if shift is not None:
        passed = _milliseconds(*shift.group(2, 3, 4, 5))
        if passed is None:
            return False
        passed %= DAY
        found.time += -passed if shift.group(1) == "-" else passed
        return True
    span = _SPAN.fullmatch(text)
    return span is not None and _add_span(found, span)


def _add_units(found: _Moment, amount: float, name: str) -> bool:
    unit = name.removesuffix("s")
    if unit not in _UNITS or not abs(amount) < _UNITS[unit][0]:
        return False
    assert found.time is not None
    whole = int(amount)
    rest = amount
    if unit in ("month", "year"):
        year, month, day = _day_of(found)
        passed = found.time - julian(year, month, day)
        if unit == "month":
            month += whole
        else:
            year += whole
        if not FIRST_YEAR <= year + (month - 1) // 12 <= 9999:
            return False
        found.time = julian(year, month, day) + passed
        rest -= whole
    found.time += int(rest * 1000 * _UNITS[unit][1] + (-0.5 if amount < 0 else 0.5))
    return True


def _add_span(found: _Moment, span: re.Match[str]) -> bool:
    """Years, months, days and a time of day: what timediff() gives."""
    assert found.time is not None
    years, months, days = (int(span.group(at)) for at in (2, 3, 4))
    passed = _milliseconds(span.group(5) or "0", span.group(6) or "0", *span.group(7, 8))
    if months > 11 or days > 30 or passed is None:
        return False
    way = -1 if span.group(1) == "-" else 1
    year, month, day = _day_of(found)
    clock = found.time - julian(year, month, day)
    found.time = julian(year + way * years, month + way * months, day) + clock
    found.time += way * (days * DAY + passed)
    return True


# What is made of a moment


def _date_text(time: int) -> str:
    year, month, day = calendar(time)
    return f"{'-' if year < 0 else ''}{abs(year):04d}-{month:02d}-{day:02d}"


def _time_text(found: _Moment) -> str:
    assert found.time is not None
    passed = _since_midnight(found.time)
    seconds, rest = divmod(passed, 1000)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{rest:03d}" if found.fraction else text


def _epoch_seconds(time: int) -> int:
    return (time - EPOCH) // 1000 if time >= 0 else 0


def _day_of_year(time: int) -> int:
    year = calendar(time)[0]
    return (time - _since_midnight(time) - julian(year, 1, 1)) // DAY


def _week(time: int, monday_first: bool) -> int:
    weekday = (time + (NOON if monday_first else 3 * NOON)) // DAY % 7
    return (_day_of_year(time) + 7 - weekday) // 7


def _iso(time: int) -> tuple[int, int]:
    """Year and week of ISO 8601."""
    thursday = time + (3 - (time + NOON) // DAY % 7) * DAY
    return calendar(thursday)[0], _day_of_year(thursday) // 7 + 1


def _hour(time: int) -> int:
    return _since_midnight(time) // 3_600_000


_CODES: dict[str, Callable[[int], str]] = {
    "%": lambda time: "%",
    "d": lambda time: f"{calendar(time)[2]:02d}",
    "e": lambda time: f"{calendar(time)[2]:2d}",
    "f": lambda time: f"{_since_midnight(time) % 60_000 / 1000:06.3f}",
    "F": _date_text,
    "g": lambda time: f"{_iso(time)[0] % 100:02d}",
    "G": lambda time: f"{_iso(time)[0]:04d}",
    "H": lambda time: f"{_hour(time):02d}",
    "I": lambda time: f"{(_hour(time) + 11) % 12 + 1:02d}",
    "j": lambda time: f"{_day_of_year(time) + 1:03d}",
    "J": lambda time: f"{time / DAY:.16g}",
    "k": lambda time: f"{_hour(time):2d}",
    "l": lambda time: f"{(_hour(time) + 11) % 12 + 1:2d}",
    "m": lambda time: f"{calendar(time)[1]:02d}",
    "M": lambda time: f"{_since_midnight(time) // 60_000 % 60:02d}",
    "p": lambda time: "AM" if _hour(time) < 12 else "PM",
    "P": lambda time: "am" if _hour(time) < 12 else "pm",
    "R": lambda time: f"{_hour(time):02d}:{_since_midnight(time) // 60_000 % 60:02d}",
    "s": lambda time: str(_epoch_seconds(time)),
    "S": lambda time: f"{_since_midnight(time) // 1000 % 60:02d}",
    "T": lambda time: _time_text(_Moment(time)),
    "u": lambda time: str((time + NOON) // DAY % 7 + 1),
    "U": lambda time: f"{_week(time, False):02d}",
    "V": lambda time: f"{_iso(time)[1]:02d}",
    "w": lambda time: str((time + 3 * NOON) // DAY % 7),
    "W": lambda time: f"{_week(time, True):02d}",
    "Y": lambda time: f"{calendar(time)[0]:04d}",
}
Clock = Callable[[], datetime.datetime]


def _strftime(now: Clock, pattern: Value, *values: Value) -> Value:
    """NULL for a code that there is not."""
    text = to_text(pattern)
    found = moment(values, now)
    if text is None or found is None or found.time is None:
        return None
    parts = []
    pieces = iter(re.split(r"%(.?)", text, flags=re.DOTALL))
    for piece in pieces:
        parts.append(piece)
        code = next(pieces, None)
        if code is not None:
            if code not in _CODES:
                return None
            parts.append(_CODES[code](found.time))
    return "".join(parts)


def _date(now: Clock, *values: Value) -> Value:
    found = moment(values, now)
    return None if found is None or found.time is None else _date_text(found.time)


def _time(now: Clock, *values: Value) -> Value:
    found = moment(values, now)
    return None if found is None else _time_text(found)


def _datetime(now: Clock, *values: Value) -> Value:
    found = moment(values, now)
    if found is None or found.time is None:
        return None
    return f"{_date_text(found.time)} {_time_text(found)}"


def _julianday(now: Clock, *values: Value) -> Value:
    found = moment(values, now)
    return None if found is None or found.time is None else found.time / DAY


def _unixepoch(now: Clock, *values: Value) -> Value:
    found = moment(values, now)
    if found is None or found.time is None:
        return None
    if found.fraction:
        return (found.time - EPOCH) / 1000
    return _epoch_seconds(found.time)


def _timediff(now: Clock, one: Value, other: Value) -> Value:
    """What to add to the second time to get the first, `+YYYY-MM-DD HH:MM:SS.SSS`."""
    first, second = moment((one,), now), moment((other,), now)
    if first is None or second is None or first.time is None or second.time is None:
        return None
    way = 1 if first.time >= second.time else -1
    year, month, _ = calendar(first.time)
    from_year, from_month, from_day = calendar(second.time)
    clock = _since_midnight(second.time)
    months = abs((year - from_year) * 12 + month - from_month)
    while True:
        reached = julian(from_year, from_month + way * months, from_day) + clock
        rest = (first.time - reached) * way
        if rest >= 0 or not months:
            break
        months -= 1
    days, passed = divmod(rest, DAY)
    sign = "+" if way > 0 else "-"
    seconds, fraction = divmod(passed, 1000)
    return (
        f"{sign}{months // 12:04d}-{months % 12:02d}-{days:02d} {seconds // 3600:02d}:"
        f"{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:03d}"
    )


# Called with the statement's clock before the arguments
TIME_FUNCTIONS: dict[str, tuple[Callable[..., Value], int, int | None]] = {
    "date": (_date, 0, None),
    "datetime": (_datetime, 0, None),
    "julianday": (_julianday, 0, None),
    "strftime": (_strftime, 1, None),
    "time": (_time, 0, None),
    "timediff": (_timediff, 2, 2),
    "unixepoch": (_unixepoch, 0, None),
}
