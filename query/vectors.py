"""Vectors in expressions: `<->` (Euclidean), `<#>` (minus the dot product), `<=>` (1 − cosine).

As in pgvector, smaller is nearer. An operand is a vector, a list of numbers, little-endian float32
bytes or a text such as '[1, 2]'; NULL gives NULL, and so does the angle of a vector of zeros. What
is computed here is float64 over the stored components; SEARCH ranks by the kernels' float32, so the
last digits of its `distance` may differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from m2mdb.pager.errors import DataError
from m2mdb.query.affinity import Value, shown, type_name
from m2mdb.query.conditions import Compile, Evaluator, Row
from m2mdb.query.constants import is_constant
from m2mdb.query.functions import Bindings
from m2mdb.query.nodes import Binary, Expression
from m2mdb.query.scope import Scope

METRICS = {"<->": "l2", "<#>": "ip", "<=>": "cosine"}


def _euclidean(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.square(one - other).sum()))


def _inner(one: np.ndarray, other: np.ndarray) -> float:
    return -float(one @ other)


def _angle(one: np.ndarray, other: np.ndarray) -> float | None:
    length = float(np.sqrt(one @ one) * np.sqrt(other @ other))
    return 1.0 - float(one @ other) / length if length else None


_APPLY: dict[str, Callable[[np.ndarray, np.ndarray], float | None]] = {
    "<->": _euclidean,
    "<#>": _inner,
    "<=>": _angle,
}


def is_distance(node: Expression) -> bool:
    """Whether an expression is a distance of two vectors."""
    return isinstance(node, Binary) and node.operator in METRICS


def vector(value: Value) -> np.ndarray | None:
    """An operand as float64 (dimension,); None for NULL.

    Raises DataError: no vector, or one with a component that is no finite number.
    """
    if value is None:
        return None
    found: object = value
    if isinstance(value, bytes) and len(value) % 4 == 0:
        found = np.frombuffer(value, "<f4")
    elif isinstance(value, str):
        try:
            found = json.loads(value)
        except ValueError:
            found = None
    if isinstance(found, list | tuple | np.ndarray):
        try:
            made = np.asarray(found, np.float64)
        except (ValueError, TypeError):
            made = np.empty((0, 0))
        if made.ndim == 1 and np.isfinite(made).all():
            return made
    raise DataError(f"{type_name(value)} {shown(value)} is not a vector of finite numbers")


def compile_distance(node: Binary, scope: Scope, compile: Compile) -> Evaluator:
    """A closure that gives the distance of two vectors; a constant one is read once."""
    left = _operand(node.left, scope, compile)
    right = _operand(node.right, scope, compile)
    apply, symbol = _APPLY[node.operator], node.operator

    def run(row: Row, bindings: Bindings) -> Value:
        one, other = left(row, bindings), right(row, bindings)
        if one is None or other is None:
            return None
        if one.shape != other.shape:
            raise DataError(f"{symbol} of vectors of {len(one)} and {len(other)} components")
        return apply(one, other)

    return run


def _operand(node: Expression, scope: Scope, compile: Compile) -> Evaluator:
    """A side as float64; a constant is read once for the run of the statement."""
    evaluate = compile(node, scope)
    if not is_constant(node):
        return lambda row, bindings: vector(evaluate(row, bindings))
    key = ("vector", id(node))
    return lambda row, bindings: bindings.once(key, lambda: vector(evaluate(row, bindings)))
