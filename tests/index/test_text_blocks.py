"""Blocks of long lists: searches that unpack some of them find what scoring everything finds.

Invariants
    T8  The parts follow from the lists and the lengths, and damage to them is found.
    M5  A block is passed over only where it has no row of the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import m2mdb
from m2mdb.compute.loader import LOADER
from m2mdb.compute.text_backend import Kernels
from m2mdb.index.text import blocks as blocks_module
from m2mdb.index.text import compiled
from m2mdb.index.text import segment as segment_module
from m2mdb.index.text.blocks import MOST_FREQUENCY, PARTS, POSTINGS, STORED, length_codes
from m2mdb.index.text.bm25 import VARIANTS
from m2mdb.index.text.compiled import TextPlan
from m2mdb.index.text.delta_postings import DeltaPostings
from m2mdb.index.text.match_query import parse_match
from m2mdb.index.text.postings import build, merge
from m2mdb.index.text.search import TextHits, search_text
from m2mdb.index.text.segment import TextSegment
from m2mdb.index.text.source import Source, TextColumn
from m2mdb.index.text.visible import VisibleSource
from m2mdb.pager.errors import CorruptDatabaseError

WORDS = [f"w{i}" for i in range(12)]


def made_texts(seed: int, count: int) -> list[str | None]:
    """Texts whose words are as unlike in number as those of a language, some long, some NULL."""
    random = np.random.default_rng(seed)
    found: list[str | None] = []
    for _ in range(count):
        size = int(random.integers(0, 6)) if random.random() < 0.8 else int(random.integers(1, 300))
        words = np.minimum(random.zipf(1.4, size), len(WORDS)) - 1
        found.append(None if random.random() < 0.03 else " ".join([WORDS[i] for i in words]))
    return found


def shown(hits: TextHits | None) -> list[tuple[Any, ...]]:
    """What a search says of each hit, scores by their bits."""
    assert hits is not None
    places = zip(hits.sources.tolist(), hits.ordinals.tolist(), strict=True)
    return list(
        zip(hits.rowids.tolist(), hits.scores.view(np.uint32).tolist(), places, strict=True)
    )


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every list has blocks."""
    monkeypatch.setattr(blocks_module, "LEAST_BLOCKED", 1)
    monkeypatch.setattr(TextSegment, "least_blocked", 1)
    monkeypatch.setattr(compiled, "_spare", [])


@pytest.mark.usefixtures("short_lists")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 5),
    sizes=st.lists(st.sampled_from([0, 1, 127, 128, 129, 700]), min_size=1, max_size=3),
    text=st.lists(st.sampled_from([*WORDS, "zebra"]), min_size=1, max_size=6).map(" ".join),
    k=st.sampled_from([1, 3, 10, 100]),
    window=st.sampled_from([7, 100, 1 << 17]),
    variant=st.sampled_from(sorted(VARIANTS)),
    share=st.sampled_from([None, 0.03, 0.5]),
)
def test_lists_unpacked_in_part_find_what_scoring_everything_finds(
    kernels: Kernels,
    seed: int,
    sizes: Sequence[int],
    text: str,
    k: int,
    window: int,
    variant: str,
    share: float | None,
) -> None:
    """Every variant, windows, filters, several parts and columns; first, second, and hot."""
    random = np.random.default_rng(seed)
    delta = DeltaPostings()
    delta.extend(made_texts(seed, 20))
    sources: list[list[Source]] = [[delta.view(20)], [delta.view(20)]]
    for part, size in enumerate(sizes):
        for column in range(2):
            sources[column].append(TextSegment(build(made_texts(seed + part + column, size))))
    columns = [
        TextColumn("body", sources[0], VARIANTS[variant](), 1.0),
        TextColumn("title", sources[1], VARIANTS[variant](), 0.3),
    ]
    counts = [20, *sizes]
    rowids = [np.arange(size) * 3 + 1000 * part for part, size in enumerate(counts)]
    masks = None if share is None else [random.random(size) < share for size in counts]
    query = parse_match(text)
    expected = shown(search_text(query, columns, rowids, k, masks=masks))

    for _ in range(3):  # other snapshots, which share the segments
        plan = TextPlan(columns, rowids, kernels, window)
        for _ in range(2):
            found = plan.search(query, k, masks, None)
            assert found is None or shown(found) == expected


@pytest.mark.usefixtures("short_lists")
def test_past_rows_count_as_they_did(kernels: Kernels) -> None:
    texts = made_texts(3, 900)
    seen = VisibleSource(TextSegment(build(texts)), np.arange(900) % 3 != 1)
    columns, rowids = [TextColumn("body", [seen])], [np.arange(900)]
    query = parse_match("w0 w3 w7")

    found = TextPlan(columns, rowids, kernels).search(query, 10, None, None)

    assert shown(found) == shown(search_text(query, columns, rowids, 10))


def test_a_rare_word_and_a_frequent_one_unpack_little_of_the_latter(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"the {'rare ' * (i % 5_000 == 77)}word{i}" for i in range(40_000)]
    segment = TextSegment(build(list(texts)))
    columns, rowids = [TextColumn("body", [segment])], [np.arange(40_000)]
    unpacked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        TextSegment,
        "note_opened",
        lambda _, _term, count, some: unpacked.append((count, some)),
    )

    found = TextPlan(columns, rowids, kernels).search(parse_match("the rare"), 8, None, None)

    assert sorted(found.rowids.tolist() if found else []) == list(range(77, 40_000, 5_000))
    assert unpacked == [(40_000, 8 * POSTINGS)]


def test_a_list_that_is_asked_for_often_is_unpacked_whole(kernels: Kernels) -> None:
    segment = TextSegment(build([f"the word{i}" for i in range(3_000)]))
    columns, rowids = [TextColumn("body", [segment])], [np.arange(3_000)]
    plan = TextPlan(columns, rowids, kernels)

    slots = []
    for _ in range(40):
        plan.search(parse_match("the word7"), 1, None, None)
        slots.append(plan.slot_count)

    assert slots[0] == 2
    assert slots[-1] == slots[-2] <= 2 + segment_module.FEW_SEARCHES


@given(st.lists(st.integers(0, 2**32 - 2), min_size=1))
def test_a_stored_length_is_no_longer_than_the_length(lengths: list[int]) -> None:
    from m2mdb.compute.text_blocks import shortest

    given_ones = np.sort(np.array(lengths, np.uint32))
    codes = length_codes(given_ones).tolist()

    assert codes == sorted(codes)
    assert max(codes) < blocks_module.NO_ROW
    for length, code in zip(given_ones.tolist(), codes, strict=True):
        assert shortest(code) <= length
        assert shortest(code) * 9 / 8 >= length or length > 7 << 20


# ------------------------------------------------------------------------- parts


def plain_blocks(segment: TextSegment) -> list[list[int]]:
    """The blocks of all long lists, posting by posting."""
    found = []
    for term in segment.vocabulary():
        docs, frequencies = segment.postings(term)
        if len(docs) < blocks_module.LEAST_BLOCKED:
            continue
        before = -1
        for start in range(0, len(docs), POSTINGS):
            some = list(zip(docs.tolist(), frequencies.tolist(), strict=True))
            some = some[start : start + POSTINGS]
            heads = more = 0
            least = [1 << 32] * 3
            for doc, frequency in some:
                heads += size_of((doc - before - 1) * 2)
                more += size_of(frequency - 2) if frequency > 1 else 0
                kind = min(frequency, 3) - 1
                least[kind] = min(least[kind], int(segment.lengths[doc]))
                before = doc
            codes = [255 if x == 1 << 32 else int(length_codes(np.array([x]))[0]) for x in least]
            most = min(max(frequency for _, frequency in some), MOST_FREQUENCY)
            bound = most | codes[0] << 8 | codes[1] << 16 | codes[2] << 24
            found.append([before, heads | more << 16, bound])
    return found


def size_of(number: int) -> int:
    """Bytes of a packed number."""
    return max(1, -(-number.bit_length() // 7))


@pytest.mark.usefixtures("short_lists")
def test_blocks_are_what_their_postings_say() -> None:
    texts = [*made_texts(1, 600), "w1 " * 400, "w2 " * 254]
    parts = build(texts)

    assert parts["blocks"].reshape(-1, STORED).tolist() == plain_blocks(TextSegment(parts))


@pytest.mark.usefixtures("short_lists")
def test_merging_gives_the_blocks_of_building_anew() -> None:
    texts = made_texts(2, 500)
    halves = [TextSegment(build(texts[:200])), TextSegment(build(texts[200:], blocks=False))]
    maps = [np.arange(200), np.arange(300) + 200]

    merged, anew = merge(halves, maps, 500), build(texts)

    assert list(merged) == list(anew)
    assert all(np.array_equal(merged[name], anew[name]) for name in anew)
    assert not halves[1].has_blocks


@pytest.mark.usefixtures("short_lists")
@pytest.mark.parametrize("item", range(STORED))
@pytest.mark.parametrize("change", [1, 1 << 8, 1 << 16, 1 << 24])
def test_every_wrong_number_of_a_block_is_a_fault(item: int, change: int) -> None:
    parts = build(made_texts(4, 300))
    assert not list(TextSegment(parts).faults())
    blocks = parts["blocks"].copy()
    blocks[STORED * 2 + item] ^= change

    faults = list(TextSegment({**parts, "blocks": blocks}).faults())

    assert faults == ["text index: the blocks of lists are not those of the lists"]


@pytest.mark.usefixtures("short_lists")
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_blocks_never_crash_a_search(kernels: Kernels, data: st.DataObject) -> None:
    texts = made_texts(5, 400)
    parts = {name: part.tobytes() for name, part in build(texts).items()}
    name = data.draw(st.sampled_from([*PARTS, "lists", "starts"]))
    raw = bytearray(parts[name])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 0, 4, 12]))
    columns = []
    try:
        segment = TextSegment({**parts, name: bytes(raw[: len(raw) - cut])})
        columns.append(TextColumn("body", [segment]))
    except CorruptDatabaseError:
        return
    for window in (50, 1 << 17):
        plan = TextPlan(columns, [np.arange(400)], kernels, window)
        for text in ("w0 w1", "w0", "w9 w0 w2", "w5 w1"):
            try:
                found = plan.search(parse_match(text), 5, None, None)
            except CorruptDatabaseError:
                continue
            assert found is not None
            assert not len(found) or 0 <= found.ordinals.min() <= found.ordinals.max() < 400


def test_a_block_that_is_not_what_its_maximum_says_is_refused(kernels: Kernels) -> None:
    parts = build([f"the word{i}" for i in range(3_000)])
    starts, terms = parts["starts"], TextSegment(parts).vocabulary()
    lists = parts["lists"].copy()
    lists[int(starts[terms.index(b"the")]) + 2 + 500] = 2  # a gap that the block has no room for
    columns = [TextColumn("body", [TextSegment({**parts, "lists": lists})])]
    plan = TextPlan(columns, [np.arange(3_000)], kernels)

    with pytest.raises(CorruptDatabaseError, match="text of body: a block of a list is damaged"):
        plan.search(parse_match("the"), 3_000, None, None)
    found = plan.search(parse_match("word7"), 3, None, None)
    assert found is not None
    assert found.rowids.tolist() == [7]


# ------------------------------------------------------------------------- files


def fill(con: m2mdb.Connection, count: int = 2_500) -> None:
    """A collection with two long lists in a segment."""
    con.execute("CREATE COLLECTION t (id INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
    texts = [f"the dog {'barks ' * (i % 7 == 0)}{i}" + " more" * (i % 11) for i in range(count)]
    con.collection("t").add({"id": list(range(count)), "body": texts})


def answers(con: m2mdb.Connection) -> list[Any]:
    """What some searches find, now, filtered, and as of the first commit."""
    found = []
    for _ in range(3):
        for text in ("the", "the dog 17", "barks more", "more^2 dog barks"):
            for condition in ("", "WHERE id % 5 = 2"):
                found.append(
                    con.execute(
                        f"SEARCH t MATCH ? {condition} K 7 RETURNING id, score", (text,)
                    ).fetchall()
                )
    return found


def reports(con: m2mdb.Connection) -> list[str]:
    """What the integrity check says."""
    return [row[0] for row in con.execute("PRAGMA integrity_check")]


def test_a_wrong_maximum_in_a_file_is_found_by_the_integrity_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = blocks_module.block_parts

    def wrong(*given: Any) -> dict[str, Any]:
        parts = made(*given)
        if parts:
            parts["blocks"][2] += 1 << 8  # the shortest text of the first block is a word longer
        return parts

    monkeypatch.setattr("m2mdb.index.text.postings.block_parts", wrong)
    with m2mdb.connect(str(tmp_path / "a.m2m")) as con:
        fill(con)
    monkeypatch.undo()

    with m2mdb.connect(str(tmp_path / "a.m2m")) as con:
        found = reports(con)

    assert len(found) == 1
    assert "text index of body (t.blocks) differ from the rows" in found[0]


def test_files_without_blocks_open_unchanged_and_get_them_when_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LOADER.wait(300), LOADER.error
    path = str(tmp_path / "old.m2m")
    monkeypatch.setattr("m2mdb.index.text.postings.block_parts", lambda *_: {})
    with m2mdb.connect(path) as con:
        fill(con)
    monkeypatch.undo()

    with m2mdb.connect(path) as con:
        assert reports(con) == ["ok"]
        before = answers(con)
        assert not blocks_of(con)
        con.execute("REINDEX t")
        assert blocks_of(con)
        assert reports(con) == ["ok"]
        assert answers(con) == before


def blocks_of(con: m2mdb.Connection) -> bool:
    """Whether some segment of t knows the blocks of its lists."""
    with con.engine().reading() as view:
        collection = view.collection("t")
        body = collection.schema.columns[collection.schema.column("body")]
        return any(segment.text(body).has_blocks for segment in collection.segments)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_both_backends_answer_alike_after_every_way_to_write_a_file_anew(
    tmp_path: Path, variant: str
) -> None:
    """Deletes, FORGET, VACUUM, a backup and a dump keep or make the blocks."""
    assert LOADER.wait(300), LOADER.error
    path = str(tmp_path / "a.m2m")
    with m2mdb.connect(path) as con:
        con.execute(
            "CREATE COLLECTION t (id INTEGER PRIMARY KEY, "
            f"body TEXT FULLTEXT (variant = '{variant}'))"
        )
        texts = [f"the dog {'barks ' * (i % 7 == 0)}{i}" + " more" * (i % 11) for i in range(2_500)]
        con.collection("t").add({"id": list(range(2_500)), "body": texts})
        con.execute("DELETE FROM t WHERE id % 10 = 3")
        steps = ["SELECT 1", "FORGET FROM t WHERE id = 17", "VACUUM", "OPTIMIZE t"]
        for step in steps:
            con.commit()
            con.execute(step).fetchall()
            con.commit()
            assert blocks_of(con)
            with m2mdb.connect(path, compute="numpy") as plain:
                assert answers(con) == answers(plain), step
            assert reports(con) == ["ok"]
        con.backup(str(tmp_path / "b.m2m"))
        expected = answers(con)
    with m2mdb.connect(str(tmp_path / "b.m2m")) as copy:
        assert answers(copy) == expected
        assert reports(copy) == ["ok"]
