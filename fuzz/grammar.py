"""Sentences of the language, walked at random from the rules of query/grammar.lark itself."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from m2mdb.query import tables

_TOKENS = {
    "NAME": [
        "c",
        "c",
        "c",
        "t",
        "n",
        "v",
        "u",
        "rowid",
        "x",
        "count",
        "length",
        "json_extract",
        "hashing",
        "strftime",
        "date",
        "json_set",
        "json_array",
        "json_group_array",
        "printf",
        "substr",
        "pow",
        "min",
        "coalesce",
        "unhex",
    ],
    "QUOTED": ['"t"', '"x y"'],
    "STRING": ["'red apple'", "''", "'it''s'", "'$.a'", "'2024-01-01'", "'%d'"],
    "BLOB": ["x'00ff'", "X''"],
    "NUMBER": ["0", "1", "2", "3", "2.5", "0xFF", "1e3", "9223372036854775807", "1e308"],
    "PARAMETER": ["?"],
    "VECTOR": ["[1, -2.5]", "[]", "[0, 0]", "[1, 2, 3]"],
    "EQUALITY": ["==", "!=", "<>"],
    "COMPARISON": ["<", "<=", ">", ">="],
    "SIGN": ["+", "-"],
    "DIVISION": ["/", "%"],
    "BITS": ["&", "|", "<<", ">>", "<->", "<#>", "<=>"],
    "ARROW": ["->", "->>"],
}


class Grammar:
    """The rules, and the least height of a tree of each."""

    def __init__(self) -> None:
        self.rules: dict[str, list[list[str]]] = {}
        lark: Any = tables.lark_parser(tables.grammar_text())
        for rule in lark.rules:
            names = [symbol.name for symbol in rule.expansion]
            self.rules.setdefault(rule.origin.name, []).append(names)
        self.spelling = {
            terminal.name: [terminal.pattern.value]
            for terminal in lark.terminals
            if terminal.pattern.type == "str"
        } | _TOKENS
        self.heights = self._heights()
        self.lowest = {name: self._lowest(expansions) for name, expansions in self.rules.items()}

    def _heights(self) -> dict[str, int]:
        heights = dict.fromkeys(self.spelling, 0)
        changed = True
        while changed:
            changed = False
            for name, expansions in self.rules.items():
                known = [
                    1 + max((heights[s] for s in expansion), default=0)
                    for expansion in expansions
                    if all(symbol in heights for symbol in expansion)
                ]
                if known and heights.get(name) != min(known):
                    heights[name] = min(known)
                    changed = True
        return heights

    def _lowest(self, expansions: list[list[str]]) -> list[list[str]]:
        heights = [max((self.heights[s] for s in e), default=0) for e in expansions]
        return [e for e, height in zip(expansions, heights, strict=True) if height == min(heights)]

    def sentence(self, choose: random.Random, symbol: str = "statement", room: int = 20) -> str:
        """One sentence; where room is used up, the lowest trees are taken."""
        words: list[str] = []
        stack = [(symbol, room)]
        while stack:
            name, left = stack.pop()
            spellings = self.spelling.get(name)
            if spellings is not None:
                words.append(spellings[int(choose.random() * len(spellings))])
                continue
            low = left <= self.heights[name] or len(words) > 60
            expansions = self.lowest[name] if low else self.rules[name]
            chosen = expansions[int(choose.random() * len(expansions))]
            stack.extend((part, left - 1) for part in reversed(chosen))
        return " ".join(words)


@cache
def grammar() -> Grammar:
    """The grammar, read once."""
    return Grammar()
