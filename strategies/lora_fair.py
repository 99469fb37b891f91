"""LoRA-FAIR: the mean of the factors, with B corrected towards the mean of the products. Bian et al. 2025, arXiv:2411.14961.

In ridge form: dB = (P - B A) A^T (A A^T + l I)^-1 for the mean product P and the mean factors B and A. l to 0 is the projection of P onto
the rows of A, l to infinity FedIT. A stays the mean, so the next round begins where the sites can go on from.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter, Array, Pair
from strategies._factors import with_pairs
from strategies._rule import Move, Rule, State, Traits, add_mean, product_change


class LoraFair(Rule):
    ridge: Annotated[float, Field(ge=0, le=1e12)] = 0.1
    """l, as a share of the mean squared row norm of A."""

    traits = Traits(
        source="arXiv:2411.14961",
        summary="mean of the factors, B corrected by ridge regression",
        exact=False,
        linear=False,
        factors=True,
        mixed_ranks=True,
        noise="amplified",
    )

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        after = add_mean(adapter, moves)
        merged = after.pairs()
        pairs = {
            module: self._corrected(merged[module], products, weights)
            for module, (products, weights) in product_change(adapter, moves).items()
        }
        return with_pairs(after, pairs), State(round=state.round + 1)

    def _corrected(self, merged: Pair, products: Sequence[Pair], weights: Sequence[float]) -> Pair:
        a, b = merged.a.astype(np.float64), merged.b.astype(np.float64)
        # P A^T without P: every site's B_i (A_i A^T).
        missed: Array = sum(weight * (pair.b @ (pair.a @ a.T)) for weight, pair in zip(weights, products, strict=True)) - b @ (a @ a.T)
        inner = a @ a.T
        penalty = self.ridge * np.trace(inner) / len(a)
        # pinv: with l = 0 and rows of A that depend on one another there is no inverse.
        return Pair(a=a, b=b + missed @ np.linalg.pinv(inner + penalty * np.eye(len(a)), hermitian=True))
