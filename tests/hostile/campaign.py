"""A long round of bit flips, for the ledger.

All bits of the file are dealt out to SHARDS shards, which between them visit each bit once: shard
s has the bits b with b % SHARDS == s, in an order of its own. A round with seed s goes through
shard s % SHARDS, and from its beginning again with each further turn of the seeds, so that the
seeds 0 to SHARDS - 1, each with time enough, are the exhaustive proof.
"""

from __future__ import annotations

import random
import time

from tests.hostile.flips import SharedCopy, judge, made_file

SHARDS = 64


def shard_bits(seed: int) -> list[int]:
    """The bits of a seed's shard, in the order in which they are flipped."""
    bits = list(range(seed % SHARDS, len(made_file()) * 8, SHARDS))
    random.Random(seed).shuffle(bits)
    return bits


def campaign(seconds: float, seed: int) -> dict[str, int]:
    """`bit_flips` in so many seconds, or a whole shard.

    Raises AssertionError naming the bit: `judge(SharedCopy(), bit)` shows it again.
    """
    copy = SharedCopy()
    end = time.monotonic() + seconds
    count = 0
    for bit in shard_bits(seed):
        judge(copy, bit)
        count += 1
        if time.monotonic() > end:
            break
    return {"bit_flips": count}
