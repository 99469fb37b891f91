"""RoLoRA: odd rounds train and average B, even rounds A; each round's mean is exact. Chen et al. 2025, arXiv:2502.01755."""

from collections.abc import Sequence

from rainhill.adapter import Adapter
from rainhill.messages import Factor, LocalRule, SiteId, Update
from strategies._rule import Rule, State, add_mean


class Alternating(Rule):
    def local(self, state: State, site: SiteId) -> LocalRule:  # noqa: ARG002 - every site trains the same factor
        # B begins: it starts at zero, and the gradient of A is zero for as long as B is.
        turn: frozenset[Factor] = frozenset({"B"}) if state.round % 2 == 0 else frozenset({"A"})
        return LocalRule(train=turn, send=turn)

    def step(self, adapter: Adapter, updates: Sequence[Update], state: State) -> tuple[Adapter, State]:
        return add_mean(adapter, updates, self.shares(updates)), State(round=state.round + 1)
