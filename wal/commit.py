"""Commit: from changed nodes to frames that every process sees.

    prepare ------------> write -------------> finish ----------------> published
    free map, extents     frames, the last     sync (full), ends A, B,
    synced, log space,    one commits          index, cache, WRITER given up
    pages encoded

    exception in prepare: rolled back, nothing was written behind the end
    exception in write:   the tail is erased and synced (S8), rolled back
    exception in finish:  finished once more, then raised; a failed sync poisons (S11)

Invariants
    CM1 Every step of `finish` may be repeated: an interrupt between any two loses nothing (S12).
    CM2 Whoever dies or gives up after `write` leaves frames that the next writer erases (S8):
        `tail` stands in -shm from before the first frame until all are published, or durably gone.
    CM3 Once the transaction is closed another one may have committed: nothing is repeated but the
        giving up of WRITER.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xxhash import xxh3_64_intdigest

from m2mdb.pager.errors import OperationalError
from m2mdb.wal.creation import ensure_log
from m2mdb.wal.frame import pack_checksum, pack_head
from m2mdb.wal.shared import LogEnd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from m2mdb.pager.pages import Node
    from m2mdb.wal.attachment import Attachment
    from m2mdb.wal.transaction import Transaction

_WRITTEN_AT_ONCE = 4 << 20  # bytes of frames; a larger commit is written in pieces
_UNKNOWN = "the outcome of the commit is unknown"


class _Plan(NamedTuple):
    """One commit: the pages and where their frames go."""

    nodes: dict[int, Node]
    start: LogEnd  # the committed end before
    page_count: int


def commit(transaction: Transaction) -> int:
    """Commit a transaction that has changes; returns the new commit's number."""
    plan: _Plan | None = None
    ends: list[LogEnd] = []  # of a commit whose frames are written, all of them
    try:
        plan = _prepare(transaction)
        if plan is None:
            transaction.rollback()
            return transaction.commit
        _write(transaction.store, plan, ends)
        _finish(transaction, plan, ends[0])
    except BaseException as error:
        _resolve(transaction, plan, ends, error)
        raise
    return transaction.new_commit


def _prepare(transaction: Transaction) -> _Plan | None:
    """All that can fail without a trace; None where nothing is left to commit."""
    store = transaction.store
    store.check_healthy()
    nodes = transaction.final_nodes()
    if not nodes:
        return None
    store.check_named()  # S29: since the transaction began
    _settle_extents(transaction)
    log = ensure_log(store)
    start = store.end
    end = start.offset + len(nodes) * log.frame_size
    if end > log.space:
        log.reserve(end)
        if store.synchronous == "full":
            store.sync_log()
    return _Plan(nodes, start, transaction.page_count)


def _settle_extents(transaction: Transaction) -> None:
    """S7: extents are durable before a frame that names them is; or -shm says that some are not.

    What `off` has left so is made good by the first commit that is to be durable.
    """
    store = transaction.store
    assert store.shared is not None
    if store.synchronous == "off":
        if transaction.unsynced_extents:
            store.shared.unsynced = True
    elif transaction.unsynced_extents or store.shared.unsynced:
        store.sync_file()
        store.shared.unsynced = False
        transaction.unsynced_extents = False


def _write(store: Attachment, plan: _Plan, ends: list[LogEnd]) -> None:
    """Write the frames; the end behind them goes into `ends` when they all are."""
    assert store.log is not None
    assert store.shared is not None
    store.shared.tail = True
    offset = plan.start.offset
    chain = plan.start.chain
    write = store.log.file.write_at
    for data, after in _encoded(store.page_size, plan):
        write(offset, data)
        offset += len(data)
        chain = after
    start = plan.start
    number = start.commit + 1
    synced = number if store.synchronous == "full" else start.synced
    ends.append(
        LogEnd(start.generation, start.salt, offset, number, plan.page_count, chain, synced)
    )


def _encoded(page_size: int, plan: _Plan) -> Iterator[tuple[bytes, int]]:
    """The frames in pieces, each with the chain's checksum behind it."""
    nodes, start, page_count = plan
    number, salt, chain = start.commit + 1, start.salt, start.chain
    left = len(nodes)
    parts: list[bytes] = []
    pages_at_once = 3 * (_WRITTEN_AT_ONCE // page_size)
    for page_number, node in nodes.items():
        left -= 1
        page = node.encode(page_number, page_size)
        head = pack_head(page_number, 0 if left else page_count, number, salt)
        chain = xxh3_64_intdigest(head + page, chain)
        parts += (head, pack_checksum(chain), page)
        if len(parts) >= pages_at_once and left:
            yield b"".join(parts), chain
            parts = []
    yield b"".join(parts), chain


def _finish(transaction: Transaction, plan: _Plan, end: LogEnd) -> None:
    """Make the commit durable, then seen, then known here (CM1)."""
    store = transaction.store
    assert store.shared is not None
    assert store.log is not None
    if not transaction.is_committed:
        store.check_healthy()  # AT4: an interrupt may have come with a sync that failed
        if store.synchronous == "full":
            store.sync_log()  # S7
        store.shared.publish(end)
        transaction.is_committed = True
    store.shared.tail = False
    step = store.log.frame_size
    offset = plan.start.offset
    store.index.add(plan.nodes, offset, step, end.commit)
    put = store.versions.put
    for page_number, node in plan.nodes.items():
        put(page_number, offset, node)
        offset += step
    for extent in transaction.own_extents().values():
        store.extents[extent.descriptor.start_page, extent.descriptor.commit] = extent
    transaction.settle_free_map()
    store.published(end)
    transaction.close()


def _resolve(
    transaction: Transaction, plan: _Plan | None, ends: list[LogEnd], error: BaseException
) -> None:
    """After an exception: roll back, finish, or poison (S12)."""
    store = transaction.store
    if plan is None:
        transaction.rollback()
    elif not transaction.is_open:
        transaction.close()  # CM3
    elif not ends:
        _take_back(transaction, plan, error)
    elif isinstance(error, OperationalError) and not transaction.is_committed:
        transaction.rollback()
        raise OperationalError(f"{store.path}: {_UNKNOWN}: {error}") from error
    else:
        try:
            _finish(transaction, plan, ends[0])
        except BaseException as second:
            store.poison(f"{_UNKNOWN}: {second!r}")
            transaction.rollback()
            raise


def _take_back(transaction: Transaction, plan: _Plan, error: BaseException) -> None:
    """Frames may stand behind the end: see to it that they never count (S8)."""
    store = transaction.store
    assert store.log is not None
    assert store.shared is not None
    try:
        store.log.erase(plan.start.offset)
        store.sync_log()
        store.shared.tail = False
    except BaseException as second:
        store.poison(f"{_UNKNOWN}: {second!r}")
        transaction.rollback()
        raise OperationalError(f"{store.path}: {_UNKNOWN}: {error}") from error
    transaction.rollback()
