"""The driver: runs the tables of tables.py over tokens, calling an action for each rule.

Three stacks go together: states, values, and positions (where each value's first token begins).

Invariants
    D1  No recursion: the depth of nesting is bounded by memory alone here.
    D2  A reduction looks at one token and takes none, so that a fault is found at the first
        token that cannot go on; what could have stood there is found by trying each terminal on
        the states as they were behind the last good token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from m2mdb.query.lexer import Tokens
from m2mdb.query.tables import ACCEPT, CALL, LABEL, LIST, PASS

Action = Callable[..., object]


class UnexpectedToken(Exception):
    """The token at this index cannot stand here."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class Driver:
    """The tables, ready to run. It keeps no state between runs."""

    __slots__ = ("_defaults", "_gotos", "_names", "_rows", "_rules", "_terminals")

    def __init__(self, tables: dict[str, Any], actions: dict[str, Action]) -> None:
        rows, gotos = tables["rows"], tables["gotos"]
        self._rows: list[dict[str, int]] = [rows[row] for row, _, _ in tables["states"]]
        self._gotos: list[dict[str, int]] = [gotos[goto] for _, goto, _ in tables["states"]]
        self._defaults: list[int] = [default for _, _, default in tables["states"]]
        self._names = frozenset(word for word, is_name in tables["keywords"].items() if is_name)
        self._terminals = [*tables["keywords"]]
        self._terminals += sorted({s for row in rows for s in row}.difference(self._terminals))
        self._rules = [
            (left, size, kind, actions[action] if action else _nothing, picks, splices)
            for left, size, kind, action, picks, splices in tables["rules"]
        ]

    def run(self, text: str, tokens: Tokens) -> object:
        """The value of the whole statement; UnexpectedToken where it is no statement."""
        kinds, starts, token_values = tokens.kinds, tokens.starts, tokens.values
        rows, gotos, defaults, rules = self._rows, self._gotos, self._defaults, self._rules
        names = self._names
        states = [0]
        values: list[object] = []
        positions: list[int] = []
        state, index, kind = 0, 0, kinds[0]
        while True:
            row = rows[state]
            action = row.get(kind)
            if action is None:
                action = row.get("NAME") if kind in names else None
                if action is None:
                    action = defaults[state]
            if action > 0:
                if action == ACCEPT:
                    return values[0]
                state = action
                states.append(state)
                values.append(token_values[index])
                positions.append(starts[index])
                index += 1
                kind = kinds[index]
                continue
            if action == 0:
                raise UnexpectedToken(index)
            left, size, rule_kind, call, picks, splices = rules[-action - 1]
            if size == 1 and rule_kind == PASS:
                states.pop()
                state = gotos[states[-1]][left]
                states.append(state)
                continue
            if size:
                children = values[-size:]
                start = positions[-size]
                del values[-size:], positions[-size:], states[-size:]
                if picks is not None:
                    children = [children[i] for i in picks]
                if splices is not None:
                    children = _spliced(children, splices)
            else:
                children, start = [], starts[index]
            if rule_kind == CALL:
                value = call(start, *children)
            elif rule_kind == LIST:
                value = children
            elif rule_kind == LABEL:
                value = call(start, text[start : tokens.ends[index - 1]], *children)
            else:
                value = children[0]
            state = gotos[states[-1]][left]
            states.append(state)
            values.append(value)
            positions.append(start)

    def expected(self, kinds: list[str], index: int) -> list[str]:
        """The terminals that could stand in place of the token at index, keywords first (D2).

        A keyword that could stand there only as a name is not among them.
        """
        states = [0]
        for kind in kinds[:index]:
            states = self._shift(states, kind) or states
        found = []
        for terminal in self._terminals:
            after = self._shift(states, terminal)
            if after is None:
                continue
            is_name = terminal in self._names and after == self._shift(states, "NAME")
            if not is_name:
                found.append(terminal)
        return found

    def _shift(self, states: list[int], kind: str) -> list[int] | None:
        """The states behind one more token, or None if it cannot stand there."""
        states = states.copy()
        while True:
            row = self._rows[states[-1]]
            action = row.get(kind)
            if action is None:
                action = row.get("NAME") if kind in self._names else None
                if action is None:
                    action = self._defaults[states[-1]]
            if action > 0:
                return [*states, action]
            if action == 0:
                return None
            left, size = self._rules[-action - 1][:2]
            if size:
                del states[-size:]
            states.append(self._gotos[states[-1]][left])


def _nothing(*arguments: object) -> object:
    """The action of rules that call none."""
    raise AssertionError(arguments)


def _spliced(children: list[object], splices: list[int]) -> list[object]:
    """The children with the lists among them poured out.

    The first list is reused: a long list grows by a step at a time, not by copies.
    """
    if splices == [0]:
        head = children[0]
        assert isinstance(head, list)
        head.extend(children[1:])
        return head
    flat: list[object] = []
    for i, child in enumerate(children):
        if i in splices:
            assert isinstance(child, list)
            flat.extend(child)
        else:
            flat.append(child)
    return flat
