"""Who sums up posting lists: the compiled kernels where they are loaded, else nobody here.

Without them the caller searches in NumPy (`index.text.search`), which gives the same answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from m2mdb.compute.loader import LOADER

if TYPE_CHECKING:
    from types import ModuleType

    from m2mdb.compute.backend import Backend

LARGE_ROWS = 20_000  # rows of a text search before compiled kernels are worth loading

_kernels: Kernels | None = None
_was_large = False


class Kernels(NamedTuple):
    """The modules of compiled text kernels."""

    lists: ModuleType
    blocks: ModuleType
    search: ModuleType
    fusion: ModuleType


def loaded() -> Kernels | None:
    """The compiled text kernels, if they are loaded; nobody asks for them here."""
    return _kernels


def text_kernels(backend: Backend, rows: int) -> Kernels | None:
    """The compiled text kernels, or None where NumPy has to do.

    A large search, and then another, has them loaded in the background; no call waits for that.
    """
    global _kernels, _was_large
    if backend.name == "numpy":
        return None
    if _kernels is None:
        if LOADER.module is None:
            if rows >= LARGE_ROWS:
                if _was_large:
                    LOADER.start()
                _was_large = True
            return None
        from m2mdb.compute import rank_fusion as fusion
        from m2mdb.compute import text_blocks as blocks
        from m2mdb.compute import text_kernels as search
        from m2mdb.compute import text_lists as lists

        _kernels = Kernels(lists, blocks, search, fusion)
    return _kernels
