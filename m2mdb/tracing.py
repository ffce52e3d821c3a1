"""Tracing: a statement with its values in place of its parameters, as a trace shows it."""

from __future__ import annotations

from typing import Any

import numpy as np

from m2mdb.pager.errors import Error
from m2mdb.query.binding import Parameters, bind
from m2mdb.query.functions import FUNCTIONS
from m2mdb.query.nodes import Parameter
from m2mdb.query.parser import parse
from m2mdb.query.tree import nodes_of

SHOWN_NUMBERS = 8  # components of a vector that are written out


def expanded(statement: str, parameters: Parameters) -> str:
    """The statement with values for parameters; as it is where it cannot be run anyway."""
    if not parameters:
        return statement
    try:
        tree = parse(statement)
        values = bind(tree, parameters)
    except Error:
        return statement
    places = sorted(
        {(each.position, each.index) for each in nodes_of(tree, Parameter)}, reverse=True
    )
    for position, index in places:
        end = position + 1
        while end < len(statement) and (statement[end].isalnum() or statement[end] == "_"):
            end += 1
        statement = statement[:position] + literal(values[index]) + statement[end:]
    return statement


def literal(value: Any) -> str:
    """A value as a statement would have it; a long vector is cut."""
    if isinstance(value, np.ndarray):
        if value.size > SHOWN_NUMBERS:
            return f"/* {value.dtype}({value.size}) */ ?"
        value = value.tolist()
    if isinstance(value, list | tuple) and all(isinstance(each, int | float) for each in value):
        return "[" + ", ".join(map(repr, value)) + "]"
    if isinstance(value, list | tuple | set | frozenset | range):
        return "(" + ", ".join(map(literal, value)) + ")"
    if isinstance(value, dict):
        import json

        return str(FUNCTIONS["quote"][0](json.dumps(value, ensure_ascii=False, default=str)))
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return str(FUNCTIONS["quote"][0](value))
