"""What a ledger's patients have spent, and who of them can still take part. No patient's data is looked at: only who was charged when."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

from client.chain import Event
from client.privacy import accountant
from client.privacy.accountant import NEIGHBOURS, History, Phase, combined
from client.privacy.events import Charged, Members
from rainhill.errors import LedgerError, RefusedError

What = Literal["update", "numbers"]
Spent = frozenset[tuple[Phase, int]]
"""A history that can be told apart from others: patients of the same are worked out once."""


class Recorded(Protocol):
    """A ledger, or what was read from one."""

    def events(self) -> Sequence[Event]: ...


def histories(ledger: Recorded) -> dict[str, History]:
    """Pseudonym -> all that this patient was charged, over all runs and tasks. Patients of one history share one mapping."""
    events = ledger.events()
    charged: dict[str, list[History]] = {}
    for event in events:
        if isinstance(event, Charged):
            charged.setdefault(event.members, []).append({event.phase: event.steps})
    by_set = {members: combined(parts) for members, parts in charged.items()}
    sets_of: dict[str, list[str]] = {}
    for members in _known(events, by_set):
        for patient in members.patients:
            sets_of.setdefault(patient, []).append(members.digest)
    shared: dict[tuple[str, ...], History] = {}
    for patient_sets in map(tuple, sets_of.values()):
        if patient_sets not in shared:
            shared[patient_sets] = combined(by_set[members] for members in patient_sets)
    return {patient: shared[tuple(patient_sets)] for patient, patient_sets in sets_of.items()}


def run_history(ledger: Recorded, run: str, what: What = "update") -> History:
    """Of a patient who was in every round of the run. Updates and numbers are charged to different patients, and told apart."""
    return _history(event for event in ledger.events() if isinstance(event, Charged) and (event.run, event.what) == (run, what))


def cohort_history(ledger: Recorded, cohort: str, what: What = "update") -> History:
    """Of a patient who was in every round on this data set, of whatever run."""
    return _history(event for event in ledger.events() if isinstance(event, Charged) and (event.cohort, event.what) == (cohort, what))


def site_history(ledger: Recorded) -> History:
    """Of a patient who was in everything: more than any one has spent."""
    return _history(event for event in ledger.events() if isinstance(event, Charged))


def spent(history: History, delta: float) -> float:
    """Epsilon, as the accountant claims it."""
    return accountant.epsilon(history, delta)


def spent_by_history(histories: Mapping[str, History], delta: float) -> dict[Spent, float]:
    """Each history that there is -> its epsilon; there are far fewer than patients."""
    return {history: spent(dict(history), delta) for history in _distinct(histories.values())}


def most_spent(histories: Mapping[str, History], delta: float) -> History:
    """Of the patient who has spent most; empty where nobody was charged."""
    distinct = _distinct(histories.values())
    # Who took part in a part of what another did has spent less: not worked out.
    outermost = [dict(one) for one in distinct if not any(one != other and _part_of(one, other) for other in distinct)]
    return max(outermost, key=lambda history: spent(history, delta), default={})


def affordable(
    patients: Sequence[str], histories: Mapping[str, History], phase: Phase, steps: int, *, epsilon: float, delta: float
) -> list[bool]:
    """Of each patient, whether so many steps more leave it within epsilon.

    Where one patient can, so can all who took part in a part of what that one did.
    """
    own = [frozenset(histories.get(patient, {}).items()) for patient in patients]
    able: dict[Spent, bool] = {}
    # From the fullest history down, since one answer settles all that are a part of it.
    for history in sorted(set(own), key=lambda one: -sum(steps for _, steps in one)):
        settled = any(can and _part_of(history, other) for other, can in able.items())
        able[history] = settled or spent(combined([dict(history), {phase: steps}]), delta) <= epsilon
    return [able[history] for history in own]


def refuse_beyond_run(ledger: Recorded, run: str, phase: Phase, steps: int, *, epsilon: float, delta: float) -> None:
    """Raises RefusedError where so many steps more of updates would bring the run above epsilon."""
    _refuse_beyond(f"run {run}", run_history(ledger, run), phase, steps, epsilon, delta)


def refuse_beyond_cohort(ledger: Recorded, cohort: str, phase: Phase, steps: int, *, epsilon: float, delta: float) -> None:
    """Raises RefusedError where so many steps more of updates would bring all runs on the data set together above epsilon."""
    _refuse_beyond(f"data set {cohort}", cohort_history(ledger, cohort), phase, steps, epsilon, delta)


def _refuse_beyond(what: str, before: History, phase: Phase, steps: int, epsilon: float, delta: float) -> None:
    asked = spent(combined([before, {phase: steps}]), delta)
    if asked > epsilon:
        already = spent(before, delta)
        terms = f"noise multiplier {phase.noise_multiplier:g} and sample rate {phase.sample_rate:g}"
        raise RefusedError(
            f"{what}: {steps} steps more of {terms} bring it to epsilon {asked:.4g}, allowed are {epsilon:g}; {already:.4g} are spent and "
            f"{max(epsilon - already, 0):.4g} left ({NEIGHBOURS}, delta {delta:g})"
        )


def _distinct(histories: Iterable[History]) -> set[Spent]:
    # Patients of one history share the mapping, so only a few are turned into something that can be compared.
    return {frozenset(history.items()) for history in {id(history): history for history in histories}.values()}


def _part_of(less: Spent, more: Spent) -> bool:
    whole = dict(more)
    return all(whole.get(phase, 0) >= steps for phase, steps in less)


def _history(charges: Iterable[Charged]) -> History:
    return combined({charge.phase: charge.steps} for charge in charges)


def _known(events: Sequence[Event], charged: Iterable[str]) -> list[Members]:
    """The sets that were charged, each once. Raises LedgerError where one is not in the ledger: whom it charged cannot be told."""
    sets = {event.digest: event for event in events if isinstance(event, Members)}
    for digest in charged:
        if digest not in sets:
            raise LedgerError(f"patients {digest} were charged, but the ledger has no entry that says who they are")
    return [sets[digest] for digest in charged]
