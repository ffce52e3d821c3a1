"""The database as one connection holds it: transactions, statements, and what is cached.

    idle --begin--> deferred --first read--> snapshot --first write--> writing
    idle --first write (autocommit off)----------------------------> writing
    writing --commit, rollback--> idle

Reading outside a transaction takes a snapshot for one statement. A writing statement is a layer of
its transaction and is undone whole by any exception (S12). Caches (catalog, opened segments, delta
mirrors, the last view) hold committed objects, and this transaction's own in its time (S15).

Invariants
    Q1  `_catalog` and mirrors without an owner describe commits that are durable or will be.
    Q2  After an exception the transaction catalog is the one of the statement's start, and no
        mirror keeps an entry of the statement.
    Q3  What an interrupt stopped half way in undoing is undone by the next use before anything
        else: `_undoing` says what, and every step of it may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from m2mdb.compute import backend as compute_backend
from m2mdb.index.audit import Audit
from m2mdb.index.catalog import Catalog, CollectionEntry, load_catalog
from m2mdb.index.delta import DeltaMirror
from m2mdb.index.encoder import Calling, Encoders, called, no_encoders
from m2mdb.index.moments import Moment, coming_moment, note_moment
from m2mdb.index.record import SEQUENCE
from m2mdb.index.scrubbing import Scrubs, after_commit, at_checkpoint, at_close
from m2mdb.index.view import View, WriteView
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import (
    OperationalError,
    ProgrammingError,
    StatementInterruptedError,
)
from m2mdb.wal.store import Store, StoreOptions

if TYPE_CHECKING:
    from m2mdb.index.residence import Budget
    from m2mdb.index.segment import Segment
    from m2mdb.index.text.analysis import Tokenizer
    from m2mdb.pager.vfs import Vfs
    from m2mdb.wal.snapshot import Snapshot
    from m2mdb.wal.transaction import Transaction


class Database:
    """One connection's database. Not for two threads at once: the connection serialises."""

    def __init__(self, store: Store, *, compute: str = "auto", autocommit: bool = False) -> None:
        """Use `Database.open`."""
        self.store = store
        self.autocommit = autocommit
        self.compute = compute
        self.author: str | None = None  # of commits, `PRAGMA author`
        self.noting = True  # commits have moments; not those of maintenance (MO3)
        self.total_changes = 0  # rows that the connection changed, as SQL's total_changes()
        self.changes = 0  # of the last statement that changes rows
        self.last_rowid = 0  # of the last row that a statement inserted
        self._explicit = self._began_by_savepoint = False  # BEGIN or SAVEPOINT was said
        self._snapshot: Snapshot | None = None  # of a deferred transaction that has read
        self._transaction: Transaction | None = None
        self._savepoints: list[tuple[str, int, Catalog]] = []
        self._undoing: _Undoing | None = None  # Q3
        self._catalog: Catalog | None = None
        self._own_catalog: Catalog | None = None
        self._mirrors: dict[int, DeltaMirror] = {}
        self.tokenizers: Mapping[str, Tokenizer] = {}  # the program's own, for FULLTEXT columns
        self.encoders: Encoders = no_encoders  # the program's own, for generated columns
        self.calling: Calling = called  # encoders, which must not use the connection meanwhile
        self.clock: Callable[[], float] | None = None  # the program's, see `now`
        # vectors of texts for the insertion that comes, by what they are in common (GE5)
        self.ahead: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.give_generated = False  # until the transaction ends, see `index.generated`
        self._view: View | None = None
        self._interrupted = False
        self._reading = Reading(self)
        self.scrubs = Scrubs()
        self.audit = Audit()
        self.budget: Budget | None = None  # PRAGMA memory_budget
        self.plans: dict[str, Any] = {}  # the query layer's prepared statements, by text
        self.extensions: Any = None  # the query layer's: what the program has added
        self.progress: Callable[[], object] | None = None  # asked at each check for an interrupt
        self.work: Callable[[str, int, int], object] | None = None  # told of `index.work`

    @classmethod
    def open(
        cls,
        vfs: Vfs,
        path: str,
        options: StoreOptions,
        *,
        compute: str = "auto",
        autocommit: bool = False,
    ) -> Database:
        """Open or create the database file; errors as `Store.open` raises them."""
        compute_backend.choose(compute)
        return cls(Store.open(vfs, path, options), compute=compute, autocommit=autocommit)

    # --------------------------------------------------------------- state

    @property
    def path(self) -> str:
        """The database file."""
        return self.store.path

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._explicit or self._transaction is not None

    @property
    def is_writing(self) -> bool:
        """Whether the open transaction holds the writer lock."""
        return self._transaction is not None

    @property
    def catalog_number(self) -> int:
        """The number of the catalog that this connection knows; -1: none yet."""
        return -1 if self._catalog is None else self._catalog.number

    @property
    def compute(self) -> str:
        """The name of the kernel backend."""
        return self._compute

    @compute.setter
    def compute(self, name: str) -> None:
        self.kernels = compute_backend.choose(name)
        self._compute = name

    def may_generate(self, name: str) -> bool:
        """Whether a collection had generated columns when this connection last looked."""
        if self._catalog is None:
            return True
        entry = self._catalog.by_name.get(name.lower())
        return entry is None or bool(entry.schema.generated_columns)

    def now(self) -> float:
        """What time statements have, seconds since 1970: by the program's clock or the Vfs's."""
        return self.store.vfs.now() if self.clock is None else self.clock()

    def keeps(self, pages: object) -> bool:
        """Whether an open transaction reads these pages, not a statement alone."""
        return pages is self._snapshot or pages is self._transaction

    def interrupt(self) -> None:
        """Stop the running statement at its next check; from any thread."""
        self._interrupted = True

    def forget_interrupt(self) -> None:
        """A statement begins: an `interrupt()` that came before it is not meant for it."""
        self._interrupted = False

    def check_interrupted(self) -> None:
        """Raise StatementInterruptedError once after `interrupt()`, or where `progress` says so."""
        if self._interrupted:
            self._interrupted = False
            raise StatementInterruptedError("the statement was interrupted")
        if self.progress is not None and self.progress():
            raise StatementInterruptedError("the statement was interrupted by its progress handler")

    # --------------------------------------------------------------- transactions

    def begin(self, mode: str = "deferred") -> None:
        """Open a transaction; immediate and exclusive take the writer lock at once."""
        self.settle()
        if self.in_transaction:
            raise ProgrammingError("cannot start a transaction within a transaction")
        if mode != "deferred":
            self._start_writing()
        self._explicit = True

    def commit(self) -> None:
        """Make the transaction durable as `synchronous` says; without one, nothing happens."""
        self.settle()
        moment = coming_moment(self, self._transaction)
        self.settle()  # the program's clock may have used the connection
        self.commit_settled(moment)

    def commit_settled(self, moment: Moment | None) -> None:
        """Commit where no statement is left to be undone; `moment` is `coming_moment`."""
        transaction = self._transaction
        if transaction is None:
            self._end()
            return
        try:
            note_moment(self, transaction, moment)
            self._adopt(transaction, transaction.commit_now())
        except BaseException:
            # S12: before the commit frame it was rolled back, after it the store is poisoned
            self.rollback()
            raise
        self._end()
        after_commit(self)

    def rollback(self) -> None:
        """Undo the transaction; without one, nothing happens."""
        transaction = self._transaction or self.store.open_transaction()
        if transaction is not None:
            self._drop_own(transaction)
            transaction.rollback()
        self._end()

    def settle(self) -> None:
        """Finish the undoing that an interrupt has stopped (Q3)."""
        undoing = self._undoing
        if undoing is None:
            if self._transaction is not self.store.open_transaction():
                self.rollback()  # one of the two was let go, the other was not
            return
        transaction = undoing.transaction
        if transaction is self._transaction:
            if transaction.is_open:
                undoing.undo(undoing.token)
            self._own_catalog = undoing.catalog
            self._drop_own(transaction)
            if undoing.ends or not transaction.is_open:
                self.rollback()
        self._undoing = None

    def _adopt(self, transaction: Transaction, commit: int) -> None:
        """What the transaction made is committed now (Q1)."""
        if self._own_catalog is not None:
            self._catalog = self._own_catalog
        for mirror in self._mirrors.values():
            if mirror.owner is transaction:
                mirror.owner = None
            if mirror.commit == transaction.commit:
                mirror.commit = commit
        self._view = None

    def _drop_own(self, transaction: object) -> None:
        """Forget what belongs to an undone statement or transaction (D2)."""
        self._view = None
        for id_, mirror in list(self._mirrors.items()):
            if mirror.owner is transaction or not mirror.intact:
                del self._mirrors[id_]

    def _end(self) -> None:
        self._transaction = self._own_catalog = self._undoing = None
        self._savepoints = []
        self._explicit = self._began_by_savepoint = self.give_generated = False
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            snapshot.close()

    def _start_writing(self) -> Transaction:
        """S13: a transaction that has read before may be refused as stale, another one not."""
        snapshot = self._snapshot
        try:
            if snapshot is not None:
                self._transaction = self.store.upgrade(snapshot)
                self._snapshot = None
                snapshot.close()
            else:
                self._transaction = self.store.begin_write()
            self._own_catalog = None
            return self._transaction
        except BaseException:
            stray = self.store.open_transaction()
            if stray is not None:
                self._transaction = None
                stray.rollback()
            raise

    # --------------------------------------------------------------- savepoints

    def savepoint(self, name: str) -> None:
        """Mark a point to go back to; outside a transaction it begins one."""
        self.settle()
        begins = not self.in_transaction
        transaction = self._transaction or self._start_writing()
        self._began_by_savepoint = begins or self._began_by_savepoint
        self._explicit = True
        token = transaction.savepoint()
        self._savepoints.append((name.lower(), token, self._catalog_of(transaction)))

    def release(self, name: str) -> None:
        """Forget a savepoint and those after it; the outermost one of its own transaction commits.

        Raises ProgrammingError: no such savepoint.
        """
        self.settle()
        at = self._savepoint(name)
        assert self._transaction is not None
        self._transaction.release(self._savepoints[at][1])
        del self._savepoints[at:]
        if not at and self._began_by_savepoint:
            self.commit()

    def rollback_to(self, name: str) -> None:
        """Undo everything since the savepoint, which stays."""
        self.settle()
        at = self._savepoint(name)
        transaction = self._transaction
        assert transaction is not None
        _, token, catalog = self._savepoints[at]
        del self._savepoints[at + 1 :]
        self._undoing = _Undoing(transaction, transaction.rollback_to, token, catalog)
        self.settle()

    def _savepoint(self, name: str) -> int:
        for at in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[at][0] == name.lower():
                return at
        raise ProgrammingError(f"no such savepoint: {name}")

    # --------------------------------------------------------------- statements

    def reading(self) -> Reading:
        """A context manager that gives the View for one reading statement."""
        return self._reading if self._reading.depth == 0 else Reading(self)

    def writing(self) -> Writing:
        """A context manager that gives the WriteView for one atomic statement."""
        return Writing(self)

    def current_view(self) -> tuple[View, Snapshot | None]:
        """The view of the open transaction, or of a new snapshot, which the caller closes."""
        if self._undoing is None or not self._undoing.is_inside:
            self.settle()
        transaction = self._transaction
        if transaction is not None:
            return View(self, transaction, self._catalog_of(transaction)), None
        if self._explicit:
            if self._snapshot is None:
                self._snapshot = self.store.begin_read()
            return self._view_at(self._snapshot), None
        snapshot = self.store.begin_read()
        try:
            return self._view_at(snapshot), snapshot
        except BaseException:
            snapshot.close()
            raise

    def newest_view(self) -> View | None:
        """The view that the next statement reads if no commit comes; None in a transaction."""
        if self._explicit or self._transaction is not None or self._undoing is not None:
            return None
        return self._view if self.store.open_transaction() is None else None

    def lasting_view(self) -> tuple[View, Snapshot | None]:
        """A view for longer than a statement, and its snapshot, which the caller closes.

        Without a snapshot it is the open transaction's, and ends with it.
        """
        self.settle()
        if self._transaction is not None:
            return View(self, self._transaction, self._catalog_of(self._transaction)), None
        snapshot = self._snapshot or self.store.begin_read()
        own: Snapshot | None = snapshot
        if self._explicit:
            self._snapshot, own = snapshot, None
        try:
            return View(self, snapshot, self._catalog_at(snapshot)), own
        except BaseException:
            if own is not None:
                own.close()
            raise

    def _view_at(self, snapshot: Snapshot) -> View:
        view = self._view
        if view is not None and view.commit == snapshot.commit:
            view.pages = snapshot
            return view
        view = View(self, snapshot, self._catalog_at(snapshot))
        self._view = view
        return view

    def _catalog_at(self, pages: Snapshot | Transaction) -> Catalog:
        header = pages.header()
        known = self._catalog
        if known is not None and known.number == header.catalog_number:
            return known
        numbers = (header.catalog_number, header.schema_number)
        catalog = load_catalog(BTree(pages, header.catalog_root), numbers, self.path, known)
        if known is None or known.number < catalog.number:
            self._catalog = catalog
        return catalog

    def _catalog_of(self, transaction: Transaction) -> Catalog:
        if self._own_catalog is None:
            self._own_catalog = self._catalog_at(transaction)
        return self._own_catalog

    def transaction_catalog(self) -> Catalog:
        """The catalog as the open transaction sees it."""
        assert self._transaction is not None
        return self._catalog_of(self._transaction)

    def set_transaction_catalog(self, catalog: Catalog) -> None:
        """The open transaction changed the catalog."""
        self._own_catalog = catalog

    # --------------------------------------------------------------- mirrors

    def mirror_for(self, entry: CollectionEntry, view: View) -> tuple[DeltaMirror, int]:
        """The mirror of a collection's delta, and the end that the view sees."""
        transaction = self._transaction if view.pages is self._transaction else None
        mirror = self._mirrors.get(entry.id)
        if mirror is None or not self._fits(mirror, entry, transaction):
            mirror = self._replace_mirror(mirror, entry, view, transaction)
        if mirror.commit < view.commit:
            mirror.read(BTree(view.pages, entry.delta_root), entry.schema.name)
            mirror.commit = view.commit
        elif mirror.commit > view.commit:
            last = BTree(view.pages, entry.delta_root).last()
            end = mirror.base if last is None else SEQUENCE.unpack(last[0])[0] + 1
            return mirror, end
        return mirror, mirror.end

    def _fits(
        self, mirror: DeltaMirror, entry: CollectionEntry, transaction: Transaction | None
    ) -> bool:
        return (
            mirror.intact
            and mirror.base == entry.base_sequence
            and mirror.schema is entry.schema
            and (mirror.owner is None or mirror.owner is transaction)
        )

    def _replace_mirror(
        self,
        old: DeltaMirror | None,
        entry: CollectionEntry,
        view: View,
        transaction: Transaction | None,
    ) -> DeltaMirror:
        """A mirror of the log generation that the view sees; kept unless a newer one is held."""
        owner = transaction if transaction is not None and transaction.changed else None
        if old is not None and old.intact and old.owner is None and old.commit > view.commit:
            return self._mirror_of(entry)
        return self.new_mirror(entry, owner)

    def _mirror_of(self, entry: CollectionEntry) -> DeltaMirror:
        return DeltaMirror(entry.schema, entry.base_sequence, entry.next_rowid, self.tokenizers)

    def new_mirror(self, entry: CollectionEntry, owner: Transaction | None) -> DeltaMirror:
        """An empty mirror, kept as the collection's; it has read nothing yet."""
        mirror = self._mirror_of(entry)
        mirror.owner = owner
        if owner is not None:
            mirror.commit = -1
        self._mirrors[entry.id] = mirror
        return mirror

    # --------------------------------------------------------------- settings

    def opened_segments(self) -> Iterator[Segment]:
        """The segments of all collections that this connection has opened."""
        if self._catalog is not None:
            for entry in self._catalog.by_id.values():
                yield from entry.segments.values()

    def header_value(self, name: str) -> int:
        """`user_version` or `application_id`."""
        with self.reading() as view:
            return int(getattr(view.header(), name))

    def set_header_value(self, name: str, value: int) -> None:
        """Write `user_version` or `application_id` in a statement of its own."""
        with self.writing() as write:
            setattr(write.transaction.change_header(), name, value)

    def checkpoint(self, mode: str = "passive", grace: float | None = None) -> tuple[int, int, int]:
        """(busy, frames in the log, frames copied); OperationalError inside a transaction."""
        if self._transaction is not None:
            raise OperationalError("cannot checkpoint inside a transaction")
        result = self.store.checkpoint(mode, grace)
        at_checkpoint(self)
        return result

    def close(self) -> None:
        """Roll back what is open and close the file."""
        try:
            if not self.store.closed:
                self.rollback()
                at_close(self)
        finally:
            self._mirrors.clear()
            self._view = self._catalog = None
            self.store.close()


class Reading:
    """One reading statement: `with database.reading() as view`."""

    __slots__ = ("_database", "_snapshot", "depth")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._snapshot: Snapshot | None = None
        self.depth = 0

    def __enter__(self) -> View:
        self.depth += 1
        try:
            view, self._snapshot = self._database.current_view()
        except BaseException:
            self.depth -= 1
            raise
        return view

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.depth -= 1
        snapshot = self._snapshot
        if snapshot is not None:
            try:
                snapshot.close()
            except BaseException:
                snapshot.close()  # an interrupt: closing may be repeated
                raise
            self._snapshot = None
        if self._database.budget is not None:
            self._database.budget.after_statement()


class _Undoing:
    """How a statement or a savepoint is undone, for as long as that may become necessary."""

    __slots__ = ("catalog", "ends", "is_inside", "token", "transaction", "undo")

    def __init__(
        self,
        transaction: Transaction,
        undo: Callable[[int], None],
        token: int,
        catalog: Catalog,
        ends: bool = False,
    ) -> None:
        """`ends`: the transaction began with the statement and ends with it when it is undone."""
        self.transaction = transaction
        self.undo = undo
        self.token = token
        self.catalog = catalog
        self.ends = ends
        self.is_inside = False  # the statement is running, and may read what it wrote


class Writing:
    """One writing statement, undone whole by any exception (S12)."""

    __slots__ = ("_database", "_undoing")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> WriteView:
        database = self._database
        database.settle()
        started = database._transaction is None and not database._explicit
        try:
            if database._transaction is None and database.store.read_only:
                raise OperationalError(f"{database.path} is open for reading only")
            transaction = database._transaction or database._start_writing()
            catalog = database._catalog_of(transaction)
            token = transaction.begin_statement()
            undoing = _Undoing(transaction, transaction.undo_statement, token, catalog, started)
            view = WriteView(database, transaction, catalog)
            self._undoing = database._undoing = undoing
        except BaseException:
            if started:
                database.rollback()
            raise
        undoing.is_inside = True
        return view

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        database, undoing = self._database, self._undoing
        commits = database.autocommit and not database._explicit
        try:
            moment = coming_moment(database, undoing.transaction) if commits and not kind else None
            undoing.is_inside = False  # no sooner: the program's clock may have read
            if kind is not None:
                database.settle()
                return
            undoing.transaction.end_statement(undoing.token)
            if commits:
                database.commit_settled(moment)
            else:
                database._undoing = None
        except BaseException:
            undoing.is_inside = False
            database.settle()
            raise
