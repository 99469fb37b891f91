"""Centred clipping: each product is clipped to a ball around an estimate of the mean, which is then made anew. arXiv:2012.10333.

Karimireddy et al. 2021 begin from the last round's momentum; here from no change.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter, Array
from strategies._rule import Move
from strategies.robust._robust import Robust, inner_products, stay


class CentredClipping(Robust):
    radius: Annotated[float, Field(gt=0)] | None = None
    """The paper's tau, on the Frobenius norm over all products; the median distance to the centre where not given."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 5

    source = "arXiv:2012.10333"
    summary = "mean of products clipped around their centre, iterated"

    def combine(self, adapter: Adapter, moves: Sequence[Move]) -> Sequence[Move]:
        weights = self.weights(inner_products(moves), np.array([move.weight for move in moves]))
        clipped = [replace(move, weight=float(weight)) for move, weight in zip(moves, weights, strict=True)]
        return [*clipped, stay(adapter, moves, 1.0 - float(weights.sum()))]

    def weights(self, grams: Array, shares: Array) -> Array:
        """(n,) of the centre as a mean of the moves; what they lack of 1 stays."""
        centre = np.zeros(len(shares))
        for _ in range(self.steps):
            products = grams @ centre
            distances = np.sqrt(np.maximum(np.diag(grams) - 2 * products + centre @ products, 0.0))
            radius = self.radius if self.radius is not None else float(np.median(distances))
            pulls = shares * np.minimum(1.0, radius / np.maximum(distances, np.finfo(np.float64).tiny))
            centre = centre * (1.0 - pulls.sum()) + pulls
        return centre
