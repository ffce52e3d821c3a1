"""Encoder: the seam between texts and vectors.

Encoders live above the engine (`m2mdb.encoders`, or a program's own, given to `connect`); a file
stores only an encoder's name, model id, fingerprint and dimensions, never its code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np


class Encoder(Protocol):
    """Texts to vectors.

    `fingerprint` changes whenever the same text would give another vector; `model_id` names the
    model for people. An encoder that has `encode_queries` too, of the same shape, is asked by it
    for what FOR searches. One that gains nothing by many texts at once may say how many it wants
    as `texts_a_call`, an int: an interrupt is seen between two calls.
    """

    @property
    def dimensions(self) -> int:
        """Values in one vector."""
        ...

    @property
    def model_id(self) -> str:
        """The model's name and version."""
        ...

    @property
    def fingerprint(self) -> str:
        """A digest of what the encoder computes."""
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32 of shape (len(texts), dimensions), C-contiguous, finite, owned by the caller."""
        ...


Result = TypeVar("Result")
Encoders = Callable[[str, int], Encoder | None]  # by name and dimension; None: there is none


_stopping: ContextVar[Callable[[], None] | None] = ContextVar("stopping", default=None)


def look() -> None:
    """Raise where the statement that calls an encoder is to stop: for encoders that wait."""
    check = _stopping.get()
    if check is not None:
        check()


def stopped_by(check: Callable[[], None], call: Callable[..., Result]) -> Callable[..., Result]:
    """A function like `call`, within which `look` is `check`."""

    def run(*given: object) -> Result:
        token = _stopping.set(check)
        try:
            return call(*given)
        finally:
            _stopping.reset(token)

    return run


def no_encoders(name: str, dimension: int) -> Encoder | None:
    """What a database knows that no program has given encoders."""
    return None


class Calling(Protocol):
    """How a program's encoder is called: its connection is to refuse it meanwhile."""

    def __call__(self, what: str, call: Callable[..., Result], /) -> Callable[..., Result]:
        """A function like `call`; `what` it is, for people."""
        ...


def called(what: str, call: Callable[..., Result], /) -> Callable[..., Result]:
    """Where no connection has anything to guard."""
    return call
