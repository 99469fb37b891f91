"""Fed-SB: between a fixed A and a fixed B an r x r core is trained and averaged. Singhal et al. 2025, arXiv:2502.15436."""

from collections.abc import Sequence

import numpy as np

from rainhill.adapter import A_SUFFIX, B_SUFFIX, CORE_SUFFIX, Adapter, Array
from rainhill.messages import LocalRule, SiteId
from strategies._rule import Move, Rule, State, Traits, add_mean


class FedSb(Rule):
    traits = Traits(
        source="arXiv:2502.15436",
        summary="mean of an r x r core between fixed A and B",
        exact=True,
        linear=True,
        factors=True,
        mixed_ranks=False,
        noise="linear",
        core=True,
    )

    def first(self, adapter: Adapter) -> Adapter:
        """Rows of A and columns of B made orthonormal, and a core of zeros: nothing changes yet."""
        arrays: dict[str, Array] = {}
        for module, pair in adapter.pairs().items():
            rng = np.random.default_rng([*module.encode()])
            arrays[module + A_SUFFIX] = np.linalg.qr(pair.a.astype(np.float64).T)[0].T.astype(pair.a.dtype)
            arrays[module + B_SUFFIX] = np.linalg.qr(rng.standard_normal(pair.b.shape))[0].astype(pair.b.dtype)
            arrays[module + CORE_SUFFIX] = np.zeros((pair.rank, pair.rank), pair.a.dtype)
        return adapter.replace(arrays)

    def local(self, state: State, site: SiteId) -> LocalRule:  # noqa: ARG002 - the same for every site and round
        return LocalRule(train=frozenset({"R"}), send=frozenset({"R"}))

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        return add_mean(adapter, moves), State(round=state.round + 1)
