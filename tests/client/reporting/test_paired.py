"""Differences of two models on the same draws: what is shown, what is not, and how often nothing is taken for something."""

import numpy as np
import pytest

from client.reporting.paired import difference, p_value
from client.training.metrics import Measured, patient_draws


def measured(values: np.ndarray, seed: int = 0, draws: int = 400) -> Measured:
    weights = patient_draws(np.arange(len(values)), draws, (seed,)).astype(np.float64)
    return Measured(value=float(values.mean()), replicates=weights @ values / weights.sum(axis=1))


def test_a_model_does_not_differ_from_itself() -> None:
    same = measured(np.random.default_rng(0).random(40))
    found = difference(same, same, confidence=0.95)
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0) and not found.excludes_zero


def test_a_pair_shows_what_two_intervals_would_hide() -> None:
    reports = np.random.default_rng(0).random(60)
    better, worse = measured(reports), measured(reports - 0.02)
    assert better.interval(0.95)[0] < worse.interval(0.95)[1]
    found = difference(better, worse, confidence=0.95)
    assert found.excludes_zero and (found.value, found.low, found.high) == pytest.approx((0.02, 0.02, 0.02))
    # 400 draws can say no more.
    assert found.p == pytest.approx(2 / 401) == difference(worse, better, confidence=0.95).p


def test_p_is_the_level_at_which_the_interval_begins_to_hold_zero() -> None:
    replicates = np.arange(-10, 390) + 0.5
    p = p_value(replicates)
    assert p == pytest.approx(2 * 11 / 401)
    assert (
        Measured(value=0, replicates=replicates).interval(1 - p * 1.2)[0]
        > 0
        > Measured(value=0, replicates=replicates).interval(1 - p * 0.8)[0]
    )


def test_two_models_that_do_not_differ_are_told_apart_as_rarely_as_is_promised() -> None:
    rng = np.random.default_rng(1)
    found = [difference(measured(rng.random(50), seed), measured(rng.random(50), seed), confidence=0.95) for seed in range(300)]
    rate = np.mean([one.excludes_zero for one in found])
    assert 0.02 < rate < 0.09 and np.mean([one.p < 0.05 for one in found]) == pytest.approx(rate, abs=0.02)


def test_without_draws_there_is_a_difference_and_no_interval() -> None:
    found = difference(Measured(value=0.4, replicates=np.empty(0)), Measured(value=0.1, replicates=np.empty(0)), confidence=0.95)
    assert found.value == pytest.approx(0.3) and np.isnan([found.low, found.high, found.p]).all() and not found.excludes_zero


def test_draws_that_measured_nothing_are_left_out() -> None:
    assert p_value(np.array([np.nan, 1.0, 1.0, 1.0])) == pytest.approx(2 / 4)
