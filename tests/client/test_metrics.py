"""Intervals rest on weighted forms of our own; scikit-learn says whether they are right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from client.training import metrics
from rainhill.recipe import EvaluationSection

SECTION = EvaluationSection(bootstraps=200, min_positives=3)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties, both classes, and a weight for each image."""
    n = draw(st.integers(4, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = rng.integers(0, 2, n).astype(float)
    truth[:2] = [0, 1]
    weights = rng.integers(0, 4, n).astype(float)
    weights[:2] += 1
    return np.round(rng.random(n), draw(st.integers(1, 3))), truth, weights


@given(scored())
def test_weighted_forms_are_scikit_learns(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, truth, weights = case
    for ours, theirs in (
        (metrics.weighted_auroc, roc_auc_score),
        (metrics.weighted_average_precision, average_precision_score),
        (metrics.weighted_brier, brier_score_loss),
    ):
        assert ours(scores, truth, weights[None])[0] == pytest.approx(theirs(truth, scores, sample_weight=weights), abs=1e-9)


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.2 predicted and 0 seen (gap 0.2, half of the films); 0.8 predicted and 1 seen (gap 0.2): 0.2."""
    error = metrics.weighted_calibration_error(np.array([0.2, 0.2, 0.8, 0.8]), np.array([0.0, 0, 1, 1]), np.ones((1, 4)))
    assert error[0] == pytest.approx(0.2)


def test_a_patient_is_drawn_with_all_films() -> None:
    patients = np.array([0, 0, 0, 1, 2, 2])
    draws = metrics.patient_draws(patients, 50, (0,))
    assert (draws[:, 0] == draws[:, 1]).all()
    assert (draws[:, 4] == draws[:, 5]).all()
    # As many patients as there are, in every draw.
    assert (draws[:, 0] + draws[:, 3] + draws[:, 4] == 3).all()


def world(seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 3)) < 0.4).astype(float)
    targets[:, 2] = 0
    targets[0, 2] = 1
    targets[5:20, 0] = np.nan
    scores = np.clip(0.3 * np.nan_to_num(targets) + 0.6 * rng.random((n, 3)), 0, 1)
    return scores, targets, rng.integers(0, n // 2, n)


def test_findings_with_too_few_films_are_left_out_by_name() -> None:
    found = metrics.score(*world(0), names=["a", "b", "rare"], section=SECTION, seed=(0,))
    assert found.left_out == ("rare",)
    assert set(found.findings) == {"a", "b"}
    mean = (found.findings["a"]["auroc"].value + found.findings["b"]["auroc"].value) / 2
    assert found.means["auroc"].value == pytest.approx(mean)


def test_unlabelled_images_do_not_count() -> None:
    scores, targets, patients = world(1)
    other = scores.copy()
    other[np.isnan(targets)] = 0.999
    one, two = (metrics.score(s, targets, patients, names=["a", "b", "c"], section=SECTION, seed=(0,)) for s in (scores, other))
    assert one.findings["a"]["auroc"].value == two.findings["a"]["auroc"].value


def test_an_interval_holds_its_value_and_narrows_with_more_patients() -> None:
    widths = []
    for n in (100, 1600):
        auroc = metrics.score(*world(2, n), names=["a", "b", "c"], section=SECTION, seed=(0,)).means["auroc"]
        low, high = auroc.interval(0.95)
        assert low < auroc.value < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_a_paired_difference_of_a_model_with_itself_is_nothing() -> None:
    auroc = metrics.score(*world(3), names=["a", "b", "c"], section=SECTION, seed=(0,)).means["auroc"]
    assert auroc.minus(auroc).interval(0.95) == (0.0, 0.0)


def test_nothing_to_count_gives_no_mean() -> None:
    scores, targets, patients = world(4)
    found = metrics.score(scores, np.full_like(targets, np.nan), patients, names=["a", "b", "c"], section=SECTION, seed=(0,))
    assert not found.means
    assert np.isnan(metrics.mean_auroc(scores, np.zeros_like(targets), SECTION))
    assert np.isnan(metrics.percentile_interval(np.array([np.nan]), 0.95)).all()
