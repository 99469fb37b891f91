"""Whether patients are drawn as the accountant believes: each by itself, at the rate that was charged. Chua et al. 2024, arXiv:2403.17673.

Shuffled batches of one size look much the same, and spend several times the epsilon that Poisson sampling of the same rate does.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from client.privacy.audit.finding import Finding, Trial
from client.privacy.audit.watch import MAX_GRAD_NORM, mechanism, watched
from client.privacy.audit.worlds import canaries, in_order
from client.privacy.randomness import simulated_key
from client.training.fit import fit
from rainhill.recipe import FitSection

LEAST_P = 1e-4
SAMPLE_RATE = 0.25
HARDLY_ANY_NOISE = 1e-3
"""With it, the sum that canaries leave shows which of them took part."""


def sampling(trial: Trial) -> Finding:
    world = canaries(rank=20, findings=10 if trial.quick else 20, images=2, length=100 * MAX_GRAD_NORM)
    count, steps = world.features.count, 60 if trial.quick else 100
    granted = mechanism(
        key=simulated_key((trial.seed, 7)),
        drawable=np.ones(count, dtype=np.bool_),
        noise_multiplier=HARDLY_ANY_NOISE,
        sample_rate=SAMPLE_RATE,
    )
    seen = watched(trial.plant(granted))
    world.restart()
    section = FitSection(steps=steps, learning_rate=1e-7)
    fit(world.net, world.features, world.task, section, parameters=world.parameters(factors="B"), seed=(0,), mechanism=seen)
    took_part = np.array([in_order(release) > MAX_GRAD_NORM / 2 for release in seen.releases])
    return _finding(took_part)


def _finding(took_part: NDArray[np.bool_]) -> Finding:
    tests = p_values(took_part, SAMPLE_RATE)
    value = min(1.0, len(tests) * min(tests.values()))
    passed = value >= LEAST_P
    steps, count = took_part.shape
    found = f"{count} patients over {steps} steps took part in {took_part.mean():.2%} of all draws, charged were {SAMPLE_RATE:.0%}"
    worst = min(tests, key=lambda name: tests[name])
    said = (
        f"spread of draws as of independent ones (p = {value:.2g})"
        if passed
        else f"{worst} is not that of independent draws (p = {value:.2g})"
    )
    return Finding(layer="sampling", passed=passed, verdict=f"{found}; {said}", value=value, bound=LEAST_P)


def p_values(took_part: NDArray[np.bool_], rate: float) -> dict[str, float]:
    """Of (steps, patients) draws: whether rate, spread over patients and spread over steps are those of Poisson sampling."""
    steps, count = took_part.shape
    return {
        "the rate": float(stats.binomtest(int(took_part.sum()), took_part.size, rate).pvalue),
        "how often each patient is drawn": _spread(took_part.sum(axis=0), steps, rate),
        "how many each step draws": _spread(took_part.sum(axis=1), count, rate),
    }


def _spread(counts: NDArray[np.int64], trials: int, rate: float) -> float:
    """Two-sided p-value that `counts` vary as Binomial(trials, rate) does: too little, as in batches of one size, or too much."""
    variance = trials * rate * (1 - rate)
    statistic = float(np.sum((counts - trials * rate) ** 2) / variance)
    # Chi-square with the mean and the variance that a sum of squares of binomials has: their tails are not a normal's.
    excess = (1 - 6 * rate * (1 - rate)) / variance
    freedom = 2 * len(counts) / (2 + excess)
    below = float(stats.chi2.cdf(statistic * freedom / len(counts), freedom))
    return 2 * min(below, 1 - below)
