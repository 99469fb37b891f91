"""FedIT: the mean of A and the mean of B, factor by factor. Zhang et al. 2023, arXiv:2305.05644; McMahan et al. 2017, arXiv:1602.05629.

Its product differs from the mean of the products by sum w_i (B_i - mean B)(A_i - mean A).
"""

from collections.abc import Sequence

from rainhill.adapter import Adapter
from strategies._rule import Move, Rule, State, Traits, add_mean


class FedAvg(Rule):
    traits = Traits(
        source="arXiv:2305.05644",
        summary="mean of A and mean of B",
        exact=False,
        linear=True,
        factors=True,
        mixed_ranks=True,
        noise="quadratic",
    )

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        return add_mean(adapter, moves), State(round=state.round + 1)
