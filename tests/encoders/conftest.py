"""Encoders that count what they are asked, over the deterministic hashing one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m2mdb.encoders import HashingEncoder

DIMENSIONS = 32


class Counting:
    """An encoder that remembers the batches it was given."""

    def __init__(
        self,
        dimensions: int = DIMENSIONS,
        model_id: str = "tests/counting-1",
        fingerprint: str = "0123456789abcdef",
    ) -> None:
        self.dimensions = dimensions
        self.model_id = model_id
        self.fingerprint = fingerprint
        self.batches: list[list[str]] = []
        self.answer: Any = None  # what to give in place of vectors, or to raise

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.batches.append(list(texts))
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer is not None:
            answer: np.ndarray[Any, np.dtype[np.float32]] = self.answer(texts)
            return answer
        return HashingEncoder(self.dimensions).encode(texts)

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


@pytest.fixture
def encoder() -> Counting:
    return Counting()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.m2m"
