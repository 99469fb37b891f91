"""FedSVD: train and average B alone, then give B A a new basis by its SVD, so that A follows and stays orthonormal. arXiv:2505.12805.

The row space of A stays the one it began with: only the basis within it moves.
"""

from collections.abc import Sequence

import numpy as np

from rainhill.adapter import Adapter, Pair
from rainhill.messages import LocalRule, SiteId
from strategies._factors import with_pairs
from strategies._rule import Move, Rule, State, Traits, add_mean


class FedSvd(Rule):
    traits = Traits(
        source="arXiv:2505.12805",
        summary="mean of B, then a new basis for B A by SVD",
        exact=True,
        linear=True,
        factors=False,
        mixed_ranks=True,
        noise="linear",
    )

    def local(self, state: State, site: SiteId) -> LocalRule:  # noqa: ARG002 - the same for every site and round
        return LocalRule(train=frozenset({"B"}), send=frozenset({"B"}))

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        after = add_mean(adapter, moves)
        return with_pairs(after, {module: _rebased(pair) for module, pair in after.pairs().items()}), State(round=state.round + 1)


def _rebased(pair: Pair) -> Pair:
    """U Sigma and V^T of B A; V^T spans the rows of A in full, also where B has a lower rank."""
    q, r = np.linalg.qr(pair.a.astype(np.float64).T)
    u, spectrum, vt = np.linalg.svd(pair.b.astype(np.float64) @ r.T, full_matrices=len(pair.b) < pair.rank)
    held = len(spectrum)
    b = np.zeros((len(pair.b), len(vt)))
    b[:, :held] = u[:, :held] * spectrum
    return Pair(a=vt @ q.T, b=b) if q.shape[1] == pair.rank else pair
