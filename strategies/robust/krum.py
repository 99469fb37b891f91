"""Krum: the one site whose product is nearest to those of its neighbours. Blanchard et al. 2017, arXiv:1703.02757."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter
from strategies._rule import Move
from strategies.robust._robust import Robust, inner_products, squared_distances


class Krum(Robust):
    byzantine: Annotated[int, Field(ge=1)] = 1
    """How many sites may be hostile, the paper's f."""

    source = "arXiv:1703.02757"
    summary = "the one site nearest to its neighbours"
    reweighs = False

    def min_sites(self) -> int:
        return 2 * self.byzantine + 3

    def kept(self, count: int) -> int:
        del count
        return 1

    def combine(self, adapter: Adapter, moves: Sequence[Move]) -> Sequence[Move]:
        del adapter
        distances = np.sort(squared_distances(inner_products(moves)), axis=1)
        # The first of each row is the site itself.
        scores = distances[:, 1 : len(moves) - self.byzantine - 1].sum(axis=1)
        chosen = [moves[place] for place in np.argsort(scores, kind="stable")[: self.kept(len(moves))]]
        total = sum(move.weight for move in chosen)
        return [replace(move, weight=move.weight / total) for move in chosen]
