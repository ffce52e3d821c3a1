"""The first page: what the file is, and whether a log belongs to it.

Page 1 is no tree page. Its first two sectors of 512 bytes are written apart from each other, the
rest of it is zero (little-endian):

    header     offset  size  field
                    0    16  magic           b"m2mdb format 1" and two zero bytes
                   16     4  format_read     a build that knows less may not read the file
                   20     4  format_write    a build that knows less may not write it
                   24     4  page_size       4096 to 65536, a power of two
                   28    16  uuid            of this database
                   44     4  zero
                   48     8  page_count      as of the last checkpoint, page 1 included
                   56     8  commit          number of the last commit as of the last checkpoint
                   64     8  schema_number   raised by every change of the schema
                   72     8  catalog_number  raised by every change of the catalog
                   80     4  catalog_root    root page of the catalog's tree
                   84     4  free_root       root page of the free map's tree
                   88     4  application_id  the program's own, signed
                   92     4  user_version    the program's own, signed
                   96   408  zero
                  504     8  checksum        xxh3-64 of bytes 0..504
    log flag      512     8  magic           b"m2mdblog"
                  520     4  state           1 clear, 2 needed
                  524     4  zero
                  528     8  salt            of the log that is needed
                  536     8  generation      of the log that is needed
                  544   472  zero
                 1016     8  checksum        xxh3-64 of bytes 512..1016

Magic, both format numbers and the header's checksum keep their places in every later format.

The flag says what a log beside the file means, and what it means that there is none (S3, S4):

    clear        the file is whole by itself; a log is a left-over of the last close
    needed       the newest commits stand in the log; without it the file is refused
    checksum     torn, or damaged from outside: a log decides as if it were needed; without one
    fails        the file is refused

A sector is written whole or not at all, and even where a disk tears it nothing is lost: the log
and its name are durable before the flag is set, no frame is appended before the flag is durable,
and the log is unlinked only after everything is copied and the cleared flag is durable. So whenever
the flag can be torn there is a log, and it is whole. A sector of zeros is clear: a new file's first
page is written with such a flag, so that a torn one is a header with a clear flag, or no header.

    clear --(LogFlag.needed_for, first write)--> needed --(LogFlag.clear, last close)--> clear

Invariants
    H1  `page_count` and `commit` are as of the last checkpoint; newer ones stand in commit frames.
    H2  A checkpoint writes the header's sector only; the flag's sector is written on its own.
"""

from __future__ import annotations

from struct import Struct
from typing import Self

from xxhash import xxh3_64_intdigest

from m2mdb.pager.errors import CorruptDatabaseError, NotSupportedError

FORMAT_READ = 1  # the newest format that this build reads
FORMAT_WRITE = 1  # the newest format that this build writes
HEADER_SIZE = 512
FLAG_OFFSET = 512
FLAG_SIZE = 512
FIRST_PAGE_SIZE = HEADER_SIZE + FLAG_SIZE  # bytes of page 1 that have a meaning
SMALLEST_PAGE_SIZE = 4096
LARGEST_PAGE_SIZE = 65536
LARGEST_NUMBER = 2**62  # of a commit, a generation, a schema: there is always a next one
CATALOG_ROOT = 2
FREE_ROOT = 3

_MAGIC_OF_ALL_FORMATS = b"m2mdb format "
_MAGIC = b"m2mdb format 1\0\0"
_FIELDS = Struct("<16sIII16s4xQQQQIIii")
_CHECKED = 504  # bytes of a sector before its checksum
_CHECKSUM = Struct("<Q")
_FLAG_MAGIC = b"m2mdblog"
_FLAG_FIELDS = Struct("<8sI4xQQ")
_CLEAR = 1
_NEEDED = 2


class Header:
    """What page 1 says of the file; a node, changed by the transaction that owns it."""

    __slots__ = (
        "application_id",
        "catalog_number",
        "catalog_root",
        "commit",
        "format_read",
        "format_write",
        "free_root",
        "page_count",
        "page_size",
        "schema_number",
        "user_version",
        "uuid",
    )

    def __init__(self, page_size: int, uuid: bytes) -> None:
        self.format_read = 1
        self.format_write = 1
        self.page_size = page_size
        self.uuid = uuid
        self.page_count = 1
        self.commit = 0
        self.schema_number = 0
        self.catalog_number = 0
        self.catalog_root = CATALOG_ROOT
        self.free_root = FREE_ROOT
        self.application_id = 0
        self.user_version = 0

    @property
    def is_writable(self) -> bool:
        """Whether this build may write the file; reading it is allowed anyway."""
        return self.format_write <= FORMAT_WRITE

    def copy(self) -> Header:
        """A private copy."""
        other = Header(self.page_size, self.uuid)
        for name in Header.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Header) and self.encode() == other.encode()

    def encode(self, page_number: int = 1, page_size: int = HEADER_SIZE) -> bytes:
        """The header's sector; with a page size the whole page 1, its log flag zero."""
        assert page_number == 1, "the header is page 1"
        fields = _FIELDS.pack(
            _MAGIC,
            self.format_read,
            self.format_write,
            self.page_size,
            self.uuid,
            self.page_count,
            self.commit,
            self.schema_number,
            self.catalog_number,
            self.catalog_root,
            self.free_root,
            self.application_id,
            self.user_version,
        )
        return _seal(fields).ljust(page_size, b"\0")

    @classmethod
    def decode(cls, raw: bytes | bytearray | memoryview, where: str) -> Self:
        """The header in the first 512 bytes of `raw`; `where` names the file in errors.

        Raises CorruptDatabaseError: not a database, damaged; NotSupportedError: a newer format.
        """
        raw = bytes(raw[:HEADER_SIZE])
        if len(raw) < HEADER_SIZE and raw.startswith(_MAGIC_OF_ALL_FORMATS):
            raise CorruptDatabaseError(
                f"{where} is cut short: {len(raw)} bytes, expected a header of {HEADER_SIZE}"
            )
        if len(raw) < HEADER_SIZE or not raw.startswith(_MAGIC_OF_ALL_FORMATS):
            raise CorruptDatabaseError(
                f"{where} is not a database: it begins with {raw[:16]!r}, expected {_MAGIC!r}"
            )
        if raw[:16] == _MAGIC:
            _check(raw, f"header of {where}")
        fields = _FIELDS.unpack_from(raw)
        format_read = fields[1]
        if format_read > FORMAT_READ or fields[0] != _MAGIC:
            raise NotSupportedError(
                f"{where} has format {raw[13:16].rstrip(bytes(1))!r}, {format_read}; "
                f"this build reads up to format {FORMAT_READ}"
            )
        header = cls(fields[3], fields[4])
        header.format_read, header.format_write = fields[1:3]
        (
            header.page_count,
            header.commit,
            header.schema_number,
            header.catalog_number,
            header.catalog_root,
            header.free_root,
            header.application_id,
            header.user_version,
        ) = fields[5:]
        header._check_values(where)
        return header

    def _check_values(self, where: str) -> None:
        size = self.page_size
        if size & (size - 1) or not SMALLEST_PAGE_SIZE <= size <= LARGEST_PAGE_SIZE:
            raise CorruptDatabaseError(
                f"header of {where}: page size {size}, expected a power of two from "
                f"{SMALLEST_PAGE_SIZE} to {LARGEST_PAGE_SIZE}"
            )
        if not 1 <= self.page_count < 1 << 32:
            raise CorruptDatabaseError(
                f"header of {where}: {self.page_count} pages, expected 1 to 2**32 - 1"
            )
        if min(self.catalog_root, self.free_root) < 2 or self.catalog_root == self.free_root:
            raise CorruptDatabaseError(
                f"header of {where}: roots at pages {self.catalog_root} and {self.free_root}"
            )
        if max(self.commit, self.schema_number, self.catalog_number) > LARGEST_NUMBER:
            raise CorruptDatabaseError(
                f"header of {where}: commit {self.commit}, schema {self.schema_number}, catalog "
                f"{self.catalog_number}, expected at most {LARGEST_NUMBER}"
            )


class LogFlag:
    """Whether the file is whole only together with its log, and with which one (S4)."""

    __slots__ = ("generation", "needed", "salt")

    def __init__(self, needed: bool, salt: int = 0, generation: int = 0) -> None:
        self.needed = needed
        self.salt = salt
        self.generation = generation

    @classmethod
    def clear(cls) -> Self:
        """The flag of a file that is whole by itself."""
        return cls(False)

    @classmethod
    def needed_for(cls, salt: int, generation: int = 0) -> Self:
        """The flag of a file whose newest commits stand in a log."""
        return cls(True, salt, generation)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogFlag) and self.encode() == other.encode()

    def encode(self) -> bytes:
        """The flag's sector, to be written at FLAG_OFFSET of the file."""
        state = _NEEDED if self.needed else _CLEAR
        return _seal(_FLAG_FIELDS.pack(_FLAG_MAGIC, state, self.salt, self.generation))

    @classmethod
    def decode(cls, raw: bytes | bytearray | memoryview, where: str) -> Self:
        """The flag in a sector; zeros are clear.

        Raises CorruptDatabaseError for any other sector that `encode` does not make; what that
        means stands in the module's header.
        """
        raw = bytes(raw[:FLAG_SIZE])
        place = f"log flag of {where}"
        if len(raw) < FLAG_SIZE:
            raise CorruptDatabaseError(f"{place}: {len(raw)} bytes, expected {FLAG_SIZE}")
        if raw == bytes(FLAG_SIZE):
            return cls(False)
        _check(raw, place)
        magic, state, salt, generation = _FLAG_FIELDS.unpack_from(raw)
        if magic != _FLAG_MAGIC or state not in (_CLEAR, _NEEDED):
            raise CorruptDatabaseError(f"{place}: magic {magic!r}, state {state}")
        return cls(state == _NEEDED, salt, generation)


def is_newer_format(raw: bytes) -> bool:
    """Whether a header that `decode` refuses is whole, and of a later format, not damaged."""
    found = xxh3_64_intdigest(raw[:_CHECKED]) == _CHECKSUM.unpack_from(raw, _CHECKED)[0]
    return raw.startswith(_MAGIC_OF_ALL_FORMATS) and found


def _seal(fields: bytes) -> bytes:
    checked = fields.ljust(_CHECKED, b"\0")
    return checked + _CHECKSUM.pack(xxh3_64_intdigest(checked))


def _check(raw: bytes, place: str) -> None:
    found = xxh3_64_intdigest(raw[:_CHECKED])
    stored = _CHECKSUM.unpack_from(raw, _CHECKED)[0]
    if found != stored:
        raise CorruptDatabaseError(f"{place}: checksum {found:#018x}, expected {stored:#018x}")
