"""What all tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def no_collection_of_what_other_modules_made() -> Iterator[None]:
    """Tests that collect garbage at every step would look at all that thousands of tests left."""
    gc.collect()
    gc.freeze()
    yield
