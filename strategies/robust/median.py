"""Coordinate-wise median of the sites' products. Yin et al. 2018, arXiv:1803.01498."""

from collections.abc import Sequence

import numpy as np

from rainhill.adapter import Adapter
from strategies._rule import Move
from strategies.robust._robust import Robust, coordinate_wise


class Median(Robust):
    source = "arXiv:1803.01498"
    summary = "median of each entry of the products"
    coordinate_wise = True
    reweighs = False

    def combine(self, adapter: Adapter, moves: Sequence[Move]) -> Sequence[Move]:
        return coordinate_wise(adapter, moves, lambda values: np.median(values, axis=0))
