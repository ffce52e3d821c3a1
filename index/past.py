"""The past: a collection as it stood right after a commit (S25).

    versions        delta, segments and kept segments (`index.retention`)
    visible         commit that wrote it <= n < commit that ended it

A PastView reads like any CollectionView: its parts are the same arrays under other masks, so
vectors are searched exactly over the versions that were visible. What describes the present alone
is not asked: B-tree indexes are passed over, rowids and keys are looked up among all versions.

Statistics of text count the visible versions and no others (`index.text.visible`). They differ
from the present's, which count dead rows until they are merged (S24), and are the same whenever
the commit is asked for.

Invariants
    H4  At most one version of a rowid is visible in all parts together.
    H5  What an open transaction has written or ended bears its commit to come, so it is not seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.collection import (
    CollectionView,
    DeltaPart,
    Part,
    Place,
    SegmentPart,
    check_ordinal,
    open_past,
)
from m2mdb.index.column_parts import key_hash
from m2mdb.index.retention import ALIVE, load_ends
from m2mdb.index.segment import Segment
from m2mdb.index.text.visible import VisibleSource
from m2mdb.pager.errors import OperationalError, ProgrammingError
from m2mdb.wal.transaction import Transaction

if TYPE_CHECKING:
    from m2mdb.index.text.source import Source
    from m2mdb.index.view import View


class PastSegmentPart(SegmentPart):
    """The versions of a segment that were visible after a commit."""

    __slots__ = ("_past",)

    def __init__(self, view: PastView, segment: Segment) -> None:
        super().__init__(view, segment)
        self._past = view

    @property
    def live(self) -> np.ndarray | None:
        """bool (size,), or None when every version was visible; not to be changed."""
        if self._live is None:
            commit, ends = self._past.as_of, self._past.ends(self.segment)
            self._live = (self.segment.commits() <= commit) & (ends > commit)
        return None if self._live.all() else self._live

    def is_live(self, ordinal: int) -> bool:
        """Whether one version was visible."""
        live = self.live
        return live is None or bool(live[ordinal])


class PastDeltaPart(DeltaPart):
    """The versions of the delta that were visible after a commit."""

    __slots__ = ("_commit", "_mirror")

    def __init__(self, view: PastView) -> None:
        super().__init__(view)
        self._mirror = view.mirror
        self._commit = view.as_of

    @property
    def live(self) -> np.ndarray | None:
        """bool (size,), or None when every version was visible."""
        if self._live is None:
            self._live = self._mirror.visible_mask(self.size, self._commit)
        return None if self._live.all() else self._live


class PastView(CollectionView):
    """One collection as it stood right after commit `as_of`; made by `past_view`."""

    __slots__ = ("as_of",)

    def __init__(self, present: CollectionView, as_of: int) -> None:
        entry = present.entry
        segments = (*present.segments, *open_past(present.view.pages, entry))
        super().__init__(present.view, entry, present.mirror, present.end, segments)
        self.as_of = as_of

    def ends(self, segment: Segment) -> np.ndarray:
        """u64 (rows,): the commit that ended each row of a segment, ALIVE for none."""
        entry = self.entry
        record = entry.records.get(segment.id) or entry.past[segment.id]
        if record.deleted:
            ends = load_ends(self.view.pages, entry, record)
        else:
            ends = np.full(record.rows, ALIVE, np.uint64)
        for ordinal, (_, commit) in self.mirror.kills.get(segment.id, {}).items():
            check_ordinal(self.schema.name, segment, ordinal)
            ends[ordinal] = min(int(ends[ordinal]), commit)
        return ends

    def parts(self) -> tuple[Part, ...]:
        """The delta, the segments and the kept segments."""
        if self._parts is None:
            segments = (PastSegmentPart(self, segment) for segment in self.segments)
            self._parts = (PastDeltaPart(self), *segments)
        return self._parts

    def place(self, rowid: int) -> Place | None:
        """Where the visible version of a row is, or None."""
        entry = self.mirror.entry_as_of(rowid, self.as_of)
        if entry is not None:
            return 0, entry
        parts = self.parts()
        for number, segment in enumerate(self.segments, 1):
            for ordinal in segment.ordinals(rowid):
                if self._was_live(parts[number], ordinal):
                    return number, ordinal
        return None

    def _was_live(self, part: Part, ordinal: int) -> bool:
        live = part.live
        return live is None or bool(live[ordinal])

    def find(self, column_index: int, value: Any) -> int | None:
        """The rowid of the row whose PRIMARY KEY or UNIQUE column had this stored value.

        Key hashes stand beside every version, dead or alive; the delta is looked through.
        """
        if column_index == self.schema.rowid_alias:
            return value if type(value) is int and self.place(value) is not None else None
        rowid = self.mirror.find_as_of(column_index, value, self.as_of)
        if rowid is not None:
            return rowid
        column, fold = self.schema.columns[column_index], self.mirror.folds[column_index]
        hash_ = key_hash(value if fold is None else (value := fold(value)))
        parts = self.parts()
        for number, segment in enumerate(self.segments, 1):
            for ordinal in segment.candidates(column.id, hash_):
                there = segment.value(column, ordinal)
                is_same = (there if fold is None else fold(there)) == value
                if is_same and self._was_live(parts[number], ordinal):
                    return int(segment.rowids[ordinal])
        return None

    def index_rowids(
        self,
        column_index: int,
        low: Any = None,
        high: Any = None,
        *,
        low_open: bool = False,
        high_open: bool = False,
        most: int | None = None,
    ) -> np.ndarray | None:
        """None: a B-tree index describes the present."""
        return None

    def text_source(self, part: int, source: Source) -> Source:
        """The lists of a part without the versions that were not visible."""
        live = self.parts()[part].live
        return source if live is None else VisibleSource(source, live)


def past_view(view: View, name: str, commit: int) -> PastView:
    """A collection as it stood right after a commit.

    Raises ProgrammingError: no such collection, or a commit that is yet to come; OperationalError
    where its versions are not kept.
    """
    present = view.collection(name)
    check_reach(view, present, commit)
    return PastView(present, commit)


def commit_number(value: Any) -> int:
    """The commit that AS OF names; ProgrammingError where it is no number of one."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise ProgrammingError(f"AS OF is {value!r}; expected the number of a commit")


def newest_commit(view: View) -> int:
    """The commit that retention counts back from: inside a transaction that has changed something,
    the one that it will be, because it drops what that one does not keep.
    """
    pages = view.pages
    if isinstance(pages, Transaction) and pages.changed:
        return pages.new_commit
    return view.commit


def check_reach(view: View, present: CollectionView, commit: int) -> None:
    """Raise where a collection cannot be read as of a commit; the errors of `past_view`."""
    if commit > view.commit:
        raise ProgrammingError(
            f"AS OF {commit}: there is no such commit yet; the newest is {view.commit}"
        )
    catalog, entry = view.catalog, present.entry
    newest, name = newest_commit(view), present.schema.name
    oldest = catalog.oldest_commit(entry, newest)
    if commit >= oldest:
        return
    if commit < catalog.oldest_commit(None, newest):
        reason = f"PRAGMA keep_commits is {catalog.keep_commits}"
        if catalog.kept_from > catalog.counted_back(newest):
            reason += f" since commit {catalog.kept_from}"
    elif commit < entry.forget_commit:
        reason = f"commit {entry.forget_commit} forgot rows of it"
    else:
        reason = f"its schema is that of commit {entry.schema_commit}"
    raise OperationalError(
        f"{name} AS OF {commit}: the oldest commit that can be read is {oldest}; {reason}"
    )
