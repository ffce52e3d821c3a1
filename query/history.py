"""m2m_history and m2m_tiers: what commits changed, and where the bytes of a collection are.

m2m_history   commit, collection, written, ended, time, author: a row for each commit within
              reach of AS OF that wrote or ended versions of the collection's rows; an UPDATE does
              both. Time and author are NULL where the file does not have them: `index.moments`
m2m_tiers     collection, part, content, tier, bytes: what of a part is warm, what cold

    content   routing (centroids and 1-bit codes), codes (8-bit codes), vectors, text (inverted
              lists), columns (all else of the rows), delta
              prepared (tables of searches), pages (decoded ones, of all collections)
    tier      cold: in the file alone. warm: in blocks that this connection has read and verified,
              which stay in memory as long as the system and `PRAGMA memory_budget` let them.
              hot: in this process's own memory, as searches want it: `index.footprint`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.moments import moments
from m2mdb.index.past import PastView, newest_commit
from m2mdb.index.retention import ALIVE
from m2mdb.index.values import timestamp_value
from m2mdb.pager.extent import BLOCK_SHIFT
from m2mdb.query.lists import ListSchema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from m2mdb.index.collection import CollectionView
    from m2mdb.index.segment import Segment
    from m2mdb.index.view import View

_TEXT, _INTEGER = "TEXT", "INTEGER"
HISTORY = ListSchema(
    "m2m_history",
    (
        ("commit", _INTEGER), ("collection", _TEXT), ("written", _INTEGER), ("ended", _INTEGER),
        ("time", "TIMESTAMP"), ("author", _TEXT),
    ),
)  # fmt: skip
TIERS = ListSchema(
    "m2m_tiers",
    (
        ("collection", _TEXT), ("part", _TEXT), ("content", _TEXT), ("tier", _TEXT),
        ("bytes", _INTEGER),
    ),
)  # fmt: skip
_ROUTING = (
    "h.head", "h.centers", "h.center_scales", "h.center_squares", "h.starts", "h.codes",
    "h.factors", "h.positions", "h.middle",
)  # fmt: skip


def history_rows(view: View, collection: CollectionView) -> Iterator[tuple[Any, ...]]:
    """A row for each commit within reach that changed rows of the collection, oldest first."""
    name = collection.schema.name
    oldest = view.oldest_commit(name)
    written: list[np.ndarray] = []
    ended: list[np.ndarray] = []
    past = PastView(collection, newest_commit(view))
    for segment in past.segments:
        _note(segment.commits(), past.ends(segment), oldest, written, ended)
    mirror = collection.mirror
    count = mirror.count_before(collection.end)
    ends = np.full(count, ALIVE, np.uint64)
    for entry, commit in mirror.ends.items():
        if entry < count:
            ends[entry] = commit
    _note(np.array(mirror.commits[:count], np.uint64), ends, oldest, written, ended)
    counts: dict[int, list[int]] = {}
    for place, found in enumerate((written, ended)):
        commits, sizes = np.unique(np.concatenate(found), return_counts=True)
        for commit, size in zip(commits.tolist(), sizes.tolist(), strict=True):
            counts.setdefault(commit, [0, 0])[place] = size
    known = moments(view, oldest)
    for commit in sorted(counts):
        moment = known.get(commit)
        time = None if moment is None or moment.time is None else timestamp_value(moment.time)
        yield commit, name, *counts[commit], time, None if moment is None else moment.author


def _note(
    begins: np.ndarray,
    ends: np.ndarray,
    oldest: int,
    written: list[np.ndarray],
    ended: list[np.ndarray],
) -> None:
    """The commits that wrote and ended versions, of those that were visible after some commit."""
    was_there = begins != ends
    written.append(begins[was_there & (begins >= oldest)])
    ended.append(ends[was_there & (ends >= oldest) & (ends != ALIVE)])


def tier_rows(view: View, collection: CollectionView) -> Iterator[tuple[Any, ...]]:
    """What is warm and what is cold of each part and content, where it has bytes."""
    name = collection.schema.name
    if collection.mirror.bytes_used:
        yield name, "delta", "delta", "warm", collection.mirror.bytes_used
    for segment in collection.segments:
        for content, (warm, cold) in tiers_of(segment).items():
            for tier, size in (("warm", warm), ("cold", cold)):
                if size:
                    yield name, f"segment {segment.id}", content, tier, size
    for (part, content), size in _hot(view, collection).items():
        if size:
            yield name, part, content, "hot", size


def _hot(view: View, collection: CollectionView) -> dict[tuple[str, str], int]:
    """Bytes of this process's own memory by part and content."""
    from m2mdb.index.footprint import Counter, collection_bytes, segment_bytes

    counter = Counter(view.database.check_interrupted)
    found: dict[tuple[str, str], int] = {}
    for segment in collection.segments:
        for content, size in segment_bytes(segment, counter, _content):
            key = f"segment {segment.id}", content
            found[key] = found.get(key, 0) + size
    for part, content, size in collection_bytes(collection, counter):
        found[part, content] = found.get((part, content), 0) + size
    return found


def page_tier(view: View) -> tuple[Any, ...]:
    """The row of m2m_tiers that is of no collection: decoded pages of trees, which are hot."""
    from m2mdb.index.footprint import Counter, page_bytes

    size = page_bytes(view.database.store, Counter(view.database.check_interrupted))
    return None, "all", "pages", "hot", size


def tiers_of(segment: Segment) -> dict[str, list[int]]:
    """Warm and cold bytes of each content."""
    found: dict[str, list[int]] = {}
    for part, column in segment.names():
        extent, offset, size = segment.range_of(part, column)
        warm = 0
        if size:
            first, last = offset >> BLOCK_SHIFT, offset + size - 1 >> BLOCK_SHIFT
            flags = np.frombuffer(extent.verified, np.uint8)[first : last + 1] != 0
            edges = np.arange(first, last + 2, dtype=np.int64) << BLOCK_SHIFT
            edges[0], edges[-1] = offset, offset + size
            warm = size if extent.all_verified else int(np.diff(edges)[flags].sum())
        sizes = found.setdefault(_content(part), [0, 0])
        sizes[0] += warm
        sizes[1] += size - warm
    return found


def _content(part: str) -> str:
    if part in _ROUTING:
        return "routing"
    if part.startswith("h."):
        return "codes"
    if part in ("vectors", "norms"):
        return "vectors"
    return "text" if part.startswith("t.") else "columns"
