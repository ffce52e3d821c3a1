"""Copying: the files that COPY reads and writes, by their formats.

    parquet        any columns; needs pyarrow          jsonl, ndjson  an object a line
    csv, tsv       a line of names, then records       npy            one VECTOR column, a matrix
    fvecs          one VECTOR column: for each row its dimension (int32) and its float32 numbers
    ivecs, bvecs   the same with int32 or uint8 numbers
    mmap_ninja     one VECTOR column: a folder of the package mmap-ninja

The format is the option `format` or the end of the path; `.jsonl.gz` and `.csv.gz` are unpacked
when they are read.

Invariants
    CY1 A file or folder that is written is there whole or not at all: it is written beside its
        place, synced and renamed. A folder that stands there is set aside first, and replaced only
        where it holds nothing else than its format has.
    CY2 COPY TO and then COPY FROM gives the same rows; what a format cannot hold is an error. (A
        JSON column's own `null` is NULL to JSON Lines, which has one word for both.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from m2mdb.copy_arrays import NpyReader, NpyWriter, VecsReader, VecsWriter
from m2mdb.copy_ninja import NinjaReader, NinjaWriter, is_ninja
from m2mdb.copy_parquet import ParquetReader, ParquetWriter
from m2mdb.copy_text import CsvReader, CsvWriter, JsonlReader, JsonlWriter
from m2mdb.pager.errors import DataError, OperationalError, ProgrammingError
from m2mdb.pager.io_errors import io_error

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.query.copying import FileReader, FileWriter, Options

READERS: dict[str, Callable[..., Any]] = {
    "bvecs": partial(VecsReader, "|u1"),
    "csv": CsvReader,
    "fvecs": partial(VecsReader, "<f4"),
    "ivecs": partial(VecsReader, "<i4"),
    "jsonl": JsonlReader,
    "mmap_ninja": NinjaReader,
    "npy": NpyReader,
    "parquet": ParquetReader,
}
WRITERS: dict[str, Callable[..., Any]] = {
    "bvecs": partial(VecsWriter, "|u1"),
    "csv": CsvWriter,
    "fvecs": partial(VecsWriter, "<f4"),
    "ivecs": partial(VecsWriter, "<i4"),
    "jsonl": JsonlWriter,
    "mmap_ninja": NinjaWriter,
    "npy": NpyWriter,
    "parquet": ParquetWriter,
}
SAME = {
    "mmap-ninja": "mmap_ninja",
    "ndjson": "jsonl",
    "ninja": "mmap_ninja",
    "pq": "parquet",
    "tsv": "csv",
}
FOLDERS = {"mmap_ninja"}
KNOWN_OPTIONS = {
    "bvecs": {"column"},
    "csv": {"delimiter"},
    "fvecs": {"column"},
    "ivecs": {"column"},
    "jsonl": set[str](),
    "mmap_ninja": {"column", "ragged"},
    "npy": {"column"},
    "parquet": set[str](),
}


def format_of(path: str, options: Options) -> tuple[str, dict[str, Any]]:
    """The format of a file and its own options.

    Raises ProgrammingError: an unknown format or option.
    """
    ending = path.removesuffix(".gz").rpartition(".")[2].lower()
    name = str(options.get("format", ending)).lower()
    wanted = SAME.get(name, name)
    if wanted not in READERS:
        raise ProgrammingError(
            f"COPY {path}: format {name!r} is none of {', '.join(sorted([*READERS, *SAME]))}; "
            "say (format = 'csv') or the like"
        )
    own = {key: value for key, value in options.items() if key not in ("format", "on_conflict")}
    unknown = sorted(set(own) - KNOWN_OPTIONS[wanted])
    if unknown:
        known = ", ".join(sorted({"format", "on_conflict"} | KNOWN_OPTIONS[wanted]))
        raise ProgrammingError(
            f"COPY: unknown option {unknown[0]!r} of {wanted}; known are {known}"
        )
    if name == "tsv":
        own.setdefault("delimiter", "\t")
    return wanted, own


class OsFiles:
    """Files of the operating system; see `query.copying.Files`."""

    def is_lasting(self, path: str) -> bool:
        """Whether it may be read twice: a file or a folder."""
        return os.path.isfile(path) or os.path.isdir(path)

    @contextlib.contextmanager
    def open_reader(
        self, path: str, options: Options, schema: CollectionSchema
    ) -> Iterator[FileReader]:
        """A file to be read; DataError for one that is malformed."""
        name, own = format_of(path, options)
        with _told(path, "read"), contextlib.ExitStack() as stack:
            reader = READERS[name](path, schema, own)
            stack.callback(reader.close)
            yield reader

    @contextlib.contextmanager
    def open_writer(
        self, path: str, options: Options, schema: CollectionSchema, about: tuple[int, str]
    ) -> Iterator[FileWriter]:
        """A file to be written; it takes its place when the block ends well (CY1)."""
        name, own = format_of(path, options)
        if "on_conflict" in options:
            raise ProgrammingError("COPY … TO: on_conflict is an option of COPY … FROM")
        if path.endswith(".gz"):
            raise ProgrammingError(f"COPY … TO {path}: packed files are read, not written")
        rows, database_path = about
        refuse_own_files(database_path, path)
        place = _folder_place(path) if name in FOLDERS else _file_place(path)
        with _told(path, "write"), place as beside:
            writer = WRITERS[name](beside, schema, own, rows)
            try:
                yield writer
            finally:
                writer.close()


@contextlib.contextmanager
def _file_place(path: str) -> Iterator[str]:
    """The name beside a file's place under which it is written, then synced and renamed (CY1)."""
    real = os.path.realpath(path)
    beside = f"{real}.{os.getpid()}.part"
    try:
        yield beside
        _synced(beside)
        os.replace(beside, real)
        _synced(os.path.dirname(real) or ".")
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


@contextlib.contextmanager
def _folder_place(path: str) -> Iterator[str]:
    """As `_file_place`, of a folder; one that stands there steps aside, since no rename replaces
    a folder that is not empty."""
    real = os.path.realpath(path)
    if os.path.lexists(real) and not (os.path.isdir(real) and is_ninja(real)):
        raise OperationalError(
            f"{path}: holds other things than a mmap-ninja folder has, so it is not replaced"
        )
    beside, old = f"{real}.{os.getpid()}.part", f"{real}.{os.getpid()}.old"
    for left in (beside, old):  # of a process that was killed, with the same number
        shutil.rmtree(left, ignore_errors=True)
    try:
        yield beside
        for folder, _, names in os.walk(beside):
            for name in names:
                _synced(os.path.join(folder, name))
            _synced(folder)
        with contextlib.suppress(FileNotFoundError):
            os.rename(real, old)
        try:
            os.rename(beside, real)
        except BaseException:
            with contextlib.suppress(OSError):
                os.rename(old, real)
            raise
        _synced(os.path.dirname(real) or ".")
    finally:
        for left in (beside, old):
            shutil.rmtree(left, ignore_errors=True)


def _synced(path: str) -> None:
    """Make a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _told(path: str, operation: str) -> Iterator[None]:
    """Errors of the system and of decoding as the database's own, with the path."""
    try:
        yield
    except (UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        if error.errno is None:  # as gzip tells of a file that is none
            raise DataError(f"{path}: {error}") from error
        raise io_error(error, operation, path) from error


def refuse_own_files(database_path: str, path: str) -> None:
    """Raise OperationalError where a path means the database itself or a file of its own."""
    real = os.path.realpath(path)
    if os.path.dirname(os.path.realpath(database_path)) == real:
        raise OperationalError(f"{path} is the folder of the database")
    for own in (database_path, database_path + "-wal", database_path + "-shm"):
        is_same = os.path.exists(own) and os.path.exists(real) and os.path.samefile(own, real)
        if own == real or is_same:
            raise OperationalError(f"{path} is the database itself or one of its files")
