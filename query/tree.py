"""Trees of statements: all nodes of a kind, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from m2mdb.query.nodes import Node

T = TypeVar("T", bound=Node)


def nodes_of(statement: Node, kind: type[T]) -> Iterator[T]:
    """The nodes of a class, in no particular order, without recursion; not those inside of one."""
    waiting: list[object] = [statement]
    while waiting:
        item = waiting.pop()
        if isinstance(item, kind):
            yield item
        elif isinstance(item, Node):
            waiting.extend(item.children())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif isinstance(item, dict):  # what a statement that is not built yet would have
            waiting.extend(item.values())
