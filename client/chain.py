"""A chain of events: each entry is hashed together with the hash before it, so none is changed without all after it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import ConfigDict, ValidationError

from rainhill.config import Name
from rainhill.errors import LedgerError
from rainhill.text import shown
from rainhill.toml import Section


class Event(Section):
    """Frozen, by keyword only, and checked when it is made as when it is read."""

    model_config = ConfigDict(hide_input_in_errors=True)

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    def body(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps({"version": self.version, **self.model_dump(mode="json")}, sort_keys=True, separators=(",", ":"))


class Opened(Event):
    """The first of every chain: whose it is."""

    kind = "opened"
    site: Name


Kinds = Mapping[str, type[Event]]
"""Each event's `kind` -> its class."""


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
    def head(self) -> "Head":
        return Head(seq=self.seq, hash=self.hash)


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where a chain ends."""

    seq: int
    hash: str


START = Head(seq=0, hash="0" * 64)
"""Before the first entry."""


def kinds_of(*events: type[Event]) -> Kinds:
    return {event.kind: event for event in events}


def parse(kind: str, body: str, kinds: Kinds) -> Event:
    """The event with this JSON form. Raises LedgerError where its kind, its version or a value is not known."""
    if kind not in kinds:
        raise LedgerError(f"kind {shown(kind)!r} is not one of {', '.join(kinds)}")
    expected = kinds[kind]
    try:
        values: dict[str, Any] = dict(json.loads(body))
    except (ValueError, TypeError) as error:
        raise LedgerError(f"{kind}: {shown(body)!r} is no JSON object") from error
    version = values.pop("version", None)
    if version != expected.version:
        raise LedgerError(f"{kind}: version {version!r} is not {expected.version}")
    try:
        return expected.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc'])) or kind}: {one['msg']}" for one in error.errors())
        raise LedgerError(f"{kind}: {problems}") from error


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
