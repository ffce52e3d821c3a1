"""The clock of a connection: what `connect(path, clock=…)` gives in place of the machine's.

It says what CURRENT_TIMESTAMP and `datetime('now')` are and how old rows are for DECAY, so that
tests, replays and simulations have the time that they want. Timeouts and locks go by the machine.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from m2mdb.pager.errors import DataError, InterfaceError, OperationalError

Clock = Callable[[], float | datetime.datetime]
FIRST = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC).timestamp()
LAST = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC).timestamp()


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
        if isinstance(found, datetime.datetime):
            aware = found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)
            return aware.timestamp()
        is_number = hasattr(found, "__float__") and not isinstance(found, bool | str | bytes)
        value = float(found) if is_number else float("nan")
        if not FIRST <= value <= LAST:
            raise DataError(
                f"the clock gave {found!r}; expected seconds since 1970 or a datetime, in the "
                "years 1 to 9999"
            )
        return value

    return seconds
