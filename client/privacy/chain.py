"""A chain of entries: each is hashed together with the hash before it, so none is changed without all after it."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from client.privacy.events import Event, parse
from rainhill.errors import LedgerError
from rainhill.text import shown


@dataclass(frozen=True, kw_only=True)
class Entry:
    seq: int
    """From 1, without gaps."""
    time: str
    """ISO 8601, UTC."""
    kind: str
    body: str
    """Canonical JSON."""
    hash: str
    """sha256 over the hash before it and everything above."""

    @property
    def event(self) -> Event:
        return parse(self.kind, self.body)

    @property
    def head(self) -> "Head":
        return Head(seq=self.seq, hash=self.hash)


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where a chain ends."""

    seq: int
    hash: str


START = Head(seq=0, hash="0" * 64)
"""Before the first entry."""


def following(last: Head, event: Event) -> Entry:
    """The entry that an event of now becomes."""
    seq, time, body = last.seq + 1, datetime.now(UTC).isoformat(timespec="milliseconds"), event.body()
    return Entry(seq=seq, time=time, kind=event.kind, body=body, hash=_hash(last.hash, seq, time, event.kind, body))


def checked(last: Head, entry: Entry) -> Head:
    """Where the chain ends with this entry. Raises LedgerError where it does not follow `last`, with both hashes."""
    if entry.seq != last.seq + 1:
        raise LedgerError(f"entry {last.seq + 1} is missing: entry {entry.seq} with hash {shown(str(entry.hash))} follows hash {last.hash}")
    expected = _hash(last.hash, entry.seq, entry.time, entry.kind, entry.body)
    if entry.hash != expected:
        raise LedgerError(f"entry {entry.seq} was changed: its hash is {entry.hash!r}, not {expected!r}")
    return entry.head


def _hash(before: str, seq: int, time: str, kind: str, body: str) -> str:
    # As a JSON list: written one after the other, the end of one could pass for the beginning of the next.
    return hashlib.sha256(json.dumps([before, seq, time, kind, body], default=repr).encode()).hexdigest()
