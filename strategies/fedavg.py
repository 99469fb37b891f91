"""FedIT: the mean of A and the mean of B, factor by factor. Zhang et al. 2023, arXiv:2305.05644; McMahan et al. 2017, arXiv:1602.05629.

Its product differs from the mean of the products by sum w_i (B_i - mean B)(A_i - mean A).
"""

from collections.abc import Sequence

from rainhill.adapter import Adapter
from rainhill.messages import Update
from strategies._rule import Rule, State, add_mean


class FedAvg(Rule):
    def step(self, adapter: Adapter, updates: Sequence[Update], state: State) -> tuple[Adapter, State]:
        return add_mean(adapter, updates, self.shares(updates)), State(round=state.round + 1)
