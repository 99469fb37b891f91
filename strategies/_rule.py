"""What every rule is: two pure functions over adapters at the server, one at the site, and its table's keys as fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from rainhill.adapter import Adapter, Array, Pair
from rainhill.messages import LocalRule, SiteId
from rainhill.toml import Section

Noise = Literal["linear", "quadratic", "amplified"]
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the rest of the program, and an operator who must choose, need to know of a rule. The defaults promise nothing."""

    source: str = ""
    """Paper."""
    summary: str = ""
    exact: bool = False
    """Whether the merged product is the weighted mean of the sites' products, before it is cut to a rank."""
    linear: bool = False
    """Whether the weighted sum of what the sites send is enough, so that secure aggregation can hide each one's."""
    factors: bool = False
    """Whether A and B keep their basis from one round to the next, so that a server optimiser may move them entry by entry."""
    mixed_ranks: bool = False
    """Whether sites of different rank can take part."""
    noise: Noise = "amplified"
    """What noise on the sites' tensors does to the product: linear; quadratic, where both factors are noised and averaged; amplified, where
    their products are."""
    void: bool = False
    """Whether parts that never leave the site are trained while the shared one is, which voids a privacy guarantee of the shared one."""
    core: bool = False
    """Whether an r x r core between fixed factors is all that trains."""
    residual: bool = False
    """Whether a residual pair travels down beside the factors."""
    sketched: bool = False
    """Whether sites send sketches of their products in place of factors."""
    min_sites: int = 1


@dataclass(frozen=True, kw_only=True)
class State:
    """What a rule remembers from one round to the next; plain arrays and numbers, so any run can be checkpointed."""

    round: int = 0
    """The last round that was finished; 0 before the first."""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    log: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Move:
    """What one site did in a round, at the ranks of the adapter that is being moved."""

    site: SiteId
    weight: float
    """w_i; over all moves of a round they sum to 1."""
    sent: Adapter
    """What the site was given."""
    delta: Adapter
    """What it gave back, as `Rule.encode` made it."""
    choice: int = 0
    """Which of the adapters that it was offered it began from."""

    def arrived(self) -> Adapter:
        """Where the site ended; tensors that it did not send are as they were sent to it."""
        return self.sent.replace({name: self.sent[name] + change for name, change in self.delta.items()})


class Rule(Section):
    """The default is to train and send both factors, and that what a site sends is a change of them. A rule mutates nothing it is given."""

    traits: ClassVar[Traits] = Traits()

    def init(self, adapter: Adapter) -> State:  # noqa: ARG002 - a rule may need the shapes
        return State()

    def first(self, adapter: Adapter) -> Adapter:
        """What round 1 starts from, where the rule needs more than a drawn A and a B of zeros."""
        return adapter

    def local(self, state: State, site: SiteId) -> LocalRule:  # noqa: ARG002 - a rule may treat sites differently
        return LocalRule()

    def encode(self, sent: Adapter, trained: Adapter, rule: LocalRule, number: int) -> Adapter:  # noqa: ARG002 - a rule may use the round
        """At the site: what crosses, of an adapter that began round `number` as `sent` and ended as `trained`."""
        return Adapter({name: trained[name] - sent[name] for name in sent if rule.sends(name)})

    def uplink(self, sent: Adapter, rule: LocalRule) -> dict[str, Shape]:
        """Names and shapes of what `encode` gives: the site's door and the server's hold the update against them."""
        return {name: array.shape for name, array in sent.items() if rule.sends(name)}

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        """The adapter of the next round, from the one that was sent out and what came back. `moves` is never empty."""
        raise NotImplementedError


def mean(moves: Sequence[Move]) -> dict[str, Array]:
    """Name by name, sum of w_i * delta_i, summed in float64 and given in the dtype it came in."""
    totals: dict[str, Array] = {}
    for move in moves:
        for name, array in move.delta.items():
            totals[name] = totals.get(name, 0.0) + move.weight * array.astype(np.float64)
    return {name: total.astype(moves[0].delta[name].dtype) for name, total in totals.items()}


def add_mean(adapter: Adapter, moves: Sequence[Move]) -> Adapter:
    """The adapter moved by the weighted mean of the deltas; tensors that were not sent stay."""
    return adapter.replace({name: adapter[name] + change for name, change in mean(moves).items()})


def product_change(adapter: Adapter, moves: Sequence[Move]) -> dict[str, tuple[list[Pair], list[float]]]:
    """Module -> pairs and weights whose weighted products sum to P + sum w_i (P_i - P_sent_i): the exact merge.

    Where every site was sent the whole pair, that is sum w_i P_i.
    """
    sent, arrived = ([one.pairs() for one in some] for some in ([move.sent for move in moves], [move.arrived() for move in moves]))
    weights = [move.weight for move in moves]
    exact: dict[str, tuple[list[Pair], list[float]]] = {}
    for module, pair in adapter.pairs().items():
        pairs, counts = [one[module] for one in arrived], list(weights)
        narrowed = [
            (weight, one[module])
            for weight, one in zip(weights, sent, strict=True)
            if not (np.array_equal(one[module].a, pair.a) and np.array_equal(one[module].b, pair.b))
        ]
        if narrowed:
            pairs += [pair, *(one for _, one in narrowed)]
            counts += [sum(weight for weight, _ in narrowed), *(-weight for weight, _ in narrowed)]
        exact[module] = (pairs, counts)
    return exact
