"""A site's pause: while it lasts nothing new is worked on."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from client.home import SiteHome
from client.journal import Journal, Paused, Resumed
from rainhill.errors import RefusedError
from rainhill.files import write_whole


@dataclass(frozen=True, kw_only=True)
class Pause:
    since: datetime
    by: str

    def __str__(self) -> str:
        return f"by {self.by or 'nobody knows whom'} since {self.since:%Y-%m-%d %H:%M} UTC"


def pause(home: SiteHome, *, by: str) -> None:
    """Until `resume`; a fit that has begun is finished, and its update stays. RefusedError where the site has paused already.

    CredentialError where it belongs to no consortium.
    """
    home.bundle()
    before = paused(home)
    if before is not None:
        raise RefusedError(f"{home.config.name}: has paused already, {before}")
    # Written before it holds, as all that stands in the journal.
    Journal.open(home.state, site=home.config.name).append(Paused(by=by))
    write_whole(home.paused, json.dumps({"by": by}).encode(), private=True)


def resume(home: SiteHome, *, by: str) -> None:
    """RefusedError where the site has not paused."""
    if not home.paused.exists():
        raise RefusedError(f"{home.config.name}: has not paused")
    Journal.open(home.state, site=home.config.name).append(Resumed(by=by))
    home.paused.unlink(missing_ok=True)


def paused(home: SiteHome) -> Pause | None:
    try:
        since, said = datetime.fromtimestamp(home.paused.stat().st_mtime, UTC), home.paused.read_bytes()
    except FileNotFoundError:
        return None
    try:
        by = str(json.loads(said)["by"])
    except (ValueError, KeyError, TypeError):
        # That it is there is all that counts.
        by = ""
    return Pause(since=since, by=by)
