"""Importing: `m2mdb import`, from JSON Lines or CSV to a collection.

The documents are read twice: once for the types of all columns, so that nothing is written where
a line is malformed, and once to add them, a transaction a batch.

    values of a column, over all documents      type
    true and false                              BOOLEAN
    whole numbers of 64 bits                    INTEGER
    numbers                                     REAL
    lists, objects, or those and others         JSON
    anything else                               TEXT, other values in their JSON spelling

Invariants
    I1  Nothing is written before all documents, and the vectors' shape, were seen to fit.
    I2  An interrupt or a refused row keeps the committed batches whole and says how many rows
        they hold.
    I3  The collection is created in the first batch's transaction: no batch, no collection.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.arrays import load_array
from m2mdb.documents import Numbered, read_documents
from m2mdb.index.schema import COMPUTED
from m2mdb.pager.errors import DataError, Error, IntegrityError, ProgrammingError
from m2mdb.query.copying import ROW
from m2mdb.tables import Progress

if TYPE_CHECKING:
    from argparse import Namespace

    from m2mdb.collection import Collection
    from m2mdb.connection import Connection

VECTOR_TYPES = {"float16": "f16", "float32": "f32", "float64": "f32", "int8": "i8"}
LARGEST_EXACT = 2**53  # beyond it a float no longer holds every whole number


class Interrupted(Exception):
    """Ctrl-C came between or inside batches; the committed ones stay."""


class ColumnFacts:
    """What the values of one column are, over all documents."""

    __slots__ = ("kinds", "largest", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.kinds: set[str] = set()
        self.largest = 0

    def see(self, value: Any) -> None:
        """Take one value into account."""
        kind = type(value).__name__
        self.kinds.add(kind)
        if kind == "int":
            self.largest = max(self.largest, abs(value + (value < 0)))

    @property
    def type(self) -> str:
        """The column type that holds all values without loss."""
        kinds = self.kinds - {"NoneType"}
        if kinds & {"dict", "list"}:
            return "JSON"
        if kinds == {"bool"}:
            return "BOOLEAN"
        if kinds == {"int"} and self.largest < 2**63:
            return "INTEGER"
        if kinds == {"float"} or (kinds == {"int", "float"} and self.largest <= LARGEST_EXACT):
            return "REAL"
        return "TEXT"


class Import:
    """One run of `m2mdb import`."""

    def __init__(self, connection: Connection, options: Namespace) -> None:
        self.connection = connection
        self.options = options
        self.added = 0
        self.documents = 0
        self.seconds = 0.0
        self.warnings: list[str] = []
        self.facts: dict[str, ColumnFacts] = {}
        self.vectors: np.ndarray[Any, Any] | None = None

    def run(self) -> None:
        """Look at everything, then add the batches (I1, I3).

        Raises Interrupted at Ctrl-C once batches are being added (I2).
        """
        start = time.perf_counter()
        self.survey()
        self.load_vectors()
        if self.options.encoder is not None:
            self.source()
            self.encoder()
        before = self.count()
        try:
            self.add()
        except KeyboardInterrupt:
            self.added = max(self.added, self.count() - before)  # it may have come in a commit
            raise Interrupted from None
        finally:
            self.seconds = time.perf_counter() - start

    def count(self) -> int:
        """The rows of the collection, 0 where there is none."""
        wanted = self.options.collection.lower()
        return sum(len(c) for c in self.connection.collections() if c.name.lower() == wanted)

    def survey(self) -> None:
        """The columns and their types, from all documents."""
        progress = Progress(f"reading {self.options.docs}:")
        for _, document in read_documents(self.options.docs):
            self.documents += 1
            for key, value in document.items():
                facts = self.facts.get(key)
                if facts is None:
                    facts = self.facts[key] = ColumnFacts(self.column_name(key))
                facts.see(value)
            progress.add()
        progress.close()
        if not self.facts:
            raise DataError(f"{self.options.docs} holds no documents")
        for name in (self.options.key, *self.options.fulltext, self.options.encode):
            if name is not None:
                self.fact(name)

    def column_name(self, key: str) -> str:
        """The column of a key: itself, unless the name is taken or computed."""
        taken = {facts.name.lower() for facts in self.facts.values()}
        taken.update(COMPUTED)
        if self.options.vectors or self.options.encoder:
            taken.add(self.options.vector_column.lower())
        candidates = itertools.chain([key], (f"{key}_{i}" for i in itertools.count(2)))
        name = next(name for name in candidates if name and name.lower() not in taken)
        if name != key:
            self.warnings.append(f"{key!r} cannot be a column's name here; it became {name!r}")
        return name

    def fact(self, name: str) -> ColumnFacts:
        """The facts of a column named by an option.

        Raises ProgrammingError where no document has it.
        """
        for key, facts in self.facts.items():
            if name in (key, facts.name):
                return facts
        raise ProgrammingError(
            f"no document of {self.options.docs} has {name!r}; there are {', '.join(self.facts)}"
        )

    def load_vectors(self) -> None:
        """The vectors, mapped; DataError where shape or type do not fit the documents."""
        path = self.options.vectors
        if path is None:
            return
        if self.options.encoder is not None:
            raise ProgrammingError("--vectors and --encoder exclude each other")
        vectors = load_array(path, path, mmap_mode="r")
        if vectors.ndim != 2 or len(vectors) != self.documents:
            raise DataError(
                f"{path}: shape {vectors.shape}, wanted is ({self.documents}, dimension): "
                "a row for each document"
            )
        if vectors.dtype.name not in VECTOR_TYPES:
            raise DataError(f"{path}: {vectors.dtype}, wanted is one of {', '.join(VECTOR_TYPES)}")
        self.vectors = vectors

    def existing(self) -> Collection | None:
        """The collection that --append adds to; None where it is to be created.

        Raises ProgrammingError where it exists without --append, or where --on-conflict replace
        would take the vectors from rows that have some.
        """
        options = self.options
        names = {found.name.lower() for found in self.connection.collections()}
        if options.collection.lower() not in names:
            return None
        if not options.append:
            raise ProgrammingError(f"collection {options.collection} exists; --append adds to it")
        collection = self.connection.collection(options.collection)
        given = {facts.name.lower() for facts in self.facts.values()}
        if self.vectors is not None or options.encoder is not None:
            given.add(options.vector_column.lower())
        schema = collection.schema
        shown = [schema.columns[index] for index in schema.shown_columns]
        left = [column for column in shown if column.name.lower() not in given]
        vectors = ", ".join(column.name for column in left if column.is_vector)
        if vectors and options.on_conflict == "replace":
            raise ProgrammingError(
                f"--on-conflict replace would delete the vectors in {vectors} of the rows that it "
                "replaces; give --vectors or --encoder"
            )
        if vectors:
            self.warnings.append(f"the added rows have no {vectors}: NEAR does not find them")
        if left and options.on_conflict == "replace":
            lost = ", ".join(column.name for column in left)
            self.warnings.append(f"replaced rows lose {lost}, which the documents do not have")
        return collection

    def declarations(self) -> dict[str, str]:
        """The columns with their types and constraints."""
        options = self.options
        key = None if options.key is None else self.fact(options.key)
        fulltext = [self.fact(name) for name in options.fulltext]
        found = {}
        for facts in self.facts.values():
            declared = facts.type
            if facts in fulltext and declared != "JSON":
                declared = "TEXT"
            found[facts.name] = (
                declared
                + (" PRIMARY KEY" if facts is key else "")
                + (" FULLTEXT" if facts in fulltext else "")
            )
        if self.vectors is not None:
            dtype = VECTOR_TYPES[self.vectors.dtype.name]
            dimension = self.vectors.shape[1]
            found[options.vector_column] = f"VECTOR({dimension}, {dtype}) METRIC {options.metric}"
        if options.encoder is not None:
            dimension = self.encoder().dimensions
            found[options.vector_column] = f"VECTOR({dimension}) METRIC {options.metric}"
        return found

    def encoder(self) -> Any:
        """The encoder that --encoder names."""
        return self.connection.encoder(self.options.encoder, self.options.dimensions)

    def source(self) -> ColumnFacts:
        """The column whose texts are encoded: --encode, else the only --fulltext one."""
        if self.options.encode is not None:
            return self.fact(self.options.encode)
        if len(self.options.fulltext) == 1:
            return self.fact(self.options.fulltext[0])
        raise ProgrammingError("--encoder needs --encode NAME: which column holds the text")

    def add(self) -> None:
        """Add all documents, a transaction a batch (I2, I3)."""
        collection = self.existing()
        progress = Progress(f"adding to {self.options.collection}:", self.documents)
        documents = read_documents(self.options.docs)
        position = 0
        while batch := list(itertools.islice(documents, self.options.batch)):
            try:
                collection = self.add_batch(collection, batch, position)
            except (DataError, IntegrityError) as error:
                raise self.placed(error, batch) from error
            position += len(batch)
            progress.add(len(batch))
        progress.close()

    def add_batch(
        self, collection: Collection | None, batch: Sequence[Numbered], position: int
    ) -> Collection:
        """Add documents, and create the collection where there is none, all or nothing."""
        connection = self.connection
        before = connection.total_changes
        connection.execute("BEGIN IMMEDIATE")
        try:
            if collection is None:
                options = self.options
                collection = connection.create_collection(options.collection, self.declarations())
            columns = self.columns(collection, batch, position)
            collection.add(columns, on_conflict=self.options.on_conflict)
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        self.added += connection.total_changes - before
        return collection

    def columns(
        self, collection: Collection, batch: Sequence[Numbered], position: int
    ) -> dict[str, Any]:
        """The columns of the documents that begin at `position`, with their vectors."""
        options = self.options
        types = {column.name: column.type for column in collection.schema.columns}
        columns: dict[str, Any] = {
            facts.name: [
                stored(document.get(key), types.get(facts.name, "")) for _, document in batch
            ]
            for key, facts in self.facts.items()
        }
        if self.vectors is not None:
            chunk = self.vectors[position : position + len(batch)]
            wide = chunk.dtype == np.float64
            columns[options.vector_column] = np.asarray(chunk, np.float32 if wide else None)
        if options.encoder is not None:
            texts = [text or "" for text in columns[self.source().name]]
            columns[options.vector_column] = self.encoder().encode(texts)
        return columns

    def placed(self, error: Error, batch: Sequence[Numbered]) -> Error:
        """The error of a refused batch with the file, the line, and what is committed (I2)."""
        text = str(error)
        found = ROW.search(text)
        row = int(found[1] or found[2]) if found is not None else len(batch)
        if found is not None and row < len(batch):
            place = f"line {batch[row][0]}"
            text = text[: found.start()] + text[found.end() :]
        else:
            place = f"lines {batch[0][0]} to {batch[-1][0]}"
        kept = f"; {self.added} rows before it are committed" if self.added else ""
        return type(error)(f"{self.options.docs}, {place}: {text}{kept}")

    def summary(self) -> dict[str, Any]:
        """What was done, for --json."""
        return {
            "collection": self.options.collection,
            "documents": self.documents,
            "added": self.added,
            "seconds": round(self.seconds, 3),
            "warnings": self.warnings,
        }

    def text(self) -> str:
        """What was done, in a sentence."""
        rate = self.added / self.seconds if self.seconds else 0.0
        return (
            f"{self.options.collection}: {self.added:,} rows added in {self.seconds:.1f} s "
            f"({rate:,.0f} rows/s)"
        )


def stored(value: Any, type: str) -> Any:
    """A document's value as its column takes it."""
    if value is None or isinstance(value, str):
        if type == "JSON" and value is not None:
            return json.dumps(value, ensure_ascii=False)
        return value
    if type == "JSON" or isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    if type == "TEXT":
        return json.dumps(value)
    return value
