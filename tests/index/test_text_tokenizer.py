"""The tokenizer: its two forms are one, it folds as it says, and it takes any text."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m2mdb.index.text import tokenizer
from m2mdb.index.text.tokenizer import MAX_TOKEN_BYTES, token_columns, tokenize, tokenize_bytes

# Any text, and text where the interesting characters are dense.
any_text = st.text(max_size=60)
mixed_text = st.text(
    st.sampled_from(
        "aZé߀İǅﬁøÆ5٣½²'_-. \n\x00\x01\x1f東京とガﾞｶ゙한국हिन्दीй\u0301\u00ad\u200b\u200d😀\ud800"
    )
    | st.characters(),
    max_size=40,
)


def bulk(texts: list[str | None]) -> list[list[bytes]]:
    """The tokens of each text as the bulk form gives them."""
    terms, token_terms, token_texts = token_columns(texts)
    tokens: list[list[bytes]] = [[] for _ in texts]
    for term, text in zip(token_terms.tolist(), token_texts.tolist(), strict=True):
        tokens[text].append(terms[term])
    assert len(set(terms)) == len(terms)
    return tokens


def plain_tokens(text: str) -> list[str]:
    """Words of text without CJK, character by character: the simplest tokenizer that must agree."""
    words = [""]
    for character in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(character)
        if category == "Cf" and character != "\u200b":
            continue
        if category[0] not in "LMN":
            words.append("")
            continue
        for folded in unicodedata.normalize("NFKD", character.casefold()):
            if not ("\u0300" <= folded <= "\u036f" or "\ufe00" <= folded <= "\ufe0f"):
                words[-1] += folded
    return [unicodedata.normalize("NFC", word) for word in words if word]


@given(st.lists(st.none() | any_text | mixed_text, max_size=8))
@example(["", None, "a", None, "a b a"])
def test_bulk_form_gives_the_tokens_of_the_single_form(texts: list[str | None]) -> None:
    assert bulk(texts) == [tokenize_bytes(text) if text else [] for text in texts]


@given(any_text | mixed_text)
def test_tokens_are_stable_and_well_formed(text: str) -> None:
    for token in tokenize(text):
        assert token
        assert len(token.encode()) <= MAX_TOKEN_BYTES
        assert all(c in "abcdefghijklmnopqrstuvwxyz0123456789" for c in token if c.isascii())
        assert tokenize(token) == [token]


@given(st.text(st.characters(max_codepoint=0x24F), max_size=60))
def test_latin_text_agrees_with_a_tokenizer_by_the_character(text: str) -> None:
    strokes = str.maketrans(
        {"ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ł": "l", "ŧ": "t"}
        | {"æ": "ae", "œ": "oe", "þ": "th"}
    )

    assert tokenize(text) == [word.translate(strokes) for word in plain_tokens(text)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, World's 3.14", ["hello", "world", "s", "3", "14"]),
        ("Łódź STRASSE Straße café İstanbul", ["lodz", "strasse", "strasse", "cafe", "istanbul"]),
        ("snake_case wi-fi", ["snake", "case", "wi", "fi"]),
        ("naïve Ångström Øresund", ["naive", "angstrom", "oresund"]),
        ("ΣΊΣΥΦΟΣ σίσυφος", ["σισυφοσ", "σισυφοσ"]),
        ("ёлка йод", ["елка", "иод"]),
        ("東京都に iPhone手机", ["東京", "京都", "都に", "iphone", "手机"]),
        ("水 を", ["水", "を"]),
        ("ｶﾞｷﾞ ガギ", ["ガギ", "ガギ"]),
        ("한국어 문장", ["한국", "국어", "문장"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("١٢٣ x² ①", ["123", "x2", "1"]),
        (
            "soft\u00adhyphen zero\u200bwidth join\u200der",
            ["softhyphen", "zero", "width", "joiner"],
        ),
        ("\u1100\u00ad\u1161나", ["가나"]),
        ("ＦＵＬＬ ﬁre", ["full", "fire"]),
        ("😀 \ud800 --- \x00", []),
        ("", []),
    ],
)
def test_texts_are_folded_as_stated(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens
    assert bulk([text]) == [[token.encode() for token in tokens]]


def test_composed_and_decomposed_text_have_the_same_tokens() -> None:
    text = "Crème brûlée, ガギグ, Việt Nam, 한국"

    assert tokenize(unicodedata.normalize("NFD", text)) == tokenize(text)


def test_long_tokens_are_cut_at_a_character_in_both_forms() -> None:
    texts = ["x" * 300, "x" * 400 + " y", "é" * 300, "я" * 300, "x" * MAX_TOKEN_BYTES]

    tokens = bulk(list(texts))

    assert tokens == [tokenize_bytes(text) for text in texts]
    assert tokens[0] == tokens[4] == [b"x" * MAX_TOKEN_BYTES]
    assert tokens[3] == ["я".encode() * (MAX_TOKEN_BYTES // 2)]


@given(st.lists(st.none() | mixed_text, max_size=12), st.integers(1, 20))
def test_batches_do_not_change_the_tokens(texts: list[str | None], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_BATCH_BYTES", size)

        assert bulk(texts) == [tokenize_bytes(text) if text else [] for text in texts]


def test_text_of_ten_megabytes_is_cut_in_bounded_steps() -> None:
    words = ["word", "wort", "mot"] * 700_000
    terms, token_terms, token_texts = token_columns([None, " ".join(words), "word"])

    assert len(token_terms) == len(words) + 1
    assert [terms[t].decode() for t in token_terms[:3].tolist()] == words[:3]
    assert np.array_equal(np.bincount(token_texts), [0, len(words), 1])


def test_long_runs_of_combining_marks_take_linear_time_and_change_no_token() -> None:
    from time import process_time

    text = "one a" + "\u0301\u0327" * 200_000 + " two"

    start = process_time()
    assert tokenize(text) == ["one", "a", "two"]
    assert process_time() - start < 5  # it took minutes when normalisation saw the whole run
