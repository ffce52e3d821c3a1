"""Steps: what a call or a load touches, and which steps commute.

A step is a list of accesses (object, class). Two accesses of an object commute where both are of
the same class and that is READ or ADD; two steps commute where all their accesses do.

    READ   sees                     reads commute with reads
    ADD    adds to what is summed   writes of one file, as to a later sync of that file
    WRITE  changes                  commutes with nothing

Objects are ranges small enough that what is apart is seen to be: sectors of the header, pages,
frames, words and marks of -shm, locks, names, sizes.
"""

from __future__ import annotations

from functools import cache

from m2mdb.wal.locks import BASE
from m2mdb.wal.shared import MARK_COUNT, MARK_SIZE, MARKS

READ, ADD, WRITE = 0, 1, 2

_PAGE = 4096
_FRAME = 32 + _PAGE
_LOG_HEADER = 512
_MOST_FRAMES = 32  # the frames from here on are one object
_MESSAGES = (232, 248)  # the words that tell who writes and who checkpoints: for messages only
_FIELDS = (64, 128, 192, 224, 232, 248, 256, 264, 272, MARKS)

Access = tuple[int, int]

_numbers: dict[tuple[object, ...], int] = {}


def _object(*name: object) -> int:
    """A number for an object; the same in every run of one process."""
    return _numbers.setdefault(name, len(_numbers))


class Step:
    """What one step is, and touches."""

    __slots__ = ("accesses", "changes", "kind", "offset", "path", "size")

    def __init__(self, kind: str, path: str, offset: int, size: int) -> None:
        self.kind = kind
        self.path = path
        self.offset = offset
        self.size = size
        self.accesses: tuple[Access, ...] = ()
        self.changes = False

    def __repr__(self) -> str:
        at = self.offset - BASE if self.offset >= BASE else self.offset
        return f"{self.kind} {self.path.rpartition('/')[2]} {at}+{self.size}"


@cache
def step_of(kind: str, path: str, offset: int, size: int, *, grows: bool) -> Step:
    """The step that a call is; `grows`: a write makes its file longer."""
    step = Step(kind, path, offset, size)
    if path == "-shm":
        found = _shared(kind, offset, size)
    else:
        found = _call(kind, path, offset, size, grows)
    step.accesses = tuple(dict.fromkeys(found))
    step.changes = any(how != READ for _, how in step.accesses)
    return step


@cache
def release_of(kind: str, path: str, offsets: frozenset[int]) -> Step:
    """The step that gives up the locks at all these offsets: a close, or a death."""
    step = Step(kind, path, 0, 0)
    found = [(_object("lock", path, offset), WRITE) for offset in sorted(offsets)]
    step.accesses = tuple(found)
    step.changes = True
    return step


def _shared(kind: str, offset: int, size: int) -> list[Access]:
    how = READ if kind == "load" else WRITE
    if size > MARKS:  # all of it is filled anew
        return [(_object("shm", field), how) for field in _FIELDS] + _marks(range(MARK_COUNT), how)
    if offset >= MARKS:
        if size > MARK_SIZE:
            return [(_object("marks"), READ)]
        return _marks([(offset - MARKS) // MARK_SIZE], how)
    if _MESSAGES[0] <= offset < _MESSAGES[1]:
        return []
    ends = (*_FIELDS[1:], MARKS)
    return [
        (_object("shm", field), how)
        for field, end in zip(_FIELDS, ends, strict=True)
        if field < offset + size and offset < end
    ]


def _marks(slots: range | list[int], how: int) -> list[Access]:
    found = [(_object("mark", slot), how) for slot in slots]
    return found if how == READ else [*found, (_object("marks"), ADD)]


def _call(kind: str, path: str, offset: int, size: int, grows: bool) -> list[Access]:
    if kind in ("lock", "unlock"):
        return [(_object("lock", path, offset), WRITE)]
    if kind in ("open", "exists", "identity", "share"):
        return [(_object("name", path), READ)]
    if kind in ("create", "unlink", "rename"):
        return [(_object("name", path), WRITE), (_object("folder"), ADD)]
    if kind == "sync_dir":
        return [(_object("folder"), WRITE)]
    if kind == "size":
        return [(_object("size", path), READ)]
    if kind == "sync":
        return [(_object("sync", path), WRITE)]
    if kind in ("read", "map"):
        return [*_range(path, offset, size, READ), (_object("all", path), ADD)]
    if kind == "write":
        found = [(_object("sync", path), ADD), (_object("all", path), ADD)]
        found += _range(path, offset, size, WRITE)
        return [*found, (_object("size", path), WRITE)] if grows else found
    if kind == "allocate":
        return [(_object("sync", path), ADD), (_object("size", path), WRITE)]
    if kind == "truncate":
        return [(_object(what, path), WRITE) for what in ("sync", "all", "size")]
    return []


def _range(path: str, offset: int, size: int, how: int) -> list[Access]:
    last = offset + max(size, 1) - 1
    if path.endswith("-wal"):
        found = [(_object("log header", path), how)] if offset < _LOG_HEADER else []
        if last >= _LOG_HEADER:
            first = max(offset - _LOG_HEADER, 0) // _FRAME
            end = min((last - _LOG_HEADER) // _FRAME, _MOST_FRAMES)
            frames = range(min(first, _MOST_FRAMES), end + 1)
            found += [(_object("frame", path, frame), how) for frame in frames]
        # the end of the file shows in a read that reaches it
        return [*found, (_object("size", path), READ)] if how == READ else found
    found = []
    if offset < _PAGE:
        sectors = range(offset // 512, min(last, _PAGE - 1) // 512 + 1)
        found = [(_object("sector", path, sector), how) for sector in sectors]
    pages = range(max(offset // _PAGE, 1), last // _PAGE + 1)
    return found + [(_object("page", path, page), how) for page in pages]
