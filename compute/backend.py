"""Backends: who scans rows for candidates, and how one is chosen.

    rows --top_k / collector--> candidates (a superset of the answer) --rescore.rank--> answer

A backend scans in float32 and returns every row that may belong to the answer (`bound.py`);
`rescore.py` gives the final scores and the final order, so every backend gives the same answer.

    name     what it is
    numpy    the reference: every kernel in NumPy; always there
    numba    compiled kernels; NumPy answers until they are loaded (`loader.py`)
    auto     numba where it is installed, else numpy

Invariants
    C1  A backend keeps no state of a search: several threads may search through one backend.
    C2  A backend never writes to its arguments, and keeps no reference to them after a call. A
        caller may refill the buffer that held a chunk of rows.
    C3  Importing this module imports neither numba nor any device library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from m2mdb.pager.errors import NotSupportedError, ProgrammingError

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    Rows = NDArray[Any]
    Vector = NDArray[np.float32]
    Mask = NDArray[np.uint8] | NDArray[np.bool_]

NAMES = ("auto", "numpy", "numba", "cupy", "vulkan")


Tick = Callable[[], None]


def untold() -> None:
    """For who has nothing to do meanwhile."""


class Candidates(NamedTuple):
    """Rows that may belong to the answer, in no order; every row of the answer is among them.

    `scores` are the scan's own: to prune or look at, not to show. At least min(k, rows that count)
    candidates come back, and more where the error bound cannot tell them apart.
    """

    ordinals: NDArray[np.int64]
    scores: Vector


class Collector(Protocol):
    """One query's candidates, collected over as many chunks of rows as the caller brings.

    One collector may serve all parts of a search, if the caller numbers their rows through: the
    threshold that the first parts have set then spares the later ones.
    """

    def scan(
        self, rows: Rows, norms: Vector | None, mask: Mask | None, first_ordinal: int = 0
    ) -> None:
        """Consider rows, whose ordinals are first_ordinal, first_ordinal + 1, ...

        rows    float32, float16 or int8 [n, d], C-contiguous
        norms   float32[n] by `bound.row_norms`; None computes what is needed of them
        mask    uint8 or bool [n], 1 = consider; None considers all
        """
        ...

    def result(self) -> Candidates:
        """The candidates so far; scanning may go on afterwards."""
        ...


class Backend(Protocol):
    """Scans on one device. Arguments are as `Collector.scan` says."""

    name: str

    def searches_lists(self) -> bool:
        """Whether the compiled search of lists is there; if it may come, it is asked for."""
        ...

    def ranking(self) -> ModuleType | None:
        """The compiled kernels that rank (`ranking_kernels`), where they may be used now."""
        ...

    def collector(self, query: Vector, k: int, metric: str) -> Collector:
        """A collector for the k best rows by `metric` ("cosine", "l2" or "ip")."""
        ...

    def top_k(
        self,
        rows: Rows,
        norms: Vector | None,
        query: Vector,
        k: int,
        metric: str,
        mask: Mask | None = None,
    ) -> Candidates:
        """Candidates for the k best rows of one array; ordinals count from 0."""
        ...

    def top_k_many(
        self,
        rows: Rows,
        norms: Vector | None,
        queries: Rows,
        k: int,
        metric: str,
        mask: Mask | None = None,
        tick: Tick = untold,
    ) -> list[Candidates]:
        """`top_k` for each row of `queries` (float32 [m, d]), sharing the reading of rows.

        tick  called every few milliseconds or so; what it raises ends the scan
        """
        ...


def choose(name: str = "auto") -> Backend:
    """The backend of that name; the same object each time.

    Raises ProgrammingError for an unknown name and NotSupportedError for one that is not there.
    """
    if name == "numpy":
        from m2mdb.compute.reference import NUMPY

        return NUMPY
    if name in ("auto", "numba"):
        from m2mdb.compute.numba_backend import automatic, explicit

        return automatic() if name == "auto" else explicit()
    if name in NAMES:
        raise NotSupportedError(
            f"compute backend {name!r} is not built yet: use auto, numpy or numba"
        )
    raise ProgrammingError(f"compute backend {name!r}: expected one of {', '.join(NAMES)}")
