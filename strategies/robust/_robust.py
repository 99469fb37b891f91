"""What a robust rule is: it looks at the sites' products, and says which moves are merged and with what weight."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from rainhill.adapter import A_SUFFIX, B_SUFFIX, CORE_SUFFIX, Adapter, Array, Pair, factor
from rainhill.toml import Section
from strategies._factors import difference, effective, gram
from strategies._rule import Move
from strategies.flexlora import refill

BLOCK = 2**24
"""Entries of products that are held at a time."""
SITES = 64
"""Sites whose inner products with all others are computed at a time."""
FLOOR = 1e-3


class Robust(Section):
    """It works on products B A: factors have no meaning of their own, since (B R)(R^-1 A) is the same adapter."""

    source: ClassVar[str]
    summary: ClassVar[str]
    coordinate_wise: ClassVar[bool] = False
    """Whether it makes one move of its own, entry by entry, and so changes the basis of the factors and ignores the sites' shares."""
    reweighs: ClassVar[bool] = True
    """Whether it gives several moves new weights, so that what it holds down must be what the rule adds up: the products."""

    def min_sites(self) -> int:
        return 3

    def combine(self, adapter: Adapter, moves: Sequence[Move]) -> Sequence[Move]:
        """Moves whose weights sum to 1, for the rule to merge."""
        raise NotImplementedError


def changes(moves: Sequence[Move]) -> list[dict[str, Pair]]:
    """Of each move, module -> factors of how far its product went."""
    pairs = [(effective(move.arrived()), effective(move.sent)) for move in moves]
    return [{module: difference(pair, sent[module]) for module, pair in arrived.items()} for arrived, sent in pairs]


def whole(moves: Sequence[Move]) -> Array:
    """(n, p) changes of the whole tensors, side by side."""
    rows = [[array.astype(np.float64).ravel() for name, array in move.delta.items() if not factor(name)] for move in moves]
    return np.stack([np.concatenate(row) if row else np.zeros(0) for row in rows])


def inner_products(moves: Sequence[Move]) -> Array:
    """(n, n) Gram matrix of the moves: over all modules of their products' changes, and over whole tensors."""
    flat = whole(moves)
    total: Array = flat @ flat.T
    for_all = changes(moves)
    for module in for_all[0]:
        pairs = [one[module] for one in for_all]
        for start in range(0, len(pairs), SITES):
            total[start : start + SITES] += gram(pairs[start : start + SITES], pairs)
    return total


def squared_distances(grams: Array) -> Array:
    """(n, n) from the Gram matrix; never below zero."""
    norms = np.diag(grams)
    return np.asarray(np.maximum(norms[:, None] + norms[None, :] - 2 * grams, 0.0))


def stay(adapter: Adapter, moves: Sequence[Move], weight: float) -> Move:
    """A move that goes nowhere, to take up the weight that others lost."""
    still = Adapter({name: np.zeros_like(array) for name, array in moves[0].delta.items()})
    return Move(site="", weight=weight, sent=adapter, delta=still)


def coordinate_wise(adapter: Adapter, moves: Sequence[Move], statistic: Callable[[Array], Array]) -> Sequence[Move]:
    """One move: `statistic` (n, …) -> (…) over the sites, for each entry of the products' changes and of whole tensors.

    The product that comes out has full rank. Where one factor alone moves, it is fitted to it by least squares, without the directions in
    which the other is so small (below `FLOOR` of its largest) that the fit would be huge; where both do, it is cut.
    """
    for_all, sends = changes(moves), {factor(name) for name in moves[0].delta} - {""}
    names = [name for name in moves[0].delta if not factor(name)]
    delta = {name: statistic(np.stack([move.delta[name] for move in moves])).astype(adapter[name].dtype) for name in names}
    for module, pair in adapter.pairs().items():
        change = _entries([one[module] for one in for_all], statistic)
        a, b = pair.a.astype(np.float64), pair.b.astype(np.float64)
        if sends == {"B"}:
            delta[module + B_SUFFIX] = (change @ np.linalg.pinv(a, rcond=FLOOR)).astype(b.dtype)
        elif sends == {"A"}:
            delta[module + A_SUFFIX] = (np.linalg.pinv(b, rcond=FLOOR) @ change).astype(a.dtype)
        elif sends == {"R"}:
            delta[module + CORE_SUFFIX] = np.linalg.pinv(b, rcond=FLOOR) @ change @ np.linalg.pinv(a, rcond=FLOOR)
        else:
            mean_a = a + np.mean([move.delta[module + A_SUFFIX] for move in moves], axis=0)
            u, spectrum, vt = np.linalg.svd(b @ a + change, full_matrices=False)
            merged = refill(u, spectrum, vt, Pair(a=mean_a, b=b))
            delta |= {module + A_SUFFIX: merged.a - a, module + B_SUFFIX: merged.b - b}
    typed = {name: array.astype(adapter[name].dtype) for name, array in delta.items()}
    return [Move(site="", weight=1.0, sent=adapter, delta=Adapter(typed))]


def _entries(pairs: Sequence[Pair], statistic: Callable[[Array], Array]) -> Array:
    """(d_out, d_in), a block of rows at a time, since n whole products would not fit."""
    d_out, d_in = len(pairs[0].b), pairs[0].a.shape[1]
    rows = max(1, BLOCK // (len(pairs) * d_in))
    blocks = [
        statistic(np.stack([pair.b[start : start + rows].astype(np.float64) @ pair.a for pair in pairs])) for start in range(0, d_out, rows)
    ]
    return np.concatenate(blocks)
