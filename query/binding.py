"""Binding: from the parameters that a program passes to the values that a statement reads.

`?` takes a sequence, `:name` a mapping. Scalars become Python's own types; what stands for a
vector, a list or a JSON value is passed on as it is, for the column to judge.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, MappingView, Sequence, Set
from typing import Any

import numpy as np

from m2mdb.pager.errors import DataError, InterfaceError, ProgrammingError
from m2mdb.query.affinity import INT64_MAX, INT64_MIN, shown
from m2mdb.query.ast import Statement
from m2mdb.query.functions import Bindings

Parameters = Sequence[Any] | Mapping[str, Any]
_PLAIN = frozenset({str, bytes, bool, type(None)})
ADAPTERS: dict[type, Callable[[Any], Any]] = {}  # the program's, by exact type; set by the face
_ONE = (str, bytes, bytearray, memoryview)
_PASSED = (np.ndarray, list, tuple, dict, set, frozenset, range)


def bind(statement: Statement, parameters: Parameters) -> Bindings:
    """The values of a statement's parameters, in the order of their slots.

    Raises ProgrammingError: a wrong number, a missing name, a sequence for names or a mapping for
    `?`. InterfaceError: parameters or a value of a wrong type. DataError: an integer beyond 64
    bits, NaN.
    """
    kind = type(parameters)
    if kind is not tuple and kind is not list:
        parameters = gathered(statement, parameters)
    elif statement.parameter_names and parameters:
        raise ProgrammingError(
            f"the statement names its parameters (:{statement.parameter_names[0]}); pass a "
            f"mapping, not a {kind.__name__}"
        )
    if len(parameters) != statement.parameter_count:
        raise ProgrammingError(
            "Incorrect number of bindings supplied. The current statement uses "
            f"{statement.parameter_count}, and there are {len(parameters)} supplied."
        )
    bindings = Bindings(parameters)
    for index, value in enumerate(bindings):
        if type(value) not in _PLAIN:
            bindings[index] = adapted(value, index)
    return bindings


def gathered(statement: Statement, parameters: Parameters) -> Sequence[Any]:
    """The parameters as a sequence in the order of the slots."""
    names = statement.parameter_names
    if isinstance(parameters, Mapping):
        if not names:
            if statement.parameter_count:
                raise ProgrammingError("the statement uses ?; pass a sequence, not a mapping")
            return ()
        missing = [name for name in names if name not in parameters]
        if missing:
            raise ProgrammingError(
                f"You did not supply a value for binding parameter :{missing[0]}."
            )
        return [parameters[name] for name in names]
    # The order of a set's items is that of their hashes; a view is none of either, as in sqlite3.
    is_unordered = isinstance(parameters, Set | MappingView)
    if is_unordered or isinstance(parameters, _ONE) or not hasattr(parameters, "__len__"):
        raise InterfaceError(
            f"parameters are a sequence or a mapping, not {type(parameters).__name__} "
            f"{shown(parameters)}"
        )
    if names:
        raise ProgrammingError(
            f"the statement names its parameters (:{names[0]}); pass a mapping, not a "
            f"{type(parameters).__name__}"
        )
    return tuple(parameters)


def adapted(value: Any, index: int) -> Any:
    """One value as the language knows it; the errors of `bind`."""
    kind = type(value)
    if kind is int:
        return _integer(value, index)
    if kind is float:
        if value != value:
            raise DataError(f"parameter {index + 1} is NaN, which is no value; pass None for NULL")
        return value
    if kind in ADAPTERS:
        return _by_adapter(value, index)
    if kind in _PLAIN or isinstance(value, _PASSED):
        return value
    if isinstance(value, datetime.date):
        return _moment(value)
    return _converted(value, index)


def _by_adapter(value: Any, index: int) -> Any:
    """What the program's adapter makes of a value; that is adapted by no other."""
    made = ADAPTERS[type(value)](value)
    if type(made) in ADAPTERS and type(made) is not type(value):
        raise InterfaceError(
            f"Error binding parameter {index + 1}: the adapter of {type(value).__name__} gave "
            f"{type(made).__name__}, which has an adapter of its own"
        )
    return made if type(made) is type(value) else adapted(made, index)


def _integer(value: int, index: int) -> int:
    if not INT64_MIN <= value <= INT64_MAX:
        raise DataError(f"parameter {index + 1}: integer {shown(value)} does not fit 64 bits")
    return value


def _moment(value: datetime.date) -> datetime.date:
    """A datetime in UTC; a plain date stays, and means its midnight."""
    if not isinstance(value, datetime.datetime):
        return datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
    if value.tzinfo is None:
        return value.replace(tzinfo=datetime.UTC)
    return value.astimezone(datetime.UTC)


def _converted(value: Any, index: int) -> Any:
    """NumPy scalars, subclasses of the plain types, buffers, UUIDs, and arrays of others."""
    if isinstance(value, np.datetime64):
        if np.isnat(value):
            return None
        micro = value.astype("datetime64[us]").item()
        return _moment(micro)
    if isinstance(value, np.generic):
        return adapted(value.item(), index)
    conform = getattr(type(value), "__conform__", None)
    if conform is not None:
        from m2mdb.query.protocol import PrepareProtocol

        made = conform(value, PrepareProtocol)
        if made is not None and type(made) is not type(value):
            return adapted(made, index)
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return adapted(plain(value), index)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if kind_name(value) in ("uuid.UUID", "decimal.Decimal", "datetime.time"):
        return str(value)
    if hasattr(value, "__arrow_c_stream__") and _has_columns(value):
        raise InterfaceError(
            f"Error binding parameter {index + 1}: {type(value).__name__} is a table and goes "
            "where a statement says FROM ?"
        )
    if hasattr(value, "__array__") or kind_name(value) == "array.array":
        return np.asarray(value)
    raise InterfaceError(
        f"Error binding parameter {index + 1}: type {type(value).__name__!r} is not supported"
    )


def _has_columns(value: Any) -> bool:
    return hasattr(value, "columns") or hasattr(value, "schema")


def kind_name(value: Any) -> str:
    """The full name of a value's type, so that its module need not be imported."""
    return f"{type(value).__module__}.{type(value).__qualname__}"
