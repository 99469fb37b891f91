"""Charging a round to a site's ledger before its first step, and once: sigma is solved when the site joins the run, and then stays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from client.privacy import accountant, budget, year
from client.privacy.accountant import Phase
from client.privacy.events import Charged, Joined, Members
from client.privacy.guard import Guard, admit, digest, key_path
from client.privacy.randomness import commitment, fresh_key, simulated_key
from client.privacy.statement import Snapshot
from rainhill.config import PrivacyConfig
from rainhill.errors import RefusedError
from rainhill.files import alone, write_whole
from rainhill.messages import Plan
from rainhill.recipe import PrivacySection, Recipe

Event = TypeVar("Event")


@dataclass(frozen=True, kw_only=True)
class Granted:
    """One round, paid for."""

    noise_multiplier: float
    sample_rate: float
    expected_patients: float
    drawable: NDArray[np.bool_]
    """(P,) False for a patient whose budget is spent."""
    key: bytes
    numbers: Phase | None = None
    """What the numbers beside the update were charged, where they are noised."""
    val_drawable: NDArray[np.bool_] | None = None
    """(V,) which validation patients those numbers may be of."""


@dataclass(frozen=True, kw_only=True)
class _Paid:
    charge: Charged
    members: Members
    """Those it was made for."""


def charge(guard: Guard, plan: Plan, recipe: Recipe) -> Granted:
    """Writes into the ledger what the round will spend, before it is spent; a round that was charged and broken off is not charged again.

    Raises RefusedError where the run, the data set or every patient would spend more than is allowed.
    """
    asked = admit(guard.config, recipe)
    guard.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Two processes of one site could each find a budget that is enough for one of them.
    with alone(guard.folder / ".lock"):
        # Read once: every reading goes down the whole chain.
        before = Snapshot.of(guard.ledger)
        joined = _joined(guard, plan, recipe, asked, before)
        update, numbers = _begun(guard, plan, before) or _charged(guard, plan, recipe, asked, joined, before)
    return Granted(
        noise_multiplier=joined.noise_multiplier,
        sample_rate=joined.sample_rate,
        expected_patients=joined.sample_rate * joined.patients,
        drawable=_drawable(guard.train, update.members),
        key=key_path(guard, plan).read_bytes(),
        numbers=numbers.charge.phase if numbers else None,
        val_drawable=_drawable(guard.val, numbers.members) if numbers else None,
    )


def terms(recipe: Recipe, asked: PrivacySection, patients: int) -> tuple[Phase, int]:
    """What a site of so many patients adds and draws in each step of a run, and how many steps the whole run has."""
    rate, steps = min(1.0, recipe.rounds.patients_per_step / patients), recipe.rounds.count * recipe.rounds.steps
    return Phase(noise_multiplier=accountant.noise_multiplier(asked.epsilon, asked.delta, rate, steps), sample_rate=rate), steps


def _joined(guard: Guard, plan: Plan, recipe: Recipe, asked: PrivacySection, before: Snapshot) -> Joined:
    """The terms on which the site takes part in the run: sigma is solved once, for all steps of all rounds."""
    known = next((event for event in _events(before, Joined) if event.run == plan.run), None)
    if known is not None:
        for what, got, expected in (("recipe", recipe.sha256, known.recipe), ("data", guard.cohort, known.cohort)):
            if got != expected:
                raise RefusedError(f"run {plan.run}: the {what} was {expected[:12]} when the site joined and is {got[:12]} now")
        return known
    patients = guard.config.counted(len(guard.train))
    phase, steps = terms(recipe, asked, patients)
    joined = Joined(
        run=plan.run,
        recipe=recipe.sha256,
        cohort=guard.cohort,
        patients=patients,
        epsilon=asked.epsilon,
        delta=asked.delta,
        noise_multiplier=phase.noise_multiplier,
        sample_rate=phase.sample_rate,
        steps=steps,
    )
    guard.ledger.append(joined)
    return joined


def _begun(guard: Guard, plan: Plan, before: Snapshot) -> tuple[_Paid, _Paid | None] | None:
    """What was paid for this very plan, where its key is still there."""
    path = key_path(guard, plan)
    if not path.exists():
        return None
    sought = commitment(path.read_bytes()), digest(guard, plan)
    members = {event.digest: event for event in _events(before, Members)}
    found = {
        event.what: _Paid(charge=event, members=members[event.members])
        for event in _events(before, Charged)
        if (event.draw, event.plan) == sought
    }
    return (found["update"], found.get("numbers")) if "update" in found else None


def _charged(
    guard: Guard, plan: Plan, recipe: Recipe, asked: PrivacySection, joined: Joined, before: Snapshot
) -> tuple[_Paid, _Paid | None]:
    config = guard.config
    phase, steps = Phase(noise_multiplier=joined.noise_multiplier, sample_rate=joined.sample_rate), recipe.rounds.steps
    budget.refuse_beyond_run(before, plan.run, phase, steps, epsilon=asked.epsilon, delta=asked.delta)
    if config.epsilon_per_cohort is not None:
        budget.refuse_beyond_cohort(before, guard.cohort, phase, steps, epsilon=config.epsilon_per_cohort, delta=config.delta)
    now = datetime.now(UTC)
    able = _able(config, guard.train, phase, steps, before, now)
    if not able.patients:
        raise RefusedError(f"round {plan.round}: {year.nobody_left(config, guard.train, phase, steps, ledger=before, now=now)}")
    key = fresh_key() if guard.seed is None else simulated_key((*guard.seed, plan.round))
    # The key first: a charge whose key was lost would have to be made anew. Whoever reads it can take the noise off again.
    key_path(guard, plan).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(key_path(guard, plan), key, private=True)
    common = {"run": plan.run, "recipe": recipe.sha256, "round": plan.round, "cohort": guard.cohort, "delta": asked.delta}
    common |= {"draw": commitment(key), "plan": digest(guard, plan)}

    def paid(what: str, members: Members, one: Phase, count: int) -> _Paid:
        of_phase = {"noise_multiplier": one.noise_multiplier, "sample_rate": one.sample_rate, "steps": count}
        made = Charged.model_validate({**common, **of_phase, "what": what, "members": members.digest})
        return _Paid(charge=made, members=members)

    update, numbers = paid("update", able, phase, steps), None
    if config.release == "noised":
        plain = _numbers_phase(config, recipe, asked)
        numbers = paid("numbers", _able(config, guard.val, plain, 1, before, now), plain, 1)
    all_paid = [update] if numbers is None else [update, numbers]
    known = {event.digest for event in _events(before, Members)}
    guard.ledger.append(*(one.members for one in all_paid if one.members.digest not in known), *(one.charge for one in all_paid))
    return update, numbers


def _drawable(patients: Sequence[str], members: Members) -> NDArray[np.bool_]:
    """(P,) which of these patients a charge was made for."""
    able = set(members.patients)
    return np.array([patient in able for patient in patients], dtype=np.bool_)


def _able(config: PrivacyConfig, patients: Sequence[str], phase: Phase, steps: int, before: Snapshot, now: datetime) -> Members:
    """Those of them whose budget allows so many steps more."""
    may = year.affordable(config, patients, phase, steps, ledger=before, now=now)
    return Members.of([patient for patient, can in zip(patients, may, strict=True) if can])


def _numbers_phase(config: PrivacyConfig, recipe: Recipe, asked: PrivacySection) -> Phase:
    """One plain Gaussian release a round."""
    sigma = accountant.noise_multiplier(config.release_epsilon, asked.delta, 1.0, recipe.rounds.count)
    return Phase(noise_multiplier=sigma, sample_rate=1.0)


def _events(before: Snapshot, kind: type[Event]) -> Iterator[Event]:
    return (event for event in before.events() if isinstance(event, kind))
