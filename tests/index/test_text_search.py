"""Text search against a search that reads every text, and against rank-bm25."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import rank_bm25
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.index.text import search as search_module
from m2mdb.index.text.bm25 import VARIANTS, Lucene, Variant
from m2mdb.index.text.delta_postings import DeltaPostings
from m2mdb.index.text.match_query import (
    FUZZY,
    MUST,
    MUST_NOT,
    PHRASE,
    PREFIX,
    SHOULD,
    Clause,
    parse_match,
    plain,
)
from m2mdb.index.text.postings import build
from m2mdb.index.text.search import TextHits, search_text
from m2mdb.index.text.segment import TextSegment
from m2mdb.index.text.source import Source, TextColumn
from m2mdb.index.text.tokenizer import tokenize_bytes
from m2mdb.pager.errors import ProgrammingError

Texts = list[str | None]

WORDS = ["a", "ab", "abc", "b", "ba", "cat", "cats", "cut", "über", "東京都", "wi-fi", "the"]
some_text = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
rows = st.lists(st.tuples(st.none() | some_text, st.none() | some_text), min_size=1, max_size=14)
atom = st.one_of(
    st.sampled_from([*WORDS, "zebra"]),
    st.sampled_from(["a*", "c*", "東*", "z*", "cat~1", "ab~", "zebra~1"]),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(lambda w: f'"{" ".join(w)}"'),
)
clause = st.builds(
    lambda sign, field, body, boost: f"{sign}{field}{body}{boost}",
    st.sampled_from(["", "", "", "+", "-"]),
    st.sampled_from(["", "", "", "body:", "Title:"]),
    atom,
    st.sampled_from(["", "", "^2", "^0.5", "^0"]),
)
match_texts = st.lists(clause, max_size=4).map(" ".join)


class Corpus:
    """Rows of (body, title) spread over parts, the last of which may be a delta."""

    def __init__(self, rows: Sequence[tuple[str | None, str | None]], cuts: Sequence[int]) -> None:
        """Cut the rows into segments at `cuts`; a cut at -1 makes the last part a delta."""
        bounds = [0, *sorted(cut % (len(rows) + 1) for cut in cuts if cut >= 0), len(rows)]
        self.parts = [list(rows[a:b]) for a, b in pairwise(bounds)]
        self.rowids = [np.arange(a, b, dtype=np.int64) * 7 % 1009 for a, b in pairwise(bounds)]
        self.has_delta = -1 in cuts

    def column(self, number: int, name: str, variant: Variant, weight: float = 1.0) -> TextColumn:
        """The column's lists, part by part."""
        sources: list[Source] = [
            TextSegment(build([row[number] for row in part], positions=place % 2 == 0))
            for place, part in enumerate(self.parts)
        ]
        if self.has_delta:
            delta = DeltaPostings()
            delta.extend([row[number] for row in self.parts[-1]])
            size = len(delta)
            delta.extend(["cat a b the", None])
            sources[-1] = delta.view(size)
        return TextColumn(name, sources, variant, weight)

    def texts_of(self, column: int, part: int, ordinals: np.ndarray) -> Texts:
        """The texts of a column at ordinals."""
        return [self.parts[part][ordinal][column] for ordinal in ordinals.tolist()]

    def search(
        self,
        text: str,
        k: int = 1000,
        masks: Sequence[np.ndarray | None] | None = None,
        *,
        want_matches: bool = False,
        variant: Variant | None = None,
    ) -> TextHits:
        """Search both columns, the title at half weight."""
        columns = [
            self.column(0, "body", variant or Lucene()),
            self.column(1, "title", variant or Lucene(), 0.5),
        ]
        query = parse_match(text)
        return search_text(query, columns, self.rowids, k, masks, self.texts_of, want_matches)


def frequency_in(clause: Clause, tokens: list[bytes]) -> float:
    """How often the clause stands in the tokens of one text."""
    if clause.kind == PHRASE:
        size = len(clause.terms)
        windows = [tuple(tokens[i : i + size]) for i in range(len(tokens))]
        return windows.count(clause.terms)
    term = clause.terms[0]
    if clause.kind == PREFIX:
        return sum(token.startswith(term) for token in tokens)
    if clause.kind == FUZZY:
        return sum(
            1.0 if token == term else 0.5 if edits(term.decode(), token.decode()) <= 1 else 0.0
            for token in tokens
        )
    return tokens.count(term)


def edits(one: str, other: str) -> int:
    """Optimal string alignment distance, by recursion."""
    if not one or not other:
        return len(one) + len(other)
    best = min(
        edits(one[1:], other) + 1,
        edits(one, other[1:]) + 1,
        edits(one[1:], other[1:]) + (one[0] != other[0]),
    )
    if len(one) > 1 and one[:2] == other[:2][::-1]:
        best = min(best, edits(one[2:], other[2:]) + 1)
    return best


def oracle(rows: Sequence[tuple[str | None, str | None]], text: str) -> dict[int, float]:
    """row number -> score of every match, by reading every text; Lucene's formula and logic."""
    clauses = parse_match(text).clauses
    scores = dict.fromkeys(range(len(rows)), 0.0)
    present: list[set[int]] = [set() for _ in clauses]
    for number, name, weight in ((0, "body", 1.0), (1, "title", 0.5)):
        tokens = {
            i: tokenize_bytes(text_)
            for i, row in enumerate(rows)
            if (text_ := row[number]) is not None
        }
        count = len(tokens)
        average = sum(map(len, tokens.values())) / count if count else 0.0

        def idf(frequency: int, count: int = count) -> float:
            return math.log(1 + (count - frequency + 0.5) / (frequency + 0.5)) if frequency else 0.0

        for clause_number, clause in enumerate(clauses):
            if clause.field is not None and clause.field.lower() != name:
                continue
            found = {i: frequency_in(clause, t) for i, t in tokens.items()}
            found = {i: frequency for i, frequency in found.items() if frequency}
            present[clause_number] |= set(found)
            if clause.occur == MUST_NOT:
                continue
            if clause.kind == PHRASE:
                rarity = sum(idf(sum(term in t for t in tokens.values())) for term in clause.terms)
            else:
                rarity = idf(len(found))
            for i, frequency in found.items():
                norm = 1.2 * (1 - 0.75 + 0.75 * len(tokens[i]) / average)
                scores[i] += weight * clause.boost * rarity * frequency / (frequency + norm)
    occurs = [clause.occur for clause in clauses]
    musts = [p for p, o in zip(present, occurs, strict=True) if o == MUST]
    shoulds = [p for p, o in zip(present, occurs, strict=True) if o == SHOULD]
    matching = set.intersection(*musts) if musts else set().union(*shoulds)
    matching -= set().union(*[p for p, o in zip(present, occurs, strict=True) if o == MUST_NOT])
    return {i: scores[i] for i in matching}


def assert_is_top_k(hits: TextHits, expected: dict[int, float], k: int) -> None:
    """The hits are the k best of the expected, in order, ties by rowid."""
    by_rowid = {i * 7 % 1009: score for i, score in expected.items()}
    assert len(hits) == min(k, len(expected))
    assert len(set(hits.rowids.tolist())) == len(hits)
    for rowid, score in zip(hits.rowids.tolist(), hits.scores.tolist(), strict=True):
        assert score == pytest.approx(by_rowid[rowid], rel=1e-6, abs=1e-9)
    order = list(zip((-hits.scores).tolist(), hits.rowids.tolist(), strict=True))
    assert order == sorted(order)
    if 0 < len(hits) < len(expected):
        rest = max(s for r, s in by_rowid.items() if r not in set(hits.rowids.tolist()))
        assert rest <= hits.scores[-1] * (1 + 1e-6) + 1e-9


@settings(max_examples=300)
@given(rows, st.lists(st.integers(-1, 20), max_size=3), match_texts, st.integers(1, 20))
def test_search_finds_and_scores_as_reading_every_text_does(
    rows: list[tuple[str | None, str | None]], cuts: list[int], text: str, k: int
) -> None:
    hits = Corpus(rows, cuts).search(text, k)

    assert_is_top_k(hits, oracle(rows, text), k)


@settings(max_examples=200)
@given(
    rows,
    st.lists(st.integers(-1, 20), max_size=3),
    match_texts,
    st.integers(1, 8),
    st.sampled_from(list(VARIANTS)),
)
def test_scores_do_not_depend_on_how_rows_are_spread(
    rows: list[tuple[str | None, str | None]], cuts: list[int], text: str, k: int, name: str
) -> None:
    variant = VARIANTS[name]()
    whole = Corpus(rows, []).search(text, k, variant=variant)

    spread = Corpus(rows, cuts).search(text, k, variant=variant)

    assert spread.rowids.tolist() == whole.rowids.tolist()
    assert spread.scores.tobytes() == whole.scores.tobytes()


@settings(max_examples=150)
@given(rows, st.lists(st.integers(-1, 20), max_size=2), match_texts, st.data())
def test_masks_hide_rows_but_not_their_statistics(
    rows: list[tuple[str | None, str | None]], cuts: list[int], text: str, data: st.DataObject
) -> None:
    corpus = Corpus(rows, cuts)
    live = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    bounds = np.cumsum([0] + [len(part) for part in corpus.parts])
    masks = [live[a:b] for a, b in pairwise(bounds)]

    hits = corpus.search(text, 1000, masks, want_matches=True)

    expected = {i: score for i, score in oracle(rows, text).items() if live[i]}
    assert_is_top_k(hits, expected, 1000)
    assert hits.matches is not None
    found = [
        (bounds[part] + ordinal, score)
        for part, (ordinals, scores) in enumerate(hits.matches)
        for ordinal, score in zip(ordinals.tolist(), scores.tolist(), strict=True)
    ]
    assert [i for i, _ in found] == sorted(expected)
    for i, score in found:
        assert score == pytest.approx(expected[i], rel=1e-6, abs=1e-9)


RIVALS: dict[str, Callable[[list[list[str]]], rank_bm25.BM25]] = {
    "okapi": rank_bm25.BM25Okapi,
    "l": rank_bm25.BM25L,
    "plus": rank_bm25.BM25Plus,
}


@pytest.mark.parametrize("name", list(RIVALS))
@settings(max_examples=100)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12), min_size=1),
    st.lists(st.sampled_from("abcdefghxyz"), min_size=1, max_size=6),
    st.lists(st.integers(-1, 20), max_size=2),
)
def test_variants_give_the_numbers_of_rank_bm25(
    name: str, corpus: list[list[str]], query: list[str], cuts: list[int]
) -> None:
    spread = Corpus([(" ".join(words), None) for words in corpus], cuts)
    column = spread.column(0, "body", VARIANTS[name]())

    hits = search_text(plain(" ".join(query)), [column], spread.rowids, len(corpus))

    expected = RIVALS[name](corpus).get_scores(query)
    matching = {i for i, words in enumerate(corpus) if set(words) & set(query)}
    assert set(hits.rowids.tolist()) == {i * 7 % 1009 for i in matching}
    scores = dict(zip(hits.rowids.tolist(), hits.scores.tolist(), strict=True))
    for i in matching:
        assert scores[i * 7 % 1009] == pytest.approx(expected[i], rel=1e-6, abs=1e-6)


def random_corpus(size: int, seed: int) -> list[str]:
    """Texts whose words are as unevenly frequent as a language's."""
    random = np.random.default_rng(seed)
    words = [f"w{int(rank)}" for rank in random.zipf(1.3, 40 * size) % 500]
    lengths = random.integers(1, 20, size)
    texts, start = [], 0
    for length in lengths.tolist():
        texts.append(" ".join(words[start : start + length]))
        start += length
    return texts


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("text", ["w1", "w1 w2 w3", "w1 w499", "w7 w90 w123", "w1 -w2", "w8*"])
def test_shortlisted_top_k_is_that_of_scoring_everything(
    text: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = random_corpus(5_000, 1)
    mask = np.random.default_rng(2).random(5_000) < 0.7
    rowids = [np.random.default_rng(3).permutation(5_000)]
    column = TextColumn("body", [TextSegment(build(list(texts)))])
    for masks in (None, [mask]):
        full = search_text(parse_match(text), [column], rowids, k, masks, None, True)
        assert full.matches is not None
        ordinals, scores = full.matches[0]
        best = np.lexsort((rowids[0][ordinals], -scores))[:k]

        hits = search_text(parse_match(text), [column], rowids, k, masks)

        assert hits.ordinals.tolist() == full.ordinals.tolist() == ordinals[best].tolist()
        assert hits.scores.tobytes() == full.scores.tobytes() == scores[best].tobytes()
        for sparse in (0, 1_000_000):
            with monkeypatch.context() as patch:
                patch.setattr(search_module, "_SPARSE", sparse)
                same = search_text(parse_match(text), [column], rowids, k, masks)
            assert same.scores.tobytes() == hits.scores.tobytes()
            assert same.ordinals.tolist() == hits.ordinals.tolist()


def test_equal_scores_at_the_boundary_are_ordered_by_rowid() -> None:
    column = TextColumn("body", [TextSegment(build(["same words"] * 5_000))])
    rowids = [np.random.default_rng(4).permutation(5_000)]

    hits = search_text(plain("words"), [column], rowids, 10)

    assert hits.rowids.tolist() == list(range(10))


def test_random_corpus_agrees_with_counting() -> None:
    texts = random_corpus(300, 5)
    random = np.random.default_rng(6)
    corpus = Corpus([(text, None) for text in texts], [100, 200, -1])
    for _ in range(30):
        words = [f"w{word}" for word in (random.zipf(1.3, 4) % 500).tolist()]
        text = f'{words[0]} +{words[1]}^2 "{words[2]} {words[3]}" -w{random.integers(30, 500)}'

        assert_is_top_k(corpus.search(text, 7), oracle([(t, None) for t in texts], text), 7)


def test_phrases_read_only_rows_that_may_be_found() -> None:
    texts = ["hot dog", "dog hot", "a hot dog", "hot dog hot dog"]
    read: list[int] = []

    def texts_of(column: int, part: int, ordinals: np.ndarray) -> list[str]:
        read.extend(ordinals.tolist())
        return [texts[ordinal] for ordinal in ordinals.tolist()]

    masks = [np.array([True, True, False, True])]
    query = parse_match('"hot dog"')
    for positions, expected in ((False, [0, 1, 3]), (True, [])):
        read.clear()
        column = TextColumn("body", [TextSegment(build(list(texts), positions=positions))])
        hits = search_text(query, [column], [np.arange(4)], 10, masks, texts_of)

        assert sorted(hits.rowids.tolist()) == [0, 3]
        assert read == expected


def test_overlapping_phrases_count_each_time() -> None:
    rows = [("a a a", None), ("a a b", None), ("b b b", None)]

    hits = Corpus(rows, []).search('"a a"')

    assert_is_top_k(hits, oracle(rows, '"a a"'), 9)


def test_ambiguous_words_rank_the_rarer_first() -> None:
    corpus = Corpus([("the cat", None), ("the dog", None), ("the dog", None)], [1])

    assert corpus.search("the cat").rowids[0] == 0
    assert Counter(corpus.search("the").rowids.tolist()) == Counter([0, 7, 14])


@pytest.mark.parametrize(
    "text", ["", "...", "zebra", "-the", '"the zebra"', "zebra*", "+zebra the"]
)
def test_texts_without_a_match_find_nothing(text: str) -> None:
    hits = Corpus([("the cat", "a"), (None, None)], []).search(text, want_matches=True)

    assert len(hits) == 0
    assert hits.scores.dtype == np.float32
    assert hits.rowids.dtype == np.int64
    assert hits.matches is not None
    assert [len(ordinals) for ordinals, _ in hits.matches] == [0]


def test_unknown_field_is_refused_with_its_position() -> None:
    with pytest.raises(ProgrammingError, match="no FULLTEXT column 'author' at position 5"):
        Corpus([("a", "b")], []).search("cat author:smith")


def test_collection_without_rows_or_columns() -> None:
    assert len(search_text(plain("a"), [TextColumn("body", [])], [], 10)) == 0
    with pytest.raises(ProgrammingError, match="no FULLTEXT column"):
        search_text(plain("a"), [], [], 10)
    with pytest.raises(ProgrammingError, match="K 0"):
        search_text(plain("a"), [TextColumn("body", [])], [], 0)
