"""An append-only book that a site keeps: a chain of hashed entries in SQLite, and the newest hash in a file of its own beside it.

The chain finds any entry that was changed; the file beside it, entries that are gone and a book put back to what it was. Who can write
both can forge both: keep the newest hash elsewhere too.
"""

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar, Self

from client.chain import START, Entry, Event, Head, Kinds, Opened, checked, following, parse
from rainhill.errors import LedgerError
from rainhill.files import alone, write_whole
from rainhill.text import shown

WAIT_S = 30.0
"""For another process to finish its own append."""
_ROOM = 32 * 1024
"""Bytes of the index that SQLite keeps beside a database that is open."""
_TABLE = (
    "CREATE TABLE entries (seq INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, hash TEXT NOT NULL) STRICT"
)
_FORBIDDEN = {
    "no_update": "UPDATE ON entries",
    "no_delete": "DELETE ON entries",
    # INSERT OR REPLACE deletes what it replaces, unseen by the trigger on DELETE.
    "no_replace": "INSERT ON entries WHEN NEW.seq IN (SELECT seq FROM entries)",
}


class Book:
    """Appends and reads; every call opens and closes the file by itself, so it is safe over threads, forks and processes.

    A kind of book is a subclass that says what follows.
    """

    stem: ClassVar[str]
    """What errors call it, and its files: STEM.sqlite, STEM.head and STEM.lock."""
    first: ClassVar[type[Opened]]
    """Its first event."""
    kinds: ClassVar[Kinds]
    """Of all its events, the first too."""
    traces: ClassVar[tuple[str, ...]]
    """Files or folders beside it that only what is written in it brings about."""
    lost: ClassVar[str]
    """What an error says of a book that is gone though some of its `{traces}` are there."""

    def __init__(self, folder: Path, *, site: str) -> None:
        """Looks at nothing yet: `open` does."""
        self.path = folder / f"{self.stem}.sqlite"
        self.head = folder / f"{self.stem}.head"
        self.site = site

    @classmethod
    def open(cls, folder: Path, *, site: str) -> Self:
        """The book in this folder, verified, or a new one where there is none. Raises LedgerError; another site's is refused by name."""
        book = cls(folder, site=site)
        if not book.head.exists() or book._read_head().seq == 0:
            book._refuse_lost()
            book._create()
        book.verify()
        return book

    @classmethod
    def existing(cls, folder: Path, *, site: str) -> Self | None:
        """As `open`, but None where there is none: looking at one does not make one."""
        book = cls(folder, site=site)
        book._refuse_lost()
        return cls.open(folder, site=site) if book.path.exists() or book.head.exists() else None

    def append(self, *events: Event) -> tuple[Entry, ...]:
        """All of them or none; on disk when this returns. Raises LedgerError, also where only the head could not be written after them."""
        with self._opened("cannot be written") as connection, _transaction(connection):
            added = self._insert(connection, events)
        self._update_head()
        return added

    def entries(self) -> tuple[Entry, ...]:
        """All, verified. Raises LedgerError with the first that does not hold, and both hashes."""
        # The head first, since another process may append while the entries are read.
        head, last, found = self._read_head(), START, []
        if not self.path.exists():
            self._refuse_unlike(head, last)
        with self._opened("cannot be read", reading=True) as connection:
            for entry in self._rows(connection):
                last = self._next(last, entry)
                if last.seq == head.seq:
                    self._refuse_unlike(head, last)
                found.append(entry)
        if last.seq < head.seq:
            self._refuse_unlike(head, last)
        return tuple(found)

    def verify(self) -> int:
        """How many entries hold; raises LedgerError as `entries` does."""
        return len(self.entries())

    def events(self) -> tuple[Event, ...]:
        return tuple(self.event(entry) for entry in self.entries())

    def event(self, entry: Entry) -> Event:
        """Raises LedgerError where it is of a kind or a version that is not known."""
        try:
            return parse(entry.kind, entry.body, self.kinds)
        except LedgerError as error:
            raise LedgerError(f"{self.path}: entry {entry.seq}: {error}") from error

    def _refuse_lost(self) -> None:
        """Raises LedgerError where the book is not there, but what it brought about."""
        traces = [name for name in self.traces if (self.path.parent / name).exists()]
        if traces and not self.path.exists():
            raise LedgerError(f"{self.path}: {self.lost.format(traces=' and '.join(traces))}")

    def _next(self, last: Head, entry: Entry) -> Head:
        try:
            head = checked(last, entry)
        except LedgerError as error:
            raise LedgerError(f"{self.path}: {error}") from error
        if entry.seq == 1:
            self._refuse_other_site(self.event(entry))
        return head

    def _refuse_unlike(self, head: Head, last: Head) -> None:
        if head != last:
            raise LedgerError(
                f"{self.path}: {self.head.name} knows entry {head.seq} with hash {head.hash}, but there is entry {last.seq} with hash "
                f"{last.hash}: entries are gone, or another {self.stem} was put in its place"
            )

    def _refuse_other_site(self, first: Event) -> None:
        if not isinstance(first, self.first):
            raise LedgerError(f"{self.path}: entry 1 is {first.kind!r}, not {self.first.kind!r}")
        if first.site != self.site:
            raise LedgerError(f"{self.path}: is the {self.stem} of {first.site!r}, not of {self.site!r}")

    def _create(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # SQLite does not wait for its lock while the journal mode is changed.
            with alone(self.path.with_name(f"{self.stem}.lock")):
                if not self.path.exists():
                    # SQLite gives the files that it adds the same rights. A descriptor of a file that another thread may have open in
                    # SQLite is never to be closed: that drops all POSIX locks of the process on it, SQLite's own too.
                    os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                self._write_first()
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be created: {error.strerror}") from error

    def _write_first(self) -> None:
        with self._opened("cannot be created") as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            with _transaction(connection):
                if connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                    return  # Another process was faster, or the head is gone: then `verify` says so.
                self._write_head(START)
                connection.execute(_TABLE)
                for name, what in _FORBIDDEN.items():
                    connection.execute(f"CREATE TRIGGER {name} BEFORE {what} BEGIN SELECT RAISE(ABORT, 'an entry is written once'); END")
                self._insert(connection, (self.first(site=self.site),))
        self._update_head()

    def _insert(self, connection: sqlite3.Connection, events: Sequence[Event]) -> tuple[Entry, ...]:
        last, head = _newest(connection), self._read_head()
        row = connection.execute("SELECT hash FROM entries WHERE seq = ?", (head.seq,)).fetchone()
        if head != START and (row is None or row[0] != head.hash):
            self._refuse_unlike(head, last)
        added = []
        for event in events:
            entry = following(last, event)
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (entry.seq, entry.time, entry.kind, entry.body, entry.hash))
            added.append(entry)
            last = entry.head
        return tuple(added)

    def _update_head(self) -> None:
        """After the commit: a head behind the entries is what a crash leaves, one ahead of them is not."""
        # Within the lock, so that of two processes none puts back what the other wrote.
        with self._opened(f"is written, but {self.head.name} cannot be") as connection, _transaction(connection):
            self._write_head(_newest(connection))

    def _write_head(self, head: Head) -> None:
        try:
            write_whole(self.head, json.dumps({"seq": head.seq, "hash": head.hash}).encode(), private=True)
        except OSError as error:
            raise LedgerError(f"{self.head}: cannot be written: {error.strerror}") from error

    def _read_head(self) -> Head:
        try:
            found = json.loads(self.head.read_bytes())
            head = Head(seq=int(found["seq"]), hash=str(found["hash"]))
        except OSError as error:
            raise LedgerError(f"{self.head}: cannot be read: {error.strerror}, so it cannot be told whether entries are gone") from error
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{self.head}: holds no seq and hash, so it cannot be told whether entries are gone") from error
        if head.seq < 0 or (head.seq == 0 and head != START):
            raise LedgerError(f"{self.head}: knows entry {head.seq} with hash {shown(head.hash)!r}, which no {self.stem} has")
        return head

    def _rows(self, connection: sqlite3.Connection) -> Iterator[Entry]:
        seq = 0
        try:
            for seq, time, kind, body, hashed in connection.execute("SELECT seq, time, kind, body, hash FROM entries ORDER BY seq"):
                yield Entry(seq=seq, time=time, kind=kind, body=body, hash=hashed)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: entry {seq + 1} cannot be read: {error}") from error

    def _can_be_written(self) -> bool:
        """A full disk or a folder without the right to write lets a book be looked at, and nobody else add to it meanwhile.

        Tried beforehand, because SQLite leaves empty files beside a database that it could not open.
        """
        try:
            with tempfile.NamedTemporaryFile(dir=self.path.parent) as file:
                file.write(b"\0" * _ROOM)
            return True
        except OSError:
            return False

    @contextmanager
    def _opened(self, failing: str, *, reading: bool = False) -> Iterator[sqlite3.Connection]:
        """`failing` is what an error says of the book. Reading does without a file beside it where none can be made."""
        still = reading and not self._can_be_written()
        wal = self.path.with_name(f"{self.path.name}-wal")
        if still and wal.exists():
            raise LedgerError(
                f"{self.path}: {failing}: its newest entries are in {wal.name}, which is merged where the folder can be written"
            )
        try:
            # Not created where it is missing: that would hide that it is gone.
            uri = f"{self.path.absolute().as_uri()}?{'immutable=1' if still else 'mode=rw'}"
            with closing(sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None)) as connection:
                connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {failing}: {error}") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One writer at a time, of all processes; nothing stays of it where it is left by an exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _newest(connection: sqlite3.Connection) -> Head:
    row = connection.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    return Head(seq=row[0], hash=row[1]) if row else START
