"""A book of a site's, read for who looks at it again and again."""

import threading

from client.book import Book
from client.home import SiteHome
from client.privacy.statement import Snapshot


class Reader:
    """A book's entries, read and held against their hashes anew where there are others."""

    def __init__(self, home: SiteHome, kind: type[Book]) -> None:
        self._home, self._kind = home, kind
        self._mark: tuple[bytes, int] | None = None
        self._found = Snapshot()
        self._lock = threading.Lock()

    def read(self) -> Snapshot:
        """Empty where there is none yet. LedgerError where it does not hold."""
        with self._lock:
            book = self._kind(self._home.state, site=self._home.config.name)
            mark = (book.head.read_bytes(), book.path.stat().st_size) if book.head.exists() and book.path.exists() else None
            if mark is None or mark != self._mark:
                known = self._kind.existing(self._home.state, site=self._home.config.name)
                entries = known.entries() if known else ()
                self._found, self._mark = Snapshot(entries=entries, parsed=tuple(map(book.event, entries))), mark
            return self._found
