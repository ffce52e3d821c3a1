"""Row: one row of a result, by position, by column name (in any case) and by attribute.

As `sqlite3.Row`, a row is hashable, compares by names and values, iterates over its values and
has `keys()`; beside it, `row.body` is `row["body"]` where the name does not collide with a method.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol


class Names:
    """The column names of one result, shared by its rows."""

    __slots__ = ("names", "positions")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.positions: dict[str, int] = {}
        for position, name in enumerate(names):
            self.positions.setdefault(name.lower(), position)
        for position, name in reversed(tuple(enumerate(names))):
            self.positions[name] = position


class Named(Protocol):
    """What has a result's column names: a `Cursor`."""

    @property
    def names(self) -> Names:
        """The column names, as rows use them."""


class Row:
    """One row: a sequence of values which also answers to column names."""

    __slots__ = ("_names", "_values")

    def __init__(self, cursor: Named | Names, values: tuple[Any, ...]) -> None:
        self._names = cursor if isinstance(cursor, Names) else cursor.names
        self._values = values

    def keys(self) -> list[str]:
        """The column names, in order."""
        return list(self._names.names)

    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, str):
            return self._values[self._position(key)]
        try:
            return self._values[key]
        except TypeError:
            raise IndexError(f"a row's index is an int, a slice or a name, not {key!r}") from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._values[self._position(name)]
        except IndexError as error:
            raise AttributeError(str(error)) from None

    def _position(self, name: str) -> int:
        positions = self._names.positions
        position = positions.get(name)
        if position is None:
            position = positions.get(name.lower())
        if position is None:
            known = ", ".join(self._names.names)
            raise IndexError(f"no column {name!r}; the columns are {known}")
        return position

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __contains__(self, value: object) -> bool:
        return value in self._values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Row):
            return NotImplemented
        return self._names.names == other._names.names and same(self._values, other._values)

    def __hash__(self) -> int:
        return hash((self._names.names, self._values))

    def __repr__(self) -> str:
        pairs = zip(self._names.names, self._values, strict=True)
        return f"Row({', '.join(f'{name}={short(value)}' for name, value in pairs)})"


def same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Whether two rows' values are equal, vectors by their elements."""
    if len(left) != len(right):
        return False
    return all(_equal(a, b) for a, b in zip(left, right, strict=True))


def _equal(left: Any, right: Any) -> bool:
    if hasattr(left, "shape") or hasattr(right, "shape"):
        shapes = getattr(left, "shape", None), getattr(right, "shape", None)
        return shapes[0] == shapes[1] and bool((left == right).all())
    return bool(left == right)


def short(value: object, width: int = 60) -> str:
    """A value as a repr shows it: long texts are cut, arrays give their type and size."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"<{getattr(value, 'dtype', '?')}[{', '.join(map(str, shape))}]>"
    text = repr(value[: width * 4]) if isinstance(value, (str, bytes)) else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
