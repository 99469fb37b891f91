"""HetLoRA: sites of different rank, zero-padded and weighted by the norm of what they learned. Cho et al. 2024, arXiv:2401.06432."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rainhill.adapter import Adapter
from strategies._factors import gram
from strategies._rule import Move, Rule, State, Traits, add_mean


class HetLora(Rule):
    traits = Traits(
        source="arXiv:2401.06432",
        summary="mean of zero-padded factors, weighted by the norm of B A",
        exact=False,
        linear=False,
        factors=True,
        mixed_ranks=True,
        noise="quadratic",
    )

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        norms = [move.weight * product_norm(move.arrived()) for move in moves]
        # Before anything was learned all norms are zero, and the sites' own weights stand.
        total = sum(norms)
        weighed = [replace(move, weight=norm / total) for move, norm in zip(moves, norms, strict=True)] if total > 0 else moves
        return add_mean(adapter, weighed), State(round=state.round + 1)


def product_norm(adapter: Adapter) -> float:
    """Frobenius norm over the products of all modules."""
    return float(np.sqrt(sum(max(0.0, gram([pair], [pair])[0, 0]) for pair in adapter.pairs().values())))
