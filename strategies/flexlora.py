"""FlexLoRA: aggregate the products B_i A_i, redistribute their truncated SVD. Bai et al. 2024, arXiv:2402.11505.

The product is never built: a QR of each stack and the SVD of an (nr, nr) core give the same factors.
"""

import logging
from collections.abc import Sequence

import numpy as np

from rainhill.adapter import A_SUFFIX, B_SUFFIX, Adapter, Array, Pair
from rainhill.messages import Update
from strategies._rule import Rule, State, mean

log = logging.getLogger(__name__)

ENERGY_ALARM = 0.90


class FlexLora(Rule):
    def step(self, adapter: Adapter, updates: Sequence[Update], state: State) -> tuple[Adapter, State]:
        """The state's log holds `energy_kept`: the smallest share of a product's squared Frobenius norm that rank r held."""
        shares = self.shares(updates)
        change = mean(updates, shares)
        arrays = {name: adapter[name] + delta for name, delta in change.items()}
        energies = []
        for module, pair in adapter.pairs().items():
            sites = [_moved(module, pair, update) for update in updates]
            spectrum, merged = _merge(sites, shares, rank=pair.rank, fallback=arrays[module + A_SUFFIX])
            arrays |= {module + A_SUFFIX: merged.a.astype(pair.a.dtype), module + B_SUFFIX: merged.b.astype(pair.b.dtype)}
            energies.append(energy_kept(spectrum, pair.rank))
        kept = min(energies, default=1.0)
        if kept < ENERGY_ALARM:
            log.warning(
                "round %d: rank keeps %.0f %% of a product's energy, below %.0f %%", state.round + 1, 100 * kept, 100 * ENERGY_ALARM
            )
        return adapter.replace(arrays), State(round=state.round + 1, log={"energy_kept": kept})


def energy_kept(spectrum: Array, rank: int) -> float:
    """Share of the sum of squared singular values in the first `rank`; 1 for a product of zero."""
    total = float(np.sum(np.square(spectrum)))
    return float(np.sum(np.square(spectrum[:rank]))) / total if total > 0 else 1.0


def _moved(module: str, pair: Pair, update: Update) -> Pair:
    return Pair(a=pair.a + update.delta[module + A_SUFFIX], b=pair.b + update.delta[module + B_SUFFIX])


def _merge(sites: Sequence[Pair], shares: Sequence[float], *, rank: int, fallback: Array) -> tuple[Array, Pair]:
    """All singular values of sum w_i B_i A_i, and its best factors of the given rank (Eckart-Young)."""
    # The weight goes into one stack only: in both it would count squared.
    b_stack = np.concatenate([share * site.b.astype(np.float64) for share, site in zip(shares, sites, strict=True)], axis=1)
    a_stack = np.concatenate([site.a.astype(np.float64) for site in sites], axis=0)
    q_b, r_b = np.linalg.qr(b_stack)
    q_a, r_a = np.linalg.qr(a_stack.T)
    u, spectrum, vt = np.linalg.svd(r_b @ r_a.T)
    if not spectrum.size or spectrum[0] == 0.0:
        return spectrum, Pair(a=fallback, b=np.zeros_like(sites[0].b))
    b, a = np.zeros((q_b.shape[0], rank)), fallback.astype(np.float64)
    held = min(rank, int(np.count_nonzero(spectrum > spectrum[0] * np.finfo(np.float64).eps * max(a_stack.shape))))
    root = np.sqrt(spectrum[:held])
    b[:, :held] = q_b @ u[:, :held] * root
    a[:held] = root[:, None] * (vt[:held] @ q_a.T)
    # Directions the product does not use keep a row of A beside a column of zeros in B: they can still learn.
    return spectrum, Pair(a=a, b=b)
