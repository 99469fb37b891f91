"""FlexLoRA: aggregate the products B_i A_i, redistribute their truncated SVD. Bai et al. 2024, arXiv:2402.11505."""

import logging
from collections.abc import Sequence

import numpy as np

from rainhill.adapter import Adapter, Array, Pair
from strategies._factors import balanced, numerical_rank, svd, with_pairs
from strategies._rule import Move, Rule, State, Traits, add_mean, product_change

log = logging.getLogger(__name__)

ENERGY_ALARM = 0.90


class FlexLora(Rule):
    traits = Traits(
        source="arXiv:2402.11505",
        summary="mean of the products, cut to rank r by SVD",
        exact=True,
        linear=False,
        factors=False,
        mixed_ranks=True,
        noise="amplified",
    )

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        """The state's log holds `energy_kept`: the smallest share of a product's squared Frobenius norm that rank r held."""
        after = add_mean(adapter, moves)
        merged, pairs, kept = after.pairs(), {}, 1.0
        for module, (products, weights) in product_change(adapter, moves).items():
            u, spectrum, vt = svd(products, weights)
            pair = merged[module]
            pairs[module] = refill(u, spectrum, vt, pair)
            kept = min(kept, energy_kept(spectrum, pair.rank))
        if kept < ENERGY_ALARM:
            log.warning(
                "round %d: rank keeps %.0f %% of a product's energy, below %.0f %%", state.round + 1, 100 * kept, 100 * ENERGY_ALARM
            )
        return with_pairs(after, pairs), State(round=state.round + 1, log={"energy_kept": kept})


def energy_kept(spectrum: Array, rank: int) -> float:
    """Share of the sum of squared singular values in the first `rank`; 1 for a product of zero."""
    total = float(np.sum(np.square(spectrum)))
    return float(np.sum(np.square(spectrum[:rank]))) / total if total > 0 else 1.0


def refill(u: Array, spectrum: Array, vt: Array, mean: Pair) -> Pair:
    """The best factors of the rank of `mean`; directions the product does not use keep a row of A beside a column of zeros in B.

    So they can still learn.
    """
    held = min(mean.rank, numerical_rank(spectrum, max(u.shape[0], vt.shape[1])))
    best = balanced(u, spectrum, vt, held)
    a, b = mean.a.astype(np.float64), np.zeros(mean.b.shape)
    a[:held], b[:, :held] = best.a, best.b
    return Pair(a=a, b=b)
