"""Coordinate-wise trimmed mean of the sites' products. Yin et al. 2018, arXiv:1803.01498."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter, Array
from strategies._rule import Move
from strategies.robust._robust import Robust, coordinate_wise


class TrimmedMean(Robust):
    byzantine: Annotated[int, Field(ge=1)] = 1
    """So many of the highest and of the lowest values of each entry are left out."""

    source = "arXiv:1803.01498"
    summary = "mean of each entry of the products without the extremes"
    coordinate_wise = True
    reweighs = False

    def min_sites(self) -> int:
        return 2 * self.byzantine + 1

    def combine(self, adapter: Adapter, moves: Sequence[Move]) -> Sequence[Move]:
        return coordinate_wise(adapter, moves, self._trimmed)

    def _trimmed(self, values: Array) -> Array:
        kept = np.sort(values, axis=0)[self.byzantine : len(values) - self.byzantine]
        return np.asarray(kept.mean(axis=0))
