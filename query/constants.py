"""Constants: expressions whose value does not depend on the row."""

from __future__ import annotations

from m2mdb.query import extensions
from m2mdb.query.nodes import ColumnRef, FunctionCall, Literal, Node, Parameter, Subquery

_VOLATILE = frozenset({"random", "randomblob"})


def children(node: Node) -> list[Node]:
    """The nodes directly below a node; those of a subquery are not part of the expression."""
    if isinstance(node, Subquery):
        return []
    found: list[Node] = []
    waiting: list[object] = list(node.fields().values())
    for value in waiting:
        if isinstance(value, Node):
            found.append(value)
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return found


def walk(node: Node) -> list[Node]:
    """A node and all below it, in no particular order."""
    found = [node]
    for each in found:
        found.extend(children(each))
    return found


def is_constant(node: Node) -> bool:
    """Whether an expression has one value for all rows of a run of its statement."""
    if isinstance(node, Literal | Parameter):
        return True
    return not any(
        isinstance(each, ColumnRef) or (isinstance(each, FunctionCall) and _is_volatile(each))
        for each in walk(node)
    )


def _is_volatile(call: FunctionCall) -> bool:
    """Whether two calls with equal arguments may give different values."""
    own = extensions.function(call.name, len(call.arguments))
    return call.name in _VOLATILE if own is None else not own.deterministic
