"""The protocol that a program's own types are asked for, as PEP 246 has it."""

from __future__ import annotations


class PrepareProtocol:
    """What `__conform__(protocol)` of a type is given: it gives a value to be bound, or None."""
