"""Looks for an interrupt as a test sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from m2mdb.index.database import Database


def at_each_look(
    database: Database | None, monkeypatch: pytest.MonkeyPatch, note: Callable[[], object]
) -> None:
    """From now on `note` is called whenever a statement looks whether to stop, before it does."""
    assert database is not None
    given = database.check_interrupted

    def look() -> None:
        note()
        given()

    monkeypatch.setattr(database, "check_interrupted", look)


class Counted:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
