"""What runs came to at this site, measured on its own patients that no fit has seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.console import PER_PAGE
from client.console.site import Site, found
from client.home import OUTCOME, outcomes
from client.journal import Offered, OutcomeTold
from client.privacy.statement import Snapshot
from rainhill.console.arms import KINDS, Arm, arms_of
from rainhill.console.frame import Page, Shown, Visitor
from rainhill.errors import DataError
from rainhill.told import Told, Verdict


@dataclass(frozen=True, kw_only=True)
class Brought:
    run: str
    patients: int
    held_out: str
    """Which part of the site's patients these are: `test`, or `val` where it sets none aside."""
    came_to: Told
    arms: tuple[Arm, ...]
    private_steps: int
    temperature: float
    left_out: tuple[str, ...]
    adapter: str
    told: bool
    """Whether the consortium was told."""

    @property
    def verdict(self) -> Verdict:
        """Of what the site would use: the shared adapter with its own part."""
        return self.arms[-1].verdict or "not measured"

    @property
    def kind(self) -> str:
        return KINDS[self.verdict]


def pages(site: Site) -> list[Page]:
    def all_brought(visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
        known = found(lambda: brought(site))
        every = known.value or []
        about = {
            "brought": every[:PER_PAGE],
            "more": max(len(every) - PER_PAGE, 0),
            "trouble": known.problem,
            "tells": site.home.again().config.policy.tell_outcome,
        }
        return site.page("brought.html.j2", "What it brought", about)

    return [Page(path="/brought", show=all_brought, menu="What it brought")]


def brought(site: Site) -> list[Brought]:
    """The run that was asked last comes first. DataError for a file that is none of ours."""
    journal = found(site.journal).value or Snapshot()
    told = {event.run for event in journal.parsed if isinstance(event, OutcomeTold)}
    try:
        known = [_brought(one, told=one["run"] in told) for one in outcomes(site.home).values()]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{site.home.state / 'runs'}: an {OUTCOME} there is none of ours: {error!r}") from error
    place = {event.run: number for number, event in enumerate(journal.parsed) if isinstance(event, Offered)}
    return sorted(known, key=lambda one: -place.get(one.run, -1))


def _brought(one: Mapping[str, Any], *, told: bool) -> Brought:
    came_to = Told.of(one)
    return Brought(
        run=one["run"],
        patients=one["patients"],
        held_out=one["held_out"],
        came_to=came_to,
        arms=arms_of(came_to),
        private_steps=one["private_steps"],
        temperature=one["temperature"],
        left_out=tuple(one["left_out"]),
        adapter=one["adapter"],
        told=told,
    )
