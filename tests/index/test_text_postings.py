"""Inverted lists: built, read, merged, kept for the delta, and damaged."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.index import slices
from m2mdb.index.text import packed, postings
from m2mdb.index.text.delta_postings import DeltaPostings, DeltaView
from m2mdb.index.text.fuzzy import is_close
from m2mdb.index.text.packed import pack_numbers, unpack_numbers
from m2mdb.index.text.postings import FLAT, NULL_LENGTH, VERSION, build, merge
from m2mdb.index.text.segment import TextSegment
from m2mdb.index.text.tokenizer import tokenize_bytes
from m2mdb.pager.errors import CorruptDatabaseError, DatabaseError, NotSupportedError

WORDS = ["a", "ab", "abc", "abd", "b", "ba", "cat", "cats", "act", "cut", "über", "東京都", "東京"]
Parts = dict[str, np.ndarray[Any, Any]]
KINDS: list[dict[str, Any]] = [{}, {"positions": False}, {"version": FLAT}]
texts_of_words = st.lists(
    st.none() | st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=12
)


def postings_of(texts: list[str | None]) -> dict[bytes, dict[int, int]]:
    """term -> {ordinal: frequency}, counted one by one."""
    lists: dict[bytes, dict[int, int]] = {}
    for ordinal, text in enumerate(texts):
        for term, frequency in Counter(tokenize_bytes(text or "")).items():
            lists.setdefault(term, {})[ordinal] = frequency
    return lists


def assert_reads_as(source: TextSegment | DeltaView, texts: list[str | None]) -> None:
    """The source gives what counting the texts gives."""
    lists = postings_of(texts)
    lengths = [NULL_LENGTH if t is None else len(tokenize_bytes(t)) for t in texts]
    assert source.size == len(texts)
    assert source.document_count == sum(text is not None for text in texts)
    assert source.total_length == sum(length for length in lengths if length != NULL_LENGTH)
    assert source.lengths.tolist() == lengths
    assert source.vocabulary() == sorted(lists)
    assert source.document_frequencies().tolist() == [len(lists[term]) for term in sorted(lists)]
    for term in [*lists, b"", b"zz", b"\xff", b"aa"]:
        docs, frequencies = source.postings(term)
        assert docs.tolist() == sorted(lists.get(term, {}))
        assert dict(zip(docs.tolist(), frequencies.tolist(), strict=True)) == lists.get(term, {})
        assert source.document_frequency(term) == len(docs)
    for prefix in (b"", b"a", b"ab", b"c", "東".encode(), b"zz"):
        docs, frequencies = source.prefix_postings(prefix)
        assert list(zip(docs.tolist(), frequencies.tolist(), strict=True)) == [
            posting
            for term in sorted(lists)
            if term.startswith(prefix)
            for posting in lists[term].items()
        ]
    for word in ("cat", "ab", "bac", "東京", "uber"):
        close = [term for term in sorted(lists) if edits_at_most_one(word, term.decode())]
        assert source.fuzzy(word.encode()) == close


def edits_at_most_one(one: str, other: str) -> bool:
    """Whether the optimal string alignment distance is 1 at most, by the whole table."""
    table = [[max(i, j) for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (one[i - 1] != other[j - 1]),
            )
            if i > 1 and j > 1 and one[i - 2 : i] == other[j - 2 : j][::-1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1] <= 1


@given(texts_of_words, st.sampled_from(KINDS))
def test_segment_reads_what_was_built(texts: list[str | None], kind: dict[str, Any]) -> None:
    segment = TextSegment(build(texts, **kind))

    assert_reads_as(segment, texts)
    assert list(segment.faults()) == []
    assert segment.has_positions == (not kind)


@given(texts_of_words)
def test_positions_are_places_in_the_texts(texts: list[str | None]) -> None:
    segment = TextSegment(build(texts))

    for term in [*segment.vocabulary(), b"zz"]:
        expected = [
            (ordinal << 32) + place
            for ordinal, text in enumerate(texts)
            for place, token in enumerate(tokenize_bytes(text or ""))
            if token == term
        ]
        found = segment.positions(term)
        assert found is not None
        assert found.tolist() == expected
    assert TextSegment(build(texts, positions=False)).positions(b"a") is None


@given(st.lists(st.integers(0, 2**35 - 1) | st.integers(0, 300), max_size=20))
def test_packed_numbers_come_back(numbers: list[int]) -> None:
    packed, begins = pack_numbers(np.array(numbers, np.uint64))

    found, starts = unpack_numbers(packed, "here")

    assert found.tolist() == numbers
    assert starts.tolist() == begins.tolist()
    if numbers and numbers[-1] > 127:
        with pytest.raises(CorruptDatabaseError, match="here: a packed list is cut"):
            unpack_numbers(packed[:-1], "here")


def test_lists_of_both_versions_are_merged() -> None:
    texts: list[str | None] = ["cat hat cat", None, "act cat", "hat " * 300]
    kinds: list[dict[str, Any]] = [{"version": FLAT}, {}]
    segments = [TextSegment(build(texts, **kind)) for kind in kinds]
    maps = [np.arange(4), np.array([4, -1, 5, 6])]

    merged = merge(segments, maps, 7)

    plainly = build([*texts, texts[0], *texts[2:]], positions=False)
    assert {name: part.tolist() for name, part in merged.items()} == {
        name: part.tolist() for name, part in plainly.items()
    }


@given(texts_of_words)
def test_segment_reads_parts_from_bytes_and_views(texts: list[str | None]) -> None:
    parts = build(texts)

    assert_reads_as(TextSegment({name: part.tobytes() for name, part in parts.items()}), texts)
    views = {name: memoryview(b"x" + part.tobytes())[1:] for name, part in parts.items()}
    assert_reads_as(TextSegment(views), texts)


def test_frequencies_beyond_a_byte_are_kept() -> None:
    texts = ["a " * 254, "a " * 255 + "b", None, "a " * 70_000, "b a"]

    segment = TextSegment(build(list(texts)))

    assert segment.postings(b"a")[1].tolist() == [254, 255, 70_000, 1]
    assert segment.postings(b"b")[1].tolist() == [1, 1]
    assert_reads_as(segment, list(texts))


def test_term_ids_and_prefix_ranges_follow_the_order_of_terms() -> None:
    segment = TextSegment(build(["beta alpha", "alphabet al"]))

    assert [segment.term(i) for i in range(segment.term_count)] == segment.vocabulary()
    assert segment.term_id(b"alphabet") == 2
    assert segment.term_id(b"alp") == -1
    assert segment.prefix(b"alp") == range(1, 3)
    assert segment.docs(1)[0].tolist() == [0]


@given(st.text("abcd", max_size=6), st.text("abcd", max_size=6))
def test_closeness_is_an_edit_distance_of_one_at_most(one: str, other: str) -> None:
    assert is_close(one, other) == edits_at_most_one(one, other)


@given(st.text("abé東", min_size=1, max_size=6), st.lists(st.text("abé東", min_size=1, max_size=6)))
def test_fuzzy_lookup_finds_every_close_term(word: str, others: list[str]) -> None:
    texts = [word, *others]
    terms = sorted({token for text in texts for token in tokenize_bytes(text)})
    query = tokenize_bytes(word)[0]

    found = TextSegment(build(list(texts))).fuzzy(query)

    assert found == [t for t in terms if edits_at_most_one(query.decode(), t.decode())]


@given(st.lists(texts_of_words, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_merging_gives_what_building_from_the_kept_texts_gives(
    groups: list[list[str | None]], random: Random
) -> None:
    rows = [(s, i) for s, texts in enumerate(groups) for i in range(len(texts))]
    kept = [row for row in rows if random.random() < 0.7]
    random.shuffle(kept)
    maps = [np.full(len(texts), -1, np.int64) for texts in groups]
    for new_ordinal, (s, i) in enumerate(kept):
        maps[s][i] = new_ordinal

    merged = merge([TextSegment(build(texts)) for texts in groups], maps, len(kept))

    built = build([groups[s][i] for s, i in kept])
    assert {name: part.tobytes() for name, part in merged.items()} == {
        name: part.tobytes() for name, part in built.items()
    }
    assert all(merged[name].dtype == built[name].dtype for name in built)


@given(texts_of_words, st.data())
def test_delta_views_are_snapshots(texts: list[str | None], data: st.DataObject) -> None:
    delta = DeltaPostings()
    views = [delta.view(0)]
    for number, text in enumerate(texts):
        delta.add(number, text)
        views.append(delta.view(number + 1))

    for count, view in enumerate(views):
        assert_reads_as(view, texts[:count])

    kept = data.draw(st.integers(0, len(texts)))
    delta.truncate(kept)
    assert len(delta) == kept
    delta.extend(["cat again", None, *texts])
    assert_reads_as(delta.view(len(delta)), [*texts[:kept], "cat again", None, *texts])
    assert_reads_as(views[kept], texts[:kept])


SMALL = build(["cat hat cat", None, "act cat", "hat " * 300])
OLD = build(["cat hat cat", None, "act cat", "hat " * 300], version=FLAT)


@pytest.mark.parametrize(
    ("parts", "name"), [(parts, name) for parts in (SMALL, OLD) for name in parts]
)
def test_missing_or_short_parts_are_refused(parts: Parts, name: str) -> None:
    without = {other: part for other, part in parts.items() if other != name}
    with pytest.raises(CorruptDatabaseError, match=f"notes.m2m.*{name}.*missing"):
        TextSegment(without, "notes.m2m")

    wrong = [b"\x00" * (parts[name].nbytes + parts[name].itemsize), b"\x00" * 13]
    for content in wrong if name not in ("terms", "overflow_at") else wrong[1:]:
        if name == "terms" and parts is SMALL:
            continue  # terms may be any bytes of which each is one's
        with pytest.raises(CorruptDatabaseError):
            read_everything(TextSegment({**without, name: content}))


def test_newer_lists_are_not_supported() -> None:
    stats = SMALL["stats"].copy()
    stats[0] = VERSION + 1
    with pytest.raises(NotSupportedError, match="version 3"):
        TextSegment({**SMALL, "stats": stats})


def read_everything(segment: TextSegment) -> None:
    """Call every reader."""
    for term in (b"act", b"cat", b"hat", b"zz", b""):
        segment.postings(term)
        segment.document_frequency(term)
        segment.prefix_postings(term)
        segment.fuzzy(term or b"x")
    segment.vocabulary()
    segment.document_frequencies()
    segment.every_posting(positions=True)
    segment.positions(b"cat")
    segment.norms(0.5, 0.5)
    if faults := list(segment.faults()):
        raise CorruptDatabaseError(faults[0])


@settings(max_examples=400)
@given(st.sampled_from([SMALL, OLD]), st.data())
def test_damaged_parts_never_crash_a_reader(parts: Parts, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(parts)))
    raw = bytearray(parts[name].tobytes())
    for _ in range(data.draw(st.integers(1, 3))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]

    try:
        segment = TextSegment({**parts, name: bytes(raw)})
        read_everything(segment)
        merge([segment], [np.arange(segment.size)], segment.size)
    except DatabaseError as error:
        assert str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_slices_have_the_bytes_of_those_built_whole(
    kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(8)
    texts = [
        None if random.random() < 0.1
        else " ".join(random.choices(WORDS, range(1, 14), k=random.randrange(30)))
        for _ in range(500)
    ]  # fmt: skip
    halves = texts[:250], texts[250:]
    maps = [
        np.array([2 * row if row % 5 else -1 for row in range(250)]),
        np.array([2 * row + 1 for row in range(250)]),
    ]

    def made() -> list[Parts]:
        parts = [build(texts, **kind), *[build(half, **kind) for half in halves]]
        return [*parts, merge([TextSegment(each) for each in parts[1:]], maps, 500)]

    whole = made()
    for module in (packed, postings, slices):
        for name in ("SORTED_NUMBERS", "SLICE_NUMBERS", "SLICE_VALUES", "SLICE_TEXTS",
                     "SLICE_CHARACTERS"):  # fmt: skip
            if hasattr(module, name):
                monkeypatch.setattr(module, name, 16)
    for one, other in zip(whole, made(), strict=True):
        assert one.keys() == other.keys()
        for name, part in one.items():
            assert part.dtype == other[name].dtype
            assert np.array_equal(part, other[name]), name
    assert_reads_as(TextSegment(whole[0]), texts)
