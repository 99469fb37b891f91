"""The first page: is all well, what waits for somebody, what left last and what it cost, what it brought; and the pause."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from client import pausing
from client.console import ADMIN, GOVERNANCE
from client.console.brought import brought
from client.console.held import Waits, waiting
from client.console.left import Gone, gone
from client.console.runs import Runs
from client.console.site import Found, Site, found, plain
from client.console.spent import Spending
from client.home import SiteHome
from client.journal import Left
from client.status import status_of
from rainhill.console.frame import Act, Done, Page, Shown, Visitor


@dataclass(frozen=True, kw_only=True)
class Line:
    """The daemon's to the coordinator."""

    running: bool
    connected: bool
    reason: str
    """Why it is not in contact; empty where that is not known."""
    last_contact: datetime | None
    consortium: str
    """Empty where the site has joined none."""
    coordinator: str


def pages(site: Site, runs: Runs, spending: Spending) -> list[Page]:
    def overview(visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
        about: dict[str, Any] = {
            "line": found(lambda: line(site.home)),
            "pause": pausing.paused(site.home),
            "waits": found(runs.waiting),
            "held": _held(site),
            "last": found(lambda: _last(site)),
            "spent": found(spending.spent),
            "brought": found(lambda: next(iter(brought(site)), None)),
            "may_pause": visitor.role in (ADMIN, GOVERNANCE),
            "plain": plain,
        }
        return site.page("overview.html.j2", "Overview", about)

    return [Page(path="/", show=overview, menu="Overview")]


def acts(site: Site) -> list[Act]:
    def pause(visitor: Visitor, form: Mapping[str, str]) -> Done:  # noqa: ARG001 - as all acts are called
        pausing.pause(site.home, by=visitor.name)
        return Done(to="/", words="the site has paused: nothing new is worked on")

    def resume(visitor: Visitor, form: Mapping[str, str]) -> Done:  # noqa: ARG001
        pausing.resume(site.home, by=visitor.name)
        return Done(to="/", words="the site goes on")

    both = (ADMIN, GOVERNANCE)
    return [Act(path="/pause", do=pause, roles=both, back="/"), Act(path="/resume", do=resume, roles=both, back="/")]


def line(home: SiteHome) -> Line:
    known = status_of(home)
    return Line(
        running=known["daemon"] == "running",
        connected=known["connected"],
        reason=plain(known["reason"] or ""),
        last_contact=datetime.fromisoformat(known["last_contact"]) if known["last_contact"] else None,
        consortium=plain(known["consortium"] or ""),
        coordinator=known["coordinator"] or "",
    )


def _held(site: Site) -> Found[list[Waits]]:
    """None of a site that holds none back, even where it has joined no consortium."""
    return found(lambda: waiting(site)) if any(site.home.held.glob("*.safetensors")) else Found(value=[])


def _last(site: Site) -> Gone | None:
    return next((one for one in gone(site.journal()) if isinstance(one.event, Left)), None)
