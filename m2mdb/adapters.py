"""Adapters and converters: a program's own types on their way in and out, as in sqlite3.

    a parameter of type T --ADAPTERS[T], `T.__conform__`--> a value that the language knows
    a value of a column declared C --CONVERTERS[C], from its bytes--> what the program wants

Both registries are the process's, as sqlite3's are. An adapter is found by the exact type and goes
before what the language knows of itself: NumPy scalars and arrays, date and datetime, uuid.UUID
and Decimal (as text), dict and list (as JSON). A converter is used by connections that ask
for it with `detect_types`; types that the columns have themselves (TIMESTAMP, BOOLEAN, JSON,
VECTOR) need none.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import InterfaceError

if TYPE_CHECKING:
    from m2mdb.query.result import Result

PARSE_DECLTYPES = 1
PARSE_COLNAMES = 2
ADAPTERS: dict[type, Callable[[Any], Any]] = {}
CONVERTERS: dict[str, Callable[[bytes], Any]] = {}
Converter = Callable[[Any], Any]


def register_adapter(type: type, adapter: Callable[[Any], Any], /) -> None:
    """Bind parameters of exactly this type as what `adapter` makes of them."""
    if not isinstance(type, _TYPE) or not callable(adapter):
        raise InterfaceError("register_adapter() takes a type and a function of one value")
    ADAPTERS[type] = adapter


_TYPE = type


def register_converter(typename: str, converter: Callable[[bytes], Any], /) -> None:
    """Give values of columns of this type as what `converter` makes of their bytes.

    It counts where `connect(…, detect_types=…)` asks: with PARSE_DECLTYPES for columns declared so,
    with PARSE_COLNAMES for results named `AS "name [typename]"`.
    """
    if not isinstance(typename, str) or not callable(converter):
        raise InterfaceError("register_converter() takes a type's name and a function of bytes")
    CONVERTERS[typename.upper()] = converter


def converters_of(
    names: Sequence[str], types: Sequence[str | None], detect_types: int
) -> tuple[list[str], list[Converter | None]]:
    """The columns' names without their brackets, and the converter of each, or None."""
    shown: list[str] = []
    found: list[Converter | None] = []
    for name, declared in zip(names, types, strict=True):
        plain, converter = name, None
        if detect_types & PARSE_COLNAMES and name.endswith("]") and "[" in name:
            before, _, wanted = name[:-1].rpartition("[")
            converter = CONVERTERS.get(wanted.upper())
            plain = before.rstrip() or name
        if converter is None and detect_types & PARSE_DECLTYPES and declared is not None:
            converter = CONVERTERS.get(declared.upper())
        shown.append(plain)
        found.append(converter)
    return shown, found


def convert(result: Result, detect_types: int, text_factory: Callable[[bytes], Any]) -> None:
    """Bring a result's values to what the connection's program wants."""
    if result.columns is None:
        return
    types = result.types or [None] * len(result.columns)
    result.columns, converters = converters_of(result.columns, types, detect_types)
    if text_factory is str and not any(converters):
        return
    columns = [list(column) for column in zip(*result.rows, strict=True)]
    for at, (values, converter) in enumerate(zip(columns, converters, strict=False)):
        if converter is not None:
            columns[at] = [None if v is None else converter(raw(v)) for v in values]
        elif text_factory is not str:
            columns[at] = [text_factory(v.encode()) if type(v) is str else v for v in values]
    result.rows = list(zip(*columns, strict=True))


def raw(value: Any) -> bytes:
    """A value's bytes as a converter is given them: those of its text, or a BLOB's own."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ").encode()
    if hasattr(value, "tobytes"):
        return bytes(value.tobytes())
    return str(value).encode()
