"""A round of fuzzing: damaged bytes and text into every decoder and parser, by seed.

    python -m fuzz --seconds 20 --seed 1

Each target gets valid inputs that were changed at random places (checksums fixed up in half of the
cases, so that the checks behind them are reached) and must answer with a value or with an error
of PEP 249; anything else is a finding, printed with its seed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import struct
import sys
import time
from collections.abc import Callable

from xxhash import xxh3_64_intdigest

from m2mdb.index.record import decode_removal, decode_row, encode_removal, encode_row
from m2mdb.index.segment import SegmentRecord
from m2mdb.index.text.match_query import parse_match
from m2mdb.pager.errors import CorruptDatabaseError, DatabaseError
from m2mdb.pager.header import Header, LogFlag
from m2mdb.pager.page import Branch, Leaf, OverflowPage, decode_page
from m2mdb.query.parser import parse

PAGE_SIZE = 4096
SHOWN = 10  # findings of a target that are printed; all are counted
WORDS = (
    "SELECT * FROM WHERE INSERT INTO VALUES SEARCH NEAR MATCH K FUSION rrf ( ) , ; ? :name 'text' "
    "\"x\" 1 2.5 x'ab' -- /* */ AND OR NOT NULL IS IN BETWEEN LIKE CREATE COLLECTION TEXT PRIMARY "
    "KEY VECTOR UPDATE SET DELETE ORDER BY LIMIT RETURNING ON CONFLICT DO NOTHING [ ] . = < > + - "
    "|| % ~ BEGIN COMMIT SAVEPOINT EXPLAIN PRAGMA CASE WHEN THEN ELSE END CAST AS notes id score"
).split()

Target = Callable[[random.Random], None]


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """A copy with a few bytes changed, cut or doubled."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.random()
        if kind < 0.7 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind < 0.85 and len(data) > 8:
            data[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 2**31, 2**32 - 1]))
        else:
            del data[at:]
    return bytes(data)


def fuzz_page(rng: random.Random) -> None:
    """Tree pages: leaves, branches, overflow pieces."""
    count = rng.randint(1, 30)
    keys = sorted({rng.randbytes(rng.randint(1, 12)) for _ in range(count)})
    nodes: list[Leaf | Branch | OverflowPage] = [
        Leaf(keys, [rng.randbytes(rng.randint(0, 60)) for _ in keys]),
        Branch(keys, [rng.randint(1, 99) for _ in range(len(keys) + 1)]),
        OverflowPage(rng.randint(0, 9), rng.randbytes(rng.randint(1, 4000))),
    ]
    raw = bytearray(damaged(rng.choice(nodes).encode(7, PAGE_SIZE), rng).ljust(PAGE_SIZE, b"\0"))
    if rng.random() < 0.5:
        raw[:8] = struct.pack("<Q", xxh3_64_intdigest(bytes(raw[8:PAGE_SIZE])))
    decode_page(bytes(raw[:PAGE_SIZE]), 7, PAGE_SIZE, "fuzz")


def fuzz_header(rng: random.Random) -> None:
    """The first page's two sectors."""
    raw = bytearray(damaged(Header(4096, bytes(16)).encode(), rng).ljust(512, b"\0"))
    flag = bytearray(damaged(LogFlag.needed_for(5, 6).encode(), rng).ljust(512, b"\0"))
    if rng.random() < 0.5:
        for sector in (raw, flag):
            sector[504:512] = struct.pack("<Q", xxh3_64_intdigest(bytes(sector[:504])))
    with contextlib.suppress(CorruptDatabaseError):
        LogFlag.decode(flag, "fuzz")
    Header.decode(raw, "fuzz")


def fuzz_record(rng: random.Random) -> None:
    """Delta entries and segment records."""
    row = [None, rng.randint(-9, 9), 1.5, True, "text", rng.randbytes(9)]
    decode = rng.randrange(3)
    if decode == 0:
        decode_row(damaged(encode_row(1, 2, 3, (4, 5), row), rng), "fuzz")
    elif decode == 1:
        decode_removal(damaged(encode_removal(1, 2, [(3, (4, 5))]), rng), "fuzz")
    else:
        record = SegmentRecord(1, 10, rowids=(1, 10), commit=1)
        SegmentRecord.decode(damaged(record.encode(), rng), "fuzz")


def fuzz_statement(rng: random.Random) -> None:
    """Statements out of the language's own words, and with characters changed."""
    text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 25)))
    if rng.random() < 0.3:
        text = damaged(text.encode(), rng).decode("utf-8", "replace")
    parse(text)


def fuzz_match(rng: random.Random) -> None:
    """Match texts."""
    pieces = ["word", "+", "-", '"', "*", "^2", "~1", ":", "(", "\u00e9", "\u6771\u4eac", " "]
    parse_match("".join(rng.choice(pieces) for _ in range(rng.randint(0, 15))))


TARGETS: dict[str, Target] = {
    "page": fuzz_page,
    "header": fuzz_header,
    "record": fuzz_record,
    "statement": fuzz_statement,
    "match": fuzz_match,
}


def run(name: str, target: Target, seed: int, seconds: float) -> tuple[int, int]:
    """(inputs tried, findings) of one target."""
    findings = count = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        count += 1
        started = time.monotonic()
        try:
            target(random.Random(seed * 1_000_003 + count))
        except DatabaseError:
            pass
        except Exception as problem:  # a finding is any other error
            findings += 1
            if findings <= SHOWN:
                print(f"{name}: seed {seed}, input {count}: {type(problem).__name__}: {problem}")
        if time.monotonic() - started > 1.0:
            findings += 1
            print(f"{name}: seed {seed}, input {count}: took over a second")
    return count, findings


def main() -> int:
    """Run all targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="in all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    total = 0
    for name, target in TARGETS.items():
        count, findings = run(name, target, options.seed, options.seconds / len(TARGETS))
        print(f"{name:10} {count:9,} inputs, {findings} findings")
        total += findings
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
