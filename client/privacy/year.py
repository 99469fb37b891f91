"""What patients have spent in the last 365 days.

Of any 365 days, those that end with a charge hold most, and each charge is held against the days that it ends.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from client.privacy import budget
from client.privacy.accountant import NEIGHBOURS, Phase, combined
from client.privacy.events import Charged
from client.privacy.statement import Snapshot
from rainhill.config import PrivacyConfig

YEAR = timedelta(days=365)


def last_year(ledger: Snapshot, now: datetime) -> Snapshot:
    """The ledger without what was charged before: from the first entry of the last 365 days on, all counts.

    So nothing is forgotten early by a clock that was set back, or that was ahead for a while.
    """
    times = [datetime.fromisoformat(entry.time) for entry in ledger.entries]
    first = next((number for number, time in enumerate(times) if time > now - YEAR), len(times))
    held = enumerate(zip(ledger.entries, ledger.parsed, strict=True))
    kept = [both for number, both in held if number >= first or not isinstance(both[1], Charged)]
    return replace(ledger, entries=tuple(entry for entry, _ in kept), parsed=tuple(event for _, event in kept))


def affordable(config: PrivacyConfig, patients: Sequence[str], phase: Phase, steps: int, *, ledger: Snapshot, now: datetime) -> list[bool]:
    """Of each patient, whether so many steps more leave it within the site's epsilon, and within that of a year."""
    able = budget.affordable(patients, budget.histories(ledger), phase, steps, epsilon=config.epsilon, delta=config.delta)
    limit = config.epsilon_per_year
    if limit is None:
        return able
    spent = budget.histories(last_year(ledger, now))
    in_year = budget.affordable(patients, spent, phase, steps, epsilon=limit, delta=config.delta)
    return [ever and recently for ever, recently in zip(able, in_year, strict=True)]


def nobody_left(config: PrivacyConfig, patients: Sequence[str], phase: Phase, steps: int, *, ledger: Snapshot, now: datetime) -> str:
    """Which limit it is that no patient can keep, and what the one who has spent least would come to."""
    named, since = f"epsilon of {config.epsilon:g}", "so far"
    ever = budget.affordable(patients, budget.histories(ledger), phase, steps, epsilon=config.epsilon, delta=config.delta)
    if any(ever):
        named, since, ledger = f"epsilon_per_year of {config.epsilon_per_year:g}", "in the last 365 days", last_year(ledger, now)
        patients = [patient for patient, can in zip(patients, ever, strict=True) if can]
    known = budget.histories(ledger)
    distinct = {frozenset(known.get(patient, {}).items()) for patient in patients}
    least = min((budget.spent(combined([dict(one), {phase: steps}]), config.delta) for one in distinct), default=0.0)
    return (
        f"no patient is left whose {named} allows another round: the one who has spent least {since} would come to {least:.4g} "
        f"({NEIGHBOURS}, delta {config.delta:g})"
    )
