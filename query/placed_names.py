"""Names that know where they stand, so that an unknown one is told with its place.

A statement's tree has names as texts, and most of what reads them wants no more. Where a name may
be unknown when the statement is planned or run, the grammar gives a PlacedName in place of a str
(`placed` and `placed_names` in grammar.lark), and who looks it up does so within `located`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from m2mdb.pager.errors import PlacedFault, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema


class PlacedName(str):
    """A name as a statement gives it, and the position of its first character in the text."""

    __slots__ = ("position",)

    position: int

    def __new__(cls, name: str, position: int) -> Self:
        """The name at a position."""
        made = super().__new__(cls, name)
        made.position = position
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[str, int]]:
        return type(self), (str(self), self.position)


@contextmanager
def located(name: str | None) -> Iterator[None]:
    """Within it a ProgrammingError is told with the place of a name, where the name has one."""
    try:
        yield
    except ProgrammingError as problem:
        if not isinstance(name, PlacedName) or isinstance(problem, PlacedFault):
            raise
        raise PlacedFault(str(problem), name.position) from None


def column_index(schema: CollectionSchema, name: str) -> int:
    """The index of a column; ProgrammingError, with the name's place, where there is none."""
    with located(name):
        return schema.column(name)
