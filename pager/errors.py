"""Errors: PEP 249's hierarchy, the one place that defines them.

Warning
+-- LongReaderWarning            a snapshot keeps the log from being copied, and so it grows
+-- LostCommitsWarning           the log was damaged: commits are lost (a RuntimeWarning too)
Error
+-- InterfaceError               wrong use of the API: closed, used after fork, wrong argument type
+-- DatabaseError
    +-- CorruptDatabaseError     not a database, truncated, a checksum or an invariant fails
    +-- DataError                a value does not fit: wrong vector size, NaN, overflow
    +-- OperationalError         not the caller's fault: disk full, permission, stale snapshot
    |   +-- DatabaseBusyError    another connection holds the lock past the timeout
    |   +-- StatementInterruptedError   the statement was stopped by interrupt()
    +-- IntegrityError           a constraint is violated
    +-- InternalError            a bug of ours
    +-- ProgrammingError         bad SQL, unknown name, wrong number of parameters
    +-- NotSupportedError        a feature that this build, file format or device lacks

A message says what was found, what was wanted and where:
`page 17 of notes.m2m: checksum 0x1f3c, expected 0x88d0`.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence


class Warning(builtins.Warning):
    """Something of importance that is not an error (PEP 249)."""


class LongReaderWarning(Warning):
    """A snapshot that lasts keeps the log from being copied into the file: the log grows (S28)."""


class LostCommitsWarning(Warning, RuntimeWarning):
    """The log that was applied at opening was damaged: commits behind the damage are lost (S3)."""


class Error(Exception):
    """Base of every error that m2mdb raises (PEP 249)."""


class InterfaceError(Error):
    """Wrong use of the API: a closed object, use after fork, a wrong argument type."""


class DatabaseError(Error):
    """Base of the errors that concern the database."""


class CorruptDatabaseError(DatabaseError):
    """The file is not a database, is truncated, or a checksum or an invariant of it fails."""


class DataError(DatabaseError):
    """A value does not fit its column: wrong dimension, NaN, infinity, overflow."""


class OperationalError(DatabaseError):
    """The environment refused: disk full, permission, a directory, a stale snapshot."""


class DatabaseBusyError(OperationalError):
    """Another connection holds the lock past the busy timeout."""


class StaleSnapshotError(DatabaseBusyError):
    """Others have committed since this transaction read: roll back, begin it again."""


class StatementInterruptedError(OperationalError):
    """The statement was stopped by `interrupt()`; it changed nothing."""


class IntegrityError(DatabaseError):
    """A constraint is violated: a duplicate key, NULL in a NOT NULL column.

    kept_rows  that were written all the same, under OR FAIL
    """

    kept_rows = 0


class CheckFailedError(IntegrityError):
    """A CHECK is false for rows; `rows` are their places in the batch that was to be written."""

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = list(rows)


class InternalError(DatabaseError):
    """A bug of m2mdb itself."""


class ProgrammingError(DatabaseError):
    """Bad statement: syntax, an unknown name, a wrong number of parameters."""


class PlacedFault(ProgrammingError):
    """Within the language: a bad statement, and where; who has the text tells the place."""

    kind: type[DatabaseError] = ProgrammingError  # what the program sees

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class NotSupportedError(DatabaseError):
    """This build, device or file format version lacks the feature."""


class UnbuiltPlacedFault(PlacedFault):
    """Within the language: what is not built, and where."""

    kind = NotSupportedError
