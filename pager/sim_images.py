"""Crash images: the disks that a power loss at one I/O point can leave.

For an operation that changes something, the images are of the state after it, in which it is one
of the pending changes; for a sync, of the state before it (it may have done all, some or nothing
of its work) and of the state after it. Each image is one choice of

    a version for each sector or page changed since the last sync of its file,
    a size for each file that changed its size,
    a table of names: each create, unlink and rename since the last sync of the folder done or not,
    a content for the shared-memory files, which nobody may trust.

Invariants
    SI1 What was synced is in every image.
    SI2 A sector of 512 bytes holds one version, whole.
    SI3 An image shares all pages with the run that it was taken from: it costs references only.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from m2mdb.pager.sim_disk import (
    PAGE,
    SECTOR,
    ZERO_PAGE,
    DiskFile,
    DiskState,
    Operation,
    Version,
    change_names,
)

Pages = dict[int, Version]
Choice = tuple[Pages, int]  # versions of the changed pages, size of the file
Names = dict[str, int]
Chooser = Callable[[int, DiskFile], Choice]

_MIXED_PAGES = 64  # pages of a file that are mixed sector by sector; others take one version


class Image:
    """A disk as found after a crash."""

    __slots__ = ("files", "label", "names", "point", "regions")

    def __init__(
        self,
        point: int,
        label: str,
        files: dict[int, DiskFile],
        names: Names,
        regions: dict[int, bytes],
    ) -> None:
        self.point = point
        self.label = label
        self.files = files
        self.names = names
        self.regions = regions

    def state(self) -> DiskState:
        """The disk for a machine that starts from this image; all of it is durable."""
        files = {n: DiskFile(file.pages.copy(), file.size) for n, file in self.files.items()}
        return DiskState(files, self.names.copy())

    def __repr__(self) -> str:
        return f"<Image at I/O point {self.point}: {self.label}>"


class Variant(NamedTuple):
    """One kind of image: how to choose versions, and what else it has."""

    label: str
    chooser: Chooser
    names: Names
    region: str  # stale, zeros or garbage


class Timeline:
    """The log of a run, and the disk at any point of it."""

    __slots__ = ("_cursor", "_done", "log", "start")

    def __init__(self, start: DiskState) -> None:
        self.start = start
        self.log: list[Operation] = []
        self._cursor = start.copy()
        self._done = 0

    def state_at(self, point: int) -> DiskState:
        """The disk after `point` operations; valid until the next call. Cheapest in order."""
        if point < self._done:
            self._cursor = self.start.copy()
            self._done = 0
        for operation in self.log[self._done : point]:
            self._cursor.apply(operation)
        self._done = point
        return self._cursor

    def crash_images(self, point: int, rng: Random, count: int) -> list[Image]:
        """Different disks that a crash during operation `point` can leave, at most `count`."""
        operation = self.log[point] if point < len(self.log) else None
        if operation is None or operation.kind in ("sync", "sync_dir", "failed_sync"):
            images = _images(self.state_at(point), point, None, rng, count)
            if operation is not None:
                images += _images(self.state_at(point + 1), point, None, rng, 2)
            return images
        return _images(self.state_at(point + 1), point, operation, rng, count)


def _images(
    state: DiskState, point: int, operation: Operation | None, rng: Random, count: int
) -> list[Image]:
    """Images of one state; the two extremes first, then a draw from the others."""
    variants = variants_of(state, operation, rng)
    if len(variants) > count:
        variants = variants[:2] + rng.sample(variants[2:], max(0, count - 2))
    images: list[Image] = []
    seen: set[int] = set()
    for variant in variants[:count]:
        chosen = {number: variant.chooser(number, file) for number, file in state.files.items()}
        signature = _signature(chosen, variant.names)
        if signature not in seen:
            seen.add(signature)
            images.append(_build(state, point, variant, chosen, rng))
    return images


def variants_of(state: DiskState, operation: Operation | None, rng: Random) -> list[Variant]:
    """Every kind of image that this state has."""
    durable, current = state.durable_names, state.names
    variants = [
        Variant("all lost", _lost, durable, rng.choice(("zeros", "garbage", "stale"))),
        Variant("all kept", _kept, current, "stale"),
    ]
    changed = any(file.history or len(file.sizes) > 1 for file in state.files.values())
    if operation is not None and operation.kind == "write":
        variants += _torn_variants(operation, current, rng)
    variants += _apart_variants(state)
    if state.pending_names:
        variants.append(Variant("names lost, data kept", _kept, durable, "stale"))
        variants.append(Variant("names kept, data lost", _lost, current, "garbage"))
        variants.append(Variant("some names", _kept, _some_names(state, rng), "zeros"))
    if not changed:
        return variants
    mixed = (
        ("random pages", _random_pages(rng)),
        ("random sectors", _random_sectors(rng)),
        ("files apart", _files_apart(rng)),
        ("random prefix", _prefix(rng)),
        ("one page lost", _one_page(state, rng, lost=True)),
        ("one page alone", _one_page(state, rng, lost=False)),
    )
    for label, chooser in mixed:
        names = _some_names(state, rng)
        variants.append(Variant(label, chooser, names, rng.choice(("stale", "garbage"))))
    if any(len(file.sizes) > 1 for file in state.files.values()):
        variants.append(Variant("grown, zeros", _grown(None), current, "zeros"))
        variants.append(Variant("grown, garbage", _grown((rng, state)), current, "zeros"))
        variants.append(Variant("garbage tail", _garbage_tail(rng, state), current, "stale"))
    return variants


def _apart_variants(state: DiskState) -> list[Variant]:
    """Each changed file lost while the others are kept, and kept while the others are lost.

    Syncs of one file say nothing of another: a missing one shows here, and not by chance.
    """
    changed = [n for n, file in state.files.items() if file.history or len(file.sizes) > 1]
    if len(changed) < 2:
        return []
    variants = []
    paths = {number: path for path, number in state.names.items()}
    for number in changed:
        end = paths.get(number, f"file {number}")[-4:]
        for label, one, others in (("lost", _lost, _kept), ("alone", _kept, _lost)):
            chooser = _apart(number, one, others)
            variants.append(Variant(f"{end} {label}", chooser, state.names, "stale"))
    return variants


def _apart(which: int, one: Chooser, others: Chooser) -> Chooser:
    def choose(number: int, file: DiskFile) -> Choice:
        return (one if number == which else others)(number, file)

    return choose


def _torn_variants(operation: Operation, names: Names, rng: Random) -> list[Variant]:
    """The operation in flight alone on the disk, or torn in two at a sector or a page."""
    variants = [Variant("last write only", _last_only(operation), names, "zeros")]
    for unit in (SECTOR, PAGE):
        first = operation.offset // unit + 1
        last = (operation.offset + len(operation.data) - 1) // unit
        if last >= first:
            cut = rng.randint(first, last) * unit
            for head in (True, False):
                label = f"torn at {cut}, {'head' if head else 'tail'} kept"
                variants.append(Variant(label, _torn(operation, cut, head=head), names, "stale"))
    return variants


def _lost(number: int, file: DiskFile) -> Choice:
    return {page: versions[0] for page, versions in file.history.items()}, file.sizes[0]


def _kept(number: int, file: DiskFile) -> Choice:
    return {page: versions[-1] for page, versions in file.history.items()}, file.size


def _random_pages(rng: Random) -> Chooser:
    def choose(number: int, file: DiskFile) -> Choice:
        pages = {page: rng.choice(versions) for page, versions in file.history.items()}
        return pages, rng.choice((file.size, rng.choice(file.sizes)))

    return choose


def _random_sectors(rng: Random) -> Chooser:
    def choose(number: int, file: DiskFile) -> Choice:
        pages: Pages = {}
        changed = list(file.history)
        mixed = set(rng.sample(changed, min(len(changed), _MIXED_PAGES)))
        for page, versions in file.history.items():
            pages[page] = _mix(versions, rng) if page in mixed else rng.choice(versions)
        return pages, rng.choice((file.size, rng.choice(file.sizes)))

    return choose


def _mix(versions: list[Version], rng: Random) -> bytes:
    """A page whose sectors stem from any of its versions (SI2)."""
    return b"".join(
        [
            (rng.choice(versions) or ZERO_PAGE)[start : start + SECTOR]
            for start in range(0, PAGE, SECTOR)
        ]
    )


def _files_apart(rng: Random) -> Chooser:
    def choose(number: int, file: DiskFile) -> Choice:
        return rng.choice((_lost, _kept))(number, file)

    return choose


def _prefix(rng: Random) -> Chooser:
    """Pages in the order of the file up to a random one, as a writeback in progress leaves them."""

    def choose(number: int, file: DiskFile) -> Choice:
        ordered = sorted(file.history)
        limit = rng.randint(0, len(ordered))
        done = set(ordered[:limit])
        pages = {page: v[-1 if page in done else 0] for page, v in file.history.items()}
        return pages, file.size if done else file.sizes[0]

    return choose


def _one_page(state: DiskState, rng: Random, *, lost: bool) -> Chooser:
    """All is kept but for one changed page, or lost but for one: the least that goes wrong."""
    changed = [(n, page) for n, file in state.files.items() for page in file.history]
    which = rng.choice(changed) if changed else (0, 0)

    def choose(number: int, file: DiskFile) -> Choice:
        pages, size = (_kept if lost else _lost)(number, file)
        if number == which[0]:
            page = which[1]
            pages[page] = file.history[page][0 if lost else -1]
            size = file.size
        return pages, size

    return choose


def _grown(garbage: tuple[Random, DiskState] | None) -> Chooser:
    """The new size is on the disk, the new content is not."""

    def choose(number: int, file: DiskFile) -> Choice:
        pages, base = _lost(number, file)
        if garbage is not None:
            for page in pages:
                if page * PAGE >= base:
                    pages[page] = _stale_page(*garbage)
        return pages, file.size

    return choose


def _garbage_tail(rng: Random, state: DiskState) -> Chooser:
    """The file has grown; its new sectors hold what was written, zeros or noise, each by itself."""

    def choose(number: int, file: DiskFile) -> Choice:
        pages, size = _kept(number, file)
        base = file.sizes[0]
        for page, version in pages.items():
            start = max(0, base - page * PAGE + SECTOR - 1) // SECTOR * SECTOR
            if start >= PAGE or base >= size:
                continue
            whole = version or ZERO_PAGE
            tail = (whole, ZERO_PAGE, _stale_page(rng, state))
            rest = [rng.choice(tail)[at : at + SECTOR] for at in range(start, PAGE, SECTOR)]
            pages[page] = whole[:start] + b"".join(rest)
        return pages, size

    return choose


def _stale_page(rng: Random, state: DiskState) -> bytes:
    """What a block that was never written may hold: noise, or an old page of any file."""
    file = rng.choice(list(state.files.values()))
    if file.pages and rng.random() < 0.5:
        return rng.choice(list(file.pages.values()))
    return rng.randbytes(PAGE)


def _last_only(operation: Operation) -> Chooser:
    """The last write has overtaken all others, also those to other sectors of its pages."""
    begin = operation.offset // SECTOR * SECTOR
    end = operation.offset + len(operation.data)
    end += -end % SECTOR

    def choose(number: int, file: DiskFile) -> Choice:
        pages, size = _lost(number, file)
        if number != operation.inode:
            return pages, size
        for page in range(begin // PAGE, (end + PAGE - 1) // PAGE):
            if page in file.history:
                first, last = max(begin - page * PAGE, 0), min(end - page * PAGE, PAGE)
                before = file.history[page][0] or ZERO_PAGE
                after = file.history[page][-1] or ZERO_PAGE
                pages[page] = before[:first] + after[first:last] + before[last:]
        return pages, file.size

    return choose


def _torn(operation: Operation, cut: int, *, head: bool) -> Chooser:
    """All earlier changes are kept; of the last write what lies before (or behind) `cut`."""
    end = operation.offset + len(operation.data)

    def choose(number: int, file: DiskFile) -> Choice:
        pages, size = _kept(number, file)
        if number != operation.inode:
            return pages, size
        for page in range(operation.offset // PAGE, (end + PAGE - 1) // PAGE):
            versions = file.history[page]
            before, after = versions[-2] or ZERO_PAGE, versions[-1] or ZERO_PAGE
            at = min(max(cut - page * PAGE, 0), PAGE)
            pages[page] = after[:at] + before[at:] if head else before[:at] + after[at:]
        return pages, size

    return choose


def _some_names(state: DiskState, rng: Random) -> Names:
    """The durable names, changed by a prefix or any subset of what is pending."""
    names = state.durable_names.copy()
    pending = state.pending_names
    if rng.random() < 0.5:
        chosen = pending[: rng.randint(0, len(pending))]
    else:
        chosen = [operation for operation in pending if rng.random() < 0.5]
    for operation in chosen:
        change_names(names, operation)
    return names


def _signature(chosen: dict[int, Choice], names: Names) -> int:
    """Equal for images of equal content."""
    live = set(names.values())
    return hash(
        (
            tuple(sorted(names.items())),
            tuple(
                (number, size, tuple(pages.items()))
                for number, (pages, size) in chosen.items()
                if number in live
            ),
        )
    )


def _build(
    state: DiskState, point: int, variant: Variant, chosen: dict[int, Choice], rng: Random
) -> Image:
    """Put the chosen versions together; a file without a name is gone."""
    files: dict[int, DiskFile] = {}
    regions: dict[int, bytes] = {}
    shared = dict(state.shared)
    for number in set(variant.names.values()):
        if number in shared:
            size = len(shared[number])
            other = rng.randbytes(size) if variant.region == "garbage" else bytes(size)
            regions[number] = shared[number] if variant.region == "stale" else other
        pages, size = chosen[number]
        files[number] = _compose(state.files[number], pages, size)
    return Image(point, variant.label, files, variant.names.copy(), regions)


def _compose(file: DiskFile, chosen: Pages, size: int) -> DiskFile:
    pages = file.pages.copy()
    for changes in (file.lost, chosen):
        for page, version in changes.items():
            if version is None:
                pages.pop(page, None)
            else:
                pages[page] = version
    if size < file.size or size < max(file.sizes):
        pages = {page: version for page, version in pages.items() if page * PAGE < size}
        page, rest = divmod(size, PAGE)
        if rest and page in pages:
            pages[page] = pages[page][:rest] + bytes(PAGE - rest)
    return DiskFile(pages, size)
