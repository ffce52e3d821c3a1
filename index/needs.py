"""Needs: what a reader has to know to read this file rightly.

Under "!", the first key of the catalog's tree, stands a JSON object: for each feature that the
file uses and that an older reader would misread, the first version of m2mdb that knows it.

    {"a feature": "0.3.0"}

It is looked at before anything else of the catalog: a file that is merely newer is refused by its
name and version, and not as one that is damaged. The format numbers of page 1 say the same of what
stands outside of the catalog.

Invariants
    ND1 A feature whose files older readers would misread is in KNOWN, and whoever first writes it
        into a file puts the need in the same transaction.
    ND2 A file without the key needs nothing; no part of this build puts one yet.
"""

from __future__ import annotations

import json

from m2mdb.pager.errors import CorruptDatabaseError, NotSupportedError

KEY = b"!"
KNOWN: frozenset[str] = frozenset()
MOST_BYTES = 4096


def newer(where: str, what: str) -> NotSupportedError:
    """The error for something whole that this build does not know."""
    return NotSupportedError(
        f"{where}: this build of m2mdb does not know {what}; the file was written by a newer one"
    )


def check_needs(raw: bytes | None, where: str) -> None:
    """Raise for a file that needs more than this build knows; None: it needs nothing.

    Raises NotSupportedError naming features and versions, CorruptDatabaseError where they are none.
    """
    if raw is None:
        return
    try:
        needs = json.loads(raw) if len(raw) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        needs = None
    if not isinstance(needs, dict) or not all(isinstance(each, str) for each in needs.values()):
        raise CorruptDatabaseError(f"{where}: what the file needs is not readable: {raw[:40]!r}")
    unknown = [f"{name} (m2mdb {needs[name]} or newer)" for name in sorted(needs.keys() - KNOWN)]
    if unknown:
        raise NotSupportedError(
            f"{where} is not damaged but newer: it needs {', '.join(unknown)}, which this build "
            "does not know"
        )
