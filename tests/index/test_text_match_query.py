"""Match text: what it means, and where it is malformed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2mdb.index.text.match_query import (
    FUZZY,
    MUST,
    MUST_NOT,
    PHRASE,
    PREFIX,
    SHOULD,
    TERM,
    Clause,
    parse_match,
    plain,
)
from m2mdb.index.text.options import parse_options
from m2mdb.index.text.tokenizer import tokenize
from m2mdb.pager.errors import NotSupportedError, ProgrammingError


def shape(clause: Clause) -> tuple[str, str, str, str | None, float]:
    """A clause as a tuple: occur, kind, words, field, boost."""
    words = b" ".join(clause.terms).decode()
    return clause.occur, clause.kind, words, clause.field, clause.boost


def shapes(text: str) -> list[tuple[str, str, str, str | None, float]]:
    """The clauses of a match text as tuples."""
    return [shape(clause) for clause in parse_match(text).clauses]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dark mode", [(SHOULD, TERM, "dark", None, 1), (SHOULD, TERM, "mode", None, 1)]),
        ('"Dark mode"', [(SHOULD, PHRASE, "dark mode", None, 1)]),
        ('"dark"', [(SHOULD, TERM, "dark", None, 1)]),
        ("foo*", [(SHOULD, PREFIX, "foo", None, 1)]),
        ("foo~1 bar~", [(SHOULD, FUZZY, "foo", None, 1), (SHOULD, FUZZY, "bar", None, 1)]),
        ("foo~0", [(SHOULD, TERM, "foo", None, 1)]),
        ("+must -not", [(MUST, TERM, "must", None, 1), (MUST_NOT, TERM, "not", None, 1)]),
        ("foo^2 bar^0.5", [(SHOULD, TERM, "foo", None, 2), (SHOULD, TERM, "bar", None, 0.5)]),
        ('+body:"a b"^3', [(MUST, PHRASE, "a b", "body", 3)]),
        ("title:foo*^2", [(SHOULD, PREFIX, "foo", "title", 2)]),
        ("wi-fi", [(SHOULD, TERM, "wi", None, 1), (SHOULD, TERM, "fi", None, 1)]),
        ("+wi-fi", [(MUST, PHRASE, "wi fi", None, 1)]),
        ("-東京都", [(MUST_NOT, PHRASE, "東京 京都", None, 1)]),
        ("wi-fi*", [(SHOULD, TERM, "wi", None, 1), (SHOULD, PREFIX, "fi", None, 1)]),
        ("foo foo^2 FOO", [(SHOULD, TERM, "foo", None, 4)]),
        ("+foo foo", [(MUST, TERM, "foo", None, 1), (SHOULD, TERM, "foo", None, 1)]),
        ('5"x" ', [(SHOULD, TERM, "5", None, 1), (SHOULD, TERM, "x", None, 1)]),
        ("10:30 note: http://x", [(SHOULD, TERM, w, None, 1) for w in "10 30 note http x".split()]),
        ('"+a -b: (c)*"', [(SHOULD, PHRASE, "a b c", None, 1)]),
        ('"a b b"/2', [(SHOULD, TERM, "a", None, 1), (SHOULD, TERM, "b", None, 1)]),
        ("(a) [b]", [(SHOULD, TERM, "a", None, 1), (SHOULD, TERM, "b", None, 1)]),
        ("", []),
        ("  ... !? ", []),
        ('"..." +"" -.', []),
    ],
)
def test_match_texts_mean_what_they_say(
    text: str, expected: list[tuple[str, str, str, str | None, float]]
) -> None:
    assert shapes(text) == expected


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ('foo "bar', 5),
        ('foo"', 4),
        ("+", 1),
        ("foo - bar", 5),
        ("foo +", 5),
        ("+-foo", 1),
        ("*", 1),
        ("foo *", 5),
        ("~1", 1),
        ("^2", 1),
        ("foo^", 4),
        ("foo^x", 4),
        ("foo^1.2.3", 4),
        ("foo^9999999", 4),
        ("fo*o", 4),
        ("foo~1bar", 6),
        ("foo**", 5),
    ],
)
def test_malformed_match_text_is_refused_with_its_position(text: str, position: int) -> None:
    with pytest.raises(ProgrammingError, match=f"at position {position} of"):
        parse_match(text)


@pytest.mark.parametrize("text", ["foo~2", '"a b"~3', '"a b"*', "+wi-fi*", "-wi-fi~1"])
def test_known_syntax_that_is_not_built_is_not_supported(text: str) -> None:
    with pytest.raises(NotSupportedError, match="position"):
        parse_match(text)


@given(st.text(st.sampled_from('ab +-"*~^:1.,()\\é東') | st.characters(), max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        clauses = parse_match(text).clauses
    except (ProgrammingError, NotSupportedError) as error:
        assert "position" in str(error)
    else:
        assert all(clause.terms and all(clause.terms) for clause in clauses)


@given(st.text(max_size=40))
def test_plain_words_are_the_tokens_whatever_the_text_holds(text: str) -> None:
    found = {clause.terms[0].decode(): clause.boost for clause in plain(text).clauses}

    words = tokenize(text)
    assert found == {word: words.count(word) for word in words}


def test_clause_repr_is_match_text() -> None:
    text = '+body:"a b"^3 -c* d~1 e^0.5'

    assert repr(parse_match(text)) == f"<TextQuery {text}>"


def test_options_choose_the_ranking() -> None:
    options = parse_options({"Variant": "plus", "k1": 1.5, "delta": 0.5, "weight": 2})

    assert options.variant.baseline == 0.5
    assert options.weight == 2.0
    assert parse_options(None).weight == 1.0


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "tfidf"}, {"k1": -1}, {"b": 2}, {"k1": "much"}, {"k1": True}, {"color": 1},
        {"variant": "lucene", "delta": 1}, {"k1": float("nan")},
    ],
)  # fmt: skip
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ProgrammingError, match="FULLTEXT option"):
        parse_options(options)
