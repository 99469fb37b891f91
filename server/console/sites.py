"""The sites of the consortium: who they are, since when, and what crossed between them and the coordinator."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rainhill.console.frame import Shown, Visitor
from rainhill.messages import SiteId
from server.console.contact import Line, line_of
from server.console.sources import PAGE, Sources
from server.registry import Site
from server.tally import Done, crossed

KEY_ACTS = ("enrol", "rotate", "revoke")
MOST = 20
"""Runs and acts of one site."""


@dataclass(frozen=True, kw_only=True)
class SiteLine:
    site: Site
    line: Line
    answered: int
    asked: int
    """Rounds, of all runs."""
    down: int
    up: int
    """Bytes, of rounds that are done."""


def sites(sources: Sources, visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
    known, contact = sources.registry.sites(), sources.watch.contact()
    lines = _lines(known, sources, datetime.now(UTC))
    return Shown(template="sites.html.j2", title="Sites", about={"lines": lines, "contact": contact})


def site(sources: Sources, visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
    """RefusedError where there is none, with the nearest name."""
    one, now = sources.registry.site(asked["site"]), datetime.now(UTC)
    acts = sources.listing.events(count=PAGE, subject=one.name, what=KEY_ACTS)
    about = {
        "one": _lines((one,), sources, now)[0],
        "contact": sources.watch.contact(),
        "stands": sources.listing.stands_of(one.name, count=MOST),
        "acts": acts,
        "enrolled_by": next((act.by for act in reversed(acts) if act.what == "enrol"), ""),
        "revoked_by": next((act.by for act in acts if act.what == "revoke"), ""),
    }
    return Shown(template="site.html.j2", title=one.title or one.name, about=about)


def _lines(known: tuple[Site, ...], sources: Sources, now: datetime) -> list[SiteLine]:
    contact, rounds = sources.watch.contact(), sources.tally.rounds()
    sizes, answered, asked = crossed(rounds), _counts(rounds, "up_bytes"), _counts(rounds, "down_bytes")
    return [
        SiteLine(
            site=one,
            line=line_of(one, contact, now),
            answered=answered[one.name],
            asked=asked[one.name],
            down=sizes[one.name, "down"],
            up=sizes[one.name, "up"],
        )
        for one in known
    ]


def _counts(rounds: Mapping[tuple[str, int], Done], which: str) -> Counter[SiteId]:
    """Rounds by site: each that is asked has bytes down, and each that answered has bytes up."""
    return Counter(site for done in rounds.values() for site in getattr(done, which))
