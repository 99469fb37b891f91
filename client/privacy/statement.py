"""What a ledger says of a site, as data: spent by run, by patient, and by one patient who took part in everything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from client.chain import Entry, Event
from client.privacy import accountant, budget
from client.privacy.accountant import NEIGHBOURS, UNIT, History, combined
from client.privacy.budget import What
from client.privacy.events import Charged, Joined
from client.privacy.ledger import Ledger
from rainhill.config import PrivacyConfig

RANGES = 4
"""Equal parts of the budget that patients are counted in."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An epsilon with all that it needs to mean something."""

    epsilon: float
    rdp: float
    """The bound by Rényi differential privacy, which the claim was held against."""
    delta: float
    unit: str = UNIT
    neighbours: str = NEIGHBOURS

    def __str__(self) -> str:
        about = f"{self.neighbours}, delta {self.delta:g}; by RDP {self.rdp:.3f}"
        return f"epsilon {self.epsilon:.3f} per {self.unit} ({about})"


@dataclass(frozen=True, kw_only=True)
class RunSpent:
    run: str
    recipe: str
    what: What
    cohort: str
    rounds: int
    """Charged so far."""
    noise_multipliers: tuple[float, ...]
    """More than one only where the run's terms changed."""
    sample_rates: tuple[float, ...]
    steps: int
    steps_agreed: int | None
    """Of the whole run, where the ledger says."""
    claim: Claim
    epsilon_agreed: float | None


@dataclass(frozen=True, kw_only=True)
class Range:
    """Patients who have spent more than `above`, at most `upto`."""

    above: float
    upto: float
    patients: int


@dataclass(frozen=True, kw_only=True)
class Statement:
    site: str
    entries: int
    since: str
    """ISO 8601, UTC; empty where the ledger is."""
    delta: float
    budget: float | None
    """Epsilon of one patient, over all runs; None where the site's file sets no limit."""
    runs: tuple[RunSpent, ...]
    patients: int
    """Who were charged at all."""
    ranges: tuple[Range, ...]
    at_budget: int | None
    """Patients who cannot afford one more round like the last one charged."""
    most_spent: Claim
    year_budget: float | None
    """Epsilon of one patient over any 365 days; None where the site's file sets no limit."""
    most_spent_in_year: Claim
    """Of the patient who has spent most in the last 365 days."""
    everything: Claim
    """Of a patient who took part in everything: an upper bound for the whole site."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A ledger's entries as they were read once; empty of a site that has no ledger yet."""

    entries: tuple[Entry, ...] = ()
    parsed: tuple[Event, ...] = ()

    @classmethod
    def of(cls, ledger: Ledger | None) -> "Snapshot":
        """LedgerError where it does not hold."""
        entries = ledger.entries() if ledger else ()
        return cls(entries=entries, parsed=tuple(ledger.event(entry) for entry in entries) if ledger else ())

    def events(self) -> tuple[Event, ...]:
        return self.parsed


def claim(history: History, delta: float) -> Claim:
    return Claim(epsilon=accountant.epsilon(history, delta), rdp=accountant.cross_check(history, delta), delta=delta)


def state(site: str, ledger: Snapshot, privacy: PrivacyConfig | None, *, last_year: Snapshot) -> Statement:
    """`last_year` is the same without what was charged before."""
    delta = (privacy or PrivacyConfig()).delta
    limit = privacy.epsilon if privacy else None
    histories = budget.histories(ledger)
    return Statement(
        site=site,
        entries=len(ledger.entries),
        since=ledger.entries[0].time if ledger.entries else "",
        delta=delta,
        budget=limit,
        runs=_runs(ledger.events(), delta),
        patients=len(histories),
        ranges=_ranges(histories, limit, delta),
        at_budget=_at_budget(ledger.events(), histories, limit, delta) if limit else None,
        most_spent=claim(budget.most_spent(histories, delta), delta),
        year_budget=privacy.epsilon_per_year if privacy else None,
        most_spent_in_year=claim(budget.most_spent(budget.histories(last_year), delta), delta),
        everything=claim(budget.site_history(ledger), delta),
    )


def _runs(events: Sequence[Event], delta: float) -> tuple[RunSpent, ...]:
    """In the order in which they were first charged."""
    joined = {event.run: event for event in events if isinstance(event, Joined)}
    charges: dict[tuple[str, What], list[Charged]] = {}
    for event in events:
        if isinstance(event, Charged):
            charges.setdefault((event.run, event.what), []).append(event)
    return tuple(_run(own, joined.get(run) if what == "update" else None, delta) for (run, what), own in charges.items())


def _run(charges: Sequence[Charged], joined: Joined | None, delta: float) -> RunSpent:
    last = charges[-1]
    return RunSpent(
        run=last.run,
        recipe=last.recipe,
        what=last.what,
        cohort=last.cohort,
        rounds=len({charge.round for charge in charges}),
        noise_multipliers=tuple(sorted({charge.noise_multiplier for charge in charges})),
        sample_rates=tuple(sorted({charge.sample_rate for charge in charges})),
        steps=sum(charge.steps for charge in charges),
        steps_agreed=joined.steps if joined else None,
        claim=claim(combined({charge.phase: charge.steps} for charge in charges), delta),
        epsilon_agreed=joined.epsilon if joined else None,
    )


def _ranges(histories: Mapping[str, History], limit: float | None, delta: float) -> tuple[Range, ...]:
    """Equal parts of the budget, or of the most that was spent; a last one for who is above the budget, where there is any."""
    spent = budget.spent_by_history(histories, delta)
    each = [spent[frozenset(history.items())] for history in histories.values()]
    top = limit or max(each, default=0.0)
    edges = [top * part / RANGES for part in range(RANGES + 1)] + ([max(each)] if each and max(each) > top else [])
    return tuple(Range(above=low, upto=high, patients=sum(low < one <= high for one in each)) for low, high in pairwise(edges))


def _at_budget(events: Sequence[Event], histories: Mapping[str, History], limit: float, delta: float) -> int:
    last = next((event for event in reversed(events) if isinstance(event, Charged) and event.what == "update"), None)
    if last is None:
        return 0
    return budget.affordable(list(histories), histories, last.phase, last.steps, epsilon=limit, delta=delta).count(False)
