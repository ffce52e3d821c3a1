"""Index keys compare like the values that they encode (K1)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from m2mdb.index.keys import (
    decode_rowid,
    encode_rowid,
    encode_value,
    encode_values,
    index_key,
    successor,
)

rowids = st.integers(-(2**63), 2**63 - 1)
short_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=15)


@given(rowids, rowids)
def test_rowids_compare_like_numbers(a: int, b: int) -> None:
    assert (encode_rowid(a) < encode_rowid(b)) == (a < b)
    assert decode_rowid(encode_rowid(a)) == a


@given(rowids, rowids)
def test_integers_compare_like_numbers(a: int, b: int) -> None:
    assert (encode_value(a) < encode_value(b)) == (a < b)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_reals_compare_like_numbers(a: float, b: float) -> None:
    assert (encode_value(a) < encode_value(b)) == (a < b)
    assert (encode_value(a) == encode_value(b)) == (a == b)


@given(short_texts, short_texts, rowids, rowids)
def test_texts_compare_like_their_utf8_whatever_the_rowids(a: str, b: str, r: int, s: int) -> None:
    if a != b:
        assert (index_key(a, r) < index_key(b, s)) == (a.encode() < b.encode())


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_blobs_compare_like_bytes(a: bytes, b: bytes) -> None:
    assert (encode_value(a) < encode_value(b)) == (a < b)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), rowids)
def test_every_key_of_a_value_lies_between_its_prefix_and_the_successor(v: str, r: int) -> None:
    prefix = encode_value(v)
    end = successor(prefix)

    assert end is not None
    assert prefix <= index_key(v, r) < end


def test_null_is_below_everything() -> None:
    others: list[object] = [-(2**63), float("-inf"), "", b""]

    assert all(encode_value(None) < encode_value(value) for value in others)


def test_keys_of_many_values_are_those_of_each() -> None:
    choose = random.Random(4)
    kinds: list[Callable[[], Any]] = [
        lambda: choose.randrange(-(2**63), 2**63), lambda: choose.random() - 0.5, lambda: None,
        lambda: choose.choice((True, False, 0, -(2**63), 2**63 - 1)),
        lambda: "".join(choose.choices("ab\0é", k=choose.choice((0, 3, 79, 80, 81, 200)))),
        lambda: bytes(choose.choices(b"ab\0", k=choose.choice((0, 3, 80, 81)))),
    ]  # fmt: skip
    for _ in range(200):
        width = choose.randint(1, 4)
        makers = [choose.choice(kinds) for _ in range(width)]
        rows = [tuple(make() for make in makers) for _ in range(choose.randint(0, 9))]
        mixed = [choose.choice(kinds)() for _ in range(9)]

        assert encode_values(rows) == [encode_value(row) for row in rows]
        assert encode_values(mixed) == [encode_value(value) for value in mixed]
        assert all(encode_value((value,)) == encode_value(value) for value in mixed)
