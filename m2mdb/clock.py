"""The clock of a connection: what `connect(path, clock=…)` gives in place of the machine's.

It says what CURRENT_TIMESTAMP and `datetime('now')` are and how old rows are for DECAY, so that
tests, replays and simulations have the time that they want. Timeouts and locks go by the machine.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import SupportsFloat

from m2mdb.pager.errors import DataError, InterfaceError, OperationalError

Clock = Callable[[], float | datetime.datetime]
FIRST = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC).timestamp()
BEHIND = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC).timestamp() + 1
LAST = math.nextafter(BEHIND, 0)  # as which float64 rounds the last microseconds up to BEHIND


def seconds_of(clock: Clock) -> Callable[[], float]:
    """The clock as a function that gives seconds since 1970-01-01T00:00:00 UTC.

    Raises InterfaceError where it cannot be called. The function raises OperationalError from what
    the clock raises, DataError for what is no time in the years 1 to 9999.
    """
    if not callable(clock):
        raise InterfaceError(
            f"clock is {type(clock).__name__}; wanted is a callable, such as time.time"
        )

    def seconds() -> float:
        try:
            found = clock()
        except Exception as error:
            raise OperationalError(f"the clock failed: {type(error).__name__}: {error}") from error
        try:
            value = _seconds_in(found)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise OperationalError(f"what the clock gave failed: {what}") from error
        if not FIRST <= value < BEHIND:
            raise DataError(
                f"the clock gave {found!r}; expected seconds since 1970 or a datetime, in the "
                "years 1 to 9999"
            )
        return value

    return seconds


def _seconds_in(found: object) -> float:
    """What a clock gave, in seconds since 1970; NaN: it is no time."""
    if isinstance(found, datetime.datetime):
        aware = found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)
        is_last = aware.utcoffset() == datetime.timedelta() and aware.timestamp() == BEHIND
        return LAST if is_last else aware.timestamp()
    if isinstance(found, SupportsFloat) and not isinstance(found, bool):
        return float(found)
    return math.nan
