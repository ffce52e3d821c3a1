"""Compiled text search against scoring everything in NumPy: the same rows and the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.compute.text_backend import Kernels
from m2mdb.index.text import compiled
from m2mdb.index.text import segment as segment_module
from m2mdb.index.text.bm25 import VARIANTS, Variant
from m2mdb.index.text.compiled import TextPlan
from m2mdb.index.text.delta_postings import DeltaPostings
from m2mdb.index.text.match_query import parse_match
from m2mdb.index.text.packed import pack_numbers, unpack_numbers
from m2mdb.index.text.postings import FLAT, VERSION, build
from m2mdb.index.text.search import TextHits, search_text
from m2mdb.index.text.segment import TextSegment
from m2mdb.index.text.source import Source, TextColumn
from m2mdb.index.text.visible import VisibleSource
from m2mdb.pager.errors import CorruptDatabaseError

WORDS = ["a", "ab", "abc", "b", "ba", "cat", "cats", "cut", "über", "the"]
sentence = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
rows = st.lists(st.tuples(st.none() | sentence, st.none() | sentence), min_size=1, max_size=24)
clauses = st.builds(
    lambda sign, field, body, boost: f"{sign}{field}{body}{boost}",
    st.sampled_from(["", "", "", "", "+", "-"]),
    st.sampled_from(["", "", "", "body:", "title:"]),
    st.sampled_from([*WORDS, "zebra", "a*", "c*", "cat~1", '"a b"', '"the cat"']),
    st.sampled_from(["", "", "", "^2", "^0.1", "^0"]),
)
plain_words = st.lists(st.sampled_from([*WORDS, "zebra"]), min_size=1, max_size=6).map(" ".join)
match_texts = plain_words | st.lists(clauses, max_size=4).map(" ".join)


class Parts:
    """Rows of (body, title) in segments, a delta with more rows behind its end, or the past."""

    def __init__(self, rows: Sequence[tuple[str | None, str | None]], cuts: Sequence[int]) -> None:
        """Cut the rows at `cuts`."""
        bounds = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
        self.parts = [list(rows[a:b]) for a, b in pairwise(bounds)]
        numbers = np.arange(len(rows), dtype=np.int64) * 7 % 1009
        self.rowids = [numbers[a:b] for a, b in pairwise(bounds)]

    def columns(self, variant: Variant, *, visible: bool = False) -> list[TextColumn]:
        """Both columns; the first part is a delta."""
        found = []
        for number, (name, weight) in enumerate((("body", 1.0), ("title", 0.3))):
            delta = DeltaPostings()
            delta.extend([row[number] for row in self.parts[0]])
            size = len(delta)
            delta.extend(["cat a b the", None])
            sources: list[Source] = [delta.view(size)]
            for version, part in enumerate(self.parts[1:], FLAT):
                texts = [row[number] for row in part]
                sources.append(TextSegment(build(texts, version=min(version, VERSION))))
            if visible:
                sources = [VisibleSource(s, np.arange(s.size) % 3 != 1) for s in sources]
            found.append(TextColumn(name, sources, variant, weight))
        return found

    def texts_of(self, column: int, part: int, ordinals: np.ndarray) -> list[str | None]:
        """The texts of a column."""
        return [self.parts[part][ordinal][column] for ordinal in ordinals.tolist()]


def shown(hits: TextHits) -> list[tuple[Any, ...]]:
    """What a search says of each hit, scores by their bits."""
    bits = hits.scores.view(np.uint32).tolist()
    places = zip(hits.sources.tolist(), hits.ordinals.tolist(), strict=True)
    return list(zip(hits.rowids.tolist(), bits, places, strict=True))


@settings(max_examples=250, deadline=None)
@given(
    rows=rows,
    cuts=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    texts=st.lists(match_texts, min_size=1, max_size=4),
    k=st.sampled_from([1, 2, 3, 10, 100]),
    window=st.sampled_from([1, 2, 5, 1 << 17]),
    variant=st.sampled_from(sorted(VARIANTS)),
    seed=st.integers(0, 3),
    order=st.sampled_from([(1 << 10, 1 << 17), (1, 1 << 17), (1, 5), (1, 2)]),
    piece=st.sampled_from([1, 9, 100, compiled.PIECE]),
)
def test_compiled_search_finds_what_scoring_everything_finds(
    kernels: Kernels,
    rows: Sequence[tuple[str | None, str | None]],
    cuts: Sequence[int],
    texts: Sequence[str],
    k: int,
    window: int,
    variant: str,
    seed: int,
    order: tuple[int, int],
    piece: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        order_from(patch, *order)
        patch.setattr(compiled, "PIECE", piece)
        patch.setattr(compiled, "IMPACT_BYTES", [1 << 20, 0, 100, 1 << 20][seed])
        compare(kernels, rows, cuts, texts, k, window, variant, seed)


def order_from(patch: pytest.MonkeyPatch, least: int, window: int) -> None:
    """Lists of so many postings are ordered by what they can add, in windows of so many rows."""
    patch.setattr(segment_module, "LEAST_ORDERED", least)
    patch.setattr(segment_module, "ORDER_WINDOW", window)
    patch.setattr(compiled, "_spare", [])  # scratch has the windows of the plan


def compare(
    kernels: Kernels,
    rows: Sequence[tuple[str | None, str | None]],
    cuts: Sequence[int],
    texts: Sequence[str],
    k: int,
    window: int,
    variant: str,
    seed: int,
) -> None:
    """That a plan finds what scoring everything finds, to the bit."""
    parts = Parts(rows, cuts)
    columns = parts.columns(VARIANTS[variant](), visible=seed == 3)
    random = np.random.default_rng(seed)
    masks = [random.random(len(part)) < 0.7 for part in parts.parts] if seed % 2 else None
    plan = TextPlan(columns, parts.rowids, kernels, window)

    for text in [*texts, texts[0]]:
        query = parse_match(text)
        expected = search_text(query, columns, parts.rowids, k, masks, parts.texts_of)
        found = plan.search(query, k, masks, parts.texts_of)

        assert found is None or shown(found) == shown(expected), text


@pytest.mark.parametrize("least", [1, 100, 1 << 30])
def test_a_large_random_corpus_is_pruned_without_loss(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    order_from(monkeypatch, least, 1000)
    random = np.random.default_rng(5)
    words = np.array([f"w{i}" for i in range(400)])
    chances = 1 / np.arange(1, 401)
    chances /= chances.sum()
    texts = [
        " ".join(random.choice(words, size, p=chances))
        for size in random.integers(1, 25, 9000).tolist()
    ]
    texts[17] = "w3 " * 300 + "w9"  # a frequency that stands elsewhere
    rowids = [np.arange(9000, 6000, -1), np.arange(6000)]
    segments: list[Source] = [TextSegment(build(texts[:3000])), TextSegment(build(texts[3000:]))]
    columns = [TextColumn("body", segments)]
    plan = TextPlan(columns, rowids, kernels, 1000)
    masks = [random.random(3000) < 0.5, None]

    for number in range(120):
        size = int(random.integers(1, 9))
        query = parse_match(" ".join(random.choice(words, size)) + (" w3" if number % 3 else ""))
        for k, mask in ((1, None), (10, None), (10, masks), (500, None)):
            found = plan.search(query, k, mask, None)

            assert found is not None
            assert shown(found) == shown(search_text(query, columns, rowids, k, mask))


def test_a_search_for_many_hits_is_made_in_pieces_with_looks_between(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(8)
    texts = [" ".join(random.choice(WORDS, size)) for size in random.integers(1, 9, 3000).tolist()]
    segments: list[Source] = [TextSegment(build(texts[:1000])), TextSegment(build(texts[1000:]))]
    rowids = [np.arange(2000, 3000), random.permutation(2000)]
    looks, most = 0, -1

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks == most:
            raise KeyboardInterrupt

    columns = [TextColumn("body", segments)]
    columns[0].check = check
    query = parse_match("a cat the cut")
    for k in (10, 700, 2000, 3000):
        expected = shown(search_text(query, columns, rowids, k))
        counts = []
        for piece in (1 << 22, 500):
            monkeypatch.setattr(compiled, "PIECE", piece)
            monkeypatch.setattr(compiled, "_spare", [])
            plan = TextPlan(columns, rowids, kernels, 300)
            for _ in range(2):
                looks = 0
                found = plan.search(query, k, None, None)
                assert found is not None
                assert shown(found) == expected
            counts.append(looks)
        pieces = counts[1] - counts[0]
        assert pieces * 500 > 8 * min(k, len(expected)) * k.bit_length()  # what ordering takes
        for most in range(1, counts[1] + 1, 1 + counts[1] // 40):
            looks = 0
            with pytest.raises(KeyboardInterrupt):
                plan.search(query, k, None, None)
            looks = most
            found = plan.search(query, k, None, None)
            assert found is not None
            assert shown(found) == expected
        most = -1


def test_equal_scores_at_the_boundary_come_by_rowid(kernels: Kernels) -> None:
    segments: list[Source] = [TextSegment(build(["same words"] * 50)) for _ in range(2)]
    rowids = [np.arange(100, 50, -1), np.arange(50, 0, -1)]
    plan = TextPlan([TextColumn("body", segments)], rowids, kernels, 7)

    found = plan.search(parse_match("same words"), 5, None, None)

    assert found is not None
    assert found.rowids.tolist() == [1, 2, 3, 4, 5]


def test_known_words_are_looked_up_once_and_forgotten_in_time(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "SLOTS_KEPT", 5)
    texts = [f"w{i} w{i + 1}" for i in range(200)]
    segment = TextSegment(build(texts))
    columns, rowids = [TextColumn("body", [segment])], [np.arange(200)]
    plan = TextPlan(columns, rowids, kernels)

    for i in range(150):
        query = parse_match(f"w{i} w{i + 1} w{i * 2} w*")
        found = plan.search(query, 3, None, None)
        assert found is not None
        assert shown(found) == shown(search_text(query, columns, rowids, 3))
        assert plan.slot_count <= 5 + 4


def outcome(search: Callable[[], TextHits | None]) -> Any:
    """The hits of a search, or that it refused a damaged list."""
    try:
        found = search()
    except CorruptDatabaseError:
        return "refused"
    assert found is not None
    return shown(found)


@pytest.mark.parametrize("version", [FLAT, VERSION])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_crash_a_kernel(
    kernels: Kernels, version: int, data: st.DataObject
) -> None:
    texts = [f"dark night {i % 5} cat" for i in range(20)] + ["cat " * 300]
    parts = {name: part.tobytes() for name, part in build(texts, version=version).items()}
    name = data.draw(st.sampled_from([name for name in parts if name != "stats"]))
    raw = bytearray(parts[name])
    for _ in range(data.draw(st.integers(1, 3)) if raw else 0):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        segment = TextSegment({**parts, name: bytes(raw)})
    except CorruptDatabaseError:
        return
    columns, rowids = [TextColumn("body", [segment])], [np.arange(21)]
    plan = TextPlan(columns, rowids, kernels)

    for text in ("dark cat", "night 3", "cat 4", "dark"):
        query = parse_match(text)
        found = outcome(partial(plan.search, query, 5, None, None))
        plainly = outcome(partial(search_text, query, columns, rowids, 5))
        assert found in ("refused", plainly) or plainly == "refused"


@given(
    numbers=st.lists(st.integers(0, 2**35 - 1) | st.integers(0, 300), max_size=20),
    cut=st.integers(0, 3),
    end=st.binary(max_size=7),
)
def test_numbers_are_unpacked_alike(
    kernels: Kernels, numbers: list[int], cut: int, end: bytes
) -> None:
    packed, _ = pack_numbers(np.array(numbers, np.uint64))
    raw = np.frombuffer(packed.tobytes()[: max(0, len(packed) - cut)] + end, np.uint8)

    def unpacked() -> Any:
        try:
            found, begins = unpack_numbers(raw, "here")
        except CorruptDatabaseError:
            return "refused"
        return found.tolist(), begins.tolist()

    compiled_ones = unpacked()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m2mdb.index.text.packed.loaded", lambda: None)
        assert compiled_ones == unpacked()


DAMAGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "ordinals out of range": ("docs", lambda docs: docs + np.uint32(40)),
    "ordinals that fall": ("docs", lambda docs: docs[::-1].copy()),
    "no frequency": ("freqs", lambda freqs: freqs * 0),
    "terms out of range": ("term_offsets", lambda offsets: offsets + np.uint32(900)),
    "lists that overlap": ("starts", lambda starts: np.sort(starts)[::-1].copy()),
    "a list that is cut": ("lists", lambda lists: lists | np.uint8(128)),
    "another count": ("lists", lambda lists: lists + np.uint8(1)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_list_is_an_error_and_no_crash(kernels: Kernels, damage: str) -> None:
    name, change = DAMAGES[damage]
    version = VERSION if name == "lists" else FLAT
    parts = build([f"dark night {i}" for i in range(30)], version=version)
    changed = change(parts[name])
    if name == "starts":
        changed[0], changed[-1] = parts[name][0], parts[name][-1]
    columns = [TextColumn("body", [TextSegment({**parts, name: changed})])]
    rowids = [np.arange(30)]
    plan = TextPlan(columns, rowids, kernels)

    outcomes = []
    for word in ("dark", "night", "7", "29"):
        query = parse_match(word)
        outcomes.append(outcome(partial(plan.search, query, 3, None, None)))
        plainly = outcome(partial(search_text, query, columns, rowids, 3))
        assert outcomes[-1] in ("refused", plainly)

    assert "refused" in outcomes


def test_a_collection_is_searched_alike_before_and_after_kernels_are_there(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    con = m2mdb.connect(tmp_path / "a.m2m")
    con.execute("CREATE COLLECTION notes (body TEXT FULLTEXT, n INTEGER)")
    notes = con.collection("notes")
    random = np.random.default_rng(11)
    words = [f"w{i}" for i in range(60)]
    for size in (3000, 700, 40):
        bodies = [" ".join(random.choice(words, 6)) for _ in range(size)]
        notes.add({"body": bodies, "n": list(range(size))})
    notes.delete(list(range(3, 3700, 7)))
    con.commit()

    def answers() -> list[Any]:
        found = []
        for text in ("w1 w2", "w5 +w6", "w7 -w8", '"w1 w2" w9', "w1*", "w3^3 w4"):
            for where in (None, "n < 300"):
                hits = notes.search(match=text, where=where, returning=[])
                found.append((hits.ids.tolist(), hits.scores.tolist()))
        return found

    with monkeypatch.context() as patch:
        patch.setattr("m2mdb.index.lexical.text_kernels", lambda *_: None)
        expected = answers()
    con.close()
    con = m2mdb.connect(tmp_path / "a.m2m")
    notes = con.collection("notes")

    assert answers() == expected
    notes.add({"body": ["w1 w1 w2"], "n": [1]})
    assert notes.search(match="w1 w2", k=1)[0]["body"] == "w1 w1 w2"
    con.close()
