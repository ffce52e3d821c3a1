"""The delta: the recent rows of a collection, and its mirror in memory.

On disk the delta is the log that `index.record` describes, in a B-tree. Each connection mirrors
it in columns and extends the mirror by the entries it has not read yet; so a search scans arrays,
and nothing but the log's last page changes when a row is added (S23).

    state of one row version   live -> ended by a later entry of the log
    state of the delta         grows -> flushed into a segment at FLUSH_ROWS or FLUSH_BYTES, empty

A mirror serves every snapshot of its connection at once: it only grows, and each version knows the
sequence number that ended it, so a snapshot sees exactly the entries before its own end.

Invariants
    D1  A mirror holds the entries base <= sequence < end of one log generation, in order.
    D2  A mirror that may hold entries of a transaction that was undone is dropped, not mended.
    D3  A version ended by the entry of sequence s is live for ends <= s and dead for ends > s.
    D4  A version written by commit a and ended by commit e was live after the commits a <= n < e;
        what a transaction has not committed yet bears the commit it will have, beyond every n.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.compute.memory import untouched_zeros
from m2mdb.index.collations import each_folded
from m2mdb.index.record import (
    HEAD,
    REMOVAL,
    ROW,
    SEQUENCE,
    Place,
    RowTypes,
    decode_removal,
    decode_row,
    sequence_key,
)
from m2mdb.index.schema import VECTOR_DTYPES, CollectionSchema
from m2mdb.index.values import norms_of
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.header import LARGEST_NUMBER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from m2mdb.compute.hrm2.lists import Lists
    from m2mdb.compute.listing import Listing
    from m2mdb.compute.ranking import Codes
    from m2mdb.index.collations import Fold
    from m2mdb.index.text.analysis import Analyzer, Tokenizer
    from m2mdb.index.text.delta_postings import DeltaPostings

FLUSH_ROWS = 4096
FLUSH_BYTES = 8 << 20
FOREVER = (1 << 63) - 1
NEVER = (FOREVER, 0)


class GrowingVectors:
    """The vectors of one column, appended one by one; capacity doubles."""

    __slots__ = ("_capacity", "_normed", "_norms", "dimension", "dtype", "matrix", "present")

    def __init__(self, dimension: int, dtype: str) -> None:
        self.dimension = dimension
        self.dtype = np.dtype(dtype)
        self._capacity = 0
        self._normed = 0
        self._norms = np.empty(0, np.float32)
        self.matrix = np.empty((0, dimension), self.dtype)
        self.present = np.empty(0, bool)

    def append(self, row: int, vector: np.ndarray | None) -> None:
        """Set the vector of row number `row`, the next one."""
        if row >= self._capacity:
            self._grow(row)
        if vector is not None:
            self.matrix[row] = vector
            self.present[row] = True

    def _grow(self, row: int) -> None:
        """More room, zero: what no vector was written to takes no memory of the machine's."""
        capacity = max(64, 2 * self._capacity)
        there = self.present[:row]
        for name in ("matrix", "_norms", "present"):
            old = getattr(self, name)
            new = untouched_zeros((capacity, *old.shape[1:]), old.dtype)
            if there.all():
                new[:row] = old[:row]
            else:
                new[np.flatnonzero(there)] = old[np.flatnonzero(there)]
            setattr(self, name, new)
        self._capacity = capacity

    def norms(self, count: int) -> np.ndarray:
        """float32 norms of the first `count` vectors, computed when they are first asked for."""
        if self._normed < count:
            self._norms[self._normed : count] = norms_of(self.matrix[self._normed : count])
            self._normed = count
        return self._norms[:count]


class DeltaMirror:
    """The entries of one delta log in columns; see the module's header."""

    __slots__ = (
        "_analyzers",
        "_codes",
        "_ended",
        "_keys",
        "_latest",
        "_listings",
        "_postings",
        "_previous",
        "_rowids",
        "_tokenizers",
        "_types",
        "base",
        "bytes_used",
        "columns",
        "commit",
        "commits",
        "end",
        "ends",
        "folds",
        "intact",
        "kills",
        "next_rowid",
        "owner",
        "schema",
        "sequences",
        "vectors",
    )

    def __init__(
        self,
        schema: CollectionSchema,
        base: int,
        next_rowid: int,
        tokenizers: Mapping[str, Tokenizer] | None = None,
    ) -> None:
        """An empty mirror of the log that begins with sequence number `base`.

        `tokenizers` are the program's own, by the names that FULLTEXT columns may have of them.
        """
        self._tokenizers = tokenizers
        self._analyzers: dict[int, Analyzer] = {}
        self.schema = schema
        self.base = base
        self.end = base
        self.next_rowid = next_rowid
        self.bytes_used = 0
        self.commit = -1  # the commit up to which the log was read
        self.owner: object = None  # the transaction whose uncommitted entries are in here
        self.intact = True  # False while it grows: an interrupted mirror is dropped (D2)
        self.sequences: list[int] = []
        self.columns: list[list[Any]] = [[] for _ in schema.columns]
        self.vectors: dict[int, GrowingVectors] = {}
        for i in schema.vector_columns:
            column = schema.columns[i]
            self.vectors[i] = GrowingVectors(column.dimension, VECTOR_DTYPES[column.dtype])
        self._types = RowTypes(schema.columns)
        self._codes: dict[int, Codes] = {}
        self._listings: dict[int, Listing] = {}
        self._rowids = array("q")
        self._ended = array("q")
        self._previous: list[int] = []
        self._latest: dict[int, int] = {}
        self._keys: dict[int, dict[Any, int]] = {i: {} for i in schema.hashed_columns}
        self.folds: dict[int, Fold | None] = {  # of hashed columns, whose keys are folded
            i: schema.columns[i].fold for i in schema.hashed_columns
        }
        self._postings: dict[int, DeltaPostings] = {}
        self.commits: list[int] = []  # the commit that wrote each version
        self.ends: dict[int, int] = {}  # the commit that ended a version, of those that ended
        self.kills: dict[int, dict[int, tuple[int, int]]] = {}  # segment, ordinal: when ended

    def __len__(self) -> int:
        return len(self._rowids)

    # --------------------------------------------------------------- growing

    def read(self, tree: BTree, where: str) -> None:
        """Take in the entries of the log behind `end`."""
        self.intact = False
        for key, raw in tree.scan(sequence_key(self.end)):
            (sequence,) = SEQUENCE.unpack(key) if len(key) == SEQUENCE.size else (-1,)
            if not self.end <= sequence < LARGEST_NUMBER or len(raw) < HEAD.size:
                raise CorruptDatabaseError(f"{where}: delta entry {sequence} is out of order")
            kind, commit, next_rowid = HEAD.unpack_from(raw)
            if commit > LARGEST_NUMBER or next_rowid > FOREVER:
                raise CorruptDatabaseError(f"{where}: delta entry {sequence} is of commit {commit}")
            if kind == ROW:
                rowid, ended, values = decode_row(raw, where)
                self._types.check(values, where)
                self._decode_vectors(values, where)
                self.add_row((sequence, commit), rowid, ended, values)
            elif kind == REMOVAL:
                self.add_removal((sequence, commit), decode_removal(raw, where))
            else:
                raise CorruptDatabaseError(f"{where}: delta entry of kind {kind}")
            self.next_rowid = next_rowid
            self.bytes_used += len(raw)
            self.end = sequence + 1
        self.intact = True

    def _decode_vectors(self, values: list[Any], where: str) -> None:
        for i, growing in self.vectors.items():
            raw = values[i]
            if raw is None:
                continue
            if len(raw) != growing.dimension * growing.dtype.itemsize:
                raise CorruptDatabaseError(f"{where}: a delta vector has {len(raw)} bytes")
            values[i] = np.frombuffer(raw, growing.dtype)

    def add_row(self, when: tuple[int, int], rowid: int, ended: Place, values: list[Any]) -> None:
        """A row version, `when` = (sequence, commit); vectors among `values` are arrays."""
        sequence, commit = when
        entry = len(self._rowids)
        previous = self._latest.get(rowid, -1)
        if previous >= 0 and self._ended[previous] == FOREVER:
            self._ended[previous] = sequence
            self.ends[previous] = commit
        if ended[0]:
            self.kills.setdefault(ended[0], {}).setdefault(ended[1], when)
        for column, value in zip(self.columns, values, strict=True):
            column.append(value)
        for i, growing in self.vectors.items():
            growing.append(entry, values[i])
            self.columns[i][entry] = None  # the matrix holds it
        for i, keys in self._keys.items():
            if values[i] is not None:
                fold = self.folds[i]
                keys[values[i] if fold is None else fold(values[i])] = entry
        self.sequences.append(sequence)
        self.commits.append(commit)
        self._previous.append(previous)
        self._ended.append(FOREVER)
        self._rowids.append(rowid)
        self._latest[rowid] = entry
        self.end = sequence + 1

    def add_removal(self, when: tuple[int, int], rows: list[tuple[int, Place]]) -> None:
        """Rows that end at (sequence, commit): in the delta, or at their place in a segment."""
        sequence = when[0]
        for rowid, (segment, ordinal) in rows:
            if segment:
                self.kills.setdefault(segment, {}).setdefault(ordinal, when)
            else:
                entry = self._latest.get(rowid, -1)
                if entry >= 0 and self._ended[entry] == FOREVER:
                    self._ended[entry] = sequence
                    self.ends[entry] = when[1]
        self.end = sequence + 1

    # --------------------------------------------------------------- reading

    def count_before(self, end: int) -> int:
        """How many row versions stand before sequence number `end`."""
        if end >= self.end:
            return len(self._rowids)
        from bisect import bisect_left

        return bisect_left(self.sequences, end)

    def entry_of(self, rowid: int, end: int) -> int | None:
        """The version of a row that is live before `end`, or None."""
        entry = self._latest.get(rowid, -1)
        while entry >= 0 and self.sequences[entry] >= end:
            entry = self._previous[entry]
        if entry < 0 or self._ended[entry] < end:
            return None
        return entry

    def visible(self, entry: int, commit: int) -> bool:
        """Whether a version was live right after a commit (D4)."""
        return self.commits[entry] <= commit < self.ends.get(entry, FOREVER)

    def visible_mask(self, count: int, commit: int) -> np.ndarray:
        """bool (count,): which versions were live right after a commit (D4)."""
        mask: np.ndarray = np.array(self.commits[:count], np.int64) <= commit
        mask[[entry for entry, ended in self.ends.items() if ended <= commit and entry < count]] = (
            False
        )
        return mask

    def entry_as_of(self, rowid: int, commit: int) -> int | None:
        """The version of a row that was live right after a commit, or None."""
        entry = self._latest.get(rowid, -1)
        while entry >= 0 and not self.visible(entry, commit):
            entry = self._previous[entry]
        return entry if entry >= 0 else None

    def find_as_of(self, column: int, value: Any, commit: int) -> int | None:
        """The rowid of the row whose key column had this value right after a commit."""
        fold = self.folds[column]
        if fold is not None:
            value = fold(value)
        for entry, found in enumerate(each_folded(fold, self.columns[column])):
            if found == value and self.visible(entry, commit):
                return self._rowids[entry]
        return None

    def find(self, column: int, value: Any, end: int) -> int | None:
        """The rowid of the live row before `end` whose key column has this value."""
        fold = self.folds[column]
        entry = self._keys[column].get(value if fold is None else fold(value))
        if entry is None:
            return None
        if self.sequences[entry] < end and self._ended[entry] >= end:
            return self._rowids[entry]
        return None if end >= self.end else self._find_slowly(column, value, end)

    def entry_with(self, column: int, value: Any) -> int | None:
        """The newest version, live or not, whose hashed column has this value (GE3)."""
        fold = self.folds[column]
        entry = self._keys[column].get(value if fold is None else fold(value))
        is_other = fold is not None and entry is not None and self.columns[column][entry] != value
        return None if is_other else entry

    def _find_slowly(self, column: int, value: Any, end: int) -> int | None:
        """A key may have moved from row to row: an older version can be the one that counts."""
        values, fold = self.columns[column], self.folds[column]
        if fold is not None:
            values, value = [fold(each) for each in values], fold(value)
        for entry in range(self.count_before(end) - 1, -1, -1):
            if values[entry] == value and self._ended[entry] >= end:
                return self._rowids[entry]
        return None

    def rowids(self, count: int) -> np.ndarray:
        """int64 rowids of the first `count` versions."""
        if not count:
            return np.empty(0, np.int64)
        return np.frombuffer(self._rowids, np.int64, count).copy()  # which can grow no more else

    def rowid(self, entry: int) -> int:
        """The rowid of a version."""
        return self._rowids[entry]

    def live(self, count: int, end: int) -> np.ndarray:
        """bool (count,): which versions are live before `end` (D3)."""
        if not count:
            return np.empty(0, bool)
        ended: np.ndarray = np.frombuffer(self._ended, np.int64, count) >= end
        return ended

    def codes(self, column: int, count: int, kernels: ModuleType) -> Codes:
        """8-bit codes of a VECTOR column, those of the first `count` versions among them."""
        found = self._codes.get(column)
        if found is None:
            from m2mdb.compute.ranking import Codes

            metric, dimension = self.schema.columns[column].metric, self.vectors[column].dimension
            found = self._codes[column] = Codes(metric, dimension, kernels)
        found.extend(self.vectors[column].matrix, count)
        return found

    def listing(self, column: int, count: int, like: tuple[int, Lists]) -> Listing | None:
        """Codes of a VECTOR column beside lists, those of the first `count` versions among them.

        like  seed and lists; the first ones that are given say what the codes are made around

        None: they are of no use, or were made for another seed; or lists have their codes around a
        middle, which their queries are given without.
        """
        if like[1].middle is not None:
            return None
        found = self._listings.get(column)
        if found is None:
            from m2mdb.compute.listing import Listing, center_of

            metric, dimension = self.schema.columns[column].metric, self.vectors[column].dimension
            found = Listing(metric, dimension, like[0], center_of(like[1]))
            self._listings[column] = found
        found.extend(self.vectors[column].matrix, count)
        return found if found.fits and found.seed == like[0] else None

    def killed(self, segment: int, end: int) -> list[int]:
        """Ordinals of a segment that entries before `end` have ended."""
        kills = self.kills.get(segment)
        return [o for o, when in kills.items() if when[0] < end] if kills else []

    def is_killed(self, segment: int, ordinal: int, end: int) -> bool:
        """Whether an entry before `end` has ended this row of a segment."""
        kills = self.kills.get(segment)
        return kills is not None and kills.get(ordinal, NEVER)[0] < end

    def postings(self, column: int) -> DeltaPostings:
        """The inverted index of a FULLTEXT column, caught up with the versions."""
        found = self._postings.get(column)
        if found is None:
            from m2mdb.index.text.delta_postings import DeltaPostings

            found = self._postings[column] = DeltaPostings(self.analyzer(column))
        values = self.columns[column]
        for entry in range(len(found), len(values)):
            found.add(entry, indexable_text(self.schema.columns[column].type, values[entry]))
        return found

    def analyzer(self, column: int) -> Analyzer:
        """The analyzer of a FULLTEXT column.

        Raises ProgrammingError: a tokenizer that the connection did not bring along.
        """
        found = self._analyzers.get(column)
        if found is None:
            from m2mdb.index.text.options import parse_options

            options = parse_options(self.schema.columns[column].fulltext)
            found = self._analyzers[column] = options.analyzer(self._tokenizers)
        return found


def indexable_text(type_: str, value: str | None) -> str | None:
    """What FULLTEXT indexes of a value: the text, or the strings inside a JSON value."""
    if type_ != "JSON" or value is None:
        return value
    import json

    found: list[str] = []
    try:
        stack = [json.loads(value)]
    except (ValueError, RecursionError) as problem:
        raise CorruptDatabaseError(f"a JSON value is damaged: {problem}") from problem
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend(reversed(item.values()))
    return "\n".join(found)
