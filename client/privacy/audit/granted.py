"""Rounds that a site's own guard grants, each with its charge in a ledger and its secret key, as for a hospital."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from client.privacy.audit.finding import Trial
from client.privacy.audit.watch import MAX_GRAD_NORM
from client.privacy.charging import charge
from client.privacy.guard import Guard
from client.privacy.ledger import Ledger
from client.training.answer import mechanism_of
from client.training.mechanism import Mechanism
from rainhill.adapter import Adapter
from rainhill.config import PrivacyConfig
from rainhill.messages import Plan
from rainhill.recipe import BaseSection, PrivacySection, PrivateSection, Recipe, RoundsSection, StrategySection, TaskSection

SITE = "audit"
EPSILON = 1.0


def granted(trial: Trial, adapter: Adapter, *, patients: int, rounds: int, steps: int) -> Sequence[tuple[Mechanism, Mechanism]]:
    """Of each round, its mechanism and the same without noise; streams are at their beginning."""
    # Everybody in every step: whom a step draws is for another layer, and this noise is solved for at once.
    recipe = _recipe(rounds=rounds, steps=steps, patients_per_step=patients)
    seed = None if trial.fresh else (trial.seed,)
    with TemporaryDirectory() as folder:
        guard = Guard(
            site=SITE,
            config=PrivacyConfig(epsilon=EPSILON),
            ledger=Ledger.open(Path(folder), site=SITE),
            folder=Path(folder),
            cohort="0" * 64,
            train=tuple(f"{number:016x}" for number in range(patients)),
            val=(),
            seed=seed,
        )
        plans = [Plan(run=SITE, recipe=recipe.sha256, round=number + 1, site=SITE, adapter=adapter) for number in range(rounds)]
        terms = [charge(guard, plan, recipe) for plan in plans]
    return [(mechanism_of(recipe, one), mechanism_of(recipe, replace(one, noise_multiplier=0.0))) for one in terms]


def _recipe(*, rounds: int, steps: int, patients_per_step: int) -> Recipe:
    return Recipe(
        name=SITE,
        task=TaskSection(name="findings"),
        base=BaseSection(model="vit", weights="none", sha256="0" * 64),
        strategy=StrategySection(rule="fedavg"),
        rounds=RoundsSection(count=rounds, steps=steps, patients_per_step=patients_per_step),
        private=PrivateSection(steps=1),
        privacy=PrivacySection(epsilon=EPSILON, max_grad_norm=MAX_GRAD_NORM),
    )
