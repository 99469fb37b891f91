"""The first page: who is in contact, what runs, whose approval is waited for, and what needs the operator."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rainhill.console.frame import Shown, Visitor
from rainhill.errors import RainhillError
from rainhill.text import counted
from server.chain import days_left
from server.console.contact import Line, line_of
from server.console.sources import Sources
from server.console.words import ago, lasting
from server.home import WARN_DAYS, Home, checked
from server.listing import RunLine
from server.registry import Site
from server.runs import ACTIVE, Standing
from server.tables import Stand

SILENT_S = 600.0
"""For so long a site may be silent before the operator is told, as the alert rules have it."""
FAILED_WITHIN = timedelta(days=30)
"""Since a run that failed last moved: longer ago, nobody will go on with it."""
DELIVERED_AFTER = timedelta(hours=1)
"""Since a run finished, its result should be at every site that is there."""
MOST = 20
"""Runs that failed, that are told one by one."""
LATELY = 5
DECIDES: tuple[Stand, ...] = ("pending", "waiting", "away")


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something that needs the operator."""

    words: str
    remedy: str
    to: str = ""
    """The page that tells more."""


@dataclass(frozen=True, kw_only=True)
class Active:
    """A run that is offered or running."""

    run: RunLine
    standings: Mapping[str, Standing]

    @property
    def approved(self) -> int:
        return sum(one.state == "approved" for one in self.standings.values())


@dataclass(frozen=True, kw_only=True)
class Awaited:
    """A site that a run waits for."""

    run: RunLine
    site: str
    title: str
    standing: Standing
    long: str
    """For how long it has stood so."""


def overview(sources: Sources, visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
    now = datetime.now(UTC)
    sites = {site.name: site for site in sources.registry.sites()}
    contact = sources.watch.contact()
    lines = {name: line_of(site, contact, now) for name, site in sites.items() if site.revoked is None}
    runs = sources.listing.runs(count=1000, states=ACTIVE)
    active = [Active(run=run, standings=sources.runs.standings(run.name)) for run in runs]
    needs = [
        *_of_machine(sources, now),
        *_of_sites(lines),
        *_of_runs(sources.listing.runs(count=MOST, states=("failed",)), runs, now),
        *_undelivered(sources, now),
    ]
    about = {
        "contact": contact,
        "enrolled": len(lines),
        "revoked": len(sites) - len(lines),
        # Not `here`, which is the frame's own word.
        "present": sum(one.words == "in contact" for one in lines.values()),
        "active": active,
        "awaited": list(_awaited(active, sites, now)),
        "needs": needs,
        "lately": [(event, ago(event.time, now)) for event in sources.listing.events(count=LATELY)],
    }
    return Shown(template="overview.html.j2", title="Overview", about=about)


def _awaited(active: Sequence[Active], sites: Mapping[str, Site], now: datetime) -> Iterator[Awaited]:
    for one in active:
        for name, standing in one.standings.items():
            site = sites.get(name)
            if standing.state in DECIDES and site is not None and site.revoked is None:
                long = lasting((now - standing.since).total_seconds())
                yield Awaited(run=one.run, site=name, title=site.title, standing=standing, long=long)


def _of_machine(sources: Sources, now: datetime) -> Iterator[Need]:
    yield from _of_certificates(sources.home, now)
    for name, times in sources.watch.processes().restarts.items():
        yield Need(
            words=f"The process {name} had to be started again {'once' if times == 1 else f'{times} times'} since the coordinator began.",
            remedy="The log of `serve` says why it ended.",
        )


def _of_certificates(home: Home, now: datetime) -> Iterator[Need]:
    for what, path, remedy in (
        ("server certificate", home.certificate, "`rainhill coordinator renew` makes a new one; then start `serve` again."),
        ("certificate authority", home.ca, "A new authority means new bundles for every site."),
    ):
        left = days_left(path.read_bytes(), now)
        if left < WARN_DAYS:
            ends = f"expires in {counted(left, 'day')}" if left >= 0 else "has expired"
            yield Need(words=f"The {what} {ends}.", remedy=remedy)
    try:
        checked(home)
    except RainhillError as error:
        yield Need(words=f"The certificates do not hold: {error}.", remedy="`serve` does not start again with them.")


def _of_sites(lines: Mapping[str, Line]) -> Iterator[Need]:
    for name, line in lines.items():
        if line.silent_s is not None and line.silent_s > SILENT_S:
            remedy = "Ask the hospital to run `rainhill site check`: it says what is missing."
            yield Need(words=f"{name} is {line.words}.", remedy=remedy, to=f"/sites/{name}")


def _of_runs(failed: Sequence[RunLine], active: Sequence[RunLine], now: datetime) -> Iterator[Need]:
    for run in failed:
        if now - run.moved < FAILED_WITHIN:
            remedy = "Its page resumes it, once the reason is gone."
            yield Need(words=f"Run {run.name} has failed: {run.words}", remedy=remedy, to=f"/runs/{run.name}")
    for run in active:
        idle_s = (now - run.moved).total_seconds()
        if run.state == "running" and idle_s > 2 * run.deadline_s:
            words = f"Run {run.name} has had no round for {lasting(idle_s)}; one may take {lasting(run.deadline_s)}."
            yield Need(words=words, remedy=run.words or "Its page says who is waited for.", to=f"/runs/{run.name}")


def _undelivered(sources: Sources, now: datetime) -> Iterator[Need]:
    late: dict[str, list[str]] = {}
    for run, site in sources.listing.undelivered(now, after=DELIVERED_AFTER):
        late.setdefault(run, []).append(site)
    for run, names in late.items():
        words = f"What run {run} came to has yet to be brought to {', '.join(names)}."
        yield Need(words=words, remedy="That is done as soon as they are in contact, within 30 days of its end.", to=f"/runs/{run}")
