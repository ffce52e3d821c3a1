"""Costs: what it takes to search the lists of a segment, and to compare its rows one by one.

    probe   START + ROUTE * lists * width + codes * (CODE + CODE_WIDTH * width) + RERANK * re-ranked
            under a mask MASKED * sqrt(k) more for each code
    scan    ROW + ROW_BYTE * bytes of a vector, for each row that passes
            under a mask AHEAD as much for each row and byte, as no row is read ahead of its turn,
            and PICK for each row that does not pass

in microseconds, as searches of 97,000 vectors of 384 dimensions and 30,000 of 64 took on one core,
k from 1 to 100, 1 to 0.0001 of the rows passing (`benchmarks/filters.py`). They are compared with
each other alone. How many codes a search compares was measured when the lists were built; a filter
that goes with the vectors may make it fewer, or many more. Therefore probing is given a budget:

    few rows pass, and a scan takes not   none: asked again, their codes will stand side by side
    much longer                           (`index.gathered`), and the scan be short
    it seems much cheaper than the scan   until it has cost as much as the scan
    it does not, but the scan is long     until it has cost TRIAL of the scan
    the scan is short                     none: a trial would find out little

A search that spends its budget is answered by the scan. So it costs at most twice what the better
of the two costs, whatever the filter; and which of them gives the answer depends on the file, the
query and the filter alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from m2mdb.compute.hrm2.patience import Work
    from m2mdb.compute.hrm2.reference import Stop

START = 5.0
ROUTE = 7e-6
CODE, CODE_WIDTH = 2e-4, 3.2e-6
RERANK = 0.12
MASKED = 2e-4
ROW, ROW_BYTE = 2e-3, 2.4e-5
AHEAD = 1.6
PICK = 2.5e-4
TRIAL = 0.3
LEAST_TRIAL = 2.6  # of the cost to begin: less finds out little
MOST_CODES = 3 << 20  # bytes of 8-bit codes of the rows that pass, where they are gathered
GATHER_LOSS = 5.0  # times the cost of probing that a scan may take until they are
CHEAPER = 0.7  # of a scan, which costs the same for every query
NO_LIMIT = 1 << 30


class Size(NamedTuple):
    """Lists of a segment: how many, of how wide codes; rows, and bytes of a stored vector."""

    lists: int
    width: int
    rows: int
    row_bytes: int


def probing_cost(size: Size, k: int, work: Work, *, masked: bool) -> float:
    """Of a search in lists, with the mean work that was measured."""
    code = CODE + CODE_WIDTH * size.width + (MASKED * k**0.5 if masked else 0.0)
    return starting_cost(size) + code * work.codes + RERANK * work.reranked


def starting_cost(size: Size) -> float:
    """Of a search that has not probed any list yet."""
    return START + ROUTE * size.lists * size.width


def scanning_cost(size: Size, matches: float, *, masked: bool) -> float:
    """Of comparing all rows that pass."""
    row = ROW + ROW_BYTE * size.row_bytes
    return matches * row * AHEAD + PICK * size.rows if masked else matches * row


def budgeted(stop: Stop, size: Size, work: Work, share: float) -> Stop | None:
    """The stop of a search with its budget; None where a scan is due at once.

    share  of the rows that pass; 1 without a filter
    """
    masked = share < 1
    scan = scanning_cost(size, share * size.rows, masked=masked)
    probe = probing_cost(size, stop.k, work, masked=masked)
    start = starting_cost(size)
    each = (probe - start) / max(1.0, work.probed)
    is_gathered = masked and share * size.rows * size.width <= MOST_CODES
    if is_gathered and scan <= GATHER_LOSS * probe:
        return None
    is_cheaper = probe < CHEAPER * scan
    allowed = scan if is_cheaper else TRIAL * scan
    most = int((allowed - start) / each) if allowed > start else 0
    if most <= stop.least or (not is_cheaper and allowed < LEAST_TRIAL * start):
        return None
    return stop._replace(most=NO_LIMIT if most >= size.lists else most)


def is_spent(stop: Stop, probed: int) -> bool:
    """Whether a search that has probed so many lists ended because of its budget."""
    return probed >= stop.most > stop.least
