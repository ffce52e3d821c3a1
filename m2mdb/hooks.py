"""Hooks: what a program hangs into a connection, as sqlite3 has it.

    create_function, create_aggregate, create_collation   into its expressions
    set_authorizer             asked before a statement is planned
    set_progress_handler       asked while a statement runs
    set_work_handler           told how far a build of lists or an OPTIMIZE is
    set_trace_callback         told of each statement before it runs

Invariants
    HK1 While a hook runs, the connection refuses its thread every use: it is in the midst of a
        statement. Other threads wait, as always.
    HK2 What a hook raises ends the statement with an OperationalError; nothing of it is kept.
"""

from __future__ import annotations

import datetime
import math
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from m2mdb.pager.errors import InterfaceError, OperationalError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.query.binding import Parameters
    from m2mdb.query.extensions import Aggregate, Extensions

MOST_ARGUMENTS = 127  # of a function, as in SQLite
CHECK_ROWS = 2048  # rows that one check of a running statement stands for
_RESULTS = (int, float, str, bytes, type(None))


class Hooks(ABC):
    """The part of a connection that calls its program back."""

    lock: Any
    conditions: dict[Any, Any]
    taken: str
    taken_by: int
    trace: Callable[[str], object] | None

    @abstractmethod
    def engine(self) -> Database:
        """The database; see `Connection.engine`."""

    def create_function(
        self,
        name: str,
        narg: int,
        func: Callable[..., Any] | None,
        *,
        deterministic: bool = False,
    ) -> None:
        """Let statements of this connection call a function of the program.

        name           it hides the built-in function of this name and number of arguments
        narg           how many arguments it takes; -1: any number
        func           gets None, int, float, str, bytes, datetime or an array for each, and gives
                       one of these, what else it gives is an OperationalError; None: the function
                       is removed
        deterministic  equal arguments give equal results: a call without columns is made once
        """
        check_name("function", name, func, narg)
        key = name.lower(), narg
        with self._changing() as extensions:
            if func is None:
                extensions.functions.pop(key, None)
                return
            from m2mdb.query.extensions import Function, guarded

            call = guarded("function", self._calling(f"function {name}()", given(name, func)))
            extensions.functions[key] = Function(call, bool(deterministic))

    def create_aggregate(
        self, name: str, n_arg: int, aggregate_class: Callable[[], Aggregate] | None, /
    ) -> None:
        """Let statements of this connection use an aggregate of the program.

        `aggregate_class()` is made for each group; its `step(*values)` gets each row and its
        `finalize()` gives the value. None: the aggregate is removed.
        """
        check_name("aggregate", name, aggregate_class, n_arg)
        key = name.lower(), n_arg
        with self._changing() as extensions:
            if aggregate_class is None:
                extensions.aggregates.pop(key, None)
                return
            from m2mdb.query.extensions import guarded

            factory, what = aggregate_class, f"aggregate {name}()"
            made = guarded("aggregate's '__init__' method", self._calling(what, factory))
            extensions.aggregates[key] = lambda: _Steps(made(), name, self._calling, what)

    def create_collation(self, name: str, callable: Callable[[str, str], int] | None, /) -> None:
        """Let COLLATE name two texts' order: `callable(a, b)` is negative, 0 or positive.

        None: the collation is removed.
        """
        check_name("collation", name, callable, -1)
        with self._changing() as extensions:
            if callable is None:
                extensions.collations.pop(name.upper(), None)
                return
            from m2mdb.query.extensions import guarded

            compare = guarded("collation", self._calling(f"collation {name}", callable))
            extensions.collations[name.upper()] = compare

    def set_authorizer(self, authorizer_callback: Callable[..., int] | None) -> None:
        """Ask before a statement is planned, as sqlite3 does; None: everything is allowed.

        It is called with (action, one, other, "main", None), where action is one of
        m2mdb.SQLITE_READ and its like, and gives SQLITE_OK, SQLITE_DENY or SQLITE_IGNORE (a
        column or function is NULL then). It is asked for statements and for conditions of a
        Collection, not for the calls of Collection themselves.
        """
        check_callable("authorizer", authorizer_callback)
        with self._changing() as extensions:
            extensions.authorizer = None
            if authorizer_callback is not None:
                extensions.authorizer = self._calling("authorizer", authorizer_callback)

    def set_progress_handler(self, progress_handler: Callable[[], Any] | None, n: int = 1) -> None:
        """Ask while a statement runs, about once for every n rows that it looks at.

        A true value ends the statement with StatementInterruptedError, and so does an error. A
        statement asks between slices of 2,048 rows; n of less means each slice. None: no handler.
        """
        check_callable("progress handler", progress_handler)
        if isinstance(n, bool) or not isinstance(n, int):
            raise InterfaceError(f"n is {type(n).__name__}, not an int")
        with self.lock:
            database = self.engine()
            database.progress = None
            if progress_handler is not None and n > 0:
                call = self._calling("progress handler", progress_handler)
                database.progress = _Progress(call, n)

    def set_work_handler(self, handler: Callable[[str, int, int], object] | None) -> None:
        """Tell how far a build of lists or an OPTIMIZE is; None: no more.

        `handler(task, done, total)` hears what is made and how much of it is done, in rows or in
        segments; done = total ends a task. What it raises ends the statement with an
        OperationalError, and nothing of the step that it was in is kept.
        """
        check_callable("work handler", handler)
        with self.lock:
            database = self.engine()
            database.work = None
            if handler is not None:
                from m2mdb.query.extensions import guarded

                database.work = guarded("work handler", self._calling("work handler", handler))

    def set_trace_callback(self, trace_callback: Callable[[str], object] | None) -> None:
        """Tell of each statement, with its values in place, before it runs; None: no more."""
        check_callable("trace callback", trace_callback)
        with self.lock:
            self.engine()
            self.trace = trace_callback and self._calling("trace callback", trace_callback)

    def tell(self, statement: str, parameters: Parameters) -> None:
        """Tell the trace callback of a statement; what the callback raises is dropped."""
        trace = self.trace
        if trace is None:
            return
        from m2mdb.tracing import expanded

        text = expanded(statement, parameters)
        try:
            trace(text)
        except Exception:  # as in sqlite3, what looks on stops no statement
            return

    @contextmanager
    def _changing(self) -> Iterator[Extensions]:
        """The extensions, to be changed; what was compiled with the old ones is dropped."""
        with self.lock:
            database = self.engine()
            from m2mdb.query import extensions

            self.conditions.clear()
            yield extensions.of(database)

    def _calling(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The program's function, during which the connection refuses its thread (HK1)."""
        found = weakref.ref(self)

        def run(*arguments: Any) -> Any:
            connection = found()
            if connection is None:
                return call(*arguments)
            before = connection.taken, connection.taken_by
            connection.taken = f"its {what} is running"
            connection.taken_by = threading.get_ident()
            try:
                return call(*arguments)
            finally:
                connection.taken, connection.taken_by = before

        return run


class _Steps:
    """One group of a program's aggregate."""

    __slots__ = ("finalize", "step")

    def __init__(self, state: Aggregate, name: str, calling: Callable[..., Any], what: str) -> None:
        from m2mdb.query.extensions import guarded

        def step(*values: Any) -> object:
            return state.step(*values)

        def finalize() -> Any:
            return state.finalize()

        # looked up when they are called, so that their absence is told in the same way
        self.step = guarded("aggregate's 'step' method", calling(what, step))
        result = calling(what, given(name, finalize))
        self.finalize = guarded("aggregate's 'finalize' method", result)


class _Progress:
    """Counts the checks of running statements."""

    __slots__ = ("_call", "_every", "_rows")

    def __init__(self, call: Callable[[], Any], every: int) -> None:
        self._call = call
        self._every = every
        self._rows = 0

    def __call__(self) -> bool:
        self._rows += CHECK_ROWS
        if self._rows < self._every:
            return False
        self._rows = 0
        try:
            return bool(self._call())
        except Exception:
            return True  # as in sqlite3


def given(name: str, func: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its value as the language knows it."""

    def run(*arguments: Any) -> Any:
        value = func(*arguments)
        kind = type(value)
        if kind is str and not value.isascii():
            return _checked_text(name, value)
        if kind in _RESULTS and kind not in (int, float):
            return value
        if isinstance(value, float) and math.isnan(value):
            return None
        from m2mdb.query.binding import adapted

        if isinstance(value, bool):
            return int(value)
        try:
            made = adapted(value, 0)
        except Exception as problem:  # the program's adapters may raise anything
            raise OperationalError(
                f"{name}() gave {type(value).__name__}, which is no value: {problem}"
            ) from problem
        if isinstance(made, str):
            return _checked_text(name, made)
        if isinstance(made, (*_RESULTS, datetime.date)) or _is_vector(made):
            return made
        raise OperationalError(
            f"{name}() gave {type(value).__name__}, which is no value; expected None, int, float, "
            "str, bytes, datetime or an array of finite numbers, in one dimension"
        )

    return run


def _checked_text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise OperationalError(f"{name}() gave str that is no UTF-8: {problem}") from problem
    return text


def _is_vector(value: Any) -> bool:
    import numpy as np

    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "fiu":
        return False
    return len(value) > 0 and bool(np.isfinite(value).all())


def check_name(what: str, name: Any, func: Any, count: Any) -> None:
    """Raise InterfaceError or ProgrammingError for what cannot be registered."""
    if not isinstance(name, str):
        raise InterfaceError(f"the {what}'s name is {type(name).__name__}, not str")
    if not name:
        raise ProgrammingError(f"the {what} needs a name")
    check_callable(what, func)
    if isinstance(count, bool) or not isinstance(count, int):
        raise InterfaceError(f"the number of arguments is {type(count).__name__}, not int")
    if not -1 <= count <= MOST_ARGUMENTS:
        raise ProgrammingError(
            f"{what} {name}: {count} arguments; expected -1 (any) to {MOST_ARGUMENTS}"
        )


def check_callable(what: str, call: Any) -> None:
    """Raise InterfaceError where it is neither None nor a function."""
    if call is not None and not callable(call):
        raise InterfaceError(f"the {what} is {type(call).__name__}, which is not callable")
