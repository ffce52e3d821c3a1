"""The searcher: lists made ready for the compiled search, with scratch for each thread.

Invariants
    H1  Scratch belongs to one thread: searches of one Searcher may run in several at once.
    H2  Arrays that kernels read are contiguous and read-only; where they are not, they are copied.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.hrm2 import kernels
from m2mdb.compute.hrm2.rotation import signs

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from m2mdb.compute.hrm2.lists import Lists
    from m2mdb.compute.hrm2.reference import Stop

NO_MASK = np.empty(0, np.uint8)
NO_MASK.flags.writeable = False


class Found(NamedTuple):
    """Candidates of one query, nearest first by their 8-bit codes.

    positions  int32
    ordinals   int32, what the builder called the rows
    nearness   float32: |q - x|^2, or -2 <q, x>
    probed     lists; codes scanned; rows compared by 8-bit codes
    """

    positions: NDArray[np.int32]
    ordinals: NDArray[np.int32]
    nearness: NDArray[np.float32]
    probed: int
    codes: int
    reranked: int


class Searcher:
    """Searches one set of lists."""

    def __init__(self, lists: Lists, metric: str, seed: int) -> None:
        """`seed` is that of the rotation that the lists were coded with."""
        self.lists = lists
        self.metric = metric
        self._arrays: Any = tuple(_readable(array) for array in lists)
        self._flips = _readable(signs(lists.width, seed))
        self._kind = kernels.PRODUCT if metric == "ip" else kernels.NEAR
        self._local = threading.local()

    def search(
        self,
        query: NDArray[np.float32],
        stop: Stop,
        *,
        wanted: int,
        epsilon: float,
        mask: NDArray[np.bool_] | None = None,
    ) -> Found:
        """The `wanted` best rows that the probed lists hold.

        query    float32[d]; of length 1 under cosine
        stop     when probing ends, see kernels.search
        epsilon  standard errors that a 1-bit bound takes off its estimate
        mask     by ordinal, which rows may be found
        """
        scratch = self._scratch(wanted)
        rotated, best, nearness, numbers, counts = (scratch[i] for i in (0, 7, 8, 9, 10))
        rotated[: len(query)] = query
        rotated[len(query) :] = 0
        numbers[kernels.EPSILON] = epsilon
        allowed = NO_MASK if mask is None else _readable(mask.view(np.uint8))
        kernels.search(
            self._arrays,
            allowed,
            self._flips,
            self._kind,
            (stop.k, stop.least, stop.patience, stop.most),
            np.float32(stop.factor),
            scratch,
        )
        found, probed, codes, reranked = counts[:4].tolist()
        positions = best[:found].copy()
        ordinals = self.lists.ordinals[positions]
        return Found(positions, ordinals, nearness[:found].copy(), probed, codes, reranked)

    def _scratch(self, wanted: int) -> tuple[NDArray[Any], ...]:
        """This thread's scratch arrays (H1); see kernels.py for what they are."""
        kept: Any = self._local.__dict__
        found: tuple[NDArray[Any], ...] | None = kept.get(wanted)
        if found is None:
            width, count = self.lists.width, len(self.lists.center_scales)
            found = kept[wanted] = (
                np.zeros(width, np.float32),
                np.zeros(width, np.int8),
                np.zeros(4 * width, np.uint8),
                np.zeros(count, np.int32),
                np.zeros(count, np.float32),
                np.zeros(32, np.uint16),
                np.zeros(32, np.float32),
                np.zeros(wanted, np.int32),
                np.zeros(wanted, np.float32),
                np.zeros(8, np.float32),
                np.zeros(8, np.int64),
                np.zeros(width, np.float32),
                np.zeros(kernels.BUCKETS + 1, np.int32),
            )
        return found


def _readable(array: NDArray[Any]) -> NDArray[Any]:
    """The array as kernels take it (H2)."""
    if array.flags.c_contiguous and array.flags.aligned and not array.flags.writeable:
        return array
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
