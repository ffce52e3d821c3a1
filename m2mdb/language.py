"""Language: the one place of the face that loads the parser and the executor.

It is imported at a connection's first statement, so that a program which uses collections alone
never pays for the parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from m2mdb.pager.errors import InterfaceError
from m2mdb.query.executor import Result, execute, execute_many
from m2mdb.query.parser import parse, split

if TYPE_CHECKING:
    from m2mdb.cursor import Parameters
    from m2mdb.index.database import Database


class Language:
    """Statements as texts, run on a database."""

    __slots__ = ()

    def run(self, database: Database, statement: str, parameters: Parameters) -> Result:
        """Parse (or find in the cache), bind and run one statement."""
        if type(statement) is not str:
            statement = checked(statement)
        return execute(database, parse(statement), parameters)

    def run_many(
        self, database: Database, statement: str, parameters: Iterable[Parameters]
    ) -> Result:
        """Run one statement for each of the parameters."""
        return execute_many(database, parse(checked(statement)), parameters)

    def split(self, script: str) -> Iterator[str]:
        """The statements of a script."""
        return split(checked(script))


def checked(statement: object) -> str:
    """The statement, or InterfaceError where it is no str."""
    if not isinstance(statement, str):
        raise InterfaceError(f"a statement is a str, not {type(statement).__name__}")
    return statement
