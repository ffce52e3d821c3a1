"""PEP 249's compliance suite (PyPI `dbapi-compliance` 1.15), unmodified and whole.

Two of its 36 tests are stubs that raise NotImplementedError until a driver overrides them:
`nextset` and `setoutputsize`. The last test holds the suite to its length, so that none is lost.
"""

from __future__ import annotations

import os
import tempfile
import unittest
from typing import Any

import dbapi20

import m2mdb


class TestCompliance(dbapi20.DatabaseAPI20Test):  # type: ignore[misc]  # it has no types
    """The suite, on a file of its own for each test."""

    driver = m2mdb

    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        path = os.path.join(self.folder.name, "compliance.m2m")
        self.connect_args: tuple[Any, ...] = (path,)
        self.connect_kw_args: dict[str, Any] = {"compute": "numpy"}

    def test_nextset(self) -> None:
        """A cursor has one result set, so it has no `nextset`, which PEP 249 leaves free."""
        con = self._connect()
        try:
            assert not hasattr(con.cursor(), "nextset")
        finally:
            con.close()

    def test_setoutputsize(self) -> None:
        """Values are never cut: what is announced as one byte comes whole."""
        con = self._connect()
        try:
            cursor = con.cursor()
            self.executeDDL1(cursor)
            cursor.execute(f"insert into {self.table_prefix}booze values ('Victoria Bitter')")
            cursor.setoutputsize(1)
            cursor.setoutputsize(1, 0)
            cursor.execute(f"select name from {self.table_prefix}booze")
            assert cursor.fetchall() == [("Victoria Bitter",)]
        finally:
            con.close()


def test_the_suite_is_whole() -> None:
    theirs = unittest.TestLoader().getTestCaseNames(dbapi20.DatabaseAPI20Test)
    overridden = {name for name in vars(TestCompliance) if name.startswith("test_")}

    assert dbapi20.__version__ == "1.15.0"
    assert len(theirs) == 36
    assert overridden == {"test_nextset", "test_setoutputsize"}
