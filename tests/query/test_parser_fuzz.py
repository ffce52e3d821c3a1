"""Whatever the text, the parser gives a tree or a PEP 249 error, and soon."""

from __future__ import annotations

import random
import time

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuzz.grammar import grammar
from m2mdb.pager.errors import NotSupportedError, ProgrammingError
from m2mdb.query import tables
from m2mdb.query.parser import parse, split
from tests.query.parser_samples import STATEMENTS

KEYWORDS = list(tables.load()["keywords"])
PIECES = [
    *KEYWORDS, "a", "notes", '"x y"', "1", "2.5", "1e9", "0xff", "'text'", "x'00'", "[1, 2]", "?",
    "?7", ":name", "(", ")", ",", ";", ".", "*", "=", "==", "<>", "<", "<=", "<->", "||", "->",
    "->>", "+", "-", "/", "%", "~", "&", "<<", "--", "/*", "*/", "'", '"', "[", "]", "$", "\n",
    "é", "\0", "\ud800", "0x", "1a", "@", "9223372036854775808",
]  # fmt: skip


def outcome(sql: str) -> bool:
    """Whether it is a statement; any error but ours is raised."""
    taken = []
    for _ in range(3):  # the collector of garbage may run in one of them
        start = time.thread_time()
        try:
            parse(sql)
        except (ProgrammingError, NotSupportedError) as error:
            assert str(error)
            is_statement = False
        else:
            is_statement = True
        taken.append(time.thread_time() - start)
        if taken[-1] < 0.1:
            break
    assert min(taken) < 0.1
    return is_statement


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.sampled_from([" ", "", "\t"]))
@settings(max_examples=1000, deadline=None)
@example(["SELECT", "-", "9223372036854775808"], " ")
def test_random_tokens(pieces: list[str], blank: str) -> None:
    outcome(blank.join(pieces))


@given(st.text(max_size=200))
@settings(max_examples=500, deadline=None)
def test_random_text(text: str) -> None:
    outcome(text)
    outcome("SELECT " + text)


@given(st.sampled_from(STATEMENTS), st.data())
@settings(max_examples=1500, deadline=None)
def test_changed_statements(sql: str, data: st.DataObject) -> None:
    words = sql.split(" ")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(words)))
        words[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.lists(st.sampled_from(PIECES), max_size=2)
        )
    outcome(" ".join(words))


@given(st.text(alphabet="'\"[]x;-/* \n", max_size=60))
@settings(max_examples=1000, deadline=None)
def test_split_and_parse_see_the_same_statements(text: str) -> None:
    """No `;` in a string or comment divides, and each piece is one statement."""
    try:
        pieces = list(split(text))
    except ProgrammingError:
        return
    for piece in pieces:
        assert list(split(piece)) == [piece]


SEMANTIC = (  # refused for their meaning, not their form
    "row value misused",
    "stands twice", "exclude each other", "all rows of VALUES", "takes no list of columns",
    "takes no ORDER BY", "no such column", "not built yet", "nested too deeply",
    "FORGET needs WHERE",
)  # fmt: skip


def test_every_sentence_of_the_grammar_parses() -> None:
    choose = random.Random(11)
    parsed = 0
    for _ in range(800):
        sql = grammar().sentence(choose, room=22)
        try:
            parse(sql)
            parsed += 1
        except (ProgrammingError, NotSupportedError) as error:
            assert any(reason in str(error) for reason in SEMANTIC), (sql, error)

    assert parsed > 400
