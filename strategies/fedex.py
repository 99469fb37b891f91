"""FedEx-LoRA: the mean of the factors, and beside it the exact residual of the products. Singhal et al. 2025, arXiv:2410.09432.

The paper adds the residual to the base model. Here the base is pinned at every site, so the residual travels as a factored pair of its
own; one round adds at most (n - 1) r to its rank.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from rainhill.adapter import RESIDUAL_A_SUFFIX, RESIDUAL_B_SUFFIX, Adapter, Array, Pair
from strategies._factors import compress
from strategies._rule import Move, Rule, State, Traits, add_mean, product_change


class FedEx(Rule):
    residual_rank: Annotated[int, Field(ge=1, le=4096)] | None = None
    """The residual is cut to this rank, and the merge is then as exact as that allows; not cut where not given."""

    traits = Traits(
        source="arXiv:2410.09432",
        summary="mean of the factors, and the exact residual beside it",
        exact=True,
        linear=False,
        factors=True,
        mixed_ranks=True,
        noise="amplified",
        residual=True,
    )

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        after, before = add_mean(adapter, moves), adapter.residuals()
        merged = after.pairs()
        arrays: dict[str, Array] = {}
        for module, (products, weights) in product_change(adapter, moves).items():
            old = [before[module]] if module in before else []
            residual = compress([*old, *products, merged[module]], [*(1.0 for _ in old), *weights, -1.0], cap=self.residual_rank)
            arrays |= residual_arrays(module, residual, like=merged[module])
        ranks = [len(array) for name, array in arrays.items() if name.endswith(RESIDUAL_A_SUFFIX)]
        return after.replace(arrays), State(round=state.round + 1, log={"residual_rank": float(max(ranks, default=0))})


def residual_arrays(module: str, residual: Pair, *, like: Pair) -> dict[str, Array]:
    return {module + RESIDUAL_A_SUFFIX: residual.a.astype(like.a.dtype), module + RESIDUAL_B_SUFFIX: residual.b.astype(like.b.dtype)}
