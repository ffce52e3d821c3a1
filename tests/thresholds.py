"""Sizes at which flushes, merges and bulk paths happen within a few rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

from m2mdb.index import delta, maintenance, writer


@contextlib.contextmanager
def small_thresholds(tier_base: int = 5) -> Iterator[None]:
    """Flush at seven rows, segments from five, merges by three."""
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (delta, "FLUSH_ROWS", 7),
            (maintenance, "FLUSH_ROWS", 7),
            (writer, "SEGMENT_ROWS", 5),
            (maintenance, "TIER_FACTOR", 3),
            (maintenance, "TIER_BASE", tier_base),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield
