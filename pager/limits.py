"""Limits: how much a file, and a statement on it, may ask of the process that opens it.

Two sets. FORMAT is what any file may have; UNTRUSTED is for files that came from someone else
(`connect(path, untrusted=True)`), who may have made them to use up memory or time.

    limit               FORMAT           UNTRUSTED   of
    collections         2**32 - 1            1,000   a file
    columns                 2,000              100   a collection
    indexes             2**32 - 1              100   a collection
    name_bytes              1,000              255   a name of a collection, column or index
    dimension              65,536           16,384   a vector
    segments            2**32 - 1           10,000   a collection
    value_bytes     1,000,000,000        1,000,000   a TEXT, BLOB or JSON value
    null_vector_bytes   2**63 - 1      256,000,000   what NULL vectors of the delta take in memory
    tree_depth                 40               12   pages from the root of a tree to its leaf
    log_gap                 2**18           16,384   pages that a log's commit has beyond those that
                                                     stand in the file and in the log
    statement_length    1,000,000          100,000   characters of a statement
    expression_depth          200               50   nodes of a statement's tree, one in the other
    parameters             32,766            1,000   of a statement
    k                   2**63 - 1           10,000   K + OFFSET of a SEARCH

Whatever the limits, no number in a file is believed before it is held against the size of the
file: nothing is allocated that the bytes which are there cannot fill (`index.parts`, E2, O2, T7).

Invariants
    LM1 FORMAT refuses no file that this build can write.
"""

from __future__ import annotations

from typing import NamedTuple

_COUNTED = 2**32 - 1  # what a 32-bit number of the format can say
_ENDLESS = 2**63 - 1


class Limits(NamedTuple):
    """One set of limits; the defaults are FORMAT."""

    collections: int = _COUNTED
    columns: int = 2_000
    indexes: int = _COUNTED
    name_bytes: int = 1_000
    dimension: int = 65_536
    segments: int = _COUNTED
    value_bytes: int = 1_000_000_000
    null_vector_bytes: int = _ENDLESS
    tree_depth: int = 40
    log_gap: int = 2**18
    statement_length: int = 1_000_000
    expression_depth: int = 200
    parameters: int = 32_766
    k: int = _ENDLESS


FORMAT = Limits()
UNTRUSTED = Limits(
    collections=1_000,
    columns=100,
    indexes=100,
    name_bytes=255,
    dimension=16_384,
    segments=10_000,
    value_bytes=1_000_000,
    null_vector_bytes=256_000_000,
    tree_depth=12,
    log_gap=16_384,
    statement_length=100_000,
    expression_depth=50,
    parameters=1_000,
    k=10_000,
)
