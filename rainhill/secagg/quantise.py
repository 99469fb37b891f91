"""Real numbers as whole ones, so that masks cancel exactly: x -> round(x / step), to the nearest.

A value within +-bound becomes one of -levels .. levels, and zero stays zero. A site multiplies by its whole weight w, so that sums lie
within +-levels * total_weight; `levels * total_weight < 2^(ring - 1)` is demanded here, and no sum can wrap around modulo 2^ring.
Rounding moves a value by step / 2 at most, the weighted sum by the weight of its sites times step / 2, and their mean by step / 2.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rainhill.adapter import Adapter
from rainhill.errors import RefusedError
from rainhill.secagg.layout import Layout

Ring = Literal[32, 64]
Words = NDArray[np.unsignedinteger[Any]]
"""A vector modulo 2^32 or 2^64."""

MOST_LEVELS = 2**40
"""Beyond this the quotient x / step is no longer a float64 that rounds to the right whole number with certainty."""

SPARE = 4

FINE = 2**16
"""Levels that are enough: a mean is then off by less than a hundred-thousandth of the bound."""


@dataclass(frozen=True, kw_only=True)
class Quantiser:
    bound: float
    """The largest absolute value that may be sent; public, from the recipe."""
    levels: int
    """Steps from zero to the bound."""
    total_weight: int
    """Of all sites that are asked."""
    ring: Ring = 32

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise RefusedError(f"secure aggregation: bound {self.bound} is not a positive number")
        if not 1 <= self.levels <= MOST_LEVELS:
            raise RefusedError(f"secure aggregation: levels {self.levels} is not one of 1 to {MOST_LEVELS}")
        if self.total_weight < 1 or self.levels * self.total_weight > largest(self.ring):
            raise RefusedError(
                f"secure aggregation: levels {self.levels} times total weight {self.total_weight} is not one of 1 to "
                f"{largest(self.ring)}, so that a sum could wrap around modulo 2^{self.ring}"
            )

    @classmethod
    def finest(cls, *, bound: float, total_weight: int, ring: Ring = 32) -> "Quantiser":
        """As many levels as a quarter of the ring holds: a sum that is spoilt then lies outside, in three of four entries."""
        levels = min(MOST_LEVELS, largest(ring) // (SPARE * max(1, total_weight)))
        return cls(bound=bound, levels=levels, total_weight=total_weight, ring=ring)

    @property
    def step(self) -> float:
        return self.bound / self.levels

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        return np.dtype(f"uint{self.ring}")

    def encode(self, adapter: Adapter, layout: Layout, *, weight: int) -> Words:
        """(size,) modulo 2^ring; RefusedError for a value outside the range: to clip it would move the sum, and say nothing."""
        flat = layout.flatten(adapter)
        for name, array in adapter.items():
            peak = float(np.max(np.abs(array), initial=0.0))
            if peak > self.bound:
                raise RefusedError(f"{name}: holds {peak:.9g}, the range that secure aggregation was set up for is ±{self.bound:.9g}")
        whole = np.rint(flat * (self.levels / self.bound)).astype(np.int64)
        # Two's complement: a negative number modulo 2^ring.
        return np.asarray(whole * weight).astype(self.dtype)

    def whole(self, total: Words) -> NDArray[np.int64]:
        """The sum modulo 2^ring as the number that it stands for, which may be negative."""
        return total.view(f"int{self.ring}").astype(np.int64)

    def decode(self, whole: NDArray[Any]) -> NDArray[np.float64]:
        return whole.astype(np.float64) * self.step

    def error_bound(self, weight: int) -> float:
        """How far at most the sum of sites of this weight together is from the sum of their unrounded values."""
        return weight * self.step / 2


def smallest_ring(total_weight: int) -> Ring:
    """32 bits where they hold FINE levels, for a total weight up to 8191; 64 make a message twice as long."""
    return 32 if largest(32) // (SPARE * max(1, total_weight)) >= FINE else 64


def largest(ring: Ring) -> int:
    return int(2 ** (ring - 1) - 1)
