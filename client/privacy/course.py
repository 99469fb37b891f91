"""How what a site's patients have spent grew, charge by charge."""

from dataclasses import dataclass
from itertools import pairwise

from client.privacy import budget
from client.privacy.events import Charged
from client.privacy.statement import Snapshot

POINTS = 24
"""Charges at which epsilon is worked out, at most twice as many, besides the first and last of each run."""


@dataclass(frozen=True, kw_only=True)
class Point:
    charges: int
    """That the ledger held then."""
    run: str
    """Of the newest of these."""
    time: str
    """Of the same, ISO 8601."""
    epsilon: float
    """Of the patient who had spent most."""


def course(ledger: Snapshot, delta: float) -> tuple[Point, ...]:
    charges = [(at, event) for at, event in enumerate(ledger.events()) if isinstance(event, Charged)]
    runs = [event.run for _, event in charges]
    found = []
    for place in _places(runs):
        at, event = charges[place]
        histories = budget.histories(Snapshot(parsed=ledger.parsed[: at + 1]))
        epsilon = budget.spent(budget.most_spent(histories, delta), delta)
        found.append(Point(charges=place + 1, run=event.run, time=ledger.entries[at].time, epsilon=epsilon))
    return tuple(found)


def _places(runs: list[str]) -> list[int]:
    """Evenly spread ones that stay where they are when charges are added, so that what was worked out once is known; and turns of runs."""
    step = 1
    while len(runs) > 2 * POINTS * step:
        step *= 2
    turns = {at for at, (before, now) in enumerate(pairwise(runs)) if before != now}
    return sorted({*range(0, len(runs), step), *turns, *(at + 1 for at in turns), *([len(runs) - 1] if runs else [])})
