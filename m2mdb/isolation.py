"""Isolation levels: sqlite3's names for how a transaction begins, of which None is autocommit."""

from __future__ import annotations

from m2mdb.pager.errors import InterfaceError

DEFERRED = "DEFERRED"
LEVELS = ("", DEFERRED, "IMMEDIATE", "EXCLUSIVE")


def checked_level(level: object) -> str | None:
    """The level in capitals; InterfaceError where there is none of this name."""
    if level is None:
        return None
    if not isinstance(level, str) or level.upper() not in LEVELS:
        raise InterfaceError(
            f"isolation_level is {level!r}, not None, '', DEFERRED, IMMEDIATE, EXCLUSIVE"
        )
    return level.upper()
