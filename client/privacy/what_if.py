"""What a run would cost a site's patients, told before the site accepts it."""

from dataclasses import dataclass
from datetime import datetime

from client.privacy import budget, year
from client.privacy.accountant import Phase, combined
from client.privacy.charging import terms
from client.privacy.events import Charged, Joined
from client.privacy.guard import admit
from client.privacy.statement import Claim, Snapshot, claim
from rainhill.config import PrivacyConfig
from rainhill.errors import ConfigError, RefusedError
from rainhill.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class YearCost:
    """Of the patient who has spent most in the last 365 days, at the site's delta."""

    before: Claim
    after: Claim
    """With the whole run."""
    budget: float
    """Of any 365 days."""
    remaining: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a run, from its first round to its last."""

    noise_multiplier: float
    sample_rate: float
    rounds: int
    steps: int
    """Of all rounds."""
    run: Claim
    """At the recipe's delta, which the noise was solved for."""
    before: Claim
    """Of the patient who has spent most, at the site's delta."""
    after: Claim
    """Of the same patient, with the whole run."""
    budget: float | None
    remaining: float | None
    """Of the budget, to the patient who has spent most."""
    year: YearCost | None
    """None where the site's file sets no limit for a year."""
    unable: int
    """Patients charged before who cannot afford all of the run: they would be left out before its end."""
    unable_at_all: int
    """Of these, how many cannot afford its first round."""


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    recipe: str
    sha256: str
    patients: int
    refused: str = ""
    """Why the site would not take part; empty where it would."""
    notes: tuple[str, ...] = ()
    cost: Cost | None = None


def what_if(recipe: Recipe, patients: int, ledger: Snapshot, privacy: PrivacyConfig | None, *, now: datetime) -> WhatIf:
    """The recipe on so many training patients, after all that the ledger holds."""
    refused, notes, cost = "", [], None
    try:
        if privacy is not None:
            admit(privacy, recipe)
        cost = _cost(recipe, patients, ledger, privacy, now)
    except (RefusedError, ConfigError) as error:
        refused = str(error)
    if cost is None and not refused:
        notes = ["the recipe asks for no privacy and the site's file sets no budget: nothing would be protected, and nothing accounted for"]
    if cost is not None and privacy is not None:
        notes = _beyond_cohort(cost, ledger, privacy)
        if cost.unable_at_all >= patients:
            notes.append(
                f"refused in its first round if it is for the patients charged before: {cost.unable_at_all} of them have no budget left"
            )
        if privacy.declared_patients is not None:
            notes.append(f"lots are drawn as for the declared_patients of the site's file: {privacy.declared_patients}")
    notes += _joined_before(recipe, ledger)
    return WhatIf(recipe=recipe.name, sha256=recipe.sha256, patients=patients, refused=refused, notes=tuple(notes), cost=cost)


def _cost(recipe: Recipe, patients: int, ledger: Snapshot, privacy: PrivacyConfig | None, now: datetime) -> Cost | None:
    asked = recipe.privacy
    if asked is None:
        return None
    phase, steps = terms(recipe, asked, privacy.counted(patients) if privacy else patients)
    delta, limit = (privacy.delta, privacy.epsilon) if privacy else (asked.delta, None)
    histories = budget.histories(ledger)
    before = budget.most_spent(histories, delta)
    after = claim(combined([before, {phase: steps}]), delta)
    able, begin = (
        year.affordable(privacy, list(histories), phase, share, ledger=ledger, now=now) if privacy else []
        for share in (steps, recipe.rounds.steps)
    )
    return Cost(
        noise_multiplier=phase.noise_multiplier,
        sample_rate=phase.sample_rate,
        rounds=recipe.rounds.count,
        steps=steps,
        run=claim({phase: steps}, asked.delta),
        before=claim(before, delta),
        after=after,
        budget=limit,
        remaining=max(limit - after.epsilon, 0.0) if limit else None,
        year=_year(phase, steps, ledger, privacy, now) if privacy else None,
        unable=able.count(False),
        unable_at_all=begin.count(False),
    )


def _year(phase: Phase, steps: int, ledger: Snapshot, privacy: PrivacyConfig, now: datetime) -> YearCost | None:
    limit, delta = privacy.epsilon_per_year, privacy.delta
    if limit is None:
        return None
    before = budget.most_spent(budget.histories(year.last_year(ledger, now)), delta)
    after = claim(combined([before, {phase: steps}]), delta)
    return YearCost(before=claim(before, delta), after=after, budget=limit, remaining=max(limit - after.epsilon, 0.0))


def _joined_before(recipe: Recipe, ledger: Snapshot) -> list[str]:
    """Runs of this very recipe that the site is in: what is told here is what another would cost."""
    notes = []
    for joined in (event for event in ledger.events() if isinstance(event, Joined) and event.recipe == recipe.sha256):
        charged = [event for event in ledger.events() if isinstance(event, Charged) and event.run == joined.run and event.what == "update"]
        done = sum(event.steps for event in charged)
        notes.append(
            f"run {joined.run} of this very recipe is charged with {done} of {joined.steps} steps; going on with it costs the rest"
        )
    return notes


def _beyond_cohort(cost: Cost, ledger: Snapshot, privacy: PrivacyConfig) -> list[str]:
    """The data sets on which the run would be refused at some round. Which one it is for, a recipe does not say."""
    if privacy.epsilon_per_cohort is None:
        return []
    phase, notes = Phase(noise_multiplier=cost.noise_multiplier, sample_rate=cost.sample_rate), []
    for cohort in sorted({event.cohort for event in ledger.events() if isinstance(event, Charged)}):
        try:
            budget.refuse_beyond_cohort(ledger, cohort, phase, cost.steps, epsilon=privacy.epsilon_per_cohort, delta=privacy.delta)
        except RefusedError as error:
            notes.append(f"refused before its end if it is for {error}")
    return notes
