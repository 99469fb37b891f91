"""What a site is asked, gathered for the person who decides: who asks, of which patients, what would leave, and what it would cost them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

import rainhill
from client import tasks
from client.home import SiteHome
from client.journal import Approved
from client.offers import Offers, leaving, refusals, training_patients
from client.privacy.ledger import Ledger
from client.privacy.statement import Snapshot
from client.privacy.what_if import WhatIf, what_if
from client.tasks import Task
from rainhill.config import PrivacyConfig
from rainhill.difference import Change, recipe_changes
from rainhill.errors import RainhillError, RefusedError
from rainhill.offer import Offer
from rainhill.recipe import Recipe
from rainhill.told import MEASURES


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """What would leave."""

    tensors: Mapping[str, tuple[int, ...]]
    """Name -> shape, of all rounds."""
    in_turn: bool
    """Whether not all of them leave in each round."""
    values: int
    """Of one round, at most."""
    bytes: int
    """Of these, as they would be encoded."""
    numbers: str
    """In words: what is told beside them."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    run: str
    consortium: str
    by: str
    """The operator who asks."""
    made: datetime
    until: datetime
    """After this it can be approved no more."""
    state: str
    reason: str
    title: str
    offer: str
    """sha256 of what was signed: what is shown here is of this one, and of no other with the run's name."""
    recipe: str
    """sha256: what an approval is of."""
    task: str
    learned: tuple[str, ...]
    """What it reads from the manifest besides images: columns of labels, and texts."""
    base: str
    """Model and sha256 of its weights, cut."""
    weights: str
    """The same sha256, whole."""
    rule: str
    sites: tuple[str, ...]
    rounds: int
    steps: int
    """Of one round."""
    data: str
    """The manifest."""
    patients: int | None
    """Training patients; None where they cannot be counted."""
    leaves: Leaves | None
    cost: WhatIf | None
    allowed: float | None
    """Epsilon of one run, by the site's file."""
    refusals: tuple[str, ...]
    """Why the site's own file does not allow it."""
    changes: tuple[Change, ...] | None
    """Since the last recipe of this name that was approved; None where there was none."""
    software: str


def asked(offers: Offers, run: str) -> Asked:
    """RefusedError where the site was never offered it."""
    home, offer = offers.home, offers.offer(run)
    recipe = offer.recipe
    now = datetime.now(UTC)
    decided = offers.decided(offer, now)
    patients, task = _patients(home, offer), _task(recipe)
    return Asked(
        run=run,
        consortium=offer.consortium,
        by=offer.by,
        made=offer.made,
        until=offer.until,
        state=decided.state,
        reason=decided.reason,
        title=recipe.title or recipe.name,
        offer=offer.sha256,
        recipe=recipe.sha256,
        task=recipe.task.name,
        learned=task.reads if task else (),
        base=f"{recipe.base.model} {recipe.base.sha256[:12]}",
        weights=recipe.base.sha256,
        rule=recipe.strategy.described(),
        sites=tuple(sorted(offer.sites)),
        rounds=recipe.rounds.count,
        steps=recipe.rounds.steps,
        data=str(home.config.data.manifest) if home.config.data else "",
        patients=patients,
        leaves=_leaves(home, offer),
        cost=what_if(recipe, patients, _ledger(home), home.config.privacy, now=now) if patients else None,
        allowed=home.config.privacy.most_in_one_run if home.config.privacy else None,
        refusals=tuple(refusals(home, offer)),
        changes=_changes(offers, offer),
        software=f"rainhill {rainhill.__version__}",
    )


def _task(recipe: Recipe) -> Task | None:
    try:
        return tasks.from_section(recipe.task)
    except RainhillError:
        # `refusals` says why.
        return None


def _patients(home: SiteHome, offer: Offer) -> int | None:
    try:
        return len(training_patients(home, offer))
    except RainhillError:
        # `refusals` says why.
        return None


def _ledger(home: SiteHome) -> Snapshot:
    return Snapshot.of(Ledger.existing(home.state, site=home.config.name))


def _leaves(home: SiteHome, offer: Offer) -> Leaves | None:
    try:
        kinds = leaving(home, offer)
    except RefusedError:
        # `refusals` says why.
        return None
    values = max(sum(int(np.prod(shape)) for shape in tensors.values()) for tensors in kinds)
    section = offer.recipe.compression
    return Leaves(
        tensors={name: shape for tensors in kinds for name, shape in tensors.items()},
        in_turn=len(kinds) > 1,
        values=values,
        bytes=round(values * BYTES[section.encoding] * (section.share if section.encoding == "top_k" else 1)),
        numbers=_numbers(home, MEASURES[task.measure] if (task := _task(offer.recipe)) else "score"),
    )


BYTES = {"float32": 4, "bf16": 2, "int8": 1, "top_k": 8}
"""Of a value that is sent."""


def _numbers(home: SiteHome, measure: str) -> str:
    later = f"; at the end what it came to here: {measure} of three models on at least {home.config.least_patients} held-out patients"
    return _beside(home.config.privacy, measure) + (later if home.config.policy.tell_outcome else "")


def _beside(privacy: PrivacyConfig | None, measure: str) -> str:
    """Of the numbers beside an update."""
    if privacy is None:
        return f"how many patients it trained on, its loss, and its {measure} on its validation patients"
    told = f"{privacy.declared_patients} as its number of patients" if privacy.declared_patients else "no number of patients"
    if privacy.release == "withheld":
        return f"{told}; no loss and no metric"
    if privacy.release == "noised":
        return f"{told}; its loss, noised under epsilon {privacy.release_epsilon:g} of the run"
    return f"{told}; loss and {measure} of at least {privacy.min_patients} patients"


def _changes(offers: Offers, offer: Offer) -> tuple[Change, ...] | None:
    before = _last_approved(offers, offer)
    if before is None:
        return None
    return recipe_changes(before.model_dump(mode="json"), offer.recipe.model_dump(mode="json"))


def _last_approved(offers: Offers, offer: Offer) -> Recipe | None:
    runs = [event.run for event in offers.journal.events() if isinstance(event, Approved) and event.run != offer.run]
    known = set(offers.names())
    for run in (run for run in reversed(runs) if run in known):
        recipe = offers.offer(run).recipe
        if recipe.name == offer.recipe.name:
            return recipe
    return None
