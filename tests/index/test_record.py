"""Delta entries survive encoding and decoding, and damage is an error, never a crash."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2mdb.index.record import (
    decode_removal,
    decode_row,
    encode_removal,
    encode_row,
)
from m2mdb.pager.errors import CorruptDatabaseError

values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.binary(max_size=30),
)
places = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
rowids = st.integers(-(2**63), 2**63 - 1)


@given(rowids, places, st.lists(values, max_size=12))
def test_a_row_version_survives(rowid: int, place: tuple[int, int], row: list[Any]) -> None:
    raw = encode_row(7, 9, rowid, place, row)

    assert decode_row(raw, "test") == (rowid, place, row)


def test_vectors_come_back_as_their_bytes() -> None:
    vector = np.arange(5, dtype=np.float32)

    _, _, row = decode_row(encode_row(1, 2, 3, (0, 0), ["a", vector]), "test")

    assert row == ["a", vector.tobytes()]


@given(st.lists(st.tuples(rowids, places), max_size=20))
def test_a_removal_survives(rows: list[tuple[int, tuple[int, int]]]) -> None:
    assert decode_removal(encode_removal(1, 2, rows), "test") == rows


@given(st.lists(values, max_size=6), st.data())
def test_a_cut_or_changed_row_version_is_refused_or_decodes(
    row: list[Any], data: st.DataObject
) -> None:
    raw = bytearray(encode_row(1, 2, 3, (0, 0), row))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(raw[: data.draw(st.integers(at, len(raw)))])

    with contextlib.suppress(CorruptDatabaseError):
        decode_row(cut, "test")


def test_an_unknown_tag_is_refused() -> None:
    raw = bytearray(encode_row(1, 2, 3, (0, 0), [None, 1.5, "text"]))
    at = raw.index(bytes([0, 2, 5]))
    raw[at] = 8  # takes a number that belongs to another column

    with pytest.raises(CorruptDatabaseError, match="tag 8"):
        decode_row(bytes(raw), "test")


def test_a_removal_of_odd_length_is_refused() -> None:
    with pytest.raises(CorruptDatabaseError, match="18 bytes"):
        decode_removal(encode_removal(1, 2, []) + b"x", "test")
