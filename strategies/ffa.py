"""FFA-LoRA: A stays as it was drawn, B is averaged, so the mean of factors is the mean of products. Sun et al. 2024, arXiv:2403.12313."""

from collections.abc import Sequence

from rainhill.adapter import Adapter
from rainhill.messages import LocalRule, SiteId
from strategies._rule import Move, Rule, State, Traits, add_mean


class Ffa(Rule):
    traits = Traits(
        source="arXiv:2403.12313",
        summary="A stays as drawn, mean of B",
        exact=True,
        linear=True,
        factors=True,
        mixed_ranks=True,
        noise="linear",
    )

    def local(self, state: State, site: SiteId) -> LocalRule:  # noqa: ARG002 - the same for every site and round
        return LocalRule(train=frozenset({"B"}), send=frozenset({"B"}))

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        return add_mean(adapter, moves), State(round=state.round + 1)
