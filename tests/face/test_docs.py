"""The language page: its examples run in their order and print what stands under them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import m2mdb
from m2mdb.language import Language
from m2mdb.query.ast import Search, Unbuilt
from m2mdb.query.parser import parse
from m2mdb.query.tree import nodes_of
from m2mdb.tables import table
from tests.query.parser_samples import STATEMENTS

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "language.md"
EXAMPLE = re.compile(r"```(sql|python)\n(.*?)```\n(?:```text\n(.*?)```\n)?", re.DOTALL)


def shown(con: m2mdb.Connection, kind: str, code: str) -> str:
    """What an example prints: Python's output, or the last statement's rows as a table."""
    if kind == "python":
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, {"con": con, "m2mdb": m2mdb})
        return printed.getvalue()
    text = ""
    for statement in Language().split(code):
        cursor = con.execute(statement)
        if cursor.description is not None:
            text = table([column[0] for column in cursor.description], cursor.fetchall()) + "\n"
    return text


def test_the_examples_of_the_language_page_print_what_they_show() -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    examples = EXAMPLE.findall(PAGE.read_text("utf-8"))

    found = [(code, shown(con, kind, code)) for kind, code, _ in examples]

    assert len(examples) >= 15
    for (code, printed), (_, _, expected) in zip(found, examples, strict=True):
        assert printed == expected, code
    con.close()


def test_all_fences_of_the_language_page_are_examples() -> None:
    text = PAGE.read_text("utf-8")

    assert "```" not in EXAMPLE.sub("", text)


def test_the_language_page_names_every_function_and_pragma() -> None:
    from m2mdb.query.calls import function_names
    from m2mdb.query.pragma import _PRAGMAS

    words = set(re.findall(r"\w+", PAGE.read_text("utf-8")))

    known = {name.upper() if name[:8] == "current_" else name for name in function_names()}
    assert known | set(_PRAGMAS) <= words


EXECUTED = re.compile(r'con\.execute\(\s*"([^"]+)"')


def test_the_language_page_has_an_example_of_every_statement() -> None:
    """Of every kind that the parser knows, and of every clause of SEARCH that is built."""
    shown_kinds, clauses = set(), set()
    for kind, code, _ in EXAMPLE.findall(PAGE.read_text("utf-8")):
        for text in Language().split(code) if kind == "sql" else EXECUTED.findall(code):
            statement = parse(text)
            shown_kinds.add(type(statement))
            for search in nodes_of(statement, Search):
                clauses |= {name for name in Search.__slots__ if getattr(search, name)}

    missing = {type(parse(each)) for each in STATEMENTS} - shown_kinds - {Unbuilt}
    assert not missing
    assert set(Search.__slots__) - clauses == {"score", "seed", "temperature"}


def test_what_the_page_calls_unbuilt_is_what_is_unbuilt() -> None:
    page = PAGE.read_text("utf-8")
    section = page.split("## Statements that are parsed and not built")[1].split("\n## ")[0]
    nodes = [parse(each) for each in STATEMENTS]

    unbuilt = {node.keyword.split()[0] for node in nodes if isinstance(node, Unbuilt)}

    assert all(f"`{word} " in section for word in unbuilt)


MATCHES = [
    ("dark mode", ["n1", "n2", "n3"]),
    ('"dark mode"', ["n1"]),
    ("edit*", ["n1"]),
    ("chocolat~1", ["n2"]),
    ("+mode -night", ["n1"]),
    ("dark^2 mode", ["n1", "n2", "n3"]),
    ("body:dark", ["n1", "n2"]),
]


@pytest.mark.parametrize(("text", "ids"), MATCHES)
def test_the_match_texts_of_the_page_find_what_it_says(text: str, ids: list[str]) -> None:
    page = PAGE.read_text("utf-8")
    con = m2mdb.connect(":memory:", compute="numpy")
    for kind, code, _ in EXAMPLE.findall(page)[:4]:
        shown(con, kind, code)

    found = con.collection("notes").search(match=text).ids.tolist()

    assert f"| `{text}` |" in page
    assert sorted(found) == ids
    con.close()
