"""What the site is asked: all runs, and one in the words of whoever decides; and the decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from client import asked as asking
from client._asked_text import told_of
from client.chain import Event
from client.console import GOVERNANCE, PER_PAGE
from client.console.runs import Runs
from client.console.site import Site, found, line_of, number_of, plain
from client.journal import Approved, decision, rounds_left
from client.offers import DAYS
from client.privacy.statement import Claim
from client.status import is_running
from rainhill.console.frame import Act, Done, Page, Shown, Visitor
from rainhill.errors import RefusedError

LONGEST_DAYS, MOST_REPEATS, MOST_ROUNDS = 3650, 1000, 1_000_000


@dataclass(frozen=True, kw_only=True)
class Said:
    """A person's word that stands."""

    by: str
    rounds: int
    rounds_left: int
    until: datetime
    repeats: int


def pages(site: Site, runs: Runs) -> list[Page]:
    def all_runs(visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
        known = found(runs.all)
        start = number_of(asked, "from", least=0, most=10**8) if "from" in asked else 0
        part = (known.value or [])[start : start + PER_PAGE]
        older = start + PER_PAGE if len(known.value or []) > start + PER_PAGE else None
        return site.page("asked.html.j2", "What is asked", {"runs": part, "start": start, "older": older, "told": not known.problem})

    def one_run(visitor: Visitor, asked: Mapping[str, str]) -> Shown:
        name = asked["run"]
        events = runs.events(name)
        about = found(lambda: asking.asked(site.looked, name))
        told = [(at, plain(told_of(event).removeprefix(f"{name}: "))) for at, event in reversed(events)]
        return site.page(
            "asked_run.html.j2",
            f"Run {name}",
            {
                "run": next(run for run in runs.all() if run.name == name),
                "about": about.value,
                "trouble": about.problem,
                "told": told,
                "decides": visitor.role == GOVERNANCE,
                "standing": _standing([event for _, event in events], name),
                "over": about.value is not None and datetime.now(UTC) > about.value.until,
                "days": DAYS,
                "running": is_running(site.home),
                "plain": plain,
                "epsilon": epsilon,
            },
        )

    return [
        Page(path="/asked", show=all_runs, menu="Asked"),
        Page(path="/asked/{run}", show=one_run),
    ]


def acts(site: Site) -> list[Act]:
    def approve(visitor: Visitor, form: Mapping[str, str]) -> Done:
        approved = site.offers.approve(
            form["run"],
            by=visitor.name,
            rounds=number_of(form, "rounds", least=1, most=MOST_ROUNDS),
            days=number_of(form, "days", least=1, most=LONGEST_DAYS),
            repeats=number_of(form, "repeats", least=0, most=MOST_REPEATS),
            shown=_shown(form),
        )
        words = f"run {approved.run} is approved by {approved.by}: {approved.rounds} rounds, until {approved.until:%Y-%m-%d %H:%M} UTC"
        return Done(to=f"/asked/{form['run']}", words=words + (f", and {approved.repeats} further runs" if approved.repeats else ""))

    def refuse(visitor: Visitor, form: Mapping[str, str]) -> Done:
        site.offers.decline(form["run"], by=visitor.name, reason=line_of(form, "reason"), shown=_shown(form))
        return Done(to=f"/asked/{form['run']}", words=f"run {form['run']} is refused; the coordinator is told when it asks next")

    return [
        Act(path="/asked/{run}/approve", do=approve, roles=(GOVERNANCE,), back="/asked/{run}"),
        Act(path="/asked/{run}/refuse", do=refuse, roles=(GOVERNANCE,), back="/asked/{run}"),
    ]


def epsilon(claim: Claim) -> str:
    return f"{claim.epsilon:.3f}"


def _shown(form: Mapping[str, str]) -> str:
    """A decision is on what the page showed, and on nothing else: without it there is none."""
    shown = form.get("offer", "")
    if len(shown) != 64:
        raise RefusedError(f"run {form['run']}: the form does not say which offer was shown: load its page again")
    return shown


def _standing(events: Sequence[Event], name: str) -> Said | None:
    newest = decision(events, name)
    if not isinstance(newest, Approved):
        return None
    return Said(
        by=plain(newest.by), rounds=newest.rounds, rounds_left=rounds_left(events, name), until=newest.until, repeats=newest.repeats
    )
