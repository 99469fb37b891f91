"""FFA-LoRA: A stays as it was drawn, B is averaged, so the mean of factors is the mean of products. Sun et al. 2024, arXiv:2403.12313."""

from collections.abc import Sequence

from rainhill.adapter import Adapter
from rainhill.messages import LocalRule, SiteId, Update
from strategies._rule import Rule, State, add_mean


class Ffa(Rule):
    def local(self, state: State, site: SiteId) -> LocalRule:  # noqa: ARG002 - the same for every site and round
        return LocalRule(train=frozenset({"B"}), send=frozenset({"B"}))

    def step(self, adapter: Adapter, updates: Sequence[Update], state: State) -> tuple[Adapter, State]:
        return add_mean(adapter, updates, self.shares(updates)), State(round=state.round + 1)
