"""The shared state: records count whole or not at all, and marks protect what they say (S2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2mdb.pager.errors import DatabaseBusyError
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.vfs import Identity
from m2mdb.wal.locks import SLOTS, Locks
from m2mdb.wal.marks import Marks, protects
from m2mdb.wal.shared import PIN_ALL, SHARED_SIZE, Backfill, LogEnd, Mark, SharedState

WORDS = st.integers(0, (1 << 64) - 1)
ENDS = st.builds(LogEnd, *[WORDS] * 7)
BACKFILLS = st.builds(Backfill, WORDS, WORDS, WORDS)
MARKS = st.builds(Mark, WORDS, WORDS, WORDS, WORDS)


def region() -> SharedState:
    memory = MemoryVfs().shared_memory("x-shm", SHARED_SIZE, create=True)
    assert memory is not None
    return SharedState(memory)


@given(ENDS, BACKFILLS)
def test_what_is_published_is_seen(end: LogEnd, backfill: Backfill) -> None:
    state = region()

    state.begin(Identity(1, 2, 1), end, backfill)

    assert SharedState.decode(state.look()) == (end, backfill)
    assert state.belongs_to(Identity(1, 2, 9))
    assert not state.belongs_to(Identity(1, 3, 1))
    assert state.used_slots() == []


@given(ENDS, ENDS, st.integers(0, 128))
def test_a_torn_publication_shows_one_end_or_none(old: LogEnd, new: LogEnd, written: int) -> None:
    """S2: the end stands twice and counts only when both agree."""
    state = region()
    state.publish(new)
    wanted = bytes(state.view[64:192])
    state.publish(old)
    state.view[64 : 64 + written] = wanted[:written]

    found = SharedState.decode(state.look())

    if found is not None:
        assert found[0] in (old, new)
    state.mend()
    mended = SharedState.decode(state.look())
    assert mended is not None
    assert mended[0] == (new if written >= 64 or old == new else old)


@given(MARKS, st.integers(0, 39), st.integers(1, 255))
def test_a_mark_that_cannot_be_read_may_need_anything(mark: Mark, at: int, change: int) -> None:
    raw = bytearray(SharedState.encode_mark(mark))
    assert SharedState.decode_mark(bytes(raw)) == mark

    raw[at] ^= change

    assert SharedState.decode_mark(bytes(raw)) == PIN_ALL


def test_poison_is_seen_by_all() -> None:
    state = region()
    assert not state.poisoned

    state.poison()

    assert state.poisoned


# -- marks -------------------------------------------------------------------------------------


def stores(count: int) -> list[Marks]:
    """As many open files, each with marks of its own."""
    vfs = MemoryVfs()
    vfs.open("x", create=True)
    found = []
    for number in range(count):
        memory = vfs.shared_memory("x-shm", SHARED_SIZE, create=True)
        assert memory is not None
        found.append(Marks(SharedState(memory), Locks(vfs.open("x")), number))
    return found


def raw_mark(commit: int, end: int = 0, generation: int = 1) -> bytes:
    return SharedState.encode_mark(Mark(generation, end, commit, 1))


def test_a_mark_lives_until_its_last_snapshot_ends() -> None:
    first, second = stores(2)
    first.take(raw_mark(5), 1)
    first.take(raw_mark(5), 2)

    assert [mark.commit for mark in second.live()] == [5]
    first.drop(1)
    assert [mark.commit for mark in second.live()] == [5]
    first.drop(2)
    first.drop(2)
    assert second.live() == []


def test_marks_of_one_store_do_not_share_a_slot() -> None:
    first, second = stores(2)

    for commit in (1, 2, 3):
        first.take(raw_mark(commit), commit)

    assert len(set(first._slot_of.values())) == 3
    assert sorted(mark.commit for mark in first.live()) == [1, 2, 3]
    assert sorted(mark.commit for mark in second.live()) == [1, 2, 3]


def test_a_dead_mark_is_swept_away_by_others() -> None:
    first, second = stores(2)
    first.take(raw_mark(1), 1)
    first.drop(1)

    assert second.live() == []
    assert second._shared.used_slots() == []
    first.take(raw_mark(1), 2)
    assert [mark.commit for mark in second.live()] == [1]


def test_a_slot_that_no_snapshot_holds_is_given_up() -> None:
    """MK4"""
    first, second = stores(2)
    first.take(raw_mark(1), 1)
    first.take(raw_mark(2), 2)
    del first._slot_of[1]
    assert len(second.live()) == 2

    first.sweep()

    assert [mark.commit for mark in second.live()] == [2]
    first.take(raw_mark(1), 3)
    assert len(second.live()) == 2


def test_when_all_slots_are_taken_the_oldest_fit_mark_is_shared() -> None:
    """S1"""
    holders = stores(SLOTS + 1)
    for number, holder in enumerate(holders[:-1]):
        holder.take(raw_mark(10 + number, end=1000 + number), 1)
    last = holders[-1]

    last.take(raw_mark(500, end=5000), 1)

    slot = last._slot_of[1]
    assert last._shared.decode_mark(last._shared.mark_bytes(slot)).commit == 10
    holders[0].drop(1)
    assert any(mark.commit == 10 for mark in holders[1].live()), "it lives on by its sharer"
    last.drop(1)
    assert not any(mark.commit == 10 for mark in holders[1].live())


def test_a_mark_that_protects_less_is_not_shared() -> None:
    holders = stores(SLOTS + 1)
    for holder in holders[:-1]:
        holder.take(raw_mark(10, end=0), 1)

    with pytest.raises(DatabaseBusyError, match="126 reader marks"):
        holders[-1].take(raw_mark(500, end=5000), 1)
    with pytest.raises(DatabaseBusyError):
        holders[-1].take(raw_mark(9), 1)


@given(MARKS, MARKS)
def test_protects_is_what_checkpoint_and_reuse_look_at(mark: Mark, wanted: Mark) -> None:
    """Whatever the wanted mark would forbid, the shared one forbids."""
    if protects(mark, wanted):
        assert mark.commit <= wanted.commit, "no newer page is copied or used again"
        assert mark.end or not wanted.end, "the log is not begun anew"
