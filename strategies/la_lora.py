"""LA-LoRA: the factors take turns from one local step to the next, and both are averaged. ICLR 2026.

Without the paper's smoothing of noised gradients, which takes neighbouring hidden units to be related.
"""

from collections.abc import Sequence

from rainhill.adapter import Adapter
from rainhill.messages import LocalRule, SiteId
from strategies._rule import Move, Rule, State, Traits, add_mean


class LaLora(Rule):
    traits = Traits(
        source="ICLR 2026",
        summary="mean of A and of B, which take turns step by step",
        exact=False,
        linear=True,
        factors=True,
        mixed_ranks=True,
        noise="quadratic",
    )

    def local(self, state: State, site: SiteId) -> LocalRule:  # noqa: ARG002 - every site takes the same turns
        return LocalRule(alternate=True)

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        return add_mean(adapter, moves), State(round=state.round + 1)
