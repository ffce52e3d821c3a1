"""A short round of the campaign."""

from __future__ import annotations

from tests.vacuum.campaign import COUNTS, campaign


def test_a_short_round_counts_what_it_did() -> None:
    counts = campaign(2.0, 1)

    assert set(counts) == set(COUNTS)
    assert counts["crash_images"] > 3
