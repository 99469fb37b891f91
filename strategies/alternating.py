"""RoLoRA: odd rounds train and average B, even rounds A; each round's mean is exact. Chen et al. 2025, arXiv:2502.01755."""

from collections.abc import Sequence

from rainhill.adapter import Adapter
from rainhill.messages import Factor, LocalRule, SiteId
from strategies._rule import Move, Rule, State, Traits, add_mean


class Alternating(Rule):
    traits = Traits(
        source="arXiv:2502.01755",
        summary="mean of B in odd rounds, of A in even ones",
        exact=True,
        linear=True,
        factors=True,
        mixed_ranks=True,
        noise="linear",
    )

    def local(self, state: State, site: SiteId) -> LocalRule:  # noqa: ARG002 - every site trains the same factor
        # B begins: it starts at zero, and the gradient of A is zero for as long as B is.
        turn: frozenset[Factor] = frozenset({"B"}) if state.round % 2 == 0 else frozenset({"A"})
        return LocalRule(train=turn, send=turn)

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        return add_mean(adapter, moves), State(round=state.round + 1)
