"""The thread in which an awaitable connection does its work.

    awaited call --> queued --> running in the thread --> result
                       |           |
                 cancelled      cancelled: the statement is interrupted, waited for, undone
                       v           v
                    CancelledError

Invariants
    AI1 The connection is used in its thread alone, but for `interrupt` and plain properties.
    AI2 A cancelled call has ended when CancelledError is raised: nothing of its statement is left,
        or, where the interrupt came too late, all of it is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from m2mdb.pager.errors import InterfaceError

if TYPE_CHECKING:
    from m2mdb.connection import Connection

T = TypeVar("T")
INTERRUPT_SECONDS = 0.01  # between two interrupts of a cancelled statement


class Worker:
    """The thread of one connection."""

    __slots__ = ("_executor", "connection")

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "m2mdb.aio")
        self.connection: Connection | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """What the call gives, run in the thread; a cancelled one is interrupted (AI2)."""
        try:
            job: Future[T] = self._executor.submit(call)
        except RuntimeError:
            raise InterfaceError("the connection is closed") from None
        waiting = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not job.cancel():
                await self._stopped(waiting)
            raise

    async def _stopped(self, waiting: asyncio.Future[T]) -> None:
        """End a running call and wait for it; an interrupt may come before the call's own start."""
        while not waiting.done():
            self._interrupt()
            await asyncio.wait({waiting}, timeout=INTERRUPT_SECONDS)
        if not waiting.cancelled():
            waiting.exception()  # taken, so that the loop does not tell of it
        connection = self.connection
        if connection is not None and connection.database is not None:
            connection.database.forget_interrupt()  # it was not meant for the next call

    def _interrupt(self) -> None:
        connection = self.connection
        if connection is not None and connection.database is not None:
            try:
                connection.interrupt()
            except InterfaceError:
                return  # it has closed meanwhile

    def close(self) -> None:
        """Let the thread go when its last call is done."""
        self._executor.shutdown(wait=False)
