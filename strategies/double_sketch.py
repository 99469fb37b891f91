"""FedASK: exact aggregation of products from linear messages, by sketching them from both sides. arXiv:2507.09990.

Each site sends Y_i = D_i G and Z_i = D_i^T H of its product's change D_i = B_i A_i - B A, for random G and H that all draw alike. Their
weighted sums are sketches of the mean change D, which is Y (H^T Y)^+ Z^T wherever its rank is at most the sketch's. The paper needs two
trips for this (the second sends back a basis of Y); with a sketch of the rows beside the one of the columns, which is the generalised
Nystroem approximation (Nakatsukasa 2020, arXiv:2009.11392), one trip does, and a site has nothing to remember between the two.
"""

import logging
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter, Array, Pair, factor
from rainhill.messages import LocalRule
from strategies._factors import difference, svd, with_pairs
from strategies._rule import Move, Rule, Shape, State, Traits, add_mean, mean
from strategies.flexlora import energy_kept, refill

log = logging.getLogger(__name__)

Y_SUFFIX = ".sketch_Y"
Z_SUFFIX = ".sketch_Z"
OVERSAMPLING = 1.5
"""Columns of Z for one of Y: with as many, the small system between them can be nearly singular."""


class DoubleSketch(Rule):
    size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Columns of Y, the paper's l. Exact where it is at least the rank of the mean change: n r in the first round, (n + 1) r after it."""

    traits = Traits(
        source="arXiv:2507.09990",
        summary="mean of the products from two linear sketches, cut to rank r",
        exact=True,
        linear=True,
        factors=False,
        mixed_ranks=True,
        noise="amplified",
        sketched=True,
    )

    def encode(self, sent: Adapter, trained: Adapter, rule: LocalRule, number: int) -> Adapter:
        whole = {name: trained[name] - sent[name] for name in sent if rule.sends(name) and not factor(name)}
        before = sent.pairs()
        for module, pair in trained.pairs().items():
            change = difference(pair, before[module])
            g, h = self.draw(module, number, d_out=len(pair.b), d_in=pair.a.shape[1])
            a, b = change.a.astype(np.float64), change.b.astype(np.float64)
            whole[module + Y_SUFFIX] = (b @ (a @ g)).astype(pair.b.dtype)
            whole[module + Z_SUFFIX] = (a.T @ (b.T @ h)).astype(pair.a.dtype)
        return Adapter(whole)

    def uplink(self, sent: Adapter, rule: LocalRule) -> dict[str, Shape]:
        shapes = {name: array.shape for name, array in sent.items() if rule.sends(name) and not factor(name)}
        for module, pair in sent.pairs().items():
            shapes[module + Y_SUFFIX] = (len(pair.b), self.size)
            shapes[module + Z_SUFFIX] = (pair.a.shape[1], self._rows())
        return shapes

    def draw(self, module: str, number: int, *, d_out: int, d_in: int) -> tuple[Array, Array]:
        """G (d_in, l) and H (d_out, 1.5 l), standard normal: the same at every site and at the server."""
        rng = np.random.default_rng([number, *module.encode()])
        return rng.standard_normal((d_in, self.size)), rng.standard_normal((d_out, self._rows()))

    def step(self, adapter: Adapter, moves: Sequence[Move], state: State) -> tuple[Adapter, State]:
        totals = mean(moves)
        needed = (len(moves) + (state.round > 0)) * max(pair.rank for pair in adapter.pairs().values())
        if self.size < needed:
            log.warning("double_sketch: size = %d is below the %d that %d sites need for an exact mean", self.size, needed, len(moves))
        after = add_mean(
            adapter, [Move(site="", weight=1.0, sent=adapter, delta=Adapter({k: v for k, v in totals.items() if k in adapter}))]
        )
        pairs, kept = {}, 1.0
        for module, pair in adapter.pairs().items():
            change = self._unsketched(module, state.round + 1, totals[module + Y_SUFFIX], totals[module + Z_SUFFIX])
            u, spectrum, vt = svd([pair, change], [1.0, 1.0])
            pairs[module] = refill(u, spectrum, vt, pair)
            kept = min(kept, energy_kept(spectrum, pair.rank))
        return with_pairs(after, pairs), State(round=state.round + 1, log={"energy_kept": kept})

    def _unsketched(self, module: str, number: int, y: Array, z: Array) -> Pair:
        """D = Y (H^T Y)^+ Z^T, with what is below rounding in the small system left out."""
        _, h = self.draw(module, number, d_out=len(y), d_in=len(z))
        core = h.T @ y.astype(np.float64)
        precision = np.finfo(y.dtype).eps * max(core.shape)
        return Pair(a=np.linalg.pinv(core, rcond=precision) @ z.astype(np.float64).T, b=y.astype(np.float64))

    def _rows(self) -> int:
        return int(np.ceil(OVERSAMPLING * self.size))
