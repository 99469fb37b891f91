"""The runs that a site was asked to take part in, by its journal: who asked, and how the site stands to each."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from client.chain import Event
from client.console.site import Site, plain
from client.journal import Approved, Declined, Left, Offered, Opened, decision, envelope, rounds_left
from client.offers import forbidden, opened
from client.privacy.statement import Snapshot
from rainhill.errors import CredentialError, RefusedError
from rainhill.text import did_you_mean, shown

AGAIN_S = 60.0
"""After which it is looked anew whether the site's own file allows a run."""
Standing = Literal["waits", "approved", "ended", "refused", "forbidden", "over"]
WORDS: dict[Standing, tuple[str, str]] = {
    "waits": ("waits for a decision", "bad"),
    "approved": ("approved", "good"),
    "ended": ("approval used up", ""),
    "refused": ("refused", ""),
    "forbidden": ("forbidden by the site's file", ""),
    "over": ("not answered in time", ""),
}
"""What is said of each, and the kind of its pill."""


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str
    by: str
    consortium: str
    asked: datetime
    until: datetime
    """After this it could be approved no more."""
    rounds: int
    epsilon: float | None
    left: int
    """Rounds that an update left for."""
    standing: Standing
    words: str
    """Who decided, and what."""

    @property
    def pill(self) -> tuple[str, str]:
        return WORDS[self.standing]


class Runs:
    """Of a site; what its own file forbids is remembered for a while, since weights are read for it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._forbidden: dict[str, tuple[float, int, str]] = {}
        self._sorted: tuple[Snapshot, dict[str, list[tuple[datetime, Event]]]] = Snapshot(), {}

    def all(self) -> list[Run]:
        """Those that wait first, then the newest. LedgerError where the journal does not hold."""
        journal, now = self._site.journal(), datetime.now(UTC)
        found = [self._run(journal, events, now) for events in self._by_run(journal).values() if isinstance(events[0][1], Offered)]
        return sorted(found, key=lambda run: (run.standing != "waits", -run.asked.timestamp()))

    def waiting(self) -> list[Run]:
        return [run for run in self.all() if run.standing == "waits"]

    def events(self, run: str) -> list[tuple[datetime, Event]]:
        """All that the journal tells of one, the oldest first. RefusedError where the site was never offered it."""
        by_run = self._by_run(self._site.journal())
        events = by_run.get(run, [])
        if not events or not isinstance(events[0][1], Offered):
            known = [name for name, told in by_run.items() if isinstance(told[0][1], Offered)]
            raise RefusedError(f"run {shown(run)}: was never offered to this site{did_you_mean(run, known)}")
        return events

    def _by_run(self, journal: Snapshot) -> dict[str, list[tuple[datetime, Event]]]:
        before, found = self._sorted
        if before is not journal:
            found = {}
            for entry, event in zip(journal.entries, journal.parsed, strict=True):
                if not isinstance(event, Opened):
                    found.setdefault(str(getattr(event, "run", "")), []).append((datetime.fromisoformat(entry.time), event))
            self._sorted = journal, found
        return found

    def _run(self, journal: Snapshot, told: Sequence[tuple[datetime, Event]], now: datetime) -> Run:
        (asked, offered), events = told[0], [event for _, event in told]
        assert isinstance(offered, Offered)
        standing, words = self._standing(journal, events, offered, now)
        return Run(
            name=offered.run,
            by=plain(offered.by),
            consortium=offered.consortium,
            asked=asked,
            until=offered.until,
            rounds=offered.rounds,
            epsilon=offered.epsilon,
            left=len({event.round for event in events if isinstance(event, Left)}),
            standing=standing,
            words=words,
        )

    def _standing(self, journal: Snapshot, events: Sequence[Event], offered: Offered, now: datetime) -> tuple[Standing, str]:
        said = decision(events, offered.run)
        # Of this very offer, and of no other with the run's name.
        if said is not None and (said.offer, said.recipe) == (offered.offer, offered.recipe):
            return _decided(said, rounds_left(events, offered.run), now)
        if now > offered.until:
            return "over", f"nobody answered by {offered.until:%Y-%m-%d}"
        why = self._why_not(offered.run)
        if why:
            return "forbidden", why
        before = envelope(journal.parsed, offered.recipe, now) if said is None else None
        if before is not None:
            return "approved", f"beforehand, by {plain(before.by)}, as a repeat of run {before.run}"
        return "waits", f"until {offered.until:%Y-%m-%d}, for somebody with the role governance"

    def _why_not(self, run: str) -> str:
        """What the site's own file forbids of a run that nobody has decided on."""
        home = self._site.home
        at, mark, why = self._forbidden.get(run, (-AGAIN_S, 0, ""))
        changed = home.file.stat().st_mtime_ns
        if time.monotonic() - at >= AGAIN_S or mark != changed:
            try:
                why = "; ".join(forbidden(home, opened(home, (home.offers / f"{run}.offer").read_bytes())))
            except CredentialError:
                why = "is of a consortium that the site does not belong to now"
            self._forbidden[run] = time.monotonic(), changed, why
        return why


def _decided(said: Approved | Declined, rounds: int, now: datetime) -> tuple[Standing, str]:
    if isinstance(said, Declined):
        return "refused", f"by {plain(said.by)}: {plain(said.reason)}"
    who = f"beforehand by {plain(said.by)}" if said.envelope else f"by {plain(said.by)}"
    if not rounds:
        return "ended", f"{who}; all of its {said.rounds} rounds have left"
    if now > said.until:
        return "ended", f"{who}; its time was over on {said.until:%Y-%m-%d}"
    return "approved", f"{who}: {rounds} of {said.rounds} rounds may still leave, until {said.until:%Y-%m-%d}"
