"""The likelihood ratio attack on membership, and what (epsilon, delta) leaves to any attack. Carlini et al. 2022, arXiv:2112.03570."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rainhill.adapter import Array

CONFIDENCE = 0.999
"""Of each limit, of the true and of the false positive rate."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """How well membership was told at one threshold."""

    true_positives: float
    """Rate."""
    at_least: float
    """Lower limit of it."""
    cap: float
    """What (epsilon, delta) allows at the upper limit of the false positive rate."""


def likelihood_ratios(confidences: Array, members: NDArray[np.bool_]) -> Array:
    """(S, P) of each adapter and patient: log of how much likelier its confidence is of a member, by all other adapters."""
    ratios = np.empty_like(confidences)
    for target in range(len(confidences)):
        others = np.arange(len(confidences)) != target
        (mean_in, spread_in), (mean_out, spread_out) = (
            _normal(confidences[others], inside) for inside in (members[others], ~members[others])
        )
        own = confidences[target]
        ratios[target] = stats.norm.logpdf(own, mean_in, spread_in) - stats.norm.logpdf(own, mean_out, spread_out)
    return ratios


def _normal(confidences: Array, inside: NDArray[np.bool_]) -> tuple[Array, float]:
    """(P,) means of each patient, and one spread for all: a handful of adapters does not tell each patient's."""
    count = inside.sum(axis=0)
    total = np.where(inside, confidences, 0.0).sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), confidences.mean(axis=0))
    spread = np.sqrt(np.square(confidences - mean)[inside].sum() / max(1, inside.sum() - len(mean)))
    return mean, max(float(spread), 1e-12)


def attack(ratios: Array, members: NDArray[np.bool_], rate: float, epsilon: float, delta: float) -> Attack:
    """At the threshold that so large a part of those who were out is above."""
    inside, outside = ratios[members], ratios[~members]
    threshold = float(np.quantile(outside, 1 - rate, method="higher"))
    found, false = int((inside > threshold).sum()), int((outside > threshold).sum())
    at_least, _ = limits(found, len(inside))
    _, at_most = limits(false, len(outside))
    return Attack(true_positives=found / len(inside), at_least=at_least, cap=cap(at_most, epsilon, delta))


def cap(false_positive_rate: float, epsilon: float, delta: float) -> float:
    """The highest true positive rate of any attack. Kairouz, Oh & Viswanath 2015, arXiv:1311.0776."""
    return min(1.0, math.exp(epsilon) * false_positive_rate + delta)


def limits(count: int, total: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Lower and upper limit of a rate, each at `confidence`. Clopper & Pearson 1934."""
    low = float(stats.beta.ppf(1 - confidence, count, total - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(confidence, count + 1, total - count)) if count < total else 1.0
    return low, high


def balanced_accuracy(ratios: Array, members: NDArray[np.bool_]) -> float:
    """Of calling everybody a member whose ratio is above 1."""
    return float(((ratios[members] > 0).mean() + (ratios[~members] <= 0).mean()) / 2)
