"""The hashing encoder: deterministic, of length one, and near for near texts."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2mdb.encoders import HashingEncoder, built_in, repetition
from m2mdb.index.encoder import Encoder
from m2mdb.pager.errors import DataError, InterfaceError, ProgrammingError

TEXTS = [
    "",
    "!?",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "def parse_args(self, args=None, namespace=None): parse the command line",
    "naïve Straße ΣΊΣΥΦΟΣ 東京 привет 1984",
    "word " * 1000,
    "x" * 10_000,
]
GOLDEN = {
    7: "ba955ce314cb3f2c",
    64: "4fd7380f79ddeea6",
    384: "5dd12da012c59bc9",
}


@pytest.mark.parametrize("dimensions", GOLDEN)
def test_vectors_are_the_same_bytes_on_every_platform(dimensions: int) -> None:
    vectors = HashingEncoder(dimensions).encode(TEXTS)

    digest = hashlib.sha256(vectors.astype("<f4").tobytes()).hexdigest()[:16]

    assert digest == GOLDEN[dimensions]


def test_fingerprint_is_the_one_that_files_hold() -> None:
    assert HashingEncoder(384).fingerprint == "7b25152cbe900394"
    assert HashingEncoder(384).model_id == "m2mdb/hashing-1"


@given(st.lists(st.text(max_size=60), max_size=5), st.integers(1, 500))
def test_every_text_has_a_vector_of_length_one(texts: list[str], dimensions: int) -> None:
    vectors = HashingEncoder(dimensions).encode(texts)

    assert vectors.shape == (len(texts), dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_a_batch_gives_what_single_texts_give(texts: list[str]) -> None:
    encoder = HashingEncoder(96)

    together = encoder.encode(texts)

    for row, text in enumerate(texts):
        assert together[row].tobytes() == HashingEncoder(96).encode([text])[0].tobytes()


def test_order_of_calls_and_cache_do_not_matter() -> None:
    fresh = HashingEncoder(128)
    used = HashingEncoder(128)
    used.encode([text[::-1] for text in TEXTS])

    assert fresh.encode(TEXTS).tobytes() == used.encode(TEXTS).tobytes()


def test_inflections_and_misspellings_stay_near() -> None:
    encoder = HashingEncoder(512)
    query, near, far = encoder.encode(
        ["compress a file with gzip", "compressing files using gzipp", "the length of a tuple"]
    )

    assert query @ near > 0.25 > 2 * (query @ far)


def test_it_is_an_encoder() -> None:
    encoder: Encoder = built_in("Hashing", 32)

    assert encoder.dimensions == 32
    assert encoder.encode([]).shape == (0, 32)


def test_repetition_grows_slowly() -> None:
    assert repetition(1) == 1024
    assert repetition(10) == 3382


def test_wrong_use_is_named() -> None:
    with pytest.raises(DataError, match=r"dimension 0 is not in 1\.\.65536"):
        HashingEncoder(0)
    with pytest.raises(InterfaceError, match="one str"):
        HashingEncoder(8).encode("text")
    with pytest.raises(InterfaceError, match="text 1 is int"):
        HashingEncoder(8).encode(["text", 3])  # type: ignore[list-item]
    with pytest.raises(ProgrammingError, match="unknown encoder 'minilm'"):
        built_in("minilm")
