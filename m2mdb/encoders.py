"""Encoders: the built-in `hashing` encoder, which needs no model and no download.

A text becomes a bag of features; each feature is hashed to one position and a sign, and adds its
weight there. The vector is then brought to unit length.

    feature                                weight
    word                                   4
    character n-gram of `<word>`, 3 to 5   1     so inflections and misspellings stay near
    two neighbouring words                 2

A feature that occurs n times counts 1 + ln n times; English function words count an eighth.

Invariants
    E1  The same text gives the same bytes on every platform and version: words and hashes are
        integers, weights are whole numbers, sums are exact, and only the last square root and
        division round, as IEEE 754 says.
    E2  Every text, the empty one too, gives a vector of length one.
"""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from m2mdb.pager.errors import DataError, InterfaceError, ProgrammingError

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

WORD = re.compile(r"[^\W_]+")
WORD_SEED, NGRAM_SEED, PAIR_SEED, TEXT_SEED = 1, 2, 3, 4
WORD_WEIGHT, NGRAM_WEIGHT, PAIR_WEIGHT = 4, 1, 2
NGRAM_SIZES = (3, 4, 5)
SCALE = 1024  # weights are multiples of 1/1024, so that sums are exact (E1)
FUNCTION_WORD_SCALE = SCALE // 8
LONGEST_WORD = 64  # characters of a word that take part; longer runs are data, not words
CACHED_WORDS = 100_000  # about 100 MB of features at most
BATCH_TEXTS = 256  # texts whose features are in memory at once
DEFAULT_DIMENSIONS = 384
MAX_DIMENSIONS = 65_536
FUNCTION_WORDS = frozenset(
    "a an and are as at be been but by can do does for from had has have he her his i if in into "
    "is it its may more no not of on one only or other our out she should so some such than that "
    "the their them then there these they this those to up was we were when where which who will "
    "with would you your".split()
)


class HashingEncoder:
    """Hashed words, word pairs and character n-grams, in any dimension."""

    model_id = "m2mdb/hashing-1"
    texts_a_call = BATCH_TEXTS

    def __init__(self, dimensions: int = DEFAULT_DIMENSIONS) -> None:
        """Raises DataError where `dimensions` is not in 1..65536, InterfaceError: no integer."""
        if isinstance(dimensions, bool) or not isinstance(dimensions, int | np.integer):
            raise InterfaceError(f"hashing encoder: dimensions is {dimensions!r}; wanted is an int")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise DataError(
                f"hashing encoder: dimension {dimensions} is not in 1..{MAX_DIMENSIONS}"
            )
        self.dimensions = dimensions
        self._fingerprint = ""
        self._words: dict[str, tuple[Integers, Integers]] = {}
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """A digest over the vectors of a few fixed texts."""
        if not self._fingerprint:
            probe = self.encode(["", "The quick brown fox jumps over the lazy dog", "naïve ΣΑΣ 42"])
            self._fingerprint = xxhash.xxh3_64_hexdigest(probe.astype("<f4").tobytes())
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 of shape (len(texts), dimensions).

        Raises InterfaceError where an item is no string, or `texts` is itself one.
        """
        if isinstance(texts, str):
            raise InterfaceError("encode takes a list of texts, not one str")
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        with self._lock:
            for start in range(0, len(texts), BATCH_TEXTS):
                batch = texts[start : start + BATCH_TEXTS]
                vectors[start : start + len(batch)] = self._encode_batch(batch)
        return vectors

    def _encode_batch(self, texts: Sequence[str]) -> Vectors:
        sums = np.zeros((len(texts), self.dimensions), dtype=np.float64)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InterfaceError(f"text {row} is {type(text).__name__}, not str")
            self._add(sums[row], text)
        lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        vectors: Vectors = (sums / lengths[:, None]).astype(np.float32)
        return vectors

    def _add(self, row: np.ndarray[Any, np.dtype[np.float64]], text: str) -> None:
        words = WORD.findall(text.casefold())
        counts = Counter(words)
        features = [self._features(word) for word in counts]
        scales = [
            FUNCTION_WORD_SCALE if word in FUNCTION_WORDS else repetition(count)
            for word, count in counts.items()
        ]
        pairs = Counter(itertools.pairwise(words))
        hashes = [digest(" ".join(pair), PAIR_SEED) for pair in pairs]
        if hashes:
            positions, signs = self._place(hashes)
            features.append((positions, signs * np.fromiter(map(pair_scale, pairs.items()), int)))
            scales.append(PAIR_WEIGHT)
        if features:
            sizes = [len(positions) for positions, _ in features]
            positions = np.concatenate([positions for positions, _ in features])
            weights = np.concatenate([weights for _, weights in features])
            weights = weights * np.repeat(scales, sizes)
            row += np.bincount(positions, weights=weights, minlength=self.dimensions)
        if not row.any():
            row[digest(text, TEXT_SEED) % self.dimensions] = SCALE

    def _features(self, word: str) -> tuple[Integers, Integers]:
        """Positions and signed weights of a word and of its n-grams."""
        known = self._words.get(word)
        if known is not None:
            return known
        marked = f"<{word[:LONGEST_WORD]}>"
        hashes = [digest(word, WORD_SEED)]
        hashes += [
            digest(marked[i : i + size], NGRAM_SEED)
            for size in NGRAM_SIZES
            for i in range(len(marked) - size + 1)
        ]
        positions, weights = self._place(hashes)
        weights[0] *= WORD_WEIGHT
        weights[1:] *= NGRAM_WEIGHT
        if len(self._words) >= CACHED_WORDS:
            self._words.clear()
        self._words[word] = positions, weights
        return positions, weights

    def _place(self, hashes: list[int]) -> tuple[Integers, Integers]:
        """Position and sign of each hash: its low bit is the sign, the rest the position."""
        raw = np.array(hashes, dtype=np.uint64)
        positions = ((raw >> np.uint64(1)) % np.uint64(self.dimensions)).astype(np.int64)
        return positions, 1 - 2 * (raw & np.uint64(1)).astype(np.int64)

    def __repr__(self) -> str:
        return f"HashingEncoder(dimensions={self.dimensions})"


def digest(text: str, seed: int) -> int:
    """The hash of a feature."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), seed)


def repetition(count: int) -> int:
    """The weight of `count` occurrences, in units of 1/1024."""
    return SCALE if count == 1 else round(SCALE * (1.0 + math.log(count)))


def pair_scale(item: tuple[tuple[str, str], int]) -> int:
    """The weight of a word pair: full where both words carry meaning."""
    (left, right), count = item
    if left in FUNCTION_WORDS or right in FUNCTION_WORDS:
        return FUNCTION_WORD_SCALE
    return repetition(count)


def built_in(name: str, dimensions: int = DEFAULT_DIMENSIONS) -> HashingEncoder:
    """A built-in encoder by its name.

    Raises ProgrammingError where there is none of that name.
    """
    if name.lower() != "hashing":
        raise ProgrammingError(f"unknown encoder {name!r}; built in is 'hashing'")
    return HashingEncoder(dimensions)
