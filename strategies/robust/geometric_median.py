"""RFA: the geometric median of the sites' products, by smoothed Weiszfeld steps. Pillutla et al. 2022, arXiv:1912.13445.

The median is a weighted mean of the products, so all that is needed of them are their inner products.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter, Array
from strategies._rule import Move
from strategies.robust._robust import Robust, inner_products, squared_distances


class GeometricMedian(Robust):
    steps: Annotated[int, Field(ge=1, le=1000)] = 32
    smoothing: Annotated[float, Field(gt=0)] = 1e-6
    """No distance counts as less than this share of the median distance: the paper's nu."""

    source = "arXiv:1912.13445"
    summary = "geometric median of the products"

    def combine(self, adapter: Adapter, moves: Sequence[Move]) -> Sequence[Move]:
        del adapter
        weights = self.weights(inner_products(moves), np.array([move.weight for move in moves]))
        return [replace(move, weight=float(weight)) for move, weight in zip(moves, weights, strict=True)]

    def weights(self, grams: Array, shares: Array) -> Array:
        """(n,) of the median as a mean of the moves, from their (n, n) inner products."""
        # From the half of the sites that lie together: from the mean of all, one that is far enough away takes more steps than there are.
        apart = np.sqrt(squared_distances(grams))
        to_middle = apart[np.argmin(apart @ shares)]
        current: Array = shares * (to_middle <= np.median(to_middle))
        current = current / current.sum()
        for _ in range(self.steps):
            centre = grams @ current
            distances = np.sqrt(np.maximum(np.diag(grams) - 2 * centre + current @ centre, 0.0))
            if not distances.any():
                return current
            # The lower of two middle ones: the upper may be that of a site as far away as it likes.
            usual = np.quantile(distances[distances > 0], 0.5, method="lower")
            current = shares / np.maximum(distances, self.smoothing * usual)
            current = current / current.sum()
        return current
