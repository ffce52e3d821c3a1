"""Parser tables: built from grammar.lark by Lark, shipped as tables.json, loaded without Lark.

    {"keywords": {"SEARCH": 0, …},     every keyword, in the order of the grammar; 1 = a name too
     "rules":  [[left, size, kind, action, picks, splices], …],
     "rows":   [{terminal: action, …}, …],      shared by equal states
     "gotos":  [{nonterminal: state, …}, …],    shared by equal states
     "states": [[row, goto, default], …]}

    action   n > 0 shift to state n | n < 0 reduce by rule -n - 1 | 0 error | ACCEPT
    kind     PASS hands on the one picked value | CALL the action | LABEL: CALL with the text
             covered | LIST of the picked values
    picks    the children that count, by index, or null: all
    splices  which of the picked are lists to be poured out, by index in picks, or null: none

A state's action for a terminal is, in this order: the row's; if the terminal is a word that is
also a name, the row's for NAME; the state's default.

Invariants
    T1  The tables accept what Lark's conflict-free LALR(1) tables accept, with the same tree.
    T2  Steps over rules that hand on their only child, from states that can do nothing else, are
        taken at build time; such states are gone.
    T3  A default is a reduction. It may come where Lark's table has an error, which is then
        found before the next shift.
    T4  Equal grammars give equal bytes: states are numbered breadth first, in sorted order.
"""

from __future__ import annotations

from typing import Any

PASS, CALL, LABEL, LIST = 0, 1, 2, 3
ACCEPT = 1_000_000  # more than there are states
START = "statement"
LABELLED = frozenset({"condition_text", "result"})  # actions that are given the text they cover

Rule = list[Any]
Action = int
Table = list[dict[str, Action]]


def grammar_text() -> str:
    """The grammar, as shipped."""
    return _data("grammar.lark")


def load() -> dict[str, Any]:
    """The tables, as shipped."""
    from json import loads

    tables: dict[str, Any] = loads(_data("tables.json"))
    return tables


def _data(name: str) -> str:
    folder = __file__.rpartition("tables.py")[0]
    with open(folder + name, encoding="utf-8") as file:
        return file.read()


def build(grammar: str) -> dict[str, Any]:
    """The tables of a grammar; Lark raises GrammarError for one with a conflict."""
    lark = lark_parser(grammar)
    keywords = _keywords(lark, grammar)
    words = {word for word, is_name in keywords.items() if is_name}
    rules, numbers = _rules(lark)
    states = _skip_passes(_states(lark, numbers), rules)
    rows, gotos, packed = _pack(_renumber(states), keywords, words)
    return {
        "keywords": keywords,
        "rules": rules,
        "rows": rows,
        "gotos": gotos,
        "states": packed,
    }


def dumps(tables: dict[str, Any]) -> str:
    """The bytes of tables.json: one line a rule, a row, a goto, so that changes show."""
    from json import dumps as to_json

    parts = [f'"keywords":{to_json(tables["keywords"], separators=(",", ":"))}']
    for key in ("rules", "rows", "gotos", "states"):
        lines = ",\n".join(to_json(item, separators=(",", ":")) for item in tables[key])
        parts.append(f'"{key}":[\n{lines}]')
    return "{" + ",\n".join(parts) + "}\n"


def lark_parser(grammar: str) -> Any:
    """Lark's own parser of the grammar, without a lexer; strict: a conflict is an error."""
    from lark import Lark
    from lark.lexer import Lexer

    class GivenTokens(Lexer):
        """Hands on the tokens that are parsed."""

        def __init__(self, configuration: Any) -> None:
            pass

        def lex(self, lexer_state: Any, parser_state: Any = None) -> Any:
            return iter(lexer_state)

    return Lark(
        grammar,
        parser="lalr",
        lexer=GivenTokens,
        strict=True,
        start=START,
        maybe_placeholders=False,
        propagate_positions=True,
    )


def _keywords(lark: Any, grammar: str) -> dict[str, int]:
    """Every keyword in the order of the grammar, with 1 if it may be a name."""
    found = [
        terminal.name
        for terminal in lark.terminals
        if terminal.pattern.type == "str" and terminal.pattern.value == terminal.name
    ]
    names = {
        symbol.name
        for rule in lark.rules
        if rule.origin.name in ("word", "clause_word", "name")
        for symbol in rule.expansion
        if symbol.is_term
    }
    found.sort(key=lambda word: grammar.index(f'"{word}"'))
    return {word: int(word in names) for word in found}


def _rules(lark: Any) -> tuple[list[Rule], dict[Any, int]]:
    """The rules as lists, and the number of each of Lark's."""
    ordered = sorted(lark.rules, key=lambda rule: (rule.origin.name, rule.order))
    return [_rule(rule) for rule in ordered], {rule: i for i, rule in enumerate(ordered)}


def _rule(rule: Any) -> Rule:
    name, size = rule.origin.name, len(rule.expansion)
    keep_all = rule.options.keep_all_tokens
    picks = [
        i
        for i, symbol in enumerate(rule.expansion)
        if not symbol.is_term or keep_all or not symbol.filter_out
    ]
    splices = [
        place for place, i in enumerate(picks) if rule.expansion[i].name.startswith("_")
        and not rule.expansion[i].is_term
    ]  # fmt: skip
    action = rule.alias or name
    if name.startswith("_"):
        kind, action = LIST, ""
    elif rule.options.expand1 and not rule.alias:
        assert len(picks) == 1, f"?{name} must keep one child: {rule}"
        assert not splices, f"?{name} must keep one child: {rule}"
        kind, action = PASS, ""
    else:
        kind = LABEL if action in LABELLED else CALL
    return [name, size, kind, action, None if len(picks) == size else picks, splices or None]


def _states(lark: Any, numbers: dict[Any, int]) -> Table:
    """Lark's table with numbers for actions; the start state first."""
    from lark.parsers.lalr_analysis import Shift

    table = lark.parser.parser._parse_table
    start, end = table.start_states[START], table.end_states[START]
    order = [start, *(state for state in table.states if state != start)]
    place = {state: i for i, state in enumerate(order)}
    result = [
        {
            name: place[argument] if action is Shift else -numbers[argument] - 1
            for name, (action, argument) in table.states[state].items()
        }
        for state in order
    ]
    result[place[end]] = {"$END": ACCEPT}
    return result


def _skip_passes(states: Table, rules: list[Rule]) -> Table:
    """T2: every shift and goto leads past the states that only hand on their one child."""
    only: dict[int, str] = {}
    for state, actions in enumerate(states):
        reductions = set(actions.values())
        if len(reductions) == 1 and (first := next(iter(reductions))) < 0:
            left, size, kind = rules[-first - 1][:3]
            if size == 1 and kind == PASS:
                only[state] = left
    result: Table = []
    for actions in states:
        row = {}
        for symbol, target in actions.items():
            action = target
            while action in only:
                action = actions[only[action]]
            row[symbol] = action
        result.append(row)
    return result


def _renumber(states: Table) -> Table:
    """T4: the reachable states, breadth first from the start, symbols in sorted order."""
    order = [0]
    place = {0: 0, ACCEPT: ACCEPT}
    for state in order:
        for _symbol, action in sorted(states[state].items()):
            if action > 0 and action not in place:
                place[action] = len(order)
                order.append(action)
    return [
        {symbol: place[a] if a > 0 else a for symbol, a in states[state].items()} for state in order
    ]


def _pack(
    states: Table, keywords: dict[str, int], words: set[str]
) -> tuple[Table, Table, list[list[int]]]:
    """Rows, gotos and states, with fallbacks, defaults and sharing."""
    rows: dict[tuple[tuple[str, int], ...], int] = {}
    gotos: dict[tuple[tuple[str, int], ...], int] = {}
    packed = []
    for actions in states:
        terminals = {s: a for s, a in actions.items() if not s[0].islower() and s[0] != "_"}
        goto = {s: a for s, a in actions.items() if s not in terminals}
        row, default = _pack_row(terminals, words)
        packed.append(
            [
                rows.setdefault(tuple(sorted(row.items())), len(rows)),
                gotos.setdefault(tuple(sorted(goto.items())), len(gotos)),
                default,
            ]
        )
    return [dict(row) for row in rows], [dict(goto) for goto in gotos], packed


def _pack_row(terminals: dict[str, int], words: set[str]) -> tuple[dict[str, int], int]:
    """What must be said of a state's terminals, and its default (0: an error)."""
    reductions = [action for action in terminals.values() if action < 0]
    default = max(set(reductions), key=lambda a: (reductions.count(a), a), default=0)
    row = {s: a for s, a in terminals.items() if s not in words and a != default}
    name = row.get("NAME")
    for word in words:
        wanted = terminals.get(word, 0)
        given = default if name is None else name
        harmless = wanted == 0 and given < 0
        if wanted != given and not harmless:
            row[word] = wanted
    return row, default


def main() -> None:
    """Write tables.json anew: `python -m m2mdb.query.tables`."""
    path = __file__.rpartition("tables.py")[0] + "tables.json"
    built = dumps(build(grammar_text()))
    with open(path, "w", encoding="utf-8") as file:
        file.write(built)


if __name__ == "__main__":
    main()
