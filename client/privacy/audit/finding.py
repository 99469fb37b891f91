"""What a layer of the audit is given, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from client.training.mechanism import Mechanism

Plant = Callable[[Mechanism], Mechanism]
"""What the audit trains with in place of a round's mechanism. The audit of a fault that was planted differs in this alone."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of the audit."""

    quick: bool = False
    """Fewer patients, canaries and shadow adapters: less is found, by the same code."""
    seed: int = 0
    """Of everything the audit draws. The same trial gives the same findings."""
    fresh: bool = False
    """Whether rounds that the guard grants have their keys from the operating system, as at a site, in place of the seed."""
    plant: Plant = lambda mechanism: mechanism


@dataclass(frozen=True, kw_only=True)
class Finding:
    layer: str
    passed: bool
    verdict: str
    """A sentence: what was measured, and what it says or cannot say."""
    value: float
    bound: float

    def row(self) -> dict[str, Any]:
        return {"layer": self.layer, "passed": self.passed, "verdict": self.verdict, "value": self.value, "bound": self.bound}
