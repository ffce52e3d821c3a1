"""Calls of built-in functions, compiled: which function, which of its arguments are evaluated, how.

Most functions take their arguments' values. The others are

    coalesce, ifnull, iif      evaluate what they need alone
    nullif, min, max           compare by the COLLATE of the first argument that has one
    date, strftime, …          see the statement's clock
    json_array, json_set, …    take pieces of JSON (see `query.json_functions`)
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Sequence

from m2mdb.pager.errors import PlacedFault, ProgrammingError
from m2mdb.query.affinity import Value
from m2mdb.query.aggregates import AGGREGATES
from m2mdb.query.comparison import compare, rank
from m2mdb.query.conditions import Compile, Evaluator, Row, collation_of
from m2mdb.query.constants import is_constant
from m2mdb.query.dates import TIME_FUNCTIONS
from m2mdb.query.functions import CONTEXT_FUNCTIONS, FUNCTIONS, Bindings, randomblob
from m2mdb.query.json_functions import (
    JSON_FUNCTIONS,
    MAKES_JSON,
    extracted_piece,
    json_piece,
    piece,
)
from m2mdb.query.jsonpath import extractor
from m2mdb.query.nodes import Case, Expression, FunctionCall, JsonPath, Literal
from m2mdb.query.plain_dates import MISSED, Way, way_of
from m2mdb.query.scope import Scope
from m2mdb.query.text_functions import compile_highlight, compile_snippet

Apply = Callable[..., Value]
KEPT_TIMES = 1 << 14  # texts of which a time function's value is kept in a run


def compile_call(node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    """A call of a function that is no aggregate.

    Raises ProgrammingError: no such function, with what was perhaps meant; a wrong number of
    arguments.
    """
    count = len(node.arguments)
    context = CONTEXT_FUNCTIONS.get(node.name)
    if context is not None and not count:
        return lambda row, bindings: context(bindings)
    special = _SPECIAL.get(node.name)
    if special is not None:
        least, most, make = special
        _check_count(node, least, most)
        return make(node, scope, compile)
    if node.name in TIME_FUNCTIONS:
        return _timed(node, scope, compile)
    if node.name in JSON_FUNCTIONS:
        return _json_call(node, scope, compile)
    if node.name == "json_extract" and count == 2:
        path = node.arguments[1]
        found = extractor(path.value) if isinstance(path, Literal) else None
        if found is not None:
            return applied(found, [compile(node.arguments[0], scope)])
    function, least, most = FUNCTIONS.get(node.name, (None, 0, None))
    if function is None:
        raise PlacedFault(_unknown(node.name), node.position)
    _check_count(node, least, most)
    return applied(function, [compile(each, scope) for each in node.arguments])


def _check_count(node: FunctionCall, least: int, most: int | None) -> None:
    count = len(node.arguments)
    if count < least or (most is not None and count > most):
        message = f"wrong number of arguments to function {node.name}()"
        raise PlacedFault(message, node.position)


def _unknown(name: str) -> str:
    """What is said of a name that is no function's, or of one for other arguments."""
    if name in CONTEXT_FUNCTIONS or name in AGGREGATES:
        return f"wrong number of arguments to function {name}()"
    from difflib import get_close_matches

    close = get_close_matches(name, function_names(), n=1, cutoff=0.7)
    hint = f"; did you mean {close[0]}()?" if close else ""
    return f"no such function: {name}{hint}"


def function_names() -> list[str]:
    """The names of all built-in functions and aggregates."""
    tables: tuple[Sequence[str] | dict[str, object], ...] = (
        list(FUNCTIONS), list(CONTEXT_FUNCTIONS), list(AGGREGATES), list(_SPECIAL),
        list(TIME_FUNCTIONS), list(JSON_FUNCTIONS),
    )  # fmt: skip
    return sorted({name for table in tables for name in table})


def applied(function: Apply, arguments: list[Evaluator]) -> Evaluator:
    """A function of its arguments' values."""
    if len(arguments) == 1:
        only = arguments[0]
        return lambda row, bindings: function(only(row, bindings))
    if len(arguments) == 2:
        first, second = arguments
        return lambda row, bindings: function(first(row, bindings), second(row, bindings))
    return lambda row, bindings: function(*[each(row, bindings) for each in arguments])


def _timed(node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    function, least, most = TIME_FUNCTIONS[node.name]
    _check_count(node, least, most)
    arguments = [compile(each, scope) for each in node.arguments]

    def run(row: Row, bindings: Bindings) -> Value:
        def now() -> datetime.datetime:
            return bindings.moment

        return function(now, *[each(row, bindings) for each in arguments])

    place = 1 if node.name == "strftime" else 0
    others = [each for at, each in enumerate(node.arguments) if at != place]
    if len(node.arguments) <= place or node.name == "timediff" or not all(map(is_constant, others)):
        return run
    return _of_one_time(node, arguments[place], run, others)


def _of_one_time(
    node: FunctionCall, time: Evaluator, run: Evaluator, others: list[Expression]
) -> Evaluator:
    """A time function of one value beside constants: by its text, else once for equal texts."""
    way: Way | None = None
    if all(isinstance(each, Literal) for each in others):
        constants = [each.value for each in others if isinstance(each, Literal)]
        first = 1 if node.name == "strftime" else 0
        way = way_of(node.name, constants[0] if first else None, constants[first:])
    key = object()

    def quick(row: Row, bindings: Bindings) -> Value:
        value = time(row, bindings)
        found = MISSED if way is None else way(value)
        if found is not MISSED:
            return found
        if type(value) is not str:
            return run(row, bindings)
        known: dict[str, Value] = bindings.once(key, dict)
        found = known.get(value, MISSED)
        if found is MISSED:
            found = run(row, bindings)
            if len(known) < KEPT_TIMES:
                known[value] = found
        return found

    return quick


# JSON


def _json_call(node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    function, least, most, takes_piece = JSON_FUNCTIONS[node.name]
    _check_count(node, least, most)
    return applied(
        function,
        [
            compile_piece(each, scope, compile) if takes_piece(at) else compile(each, scope)
            for at, each in enumerate(node.arguments)
        ],
    )


def compile_piece(node: Expression, scope: Scope, compile: Compile) -> Evaluator:
    """An argument as a piece of JSON text."""
    is_extract = isinstance(node, FunctionCall) and node.name == "json_extract"
    if is_extract and scope.replacement(node) is None:
        assert isinstance(node, FunctionCall)
        if len(node.arguments) > 1:
            return applied(extracted_piece, [compile(each, scope) for each in node.arguments])
    shape = json_piece if makes_json(node) else piece
    value = compile(node, scope)
    return lambda row, bindings: shape(value(row, bindings))


def makes_json(node: Expression) -> bool:
    """Whether an expression's text is put into other JSON as it is."""
    if isinstance(node, JsonPath):
        return node.operator == "->"
    return isinstance(node, FunctionCall) and node.name in MAKES_JSON


# Functions that choose what they evaluate, or compare


def _coalesce(node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    arguments = [compile(each, scope) for each in node.arguments]

    def run(row: Row, bindings: Bindings) -> Value:
        for each in arguments:
            value = each(row, bindings)
            if value is not None:
                return value
        return None

    return run


def _iif(node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    """`iif(a, x [, b, y …] [, otherwise])`."""
    arguments = node.arguments
    whens = list(zip(arguments[::2], arguments[1::2], strict=False))
    otherwise = arguments[-1] if len(arguments) % 2 else None
    return compile(Case(None, whens, otherwise, node.position), scope)


def _collated(node: FunctionCall, scope: Scope) -> Callable[[Value], Value]:
    return collation_of(scope, *node.arguments) or _as_it_is


def _as_it_is(value: Value) -> Value:
    return value


def _nullif(node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    fold = _collated(node, scope)

    def run(left: Value, right: Value) -> Value:
        if left is None or right is None:
            return left
        return None if compare(fold(left), fold(right)) == 0 else left

    return applied(run, [compile(each, scope) for each in node.arguments])


def _extreme(sign: int, node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    """The least or the greatest; NULL where one is NULL."""
    fold = _collated(node, scope)

    def run(*values: Value) -> Value:
        if any(value is None for value in values):
            return None
        best = values[0]
        rank(best)
        for value in values[1:]:
            order = compare(fold(value), fold(best)) * sign
            if order > 0 or (order == 0 and sign < 0):  # SQLite's min takes the last of equals
                best = value
        return best

    return applied(run, [compile(each, scope) for each in node.arguments])


def _first(node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    """likely() and its like: hints that change nothing."""
    if node.name == "likelihood":
        chance = node.arguments[1]
        given = chance.value if isinstance(chance, Literal) else None
        if type(given) is not float or not 0.0 <= given <= 1.0:
            raise ProgrammingError(
                "second argument to likelihood() must be a constant between 0.0 and 1.0"
            )
    return compile(node.arguments[0], scope)


def _randomblob(node: FunctionCall, scope: Scope, compile: Compile) -> Evaluator:
    """randomblob(), which asks the statement's Vfs."""
    size = compile(node.arguments[0], scope)
    return lambda row, bindings: randomblob(bindings, size(row, bindings))


Maker = Callable[[FunctionCall, Scope, Compile], Evaluator]
_SPECIAL: dict[str, tuple[int, int | None, Maker]] = {
    "coalesce": (2, None, _coalesce),
    "highlight": (1, 3, compile_highlight),
    "ifnull": (2, 2, _coalesce),
    "iif": (2, None, _iif),
    "likelihood": (2, 2, _first),
    "likely": (1, 1, _first),
    "max": (2, None, functools.partial(_extreme, 1)),
    "min": (2, None, functools.partial(_extreme, -1)),
    "nullif": (2, 2, _nullif),
    "randomblob": (1, 1, _randomblob),
    "snippet": (1, 5, compile_snippet),
    "unlikely": (1, 1, _first),
}
