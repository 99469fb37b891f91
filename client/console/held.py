"""Updates that wait to be released, and the word of whoever decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from client.console import GOVERNANCE
from client.console.site import Site, found, line_of, number_of
from client.egress import HeldUpdate, decide_held, held_updates
from client.journal import Held
from rainhill.console.frame import Act, Done, Page, Shown, Visitor
from rainhill.errors import RefusedError
from rainhill.text import shown

MOST_ROUNDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Waits:
    update: HeldUpdate
    since: datetime | None
    parameters: int
    """Values of all its tensors."""


def pages(site: Site) -> list[Page]:
    def held(visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
        known, policy = found(lambda: waiting(site)), site.home.config.policy
        about = {"held": known.value, "trouble": known.problem, "limit": policy.max_update_norm, "holds": policy.hold}
        return site.page("held.html.j2", "Held for release", {**about, "decides": visitor.role == GOVERNANCE})

    return [Page(path="/held", show=held, menu="Held")]


def acts(site: Site) -> list[Act]:
    def release(visitor: Visitor, form: Mapping[str, str]) -> Done:
        sha256 = _decide(site, visitor, form, None)
        return Done(to="/held", words=f"update {sha256[:12]} of {_named(form)} is released; it leaves when the coordinator asks next")

    def withhold(visitor: Visitor, form: Mapping[str, str]) -> Done:
        sha256 = _decide(site, visitor, form, line_of(form, "reason"))
        return Done(to="/held", words=f"update {sha256[:12]} of {_named(form)} is withheld; what it cost in privacy stays charged")

    return [
        Act(path="/held/{run}/{round}/release", do=release, roles=(GOVERNANCE,), back="/held"),
        Act(path="/held/{run}/{round}/withhold", do=withhold, roles=(GOVERNANCE,), back="/held"),
    ]


def waiting(site: Site) -> list[Waits]:
    """Those that nobody has decided on. LedgerError where the journal does not hold."""
    journal, looked = site.journal(), site.looked
    since = {
        (event.run, event.round, event.update): datetime.fromisoformat(entry.time)
        for entry, event in zip(journal.entries, journal.parsed, strict=True)
        if isinstance(event, Held)
    }
    return [
        Waits(update=one, since=since.get((one.run, one.round, one.update)), parameters=values(one.tensors))
        for one in held_updates(looked.home, looked.journal)
    ]


def values(tensors: Mapping[str, tuple[int, ...]]) -> int:
    from math import prod

    return sum(prod(shape) for shape in tensors.values())


def _decide(site: Site, visitor: Visitor, form: Mapping[str, str], withheld: str | None) -> str:
    """Of the very update that was shown: its whole sha256 comes with the form."""
    sha256, offers = form.get("update", ""), site.offers
    if len(sha256) != 64:
        raise RefusedError(f"update {shown(sha256)!r}: the form does not say which one was shown: load its page again")
    number = number_of(form, "round", least=0, most=MOST_ROUNDS)
    with site.one_at_a_time:
        return decide_held(offers.home, offers.journal, form["run"], number, by=visitor.name, update=sha256, withheld=withheld)


def _named(form: Mapping[str, str]) -> str:
    return f"run {form['run']}, round {form['round']}"
