"""Target: what is fed with inputs, and what may come out of it.

An input is bytes, and nothing else decides what happens: so the bytes of a finding are its whole
story, and stand in a test afterwards.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence

from fuzz.mutation import mutated
from m2mdb.pager.errors import Error

LONGEST = 1.0  # seconds of the processor's time for one input: more is a hang


class Target:
    """A decoder, parser or opener, with valid inputs to begin from."""

    __slots__ = ("_seeds", "make", "name", "run", "seeds_of", "share")

    def __init__(
        self,
        name: str,
        run: Callable[[bytes], object],
        seeds: Callable[[], Sequence[bytes]],
        *,
        share: float = 1.0,
        in_place: bool = False,
        make: Callable[[random.Random], bytes] | None = None,
    ) -> None:
        """Keep the parts.

        run       takes an input; an error of PEP 249 is an answer, any other exception a finding
        seeds     valid inputs, made when they are first wanted
        share     of a round's time, as against the other targets
        in_place  inputs keep their seeds' lengths
        make      gives an input, where changing a seed is not what is wanted
        """
        self.name = name
        self.run = run
        self.seeds_of = seeds
        self.share = share
        self._seeds: Sequence[bytes] = ()
        self.make = make or (lambda choose: mutated(self.seeds, choose, in_place=in_place))

    @property
    def seeds(self) -> Sequence[bytes]:
        """Valid inputs."""
        if not self._seeds:
            self._seeds = self.seeds_of()
        return self._seeds

    def __call__(self, data: bytes) -> None:
        """Feed one input; raises what is no error of PEP 249."""
        with contextlib.suppress(Error):
            self.run(data)
