"""FedRot-LoRA: each site turns its factors towards the adapter it was sent, and their mean is taken. arXiv:2602.23638.

B A = (B R)(R^T A) for any orthogonal R, so two sites that learned the same can send factors whose mean is nothing. R is the solution of
orthogonal Procrustes (Schoenemann 1966): the polar factor of B_i^T B + A_i A^T.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import A_SUFFIX, B_SUFFIX, Adapter, Array, Pair
from rainhill.messages import LocalRule
from strategies._rule import Move, Rule, State, Traits, add_mean


class FedRot(Rule):
    pull: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    """Towards no rotation: a multiple of the identity, relative to the norm, added before the polar factor is taken."""

    traits = Traits(
        source="arXiv:2602.23638",
        summary="mean of factors that each site turned towards the last",
        exact=False,
        linear=True,
        factors=True,
        mixed_ranks=False,
        noise="quadratic",
    )

    def encode(self, sent: Adapter, trained: Adapter, rule: LocalRule, number: int) -> Adapter:
        """Of a turned adapter: the product is the trained one's."""
        turned: dict[str, Array] = dict(trained)
        before = sent.pairs()
        for module, pair in trained.pairs().items():
            rotation = self.rotation(pair, before[module])
            turned[module + A_SUFFIX] = (rotation.T @ pair.a).astype(pair.a.dtype)
            turned[module + B_SUFFIX] = (pair.b @ rotation).astype(pair.b.dtype)
        return super().encode(sent, Adapter(turned), rule, number)

    def rotation(self, pair: Pair, target: Pair) -> Array:
        """(r, r) orthogonal, the one that brings B R and R^T A nearest to the target's factors."""
        near = pair.b.astype(np.float64).T @ target.b + pair.a.astype(np.float64) @ target.a.T
        u, _, vt = np.linalg.svd(near + self.pull * np.linalg.norm(near) * np.eye(pair.rank))
        return np.asarray(u @ vt)

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        return add_mean(adapter, moves), State(round=state.round + 1)
