"""Whether the noise is what was charged: its size by chi-square, its shape by Kolmogorov and Smirnov, its independence by correlation.

What is released, less the clipped sum, in units of sigma C: standard normal draws, all of them independent.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from client.privacy.audit.finding import Finding, Trial
from client.privacy.audit.granted import granted
from client.privacy.audit.watch import MAX_GRAD_NORM, Release, watched
from client.privacy.audit.worlds import World, patients
from client.training import lora
from client.training.fit import fit
from client.training.mechanism import Mechanism
from rainhill.adapter import Adapter, Array
from rainhill.recipe import FitSection

LEAST_P = 1e-4
"""Of a sound run, one in ten thousand is refused."""
ROUNDS = 2


def noise(trial: Trial) -> Finding:
    world = patients(count=24, images=3, seed=trial.seed, width=48, rank=8)
    steps = 6 if trial.quick else 20
    rounds = granted(trial, world.start, patients=world.features.count, rounds=ROUNDS, steps=steps)
    shared, pieces = world.start, []
    for one, silent in rounds:
        releases, after = _fitted(world, trial, one, (), shared, steps)
        sums, _ = _fitted(world, trial, silent, releases, shared, steps)
        scale = one.noise_multiplier * MAX_GRAD_NORM
        pieces += [
            (release[name] - total[name]).numpy().ravel() / scale for release, total in zip(releases, sums, strict=True) for name in release
        ]
        shared = after
    return _finding(pieces, steps)


def _finding(pieces: list[Array], steps: int) -> Finding:
    tests = p_values(pieces)
    value = min(1.0, len(tests) * min(tests.values()))
    passed = value >= LEAST_P
    everything = np.concatenate(pieces)
    size = float(np.sqrt(np.mean(everything**2)))
    found = f"over {ROUNDS} rounds of {steps} steps, {len(everything):,} entries of noise are {size:.4f} of the size that was charged"
    worst = min(tests, key=lambda name: tests[name])
    said = (
        f"normal, and independent from step to step and round to round (p = {value:.2g})"
        if passed
        else f"{worst} is wrong (p = {value:.2g})"
    )
    return Finding(layer="noise", passed=passed, verdict=f"{found}; {said}", value=value, bound=LEAST_P)


def _fitted(
    world: World, trial: Trial, one: Mechanism, replay: Sequence[Release], shared: Adapter, steps: int
) -> tuple[list[Release], Adapter]:
    """The releases of one round from `shared`, and the adapter after it."""
    lora.write_adapter(world.net, shared, name=lora.SHARED)
    seen = watched(trial.plant(one), replay)
    section = FitSection(steps=steps, learning_rate=1e-3)
    fit(world.net, world.features, world.task, section, parameters=world.parameters(), seed=(0,), mechanism=seen)
    return seen.releases, lora.read_adapter(world.net, name=lora.SHARED, with_head=False)


def p_values(pieces: list[Array]) -> dict[str, float]:
    """Of the noise of each tensor in each step."""
    everything = np.concatenate(pieces)
    below = float(stats.chi2.cdf(np.sum(everything**2), len(everything)))
    return {
        "its size": 2 * min(below, 1 - below),
        "its shape": float(stats.kstest(everything, "norm").pvalue),
        "its independence": _independence(pieces),
    }


def _independence(pieces: list[Array]) -> float:
    """p-value of the largest correlation between any two tensors of any two steps, where as many were looked at."""
    length = min(map(len, pieces))
    rows = np.stack([piece[:length] - piece[:length].mean() for piece in pieces])
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    # Where there is no noise, no correlation either; its size tells of that.
    rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    correlations = np.abs(rows @ rows.T)[np.triu_indices(len(rows), k=1)]
    largest = min(float(correlations.max()), 1 - 1e-12)
    t = largest * np.sqrt((length - 2) / (1 - largest**2))
    return min(1.0, 2 * len(correlations) * float(stats.t.sf(t, length - 2)))
