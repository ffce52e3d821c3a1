"""Rewriting: a copy of an expression with nodes replaced; what did not change is shared."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from m2mdb.query.nodes import Expression, Node

Replace = Callable[[Node], Node | None]


def rewritten(node: Expression, replace: Replace) -> Expression:
    """The expression with nodes replaced, from the top.

    `replace` gives what stands in a node's place, the node itself to leave it with all below it,
    or None to look at what is below. The tree itself is never changed.
    """
    made = _rewritten(node, replace)
    assert isinstance(made, Expression)
    return made


def _rewritten(node: Any, replace: Replace) -> Any:
    if isinstance(node, list | tuple):
        parts = [_rewritten(part, replace) for part in node]
        changed = any(new is not old for new, old in zip(parts, node, strict=True))
        return type(node)(parts) if changed else node
    if not isinstance(node, Node):
        return node
    found = replace(node)
    if found is not None:
        return found
    changes = {
        field: new
        for field, value in node.fields().items()
        if (new := _rewritten(value, replace)) is not value
    }
    if not changes:
        return node
    made = copy.copy(node)
    for field, value in changes.items():
        setattr(made, field, value)
    return made
