"""What one training run with known canaries says of epsilon, from below. Steinke, Nasr & Jagielski 2023, arXiv:2305.08846.

A coin decides of each canary whether it takes part; who sees every release says of the clearest which they were. Guessing right too often
refutes an epsilon. The converse does not hold: so few guesses cannot show that a large epsilon is kept, nor that any is.
"""

import math

import numpy as np
from scipy import stats

from client.privacy import accountant
from client.privacy.accountant import Phase
from client.privacy.audit.finding import Finding, Trial
from client.privacy.audit.watch import MAX_GRAD_NORM, mechanism, watched
from client.privacy.audit.worlds import canaries, in_order, without
from client.privacy.randomness import simulated_key
from client.training.fit import fit
from rainhill.adapter import Array
from rainhill.recipe import FitSection

EPSILON, DELTA = 1.0, 1e-5
"""Asked of the run. The same code runs at any epsilon, and faults show most where there is much noise."""
CONFIDENCE = 0.95
SAMPLE_RATE, STEPS = 0.25, 12


def one_run(trial: Trial) -> Finding:
    findings, guesses = (25, 100) if trial.quick else (50, 200)
    sigma = accountant.noise_multiplier(EPSILON, DELTA, SAMPLE_RATE, STEPS)
    claimed = accountant.epsilon({Phase(noise_multiplier=sigma, sample_rate=SAMPLE_RATE): STEPS}, DELTA)
    scores, took_part = _scores(trial, findings, sigma)
    right = correct_guesses(scores, took_part, guesses)
    value = lower_bound(len(scores), guesses, right, DELTA)
    passed = value <= claimed
    found = (
        f"{right} of {guesses} guesses about {len(scores)} canaries were right, so epsilon is at least {value:.2f} with {CONFIDENCE:.0%} "
        f"confidence; the accountant says {claimed:.2f}"
    )
    limit = f"this test can show no more than {ceiling(guesses):.1f}, and a pass is no proof"
    return Finding(
        layer="one_run",
        passed=passed,
        verdict=f"{found} ({limit})" if passed else f"{found}: the accountant's claim is refuted",
        value=value,
        bound=claimed,
    )


def _scores(trial: Trial, findings: int, sigma: float) -> tuple[Array, Array]:
    """(m,) what the releases together say of each canary, and whether it took part."""
    world = canaries(rank=20, findings=findings, images=3, length=100 * MAX_GRAD_NORM)
    took_part = np.random.default_rng([trial.seed, 3]).random(world.features.count) < 0.5
    # The last one keeps its number in any case, so that patients are counted right; nothing is guessed about it.
    took_part[-1] = True
    key = simulated_key((trial.seed, 4))
    granted = mechanism(key=key, drawable=took_part, noise_multiplier=sigma, sample_rate=SAMPLE_RATE)
    seen = watched(trial.plant(granted))
    world.restart()
    section = FitSection(steps=STEPS, learning_rate=1e-7)
    features = without(world.features, ~took_part)
    fit(world.net, features, world.task, section, parameters=world.parameters(factors="B"), seed=(0,), mechanism=seen)
    return np.sum([in_order(release) for release in seen.releases], axis=0)[:-1], took_part[:-1]


def correct_guesses(scores: Array, took_part: Array, guesses: int) -> int:
    """Half of them say of the highest scores that they took part, half of the lowest that they did not; of the rest nothing is said."""
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    return int(took_part[order[-half:]].sum() + (~took_part[order[:half]]).sum())


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """That an (epsilon, delta)-private run lets so many guesses be right, or more: the paper's theorem 5.2 and appendix D."""
    chance = 1 / (1 + math.exp(-epsilon))
    places = np.arange(1, right + 1)
    # P[right - i <= Bin < right] for each i.
    below = np.cumsum(stats.binom.pmf(right - places, guesses, chance))
    excess = float(np.max(below / places, initial=0.0))
    return min(1.0, float(stats.binom.sf(right - 1, guesses, chance)) + 2 * canaries * delta * excess)


def lower_bound(canaries: int, guesses: int, right: int, delta: float, *, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon that so many right guesses refute, 0.0 where they refute none."""
    low, high = 0.0, math.log(guesses) + 1
    if p_value(canaries, guesses, right, 0.0, delta) >= 1 - confidence:
        return 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(canaries, guesses, right, middle, delta) < 1 - confidence else (low, middle)
    return low


def ceiling(guesses: int, *, confidence: float = CONFIDENCE) -> float:
    """The lower bound where every guess is right and delta is 0, about ln(guesses / 3)."""
    return -math.log((1 - confidence) ** (-1 / guesses) - 1)
