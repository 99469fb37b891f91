"""The audit's figures against cases worked by hand, and against draws whose answer is known."""

import math

import numpy as np
import pytest

from client.privacy.audit import lira, noise, one_run, sampling


def test_the_p_value_of_two_guesses_by_hand() -> None:
    """Without delta P[Bin(2, 1/2) >= 2] = 1/4; with it 2 m delta max(P[Bin = 1] / 1, P[Bin < 2] / 2) = 20 delta / 2 more."""
    assert one_run.p_value(10, 2, 2, 0.0, 0.0) == pytest.approx(1 / 4)
    assert one_run.p_value(10, 2, 2, 0.0, 0.01) == pytest.approx(1 / 4 + 0.1)
    # epsilon = ln 3: a guess is right with probability 3/4 at most.
    assert one_run.p_value(10, 2, 2, math.log(3), 0.0) == pytest.approx(9 / 16)
    assert one_run.p_value(10, 2, 1, math.log(3), 0.0) == pytest.approx(15 / 16)
    assert one_run.p_value(10, 2, 0, 0.0, 0.01) == 1.0


def test_more_right_guesses_refute_more_and_a_larger_delta_less() -> None:
    bounds = [one_run.lower_bound(1000, 100, right, 1e-5) for right in range(40, 101, 5)]
    assert bounds == sorted(bounds) and bounds[0] == 0.0 < bounds[-1]
    p_values = [one_run.p_value(1000, 100, 70, epsilon, 1e-5) for epsilon in np.linspace(0, 4, 20)]
    assert p_values == sorted(p_values)
    assert one_run.lower_bound(1000, 100, 90, 1e-4) < one_run.lower_bound(1000, 100, 90, 1e-6)
    assert one_run.lower_bound(1000, 100, 90, 1e-5, confidence=0.99) < one_run.lower_bound(1000, 100, 90, 1e-5)


@pytest.mark.parametrize(("guesses", "highest"), [(100, 3.5), (200, 4.2), (1000, 5.8)])
def test_the_ceiling_is_the_bound_of_guesses_that_are_all_right(guesses: int, highest: float) -> None:
    assert one_run.ceiling(guesses) == pytest.approx(highest, abs=0.05)
    assert one_run.ceiling(guesses) == pytest.approx(math.log(guesses / 3), abs=0.03)
    assert one_run.lower_bound(2 * guesses, guesses, guesses, 0.0) == pytest.approx(one_run.ceiling(guesses), abs=1e-3)


def test_guesses_are_right_where_scores_tell_everything_and_by_half_where_they_tell_nothing() -> None:
    took_part = np.random.default_rng(0).random(1000) < 0.5
    assert one_run.correct_guesses(took_part + 0.0, took_part, 100) == 100
    assert one_run.correct_guesses(1.0 - took_part, took_part, 100) == 0
    assert 30 < one_run.correct_guesses(np.random.default_rng(1).random(1000), took_part, 100) < 70


def test_the_cap_on_true_positives_is_that_of_epsilon_and_delta() -> None:
    assert lira.cap(0.01, 1.0, 1e-5) == pytest.approx(0.0271828 + 1e-5, rel=1e-5)
    assert lira.cap(0.001, 8.0, 1e-5) == 1.0
    assert lira.cap(0.0, 1.0, 1e-5) == 1e-5


def test_limits_of_a_rate_are_clopper_and_pearsons() -> None:
    low, high = lira.limits(0, 50, confidence=0.95)
    assert low == 0.0 and high == pytest.approx(1 - 0.05 ** (1 / 50))
    low, high = lira.limits(50, 50, confidence=0.95)
    assert low == pytest.approx(0.05 ** (1 / 50)) and high == 1.0


def test_the_attack_finds_members_whose_confidence_is_higher_and_nobody_by_chance() -> None:
    rng = np.random.default_rng(0)
    members = rng.random((24, 80)) < 0.5
    noise_alone = rng.normal(size=members.shape)
    told = lira.likelihood_ratios(noise_alone + 6.0 * members + rng.normal(size=80), members)
    untold = lira.likelihood_ratios(noise_alone, members)
    assert lira.attack(told, members, 0.01, 1.0, 1e-5).at_least > 0.9
    assert lira.balanced_accuracy(told, members) > 0.95
    chance = lira.attack(untold, members, 0.01, 1.0, 1e-5)
    assert chance.at_least < chance.cap
    assert lira.balanced_accuracy(untold, members) == pytest.approx(0.5, abs=0.05)


def test_a_ratio_never_rests_on_the_adapter_attacked() -> None:
    rng = np.random.default_rng(0)
    members = rng.random((12, 30)) < 0.5
    confidences = rng.normal(size=members.shape)
    flipped = members.copy()
    flipped[3] = ~members[3]
    one, other = (lira.likelihood_ratios(confidences, rows)[3] for rows in (members, flipped))
    np.testing.assert_array_equal(one, other)


def test_draws_that_are_independent_pass_and_batches_of_one_size_or_the_same_batch_do_not() -> None:
    rng = np.random.default_rng(0)
    draws = rng.random((80, 300)) < 0.25
    assert min(sampling.p_values(draws, 0.25).values()) > 1e-3
    fixed = np.argsort(rng.random((80, 300)), axis=1) < 75
    assert sampling.p_values(fixed, 0.25)["how many each step draws"] < 1e-9
    assert sampling.p_values(np.repeat(draws[:1], 80, axis=0), 0.25)["how often each patient is drawn"] < 1e-9
    assert sampling.p_values(rng.random((80, 300)) < 0.3, 0.25)["the rate"] < 1e-9


def test_p_values_of_sound_draws_are_uniform() -> None:
    rng = np.random.default_rng(0)
    found = np.array([list(sampling.p_values(rng.random((60, 200)) < 0.25, 0.25).values()) for _ in range(400)])
    assert np.all(np.abs((found < 0.1).mean(axis=0) - 0.1) < 0.05)


def test_noise_of_another_size_another_shape_or_used_twice_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    pieces = [rng.normal(size=500) for _ in range(40)]
    assert min(noise.p_values(pieces).values()) > 1e-3
    assert noise.p_values([0.95 * piece for piece in pieces])["its size"] < 1e-4
    uniform = [rng.uniform(-math.sqrt(3), math.sqrt(3), 500) for _ in range(40)]
    assert noise.p_values(uniform)["its shape"] < 1e-9
    assert noise.p_values([*pieces, pieces[0]])["its independence"] < 1e-9
    assert noise.p_values([np.zeros(500)] * 3)["its size"] == 0.0
