"""Options: how a store is opened."""

from __future__ import annotations

from m2mdb.pager.errors import ProgrammingError
from m2mdb.pager.limits import FORMAT, UNTRUSTED, Limits

SYNCHRONOUS = ("full", "normal", "off")
PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
CACHE_BYTES = 32 << 20  # decoded pages: the trees of some 100,000 rows
AUTOCHECKPOINT = 1000  # frames, about 4 MiB of 4 KiB pages


class StoreOptions:
    """What `Store.open` is asked for.

    read_only           no write is possible; the file must be there
    create              make the file where there is none
    immutable           nobody writes the file: no locks, no marks, a left-over log is applied in
                        memory (S6); implies read_only
    no_lock             take no locks; the caller promises to be alone (S29)
    page_size           bytes of a page of a new file
    timeout             seconds to wait for another connection's lock
    synchronous         "full" (durable at commit), "normal" (at checkpoints) or "off" (S7)
    wal_autocheckpoint  frames in the log after which a commit checkpoints; 0 never does
    cache_bytes         decoded pages that are kept, about
    untrusted           the file came from someone else: no map, tighter limits; it must be there
    """

    __slots__ = (
        "cache_bytes",
        "create",
        "immutable",
        "no_lock",
        "page_size",
        "read_only",
        "synchronous",
        "timeout",
        "untrusted",
        "wal_autocheckpoint",
    )

    def __init__(
        self,
        *,
        read_only: bool = False,
        create: bool = False,
        immutable: bool = False,
        no_lock: bool = False,
        page_size: int = 4096,
        timeout: float = 5.0,
        synchronous: str = "full",
        wal_autocheckpoint: int = AUTOCHECKPOINT,
        cache_bytes: int = CACHE_BYTES,
        untrusted: bool = False,
    ) -> None:
        if synchronous not in SYNCHRONOUS:
            raise ProgrammingError(f"synchronous {synchronous!r} is not one of {SYNCHRONOUS}")
        if page_size not in PAGE_SIZES:
            raise ProgrammingError(f"page_size {page_size!r} is not one of {PAGE_SIZES}")
        self.read_only = read_only or immutable
        self.create = create and not self.read_only and not untrusted
        self.untrusted = untrusted
        self.immutable = immutable
        self.no_lock = no_lock
        self.page_size = page_size
        self.timeout = timeout
        self.synchronous = synchronous
        self.wal_autocheckpoint = wal_autocheckpoint
        self.cache_bytes = cache_bytes

    @property
    def limits(self) -> Limits:
        """What the file, and statements on it, may ask for."""
        return UNTRUSTED if self.untrusted else FORMAT
