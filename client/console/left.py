"""The disclosure record: everything that left the site, and one thing of it on a page that can be printed and filed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from client.chain import Entry, Event
from client.console import PER_PAGE
from client.console.held import values
from client.console.site import Site, found, number_of, plain
from client.journal import Approved, Left, Offered, OutcomeTold, Released, Said
from client.privacy import budget
from client.privacy.events import Charged
from client.privacy.statement import Claim, Snapshot, claim
from rainhill.config import PrivacyConfig
from rainhill.console.frame import Page, Shown, Visitor
from rainhill.errors import RefusedError

LAST = 10**9


@dataclass(frozen=True, kw_only=True)
class Gone:
    """One thing that left."""

    seq: int
    """Of its entry in the journal."""
    at: datetime
    event: Left | OutcomeTold | Said


@dataclass(frozen=True, kw_only=True)
class Record:
    """All that can be told of one update that left."""

    left: Left
    at: datetime
    entry: Entry
    offered: Offered | None
    approved: Approved | None
    approved_at: datetime | None
    released: Released | None
    parameters: int
    charged: tuple[Charged, ...]
    """What the privacy ledger was charged for this round."""
    spent: Claim | None
    """By a patient who was in every round of the run up to this one."""


def pages(site: Site) -> list[Page]:
    def all_left(visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
        before = number_of(asked, "before", least=0, most=LAST) if "before" in asked else LAST
        known = found(lambda: gone(site.journal(), before))
        part, total = (known.value or [])[:PER_PAGE], len(known.value or [])
        older = part[-1].seq if total > PER_PAGE else None
        about = {"left": part, "told": not known.problem, "newest": before == LAST, "older": older, "plain": plain}
        return site.page("left.html.j2", "What left", about)

    def one(visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001
        seq = number_of(asked, "seq", least=1, most=LAST)
        known = record(site, seq)
        title = f"Record of what left: run {known.left.run}, round {known.left.round}"
        ledger = found(site.ledger)
        return site.page(
            "left_one.html.j2", title, {"record": known, "told": ledger.value is not None, "site": site.home.config, "plain": plain}
        )

    return [Page(path="/left", show=all_left, menu="What left"), Page(path="/left/{seq}", show=one)]


def gone(journal: Snapshot, before: int = LAST) -> list[Gone]:
    """The newest first; of entries before that number."""
    return [
        Gone(seq=entry.seq, at=datetime.fromisoformat(entry.time), event=event)
        for entry, event in zip(reversed(journal.entries), reversed(journal.parsed), strict=True)
        if isinstance(event, Left | OutcomeTold | Said) and entry.seq < before
    ]


def record(site: Site, seq: int) -> Record:
    """RefusedError where that entry of the journal is not of an update that left."""
    journal = site.journal()
    entry = journal.entries[seq - 1] if seq <= len(journal.entries) else None
    event = journal.parsed[seq - 1] if entry else None
    if entry is None or not isinstance(event, Left):
        raise RefusedError(f"entry {seq} of {len(journal.entries)}: is not of an update that left")
    earlier = list(zip(journal.entries[: seq - 1], journal.parsed, strict=False))
    approved = [(one, told) for one, told in earlier if isinstance(told, Approved) and told.run == event.run]
    released = [told for _, told in earlier if isinstance(told, Released) and told.update == event.update]
    ledger = found(site.ledger).value or Snapshot()
    return Record(
        left=event,
        at=datetime.fromisoformat(entry.time),
        entry=entry,
        offered=next((told for _, told in earlier if isinstance(told, Offered) and told.run == event.run), None),
        approved=approved[-1][1] if approved else None,
        approved_at=datetime.fromisoformat(approved[-1][0].time) if approved else None,
        released=released[-1] if released else None,
        parameters=values(event.tensors),
        charged=_charged(ledger.parsed, event),
        spent=_spent(ledger, event, site.home.config.privacy),
    )


def _charged(events: tuple[Event, ...], left: Left) -> tuple[Charged, ...]:
    return tuple(event for event in events if isinstance(event, Charged) and (event.run, event.round) == (left.run, left.round))


def _spent(ledger: Snapshot, left: Left, privacy: PrivacyConfig | None) -> Claim | None:
    upto = tuple(event for event in ledger.parsed if isinstance(event, Charged) and event.run == left.run and event.round <= left.round)
    if not upto:
        return None
    return claim(budget.run_history(Snapshot(parsed=upto), left.run), (privacy or PrivacyConfig()).delta)
