"""Faults of a statement's text, and how their place is told.

Lexer, driver and actions raise SyntaxFault with a position; parser.py, which knows the whole
text, turns it into the PEP 249 error with line and column.
"""

from __future__ import annotations

from m2mdb.pager.errors import NotSupportedError, ProgrammingError
from m2mdb.query.nodes import line_and_column


class SyntaxFault(Exception):
    """Something wrong at a position of the text."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position

    def error(self, text: str) -> ProgrammingError | NotSupportedError:
        """The error to raise, its place told by line and column."""
        return ProgrammingError(placed(self.message, text, self.position))


class UnbuiltFault(SyntaxFault):
    """Part of a statement that the language has and this version does not build yet."""

    def error(self, text: str) -> ProgrammingError | NotSupportedError:
        """The error to raise, its place told by line and column."""
        return NotSupportedError(placed(self.message, text, self.position))


def placed(message: str, text: str, position: int) -> str:
    """The message with `(line 1, column 23)` behind it."""
    line, column = line_and_column(text, position)
    return f"{message} (line {line}, column {column})"
