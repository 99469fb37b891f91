"""All runs, and one run: what it waits for, how each site stands to it, what its rounds brought, and what was asked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import tomli_w

from rainhill.console.arms import arms_of
from rainhill.console.frame import Shown, Visitor
from rainhill.difference import recipe_changes
from rainhill.errors import RefusedError
from rainhill.messages import SiteId
from server.console.curves import curves_of
from server.console.rounds import SiteRound, round_sites
from server.console.sources import PAGE, Sources, paged, skipped
from server.console.words import lasting
from server.history import Kept
from server.runs import ACTIVE, Run, Standing


@dataclass(frozen=True, kw_only=True)
class Part:
    """A site's part in a run."""

    title: str
    standing: Standing
    long: str
    """For how long it has stood so."""
    answered: int
    asked: int
    """Rounds that are done."""
    down: int
    up: int
    epsilon: float | None
    """What the site said with its last answer; None where it said none."""


@dataclass(frozen=True, kw_only=True)
class Last:
    """The last round."""

    kept: Kept
    sites: Sequence[SiteRound]


def runs(sources: Sources, visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
    skip = skipped(asked)
    lines, pager = paged(sources.listing.runs(count=PAGE + 1, skip=skip), skip, "/runs")
    return Shown(template="runs.html.j2", title="Runs", about={"lines": lines, "pager": pager, "states": sources.listing.states()})


def run(sources: Sources, visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
    """RefusedError where there is none, with the nearest name."""
    one, skip, now = sources.runs.run(asked["run"]), skipped(asked), datetime.now(UTC)
    rounds = list(sources.history.rounds(one.name).values())
    recipe = json.loads(one.recipe_json)
    newest = tuple(reversed(rounds))
    shown, pager = paged(newest[skip : skip + PAGE + 1], skip, f"/runs/{one.name}")
    parts = _parts(sources, one, rounds, now)
    about = {
        "one": one,
        "recipe": recipe,
        "active": one.state in ACTIVE,
        "parts": parts,
        "told": {name: arms_of(part.standing.told) for name, part in parts.items() if part.standing.told},
        "approved": sum(part.standing.state == "approved" for part in parts.values()),
        "done": len(rounds),
        "rounds": shown,
        "pager": pager,
        "last": Last(kept=newest[0], sites=round_sites(newest[0].record)) if newest else None,
        "curves": curves_of(rounds),
        "withheld": _withheld(rounds),
        **_recipe(sources, one, recipe),
    }
    return Shown(template="run.html.j2", title=recipe["title"] or one.name, about=about)


def one_round(sources: Sources, visitor: Visitor, asked: Mapping[str, str]) -> Shown:  # noqa: ARG001 - as all pages are called
    """RefusedError where there is no such run or round."""
    one = sources.runs.run(asked["run"])
    rounds, said = sources.history.rounds(one.name), asked["number"]
    kept = rounds.get(int(said)) if said.isascii() and said.isdigit() and len(said) < PAGE else None
    if kept is None:
        raise RefusedError(f"run {one.name}: has no round {said[:20]!r} that is done; {len(rounds)} of {one.round_count} are")
    number = kept.record.round
    about = {
        "one": one,
        "kept": kept,
        "sites": round_sites(kept.record),
        "before": number - 1 if number - 1 in rounds else None,
        "after": number + 1 if number + 1 in rounds else None,
    }
    return Shown(template="round.html.j2", title=f"Round {number} of {one.name}", about=about)


def _parts(sources: Sources, one: Run, rounds: Sequence[Kept], now: datetime) -> dict[SiteId, Part]:
    titles = {site.name: site.title for site in sources.registry.sites()}
    records = [kept.record for kept in rounds]
    parts = {}
    for name, standing in sources.runs.standings(one.name).items():
        told = [record.epsilons[name] for record in records if name in record.epsilons]
        parts[name] = Part(
            title=titles[name],
            standing=standing,
            long=lasting((now - standing.since).total_seconds()),
            answered=sum(name in record.answered for record in records),
            asked=sum(name in record.asked for record in records),
            down=sum(record.down_bytes.get(name, 0) for record in records),
            up=sum(record.up_bytes.get(name, 0) for record in records),
            epsilon=told[-1] if told else None,
        )
    return parts


def _withheld(rounds: Sequence[Kept]) -> list[SiteId]:
    """Sites that answered, and never told a loss."""
    answered = {site for kept in rounds for site in kept.record.answered}
    return sorted(answered - {site for kept in rounds for site in kept.record.losses})


def _recipe(sources: Sources, one: Run, recipe: Mapping[str, Any]) -> dict[str, object]:
    """As TOML, and held against the run before it."""
    earlier = sources.listing.earlier(one)
    return {
        "toml": tomli_w.dumps(_without_none(recipe)),
        "earlier": earlier.name if earlier else None,
        "changes": recipe_changes(earlier.recipe, recipe) if earlier else (),
    }


def _without_none(tree: Any) -> Any:
    """TOML has no word for what is not there."""
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    return [_without_none(value) for value in tree] if isinstance(tree, list) else tree
