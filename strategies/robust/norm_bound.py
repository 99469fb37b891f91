"""Norm bounding: no site's product goes farther than a bound. Sun et al. 2019, arXiv:1911.07963."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from rainhill.adapter import Adapter
from strategies._rule import Move
from strategies.robust._robust import Robust, inner_products, stay


class NormBound(Robust):
    bound: Annotated[float, Field(gt=0)] | None = None
    """Of the Frobenius norm of a site's change over all products and whole tensors; the median over the sites where not given."""

    source = "arXiv:1911.07963"
    summary = "mean of products whose change is scaled down to a bound"

    def min_sites(self) -> int:
        return 1 if self.bound is not None else 3

    def combine(self, adapter: Adapter, moves: Sequence[Move]) -> Sequence[Move]:
        norms = np.sqrt(np.maximum(np.diag(inner_products(moves)), 0.0))
        bound = self.bound if self.bound is not None else float(np.median(norms))
        # Less weight on the move, and the rest on staying, is the same as a shorter move.
        shorter = np.minimum(1.0, bound / np.maximum(norms, np.finfo(np.float64).tiny))
        bounded = [replace(move, weight=move.weight * float(share)) for move, share in zip(moves, shorter, strict=True)]
        return [*bounded, stay(adapter, moves, 1.0 - sum(move.weight for move in bounded))]
