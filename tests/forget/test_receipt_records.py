"""What the catalog keeps of FORGET: its codecs, and damage in it (S26)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2mdb.index.receipts import (
    DIGEST_SIZE,
    ForgetState,
    StoredReceipt,
    add_receipt,
    digest_of,
    encode_id,
    finish_receipts,
    load_receipt,
    load_receipts,
    load_state,
    receipt_key,
)
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.header import LARGEST_NUMBER
from tests.pager.dict_pages import DictPages

numbers = st.integers(0, (1 << 64) - 1)
digests = st.binary(min_size=DIGEST_SIZE, max_size=DIGEST_SIZE)
stored = st.builds(
    StoredReceipt, numbers, numbers, numbers, numbers, st.integers(0, (1 << 32) - 1), digests,
    st.text(max_size=20),
)  # fmt: skip
KEY = bytes(range(32))


def tree() -> tuple[DictPages, BTree]:
    pages = DictPages(4096)
    return pages, BTree(pages, BTree.create(pages))


@given(stored)
def test_s26_a_receipt_survives_encode_and_decode(receipt: StoredReceipt) -> None:
    assert StoredReceipt.decode(receipt_key(receipt.number), receipt.encode(), "x") == receipt


counters = st.integers(0, LARGEST_NUMBER)


@given(st.builds(ForgetState, counters, counters, digests))
def test_s26_the_state_survives_encode_and_decode(state: ForgetState) -> None:
    assert ForgetState.decode(state.encode(), "x") == state


@given(st.binary(max_size=80), st.binary(max_size=12))
def test_s26_other_bytes_are_corruption_and_nothing_else(raw: bytes, key: bytes) -> None:
    for decode in (
        lambda: ForgetState.decode(raw, "x"),
        lambda: StoredReceipt.decode(receipt_key(1), raw, "x"),
        lambda: StoredReceipt.decode(key, raw, "x"),
    ):
        try:
            decode()
        except CorruptDatabaseError:
            continue


def test_s26_a_name_that_is_not_utf8_and_a_missing_receipt_are_corruption() -> None:
    raw = StoredReceipt(1, 2, 3, 0, 4, bytes(32), "").encode() + b"\xff"
    with pytest.raises(CorruptDatabaseError, match="receipt 1"):
        StoredReceipt.decode(receipt_key(1), raw, "x")
    with pytest.raises(CorruptDatabaseError, match="missing"):
        load_receipt(tree()[1], 7, "x")


def test_s26_receipts_are_numbered_listed_and_finished_together() -> None:
    pages, catalog = tree()
    assert load_state(catalog, "x") is None
    assert finish_receipts(catalog, 5, "x") == 0
    state = ForgetState(1, 0, KEY)
    for number in range(1, 6):
        receipt = StoredReceipt(number, 10 + number, 1, 0, 1, bytes(32), "notes")
        add_receipt(catalog, state, receipt, "x")
        found = load_state(catalog, "x")
        assert found is not None
        state = found
        if number == 3:
            assert finish_receipts(catalog, 14, "x") == 3
            state = state._replace(pending=0)

    assert finish_receipts(catalog, 20, "x") == 2
    assert finish_receipts(catalog, 21, "x") == 0

    assert [each.done for each in load_receipts(pages, catalog.root, "x")] == [14] * 3 + [20] * 2
    assert load_state(catalog, "x") == ForgetState(6, 0, KEY)


ids = st.lists(st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary() | st.floats(), max_size=6)


@given(ids, ids)
def test_s26_a_digest_tells_lists_of_ids_apart_whatever_their_order(
    first: list[object], second: list[object]
) -> None:
    same = sorted(map(encode_id, first)) == sorted(map(encode_id, second))

    assert (digest_of(KEY, 1, first) == digest_of(KEY, 1, second)) == same
    assert digest_of(KEY, 1, first) == digest_of(KEY, 1, first[::-1])
    assert digest_of(KEY, 1, first) != digest_of(KEY, 2, first)
    assert digest_of(KEY, 1, first) != digest_of(bytes(32), 1, first)
