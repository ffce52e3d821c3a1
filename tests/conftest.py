"""What all tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def only_own_garbage() -> Iterator[None]:
    """For tests that collect garbage at every step: not all that thousands of tests have left.

    It is given back at the module's end, as what becomes garbage meanwhile would never go.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
