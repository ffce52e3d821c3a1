"""Analyzers: stemming, stop words, folding, names of code, and tokenizers of the program."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snowballstemmer
from hypothesis import given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.index.text.analysis import PLAIN, Analyzer, analyzer_of, split_names, stemmer
from m2mdb.index.text.options import parse_options
from m2mdb.index.text.tokenizer import tokenize
from m2mdb.pager.errors import NotSupportedError, ProgrammingError


def analyzer(**options: Any) -> Analyzer:
    """The analyzer of these options; `chars` is the tokenizer of a program."""
    return parse_options(options).analyzer({"chars": lambda text: text.split("|")})


def words(text: str, **options: Any) -> list[str]:
    """The terms of a text."""
    return [term.decode() for term in analyzer(**options).terms(text)]


KINDS: list[dict[str, Any]] = [
    {},
    {"fold": "case"},
    {"fold": False},
    {"code": True},
    {"code": True, "fold": False},
    {"stem": "english"},
    {"stem": "german", "stop": "german", "code": True},
    {"stem": "french", "fold": "case"},
    {"stop": "english"},
    {"stop": "Die, über"},
    {"tokenizer": "chars"},
    {"tokenizer": "chars", "stem": "english", "stop": "a, b"},
]
some_text = st.text(
    st.sampled_from("abcXYZ the THE running die über Éé 東京 |_-'1") | st.characters(codec="utf-8"),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.none() | some_text, max_size=6), kind=st.sampled_from(KINDS))
def test_a_column_of_texts_has_the_terms_of_each_text(
    texts: list[str | None], kind: dict[str, Any]
) -> None:
    each = analyzer(**kind)

    terms, ids, owners = each.term_columns(texts)

    alone: list[list[bytes]] = [[] if text is None else each.terms(text) for text in texts]
    found: list[list[bytes]] = [[] for _ in texts]
    for id_, owner in zip(ids.tolist(), owners.tolist(), strict=True):
        found[owner].append(terms[id_])
    assert found == alone
    assert len(set(terms)) == len(terms)
    assert b"" not in terms


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("Running runners ran", {"stem": "english"}, "run runner ran"),
        ("Häuser und Haus", {"stem": "german"}, "haus und haus"),
        ("Häuser und Haus", {"stem": "german", "stop": "german"}, "haus haus"),
        ("fenêtres", {"stem": "french"}, "fenetr"),
        ("fenêtres", {"stem": "french", "fold": "case"}, "fenêtr"),
        ("the state of the art isn't", {"stop": "english"}, "state art"),
        ("red green blue", {"stop": "red, blue"}, "green"),
        ("Über Café STRASSE", {"fold": "case"}, "über café strasse"),
        ("Über Café x²", {"fold": False}, "Über Café x2"),
        ("getUserName HTTPServer2Go snake_case utf8", {"code": True},
         "get user name http server2 go snake case utf8"),
        ("größerAls ÄndereÜber", {"code": True, "fold": "case"}, "grösser als ändere über"),
        ("東京都 getName", {"code": True}, "東京 京都 get name"),
        ("ab|c d||é", {"tokenizer": "chars"}, "ab c d é"),
        ("plain words", {"fold": "true", "code": "off", "stem": "", "stop": None}, "plain words"),
    ],
)  # fmt: skip
def test_options_make_the_terms(text: str, options: dict[str, Any], expected: str) -> None:
    assert " ".join(words(text, **options)) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("aeiousrtnlgdmhcpéüß", min_size=1, max_size=12), max_size=6))
def test_stems_are_those_of_the_library(tokens: list[str]) -> None:
    stems = snowballstemmer.stemmer("german")

    found = words(" ".join(tokens), stem="german", fold="case")

    assert found == [stems.stemWord(token) for token in tokenize_case(" ".join(tokens))]


def tokenize_case(text: str) -> list[str]:
    """Tokens with their accents."""
    return words(text, fold="case")


def test_prefixes_are_folded_and_no_more() -> None:
    english = analyzer(stem="english", stop="english")

    assert english.prefix_terms("Runnin") == [b"runnin"]
    assert english.prefix_terms("the") == [b"the"]
    assert analyzer(stem="french").prefix_terms("Fenê") == [b"fene"]


def test_columns_without_options_share_the_plain_analyzer() -> None:
    assert analyzer_of({}) is PLAIN
    assert analyzer(code=False, fold="on", tokenizer="unicode") is PLAIN
    assert analyzer(stem="english") is analyzer(stem="english")
    assert split_names("plain text") == "plain text"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": "klingon"}, "expected one of .*english"),
        ({"stop": "klingon"}, "expected one of english, "),
        ({"stem": 3}, "expected a text"),
        ({"stop": "a " * 9000}, "expected a text"),
        ({"fold": "accents"}, "expected true or false or 'case'"),
        ({"code": 2}, "expected true or false"),
        ({"stem": "english", "fold": False}, "needs small letters"),
        ({"tokenizer": "chars", "code": True}, "is of the tokenizer 'unicode'"),
        ({"tokenizer": "nobody"}, r"tokenizers=\{'nobody': callable\}"),
        ({"stemm": "english"}, "expected one of variant"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgrammingError, match=message):
        analyzer(**options)


@pytest.mark.parametrize(
    ("package", "options"),
    [("snowballstemmer", {"stem": "danish"}), ("stop_words", {"stop": "danish"})],
)
def test_a_missing_package_is_named_with_its_extra(
    package: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(NotSupportedError, match=r"m2mdb\[text\]"):
        analyzer(**options)
    assert words("the words", stop="english") == ["words"]


# In a file


def filled(path: Path, options: str, **more: Any) -> m2mdb.Connection:
    """A file whose rows lie in a segment and in the delta."""
    con = m2mdb.connect(path, **more)
    con.execute(f"CREATE COLLECTION notes (body TEXT FULLTEXT ({options}), title TEXT FULLTEXT)")
    notes = con.collection("notes")
    bodies = [f"The runners {i} were running in getUserName" for i in range(600)]
    notes.add({"body": [*bodies, "a café|by the sea"], "title": ["running"] * 601})
    notes.add({"body": "Runs of THE sea", "title": "late"})
    con.commit()
    return con


def found(con: m2mdb.Connection, text: str) -> int:
    """How many rows a match text finds."""
    return len(con.collection("notes").search(match={"body": text}, k=1000, returning=[]))


@pytest.mark.parametrize("reopened", [False, True])
def test_stems_stop_words_and_names_are_found_in_delta_and_segments(
    tmp_path: Path, reopened: bool
) -> None:
    path = tmp_path / "a.m2m"
    con = filled(path, "stem = 'english', stop = 'english', code = true")
    if reopened:
        con.close()
        con = m2mdb.connect(path)

    assert found(con, "run") == 601
    assert found(con, "RUNNING") == 601
    assert found(con, "the") == 0
    assert found(con, '"the sea"') == 2
    assert found(con, "+userNames") == 600
    assert found(con, '"users name"') == 600
    assert found(con, "runn*") == 600
    assert found(con, "cafe") == 1
    assert found(con, "run -sea") == 600
    rows = con.collection("notes").search(match="running", k=1000, returning=[])
    assert len(rows) == 602
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()


def test_columns_with_several_analyzers_are_searched_together(tmp_path: Path) -> None:
    con = filled(tmp_path / "a.m2m", "stem = 'english'")
    notes = con.collection("notes")

    both = notes.search(match="+running +title:running", k=1000)
    either = notes.search(match="+runs", k=1000)

    assert len(both) == 601
    assert {hit["title"] for hit in either} == {"running", "late"}
    con.close()


def test_a_tokenizer_of_the_program_is_named_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.m2m"
    bars = {"bars": lambda text: text.split("|")}
    con = filled(path, "tokenizer = 'bars'", tokenizers=bars)
    assert found(con, '"by the sea"') == 1
    con.close()

    con = m2mdb.connect(path)
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (602,)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert len(con.collection("notes").search(match={"title": "late"})) == 1
    for action in (
        lambda: found(con, "sea"),
        lambda: con.collection("notes").add({"body": "x", "title": "y"}),
        lambda: con.execute("CREATE COLLECTION b (t TEXT FULLTEXT (tokenizer = 'bars'))"),
    ):
        with pytest.raises(ProgrammingError, match="'bars' is not known to this connection"):
            action()
    con.close()

    con = m2mdb.connect(path, tokenizers=bars)
    assert found(con, '"by the sea"') == 1
    con.collection("notes").add({"body": "x|y|by the sea", "title": "z"})
    assert found(con, '"by the sea"') == 2
    con.close()


def test_a_tokenizer_that_fails_undoes_the_statement(tmp_path: Path) -> None:
    def picky(text: str) -> Iterable[Any]:
        if "bad" in text:
            raise ValueError("no such word")
        return [3] if "odd" in text else text.split()

    con = m2mdb.connect(tmp_path / "a.m2m", tokenizers={"picky": picky})
    con.execute("CREATE COLLECTION notes (body TEXT FULLTEXT (tokenizer = 'picky'))")
    notes = con.collection("notes")
    notes.add({"body": ["good words"] * 600})

    for word in ("bad", "odd"):
        with pytest.raises(ProgrammingError, match="tokenizer 'picky'"):
            notes.add({"body": ["fine"] * 600 + [word]})
    assert notes.count() == 600
    assert len(notes.search(match="words", k=1000)) == 600
    con.close()


def test_quorums_want_some_of_the_words(tmp_path: Path) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m")
    con.execute("CREATE COLLECTION notes (body TEXT FULLTEXT, title TEXT FULLTEXT)")
    random = np.random.default_rng(3)
    vocabulary = list("abcdef")
    bodies = [" ".join(random.choice(vocabulary, 3)) for _ in range(700)]
    titles = [" ".join(random.choice(vocabulary, 2)) for _ in range(700)]
    notes = con.collection("notes")
    notes.add({"body": bodies[:600], "title": titles[:600]})
    notes.add({"body": bodies[600:], "title": titles[600:]})

    def expected(least: int, also: str = "") -> set[int]:
        rows = set()
        for number, texts in enumerate(zip(bodies, titles, strict=True), 1):
            most = max(len({*"abcd"} & set(tokenize(text))) for text in texts)
            if most >= least and (not also or any(also in tokenize(text) for text in texts)):
                rows.add(number)
        return rows

    def rows(text: str) -> set[int]:
        return set(notes.search(match=text, k=1000, returning=[]).ids.tolist())

    assert rows('"a b c d"/1') == expected(1)
    assert rows('"a b c d"/2') == expected(2)
    assert rows('"a b c d d"/0.6') == expected(3)
    assert rows('"a b c d"/9') == expected(4) == set()
    assert rows('"a b c d"/2 e') == expected(2)
    assert rows('"a b c d"/2 +e') == expected(2, "e")
    plain = notes.search(match="a b c d e", k=1000, returning=[])
    scores = dict(zip(plain.ids.tolist(), plain.scores.tolist(), strict=True))
    hits = notes.search(match='"a b c d"/2 e', k=1000, returning=[])
    assert [scores[id_] for id_ in hits.ids.tolist()] == hits.scores.tolist()
    con.close()


@pytest.mark.parametrize("text", ['"a b"/', '"a b"/0', '"a b"/1.5', '+"a b"/2', '"a b"/2x'])
def test_malformed_quorums_are_refused(text: str) -> None:
    from m2mdb.index.text.match_query import parse_match

    with pytest.raises(ProgrammingError, match="position"):
        parse_match(text)


def test_stemmer_is_one_of_the_library() -> None:
    assert stemmer("English")("running") == "run"
