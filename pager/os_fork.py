"""Forks: objects that must not outlive a fork in the child are told of it (S5).

The files of `pager.os_vfs` close themselves; what works with them registers here, so that its
next use in the child is an error and no store to the shared memory that it had mapped.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that a fork ends in the child."""

    def abandon(self) -> None:
        """In a forked child: give everything up, without unlocking, writing or unlinking."""
        ...


_registered: weakref.WeakSet[Forkable] = weakref.WeakSet()


def end_at_fork(thing: Forkable) -> None:
    """Call `thing.abandon()` in every child that is forked while it lives."""
    _registered.add(thing)


def _abandon_all() -> None:
    for thing in list(_registered):
        thing.abandon()


os.register_at_fork(after_in_child=_abandon_all)
