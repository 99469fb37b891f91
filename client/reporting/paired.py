"""Two models on the same draws of the same patients: by how much they differ, with an interval and a two-sided bootstrap p-value.

Efron, Tibshirani 1993, An Introduction to the Bootstrap.
"""

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from client.training.metrics import Measured


@dataclass(frozen=True, kw_only=True)
class Difference:
    """NaN but for the value where there are no draws."""

    value: float
    low: float
    high: float
    p: float

    @property
    def excludes_zero(self) -> bool:
        """By the interval, as verdicts on findings go."""
        return self.low > 0 or self.high < 0


def difference(one: Measured, other: Measured, *, confidence: float) -> Difference:
    """One minus the other; both are of the same draws."""
    paired = one.minus(other)
    low, high = paired.interval(confidence)
    return Difference(value=paired.value, low=low, high=high, p=p_value(paired.replicates))


def p_value(replicates: NDArray[np.float64]) -> float:
    """The level at which a percentile interval begins to hold 0: never less than 2 / (B + 1), for B draws cannot say more."""
    known = replicates[np.isfinite(replicates)]
    if not known.size:
        return nan
    fewer = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    return float(min(1.0, 2 * (fewer + 1) / (known.size + 1)))
