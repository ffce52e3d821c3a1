"""Terms one edit away: an insertion, a deletion, a change, or two neighbours swapped.

One edit leaves either the first half of a term or the last half as it was (halves that do not
touch the middle character). So of all terms of a fitting length only those that agree with the
query term in one of the halves are compared in full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHARACTER_BYTES = 4  # a UTF-8 character at most, so an edit changes a term's size by no more


def close_terms(blob: NDArray[np.uint8], offsets: NDArray[np.int64], term: bytes) -> list[bytes]:
    """The terms within one edit of `term`, in their order.

    blob      the terms, one behind the other
    offsets   where each begins, and the end
    """
    starts, sizes = offsets[:-1], np.diff(offsets)
    fits = np.abs(sizes - len(term)) <= CHARACTER_BYTES
    fits &= (sizes > 0) & (starts >= 0) & (starts + sizes <= len(blob))
    ids = np.flatnonzero(fits)
    word = term.decode()
    half = len(word) // 2
    head, tail = word[:half].encode(), word[half + 1 :].encode()
    close = np.union1d(
        _agreeing(blob, starts[ids], sizes[ids], head, ids),
        _agreeing_at_end(blob, starts[ids], sizes[ids], tail, ids),
    )
    raw = blob.data
    found = [bytes(raw[offsets[i] : offsets[i + 1]]) for i in close.tolist()]
    return [other for other in found if is_close(word, other.decode("utf-8", "replace"))]


def _agreeing(
    blob: NDArray[np.uint8],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    head: bytes,
    ids: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Those ids whose terms begin with `head`."""
    fits = sizes >= len(head)
    starts, ids = starts[fits], ids[fits]
    for place, byte in enumerate(head):
        agree = blob[starts + place] == byte
        starts, ids = starts[agree], ids[agree]
    return ids


def _agreeing_at_end(
    blob: NDArray[np.uint8],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    tail: bytes,
    ids: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Those ids whose terms end with `tail`."""
    fits = sizes >= len(tail)
    ends, ids = (starts + sizes)[fits], ids[fits]
    for place, byte in enumerate(reversed(tail), 1):
        agree = blob[ends - place] == byte
        ends, ids = ends[agree], ids[agree]
    return ids


def is_close(one: str, other: str) -> bool:
    """Whether the two words are equal or one edit apart."""
    if len(one) > len(other):
        one, other = other, one
    if len(other) - len(one) > 1:
        return False
    place = 0
    while place < len(one) and one[place] == other[place]:
        place += 1
    if len(one) < len(other):
        return one[place:] == other[place + 1 :]
    swapped = other[place : place + 2][::-1] + other[place + 2 :]
    return one[place + 1 :] == other[place + 1 :] or one[place:] == swapped
