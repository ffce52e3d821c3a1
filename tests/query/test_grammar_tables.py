"""tables.json is what Lark makes of grammar.lark, and the driver does what Lark does."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest

from m2mdb.query import expression_actions, schema_actions, statement_actions, tables
from m2mdb.query.driver import Driver
from m2mdb.query.lexer import END, SYMBOLS, Lexer
from m2mdb.query.parser import parse
from m2mdb.query.words import RESERVED, quoted
from tests.query.parser_samples import STATEMENTS

ACTIONS = vars(expression_actions) | vars(statement_actions) | vars(schema_actions)


@pytest.fixture(scope="module")
def lark() -> Any:
    return tables.lark_parser(tables.grammar_text())


def test_tables_are_built_from_the_grammar() -> None:
    built = tables.dumps(tables.build(tables.grammar_text()))

    assert built == tables._data("tables.json"), "run: python -m m2mdb.query.tables"


def test_tables_do_not_depend_on_the_order_of_hashes() -> None:
    code = (
        "from hashlib import sha256; from m2mdb.query.tables import build, dumps, grammar_text;"
        "print(sha256(dumps(build(grammar_text())).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()[-1]
        for seed in ("1", "2")
    }

    assert len(digests) == 1


def test_reserved_words_are_those_of_the_grammar() -> None:
    keywords = tables.load()["keywords"]

    assert {word for word, is_name in keywords.items() if not is_name} == RESERVED


def test_names_are_quoted_where_they_must_be() -> None:
    names = ["notes", "order", "Order", "k", "a b", 'a"b', "1a", "_x", "é", "", "near"]

    written = [quoted(name) for name in names]

    assert written == [
        "notes", '"order"', '"Order"', "k", '"a b"', '"a""b"', '"1a"', "_x", '"é"', '""', "near",
    ]  # fmt: skip


def test_lexer_and_grammar_agree_on_symbols(lark: Any) -> None:
    import re

    patterns = {terminal.name: terminal.pattern for terminal in lark.terminals}
    for text, name in SYMBOLS.items():
        assert re.fullmatch(patterns[name].to_regexp(), text), (text, name)
    named = {"NAME", "QUOTED", "STRING", "BLOB", "NUMBER", "VECTOR", "PARAMETER"}
    ignored = {"BLANK", "COMMENT"}

    keywords = tables.load()["keywords"]

    assert set(patterns) == {*SYMBOLS.values(), *named, *ignored, *keywords}


@pytest.mark.parametrize("sql", STATEMENTS)
def test_lexer_cuts_tokens_as_the_grammar_writes_them(lark: Any, sql: str) -> None:
    import re

    patterns = {t.name: t.pattern.to_regexp() for t in lark.terminals}
    tokens = Lexer(tables.load()["keywords"]).cut(sql)

    for kind, start, end in zip(tokens.kinds, tokens.starts, tokens.ends, strict=True):
        if kind != END:
            assert re.fullmatch(patterns[kind], sql[start:end], re.IGNORECASE), sql[start:end]


def test_every_action_exists_and_is_used() -> None:
    used = {rule[3] for rule in tables.load()["rules"]} - {""}
    for module in (expression_actions, statement_actions, schema_actions):
        defined = {
            name
            for name, item in vars(module).items()
            if callable(item) and getattr(item, "__module__", "") == module.__name__
            and name[0].islower()
        }  # fmt: skip
        assert defined <= used, module.__name__
        used -= defined

    assert used == set()


def lark_tree(lark: Any, sql: str) -> object:
    """The tree as Lark's own parser and tree builder make it, with the same actions."""
    from lark import Token, Transformer
    from lark.visitors import v_args

    class Value(str):
        item: object

    tokens = Lexer(tables.load()["keywords"]).cut(sql)
    given = []
    for kind, value, start, end in zip(
        tokens.kinds, tokens.values, tokens.starts, tokens.ends, strict=True
    ):
        if kind != END:
            text = Value(sql[start:end])
            text.item = value
            given.append(Token(kind, text, start_pos=start, end_pos=end, line=1, column=1))

    @v_args(meta=True)
    class Build(Transformer[Any, Any]):
        def __default__(self, data: str, children: list[Any], meta: Any) -> Any:
            start = getattr(meta, "start_pos", -1)
            values = [c.value.item if isinstance(c, Token) else c for c in children]
            if data in tables.LABELLED:
                return ACTIONS[data](start, sql[start : meta.end_pos], *values)
            return ACTIONS[data](start, *values)

    tree = lark.parse(given)
    return Build(visit_tokens=False).transform(tree) if hasattr(tree, "data") else tree


@pytest.mark.parametrize("sql", STATEMENTS)
def test_driver_builds_the_tree_that_lark_builds(lark: Any, sql: str) -> None:
    ours = parse(sql)

    theirs: Any = lark_tree(lark, sql)

    theirs.parameter_count, theirs.parameter_names = ours.parameter_count, ours.parameter_names
    assert ours == theirs


def test_driver_accepts_what_lark_accepts(lark: Any) -> None:
    """T1, on random walks: sentences with words put in, taken out and changed."""
    from lark.exceptions import UnexpectedToken as LarkUnexpected

    data = tables.load()
    driver, lexer = Driver(data, dict.fromkeys(ACTIONS, lambda *_: None)), Lexer(data["keywords"])
    kinds_of = [lexer.cut(sql).kinds[:-1] for sql in STATEMENTS]
    terminals = sorted({kind for kinds in kinds_of for kind in kinds} | set(data["keywords"]))
    choose = random.Random(5)
    accepted = 0
    for _ in range(3000):
        kinds = list(choose.choice(kinds_of))
        place = choose.randrange(len(kinds) + 1)
        change = choose.randrange(4)
        if change == 0:
            kinds.insert(place, choose.choice(terminals))
        elif change == 1:
            kinds[place : place + 1] = [choose.choice(terminals)]
        elif change == 2:
            kinds[place:] = choose.choice(kinds_of)[choose.randrange(3) :]
        interactive = lark.parse_interactive(iter(()))
        fault = None
        from lark import Token

        for index, kind in enumerate([*kinds, END]):
            try:
                interactive.feed_token(Token(kind, ""))
            except LarkUnexpected:
                fault = index
                break
        assert first_fault(driver, [*kinds, END]) == fault, kinds
        accepted += fault is None
    assert accepted > 300


def first_fault(driver: Driver, kinds: list[str]) -> int | None:
    """The index of the first token that the driver does not take, or None."""
    states = [0]
    for index, kind in enumerate(kinds):
        after = driver._shift(states, kind)
        if after is None:
            return index
        states = after
    return None
