"""highlight() and snippet(): what MATCH has found, marked in its text."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.index.text.marks import Marker, term_spans
from m2mdb.index.text.match_query import parse_match
from m2mdb.index.text.options import parse_options
from m2mdb.pager.errors import ProgrammingError

KINDS: list[dict[str, Any]] = [
    {},
    {"fold": "case"},
    {"fold": False, "code": True},
    {"code": True},
    {"stem": "english", "stop": "english"},
    {"stem": "german", "code": True},
    {"tokenizer": "bars"},
]
some_text = st.text(
    st.sampled_from("abAB the  The Running über Éé 東京都 カタ _-'1.½ﬁ\u0301")
    | st.characters(codec="utf-8"),
    max_size=40,
)
LONG = (
    "Alpha beta gamma delta. Epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi. "
    "The quick brown fox jumps over the lazy dog; rho sigma tau upsilon phi chi psi omega. "
    "And the fox came again."
)


def analyzer(**options: Any) -> Any:
    return parse_options(options).analyzer({"bars": lambda text: text.split("|")})


def marked(text: str, match: str, **options: Any) -> str:
    each = analyzer(**options)
    clauses = parse_match(match).clauses_for(each)
    return Marker(clauses, each, "body").highlight(text, "[", "]")


@settings(max_examples=300, deadline=None)
@given(text=some_text, kind=st.sampled_from(KINDS))
def test_spans_have_the_terms_of_the_text_where_they_stand(text: str, kind: dict[str, Any]) -> None:
    each = analyzer(**kind)

    spans = term_spans(each, text)

    assert [span.term for span in spans if span.term] == each.terms(text)
    assert all(0 <= span.start <= span.stop <= len(text) for span in spans)
    assert [span.start for span in spans] == sorted(span.start for span in spans)


@settings(max_examples=200, deadline=None)
@given(text=some_text, match=st.sampled_from(["the a", "b*", "runing~1", '"a b"', "東京", "über"]))
def test_without_its_marks_a_highlight_is_the_text(text: str, match: str) -> None:
    clauses = parse_match(match).clauses
    marker = Marker(clauses, analyzer(), "body")

    lit = marker.highlight(text, "\ue000", "\ue001")

    assert lit.replace("\ue000", "").replace("\ue001", "") == text.replace("\ue000", "").replace(
        "\ue001", ""
    )
    assert marker.snippet(text, "", "", "", 1000) == text


@pytest.mark.parametrize(
    ("text", "match", "options", "expected"),
    [
        ("Dark mode at Night", "night dark", {}, "[Dark] mode at [Night]"),
        ("Running runs ran", "run", {"stem": "english"}, "[Running] [runs] ran"),
        ("Café über", "cafe", {}, "[Café] über"),
        ("Großstraße ﬁre", "fire", {}, "Großstraße [ﬁre]"),
        ("darkness dark", "dar*", {}, "[darkness] [dark]"),
        ("drak mode", "dark~1", {}, "[drak] mode"),
        ("a b a b c", '"a b"', {}, "[a b] [a b] c"),
        ("a a a", '"a a"', {}, "[a a a]"),
        ("the state of the art", '"state of the art"', {"stop": "english"},
         "the [state of the art]"),
        ("call getUserName now", "user", {"code": True}, "call get[User]Name now"),
        ("東京都に", "京都", {}, "東[京都]に"),
        ("not this", "this -not", {}, "not [this]"),
        ("one two", "body:one title:two", {}, "[one] two"),
        ("plain", "nothing", {}, "plain"),
        ("", "nothing", {}, ""),
        ("ab|CD|ef", "cd", {"tokenizer": "bars"}, "ab|CD|ef"),
        ("ab|CD|ef", "CD", {"tokenizer": "bars"}, "ab|[CD]|ef"),
    ],
)  # fmt: skip
def test_highlights(text: str, match: str, options: dict[str, Any], expected: str) -> None:
    assert marked(text, match, **options) == expected


@pytest.mark.parametrize(
    ("match", "size", "expected"),
    [
        ("fox", 6, "…The quick brown [fox] jumps over…"),
        ("again fox", 5, "…And the [fox] came [again]."),
        ("alpha", 3, "[Alpha] beta gamma…"),
        ("again", 3, "…fox came [again]."),
        ("nothing", 4, "Alpha beta gamma delta…"),
        ('"lazy dog" rho', 4, "…[lazy dog]; [rho] sigma…"),
        ("fox", 1, "…[fox]…"),
    ],
)
def test_snippets(match: str, size: int, expected: str) -> None:
    each = analyzer()
    marker = Marker(parse_match(match).clauses, each, "body")

    cut = marker.snippet(LONG, "[", "]", "…", size)

    assert cut == expected
    assert len(each.terms(cut)) <= size


def test_highlights_are_those_of_fts5() -> None:
    con = sqlite3.connect(":memory:")
    con.execute("CREATE VIRTUAL TABLE t USING fts5(body)")
    con.execute("INSERT INTO t VALUES (?)", (LONG,))
    for match, theirs in (("fox", "fox"), ("the fox", "the OR fox"), ('"lazy dog"', '"lazy dog"')):
        row = con.execute("SELECT highlight(t, 0, '[', ']') FROM t WHERE t MATCH ?", (theirs,))
        assert marked(LONG, match) == row.fetchone()[0]


@pytest.fixture
def con(tmp_path: Path) -> m2mdb.Connection:
    con = m2mdb.connect(tmp_path / "a.m2m")
    con.execute(
        "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT FULLTEXT (stem = 'english'), "
        "tags JSON FULLTEXT, v VECTOR(2), n INTEGER)"
    )
    con.execute(
        "INSERT INTO notes VALUES (1, 'Dark mode, running at night', '[\"dark\", \"ui\"]', ?, 1), "
        "(2, 'Light mode', NULL, ?, 2), (3, NULL, NULL, ?, 3)",
        ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]),
    )
    return con


def test_statements_return_them(con: m2mdb.Connection) -> None:
    rows = con.execute(
        "SEARCH notes MATCH 'runs dark' RETURNING id, highlight(body, '<i>', '</i>'), "
        "snippet(body, '[', ']', '...', 2) AS cut, highlight(tags), score"
    ).fetchall()

    assert rows[0][:4] == (
        1, "<i>Dark</i> mode, <i>running</i> at night", "[Dark] mode...", "<b>dark</b>\nui",
    )  # fmt: skip
    shown = con.execute(
        "SEARCH notes MATCH body 'mode' NEAR ? K 3 "
        "RETURNING id, upper(snippet(body)), highlight(tags)", ([1.0, 1.0],),
    )  # fmt: skip
    assert {row[0]: row[1] for row in shown} == {
        1: "DARK <B>MODE</B>, RUNNING AT NIGHT", 2: "LIGHT <B>MODE</B>", 3: None,
    }  # fmt: skip
    near = con.execute("SEARCH notes NEAR ? K 1 RETURNING highlight(body)", ([1.0, 0.0],))
    assert near.fetchone() == ("Dark mode, running at night",)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT highlight(body) FROM notes", "RETURNING of a SEARCH"),
        ("SELECT snippet('a', 'b')", "RETURNING of a SEARCH"),
        ("SEARCH notes MATCH 'a' WHERE snippet(body) = 'x'", "RETURNING of a SEARCH"),
        ("SEARCH notes MATCH 'a' RETURNING highlight(n)", "n is no FULLTEXT column"),
        ("SEARCH notes MATCH 'a' RETURNING highlight(rowid)", "rowid is no FULLTEXT column"),
        ("SEARCH notes MATCH 'a' RETURNING highlight('a')", "takes the name of"),
        ("SEARCH notes MATCH 'a' RETURNING highlight(none)", "none"),
        ("SEARCH notes MATCH 'a' RETURNING snippet()", "number of arguments"),
        ("SEARCH notes MATCH 'dark' RETURNING snippet(body, 1, 2, 3, 0)", "0 terms; expected"),
        ("SEARCH notes MATCH 'dark' RETURNING snippet(body, 1, 2, 3, 'x')", "'x' terms"),
    ],
)
def test_what_they_are_not_for_is_refused(
    con: m2mdb.Connection, statement: str, message: str
) -> None:
    with pytest.raises(ProgrammingError, match=message):
        con.execute(statement).fetchall()
