"""What waits for a person at a site, and since when: runs to be decided on, and updates to be released."""

import time
from datetime import datetime

from client.chain import Event
from client.home import SiteHome
from client.journal import Held, Offered, Released, Withheld, decision, envelope
from client.offers import opened, refusals
from client.privacy.statement import Snapshot
from rainhill.errors import RainhillError

AGAIN_S = 600.0
"""After which it is looked anew whether the site's own file allows a run: for that its patients are counted."""


class Waits:
    def __init__(self, home: SiteHome) -> None:
        self._home = home
        self._allowed: dict[str, tuple[float, bool]] = {}
        """Run -> when that was found, by time.monotonic(), and whether a person may approve it."""

    def since(self, journal: Snapshot, now: datetime) -> list[datetime]:
        """Of each run that nobody at the site has decided on, and that somebody still may."""
        return [
            datetime.fromisoformat(entry.time)
            for entry, event in zip(journal.entries, journal.parsed, strict=True)
            if isinstance(event, Offered) and _undecided(journal.parsed, event, now) and self._may(event.run)
        ]

    def _may(self, run: str) -> bool:
        at, allowed = self._allowed.get(run, (-AGAIN_S, False))
        if time.monotonic() - at >= AGAIN_S:
            allowed = self._look(run)
            self._allowed[run] = time.monotonic(), allowed
        return allowed

    def _look(self, run: str) -> bool:
        try:
            return not refusals(self._home, opened(self._home, (self._home.offers / f"{run}.offer").read_bytes()))
        except (RainhillError, OSError):
            # Of a consortium that the site has left, for instance.
            return False


def held_since(home: SiteHome, journal: Snapshot) -> list[datetime]:
    """Of each update that nobody has decided on, and whose round is not over."""
    decided = {(event.run, event.round, event.update) for event in journal.parsed if isinstance(event, Released | Withheld)}
    found = {
        (event.run, event.round, event.update): datetime.fromisoformat(entry.time)
        for entry, event in zip(journal.entries, journal.parsed, strict=True)
        if isinstance(event, Held)
    }
    waiting = {key: since for key, since in found.items() if key not in decided}
    return [since for (run, number, _), since in waiting.items() if any(home.held.glob(f"{run}.round-{number:06d}.*"))]


def _undecided(events: tuple[Event, ...], offered: Offered, now: datetime) -> bool:
    return now <= offered.until and decision(events, offered.run) is None and envelope(events, offered.recipe, now) is None
