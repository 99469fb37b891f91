"""FLoRA: stack the sites' factors, merge the stack, and begin each round from new ones. Wang et al. 2024, arXiv:2409.05976.

The paper merges into the base model. Here the base is pinned, so what is merged travels as a residual pair.
"""

from collections.abc import Sequence

import numpy as np

from rainhill.adapter import A_SUFFIX, Adapter, Array, Pair
from strategies._factors import compress, with_pairs
from strategies._rule import Move, Rule, State, Traits, add_mean, product_change
from strategies.fedex import residual_arrays


class Flora(Rule):
    traits = Traits(
        source="arXiv:2409.05976",
        summary="stacked factors merged, each round from a new pair",
        exact=True,
        linear=False,
        factors=False,
        mixed_ranks=True,
        noise="amplified",
        residual=True,
    )

    def init(self, adapter: Adapter) -> State:
        return State(arrays={name: array for name, array in adapter.items() if name.endswith(A_SUFFIX)})

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        after, before = add_mean(adapter, moves), adapter.residuals()
        merged = after.pairs()
        arrays: dict[str, Array] = {}
        fresh = {}
        for module, (products, weights) in product_change(adapter, moves).items():
            old = [before[module]] if module in before else []
            stack = compress([*old, *products], [*(1.0 for _ in old), *weights])
            pair = merged[module]
            arrays |= residual_arrays(module, stack, like=pair)
            fresh[module] = Pair(a=state.arrays[module + A_SUFFIX], b=np.zeros_like(pair.b))
        return with_pairs(after.replace(arrays), fresh), State(round=state.round + 1, arrays=state.arrays)
