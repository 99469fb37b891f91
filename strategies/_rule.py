"""What every rule is: two pure functions over adapters, with the keys of its TOML table as fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rainhill.adapter import Adapter, Array
from rainhill.config import Section
from rainhill.messages import LocalRule, SiteId, Update


@dataclass(frozen=True, kw_only=True)
class State:
    """What a rule remembers from one round to the next; plain arrays and numbers, so any run can be checkpointed."""

    round: int = 0
    """The last round that was finished; 0 before the first."""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    log: Mapping[str, float] = field(default_factory=dict)


class Rule(Section):
    """The default is to train and send both factors. A rule mutates nothing that it is given."""

    weights: Literal["equal", "patients"] = "equal"
    """Equal by default: weights by size favour the large site, and a patient count is a release of its own."""

    def init(self, adapter: Adapter) -> State:  # noqa: ARG002 - a rule may need the shapes
        return State()

    def local(self, state: State, site: SiteId) -> LocalRule:  # noqa: ARG002 - a rule may treat sites differently
        return LocalRule()

    def step(self, adapter: Adapter, updates: Sequence[Update], state: State) -> tuple[Adapter, State]:
        """The adapter of the next round, from the one that was sent out and what came back. `updates` is never empty."""
        raise NotImplementedError

    def shares(self, updates: Sequence[Update]) -> list[float]:
        """The weights w_i of the updates; they sum to 1."""
        sizes = [1.0 if self.weights == "equal" else float(update.patients) for update in updates]
        return [size / sum(sizes) for size in sizes]


def mean(updates: Sequence[Update], shares: Sequence[float]) -> dict[str, Array]:
    """Name by name, sum of w_i * delta_i, summed in float64 and given in the dtype it came in."""
    totals: dict[str, Array] = {}
    for update, share in zip(updates, shares, strict=True):
        for name, array in update.delta.items():
            totals[name] = totals.get(name, 0.0) + share * array.astype(np.float64)
    return {name: total.astype(updates[0].delta[name].dtype) for name, total in totals.items()}


def add_mean(adapter: Adapter, updates: Sequence[Update], shares: Sequence[float]) -> Adapter:
    """The adapter moved by the weighted mean of the deltas; tensors that were not sent stay."""
    return adapter.replace({name: adapter[name] + change for name, change in mean(updates, shares).items()})
