"""Receipts: what FORGET leaves behind, and whether all of it is done (S26).

They stand in the catalog's tree, behind a record of their own:

    key "F"                           key "F" number (u64 big-endian)
     0   8  next receipt's number      0   8  commit         that forgot the rows
     8   8  receipts pending           8   8  rows
    16  32  digest key, random        16   8  done           commit that ended the scrub; 0: pending
                                      24   4  collection     its id
                                      28  32  digest
                                      60   -  collection     its name at that time, UTF-8

A digest is BLAKE2b with 32 bytes and the database's digest key, over the collection's id (u32
little-endian) and the ids of the forgotten rows, each encoded as below behind its length (u32
little-endian), in ascending order of the encodings. Who has the file and a list of ids can tell
whether exactly these were forgotten; a receipt alone says nothing of them.

    i int64 little-endian    r float64    t UTF-8    b bytes

Invariants
    RC1 A receipt is pending until one commit says that the scrub behind it has ended; that commit
        finishes all that are pending.
    RC2 The catalog's reader passes over these keys; `catalog_number` grows with each change here.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.header import LARGEST_NUMBER

if TYPE_CHECKING:
    from m2mdb.pager.pages import Pages

STATE_KEY = b"F"
DIGEST_SIZE = 32
_NUMBER = struct.Struct(">Q")
_LENGTH = struct.Struct("<I")
_STATE = struct.Struct("<QQ32s")
_RECEIPT = struct.Struct("<QQQI32s")


class ForgetState(NamedTuple):
    """The database's own record of what was forgotten."""

    next_number: int
    pending: int
    digest_key: bytes

    def encode(self) -> bytes:
        """The "F" value."""
        assert len(self.digest_key) == DIGEST_SIZE, "a digest key has 32 bytes"
        return _STATE.pack(*self)

    @classmethod
    def decode(cls, raw: bytes, where: str) -> Self:
        """Raises CorruptDatabaseError where it is none."""
        if len(raw) != _STATE.size:
            raise CorruptDatabaseError(f"{where}: a forget record of {len(raw)} bytes")
        state = cls(*_STATE.unpack(raw))
        if max(state.next_number, state.pending) > LARGEST_NUMBER:
            raise CorruptDatabaseError(f"{where}: a forget record of number {state.next_number}")
        return state


class StoredReceipt(NamedTuple):
    """A receipt as it stands in the file."""

    number: int
    commit: int
    rows: int
    done: int  # the commit that ended the scrub; 0: pending
    collection_id: int
    digest: bytes
    collection: str

    def encode(self) -> bytes:
        """The value under the receipt's key."""
        head = _RECEIPT.pack(self.commit, self.rows, self.done, self.collection_id, self.digest)
        return head + self.collection.encode()

    @classmethod
    def decode(cls, key: bytes, raw: bytes, where: str) -> Self:
        """Raises CorruptDatabaseError where it is none."""
        if len(key) != len(receipt_key(0)) or len(raw) < _RECEIPT.size:
            raise CorruptDatabaseError(f"{where}: a receipt of {len(key)} and {len(raw)} bytes")
        (number,) = _NUMBER.unpack_from(key, 1)
        try:
            name = raw[_RECEIPT.size :].decode()
        except UnicodeDecodeError as problem:
            raise CorruptDatabaseError(f"{where}: receipt {number}: {problem}") from problem
        commit, rows, done, collection_id, digest = _RECEIPT.unpack_from(raw)
        return cls(number, commit, rows, done, collection_id, digest, name)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What FORGET gives back.

    rows     how many rows were forgotten
    commit   the commit that took them out
    digest   keyed, over their ids; in hexadecimal
    status   "done": no byte of them is left; "pending": `holders` are waited for
    holders  who is in the way, in words; None once it is done
    number   of the receipt in this database
    """

    rows: int
    commit: int
    digest: str
    status: str
    holders: str | None
    number: int
    collection: str

    @property
    def done(self) -> bool:
        """Whether no byte of the rows is left in file and log."""
        return self.status == "done"


def receipt_key(number: int) -> bytes:
    """The key of a receipt in the catalog's tree."""
    return STATE_KEY + _NUMBER.pack(number)


def load_state(tree: BTree, where: str) -> ForgetState | None:
    """The record in a catalog's tree; None where nothing was ever forgotten."""
    raw = tree.get(STATE_KEY)
    return None if raw is None else ForgetState.decode(raw, where)


def load_receipts(pages: Pages, catalog_root: int, where: str) -> list[StoredReceipt]:
    """All receipts, in the order of their numbers."""
    tree = BTree(pages, catalog_root)
    items = tree.scan(receipt_key(0), bytes([STATE_KEY[0] + 1]))
    return [StoredReceipt.decode(key, raw, where) for key, raw in items]


def load_receipt(tree: BTree, number: int, where: str) -> StoredReceipt:
    """One receipt; CorruptDatabaseError where there is none of this number."""
    raw = tree.get(receipt_key(number))
    if raw is None:
        raise CorruptDatabaseError(f"{where}: receipt {number} is missing")
    return StoredReceipt.decode(receipt_key(number), raw, where)


def add_receipt(tree: BTree, state: ForgetState, receipt: StoredReceipt, where: str) -> None:
    """Write a new, pending receipt, whose number is the state's next one."""
    assert receipt.number == state.next_number, f"{where}: receipts are numbered in order"
    tree.put(receipt_key(receipt.number), receipt.encode())
    after = state._replace(next_number=state.next_number + 1, pending=state.pending + 1)
    tree.put(STATE_KEY, after.encode())


def put_receipts(tree: BTree, state: ForgetState, receipts: Iterable[StoredReceipt]) -> None:
    """Write receipts and the record of them; those of the same numbers are replaced."""
    for receipt in receipts:
        tree.put(receipt_key(receipt.number), receipt.encode())
    tree.put(STATE_KEY, state.encode())


def finish_receipts(tree: BTree, commit: int, where: str) -> int:
    """Mark all pending receipts as done by a commit (RC1); returns how many there were."""
    state = load_state(tree, where)
    if state is None or not state.pending:
        return 0
    left = state.pending
    stop = bytes([STATE_KEY[0] + 1])
    for key, raw in list(tree.scan(receipt_key(0), stop, reverse=True)):
        receipt = StoredReceipt.decode(key, raw, where)
        if not receipt.done:
            tree.put(key, receipt._replace(done=commit).encode())
            left -= 1
        if not left:
            break
    tree.put(STATE_KEY, state._replace(pending=0).encode())
    return state.pending


# ------------------------------------------------------------------------- digests


def encode_id(value: Any) -> bytes:
    """A primary key or rowid as the digest sees it."""
    if isinstance(value, int):
        return b"i" + value.to_bytes(8, "little", signed=True)
    if isinstance(value, float):
        return b"r" + struct.pack("<d", value)
    if isinstance(value, str):
        return b"t" + value.encode()
    return b"b" + bytes(value)


def digest_of(key: bytes, collection_id: int, ids: Iterable[Any]) -> bytes:
    """The keyed digest over the ids of forgotten rows, in stored form."""
    digest = hashlib.blake2b(_LENGTH.pack(collection_id), key=key, digest_size=DIGEST_SIZE)
    for raw in sorted(encode_id(value) for value in ids):
        digest.update(_LENGTH.pack(len(raw)))
        digest.update(raw)
    return digest.digest()
