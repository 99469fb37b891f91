"""FedSA-LoRA: the mean of A; each site keeps its own B. Guo et al. 2025, arXiv:2410.01463."""

from collections.abc import Sequence

from rainhill.adapter import B_SUFFIX, Adapter
from rainhill.messages import LocalRule, SiteId
from strategies._rule import Move, Rule, State, Traits, add_mean


class FedSa(Rule):
    traits = Traits(
        source="arXiv:2410.01463",
        summary="mean of A, each site keeps its B",
        exact=False,
        linear=True,
        factors=True,
        mixed_ranks=True,
        noise="linear",
        void=True,
    )

    def local(self, state: State, site: SiteId) -> LocalRule:  # noqa: ARG002 - the same for every site and round
        return LocalRule(keep=(f"*{B_SUFFIX}",))

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        return add_mean(adapter, moves), State(round=state.round + 1)
