"""Extensions: the functions, aggregates and collations that a program adds to one connection.

They are looked up while a statement is planned, and a plan belongs to one connection; so planning
says whose extensions count (`planning`), and nothing is asked once a plan runs.

    create_function(…) --> Extensions of the connection's database; its kept plans are dropped
    plan_statement --with planning(database)--> `function`, `aggregate`, `collation` find them

Invariants
    EX1 Outside of `planning`, and for a connection that added nothing, nothing is found.
    EX2 An extension goes before the built-in function of its name; one of a fixed number of
        arguments before one of any number.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from m2mdb.pager.errors import DataError, OperationalError
from m2mdb.query.affinity import Value

if TYPE_CHECKING:
    from m2mdb.index.database import Database

ANY_NUMBER = -1
TEXT_RANK = 3  # of texts among the storage classes, see `comparison`
Comparator = Callable[[str, str], int]
Key = tuple[str, int]


class Aggregate(Protocol):
    """What an aggregate's factory makes for each group."""

    def step(self, *arguments: Value) -> object:
        """One row of the group."""
        ...

    def finalize(self) -> Value:
        """The group's value."""
        ...


class Function(NamedTuple):
    """A scalar function of the program."""

    call: Callable[..., Value]
    deterministic: bool


class Extensions:
    """What one connection's program has added."""

    __slots__ = ("aggregates", "authorizer", "collations", "functions")

    def __init__(self) -> None:
        self.functions: dict[Key, Function] = {}
        self.aggregates: dict[Key, Callable[[], Aggregate]] = {}
        self.collations: dict[str, Comparator] = {}
        self.authorizer: Callable[..., int] | None = None


_current: ContextVar[Extensions | None] = ContextVar("extensions", default=None)


def of(database: Database) -> Extensions:
    """The extensions of a database, made where there are none yet; its plans are made anew."""
    if database.extensions is None:
        database.extensions = Extensions()
    database.plans.clear()
    found: Extensions = database.extensions
    return found


@contextmanager
def planning(database: Database) -> Iterator[None]:
    """Within it the extensions of this database count (EX1)."""
    token = _current.set(database.extensions)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def none() -> Iterator[None]:
    """Within it no extensions count: what a schema says is the same for every program."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def function(name: str, count: int) -> Function | None:
    """The program's function of a name and a number of arguments, or None."""
    current = _current.get()
    if current is None or not current.functions:
        return None
    found = current.functions.get((name, count))
    return found or current.functions.get((name, ANY_NUMBER))


def aggregate(name: str, count: int) -> Callable[[], Aggregate] | None:
    """What makes the program's aggregate of a name and a number of arguments, or None."""
    current = _current.get()
    if current is None or not current.aggregates:
        return None
    found = current.aggregates.get((name, count))
    return found or current.aggregates.get((name, ANY_NUMBER))


def known_name(name: str) -> bool:
    """Whether the program added a function or an aggregate of this name, for any arguments."""
    current = _current.get()
    if current is None:
        return False
    return any(name == known for known, _ in [*current.functions, *current.aggregates])


def collation(name: str) -> Callable[[Value], Value] | None:
    """What the program's collation of a name makes of a value, or None where there is none."""
    current = _current.get()
    compare = None if current is None else current.collations.get(name.upper())
    return None if compare is None else functools.partial(_collated, compare)


def reduced(make: Callable[[], Aggregate], rows: Iterable[tuple[Value, ...]]) -> Value:
    """The value of the program's aggregate over the rows of a group; NULL for none, as sqlite3."""
    state = None
    for row in rows:
        if state is None:
            state = make()
        state.step(*row)
    return None if state is None else state.finalize()


class Collated:
    """A text that compares as the program's collation says."""

    __slots__ = ("compare", "text")

    def __init__(self, compare: Comparator, text: str) -> None:
        self.compare = compare
        self.text = text

    def _order(self, other: Collated) -> int:
        found = self.compare(self.text, other.text)
        if not isinstance(found, int):
            raise DataError(f"a collation gave {type(found).__name__}, not an integer")
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Collated) and self._order(other) == 0

    def __lt__(self, other: Collated) -> bool:
        return self._order(other) < 0

    def __gt__(self, other: Collated) -> bool:
        return self._order(other) > 0

    def __le__(self, other: Collated) -> bool:
        return self._order(other) <= 0

    def __ge__(self, other: Collated) -> bool:
        return self._order(other) >= 0

    def __hash__(self) -> int:
        return 0  # texts that the collation holds equal need have nothing else in common


def _collated(compare: Comparator, value: Value) -> Value:
    return Collated(compare, value) if type(value) is str else value


def guarded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The program's function, with errors as a statement raises them."""

    def run(*arguments: Value) -> Any:
        try:
            return call(*arguments)
        except Exception as problem:
            raise OperationalError(
                f"user-defined {name} raised exception: {type(problem).__name__}: {problem}"
            ) from problem

    return run
