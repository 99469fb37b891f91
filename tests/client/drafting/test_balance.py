"""Weights by which patients are drawn: rare findings more often, nobody never, and nothing from what is not labelled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from client.drafting.balance import CAP, patient_weights
from rainhill.errors import DataError

LABELS = arrays.arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 5)), elements=st.sampled_from([0.0, 1.0, np.nan]))
STRENGTH = st.floats(0, 1)


def test_a_finding_of_one_in_four_counts_three_times_one_of_three_in_four() -> None:
    labels = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], dtype=np.float32)
    np.testing.assert_allclose(patient_weights(labels, strength=1.0), [2, 2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(patient_weights(labels, strength=0.5)[0] / patient_weights(labels, strength=0.5)[1], np.sqrt(3))


@given(LABELS, STRENGTH)
def test_weights_are_above_nothing_of_mean_one_and_capped(labels: np.ndarray, strength: float) -> None:
    weights = patient_weights(labels, strength=strength)
    assert weights.shape == (len(labels),) and (weights > 0).all()
    assert weights.mean() == pytest.approx(1) and weights.max() <= CAP * weights.min() * (1 + 1e-9)


@given(LABELS)
def test_strength_zero_leaves_all_alike(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(patient_weights(labels, strength=0.0), np.ones(len(labels)))


@given(LABELS, STRENGTH)
def test_the_rarest_finding_is_never_drawn_less_often_than_before(labels: np.ndarray, strength: float) -> None:
    weights = patient_weights(labels, strength=strength)
    positive, known = labels == 1, ~np.isnan(labels)
    prevalence = positive.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    without = 1 - positive.any(axis=1).mean()
    found = np.flatnonzero(positive.any(axis=0))
    if len(found):
        rarest = found[np.argmin(prevalence[found])]
        if without == 0 or prevalence[rarest] <= without:
            assert np.average(positive[:, rarest], weights=weights) >= positive[:, rarest].mean() - 1e-9


@given(st.integers(1, 8), st.integers(8, 40), STRENGTH)
def test_the_ratio_of_two_prevalences_shrinks_by_the_power_of_strength(rare: int, common: int, strength: float) -> None:
    labels = np.zeros((rare + common, 2), dtype=np.float32)
    labels[:rare, 0] = labels[rare:, 1] = 1
    weights = patient_weights(labels, strength=strength)
    ratio = weights[rare:].sum() / weights[:rare].sum()
    assert ratio == pytest.approx(common / rare / min((common / rare) ** strength, CAP))


@given(LABELS, STRENGTH)
def test_a_finding_that_nobody_is_labelled_for_changes_nothing(labels: np.ndarray, strength: float) -> None:
    more = np.column_stack([labels, np.full(len(labels), np.nan, dtype=np.float32)])
    np.testing.assert_array_equal(patient_weights(more, strength=strength), patient_weights(labels, strength=strength))


def test_prevalence_is_of_those_who_are_labelled() -> None:
    labels = np.array([[1, np.nan], [0, 1], [0, 0], [0, 0]], dtype=np.float32)
    # 1 in 4 and 1 in 3; two of four have nothing.
    np.testing.assert_allclose(patient_weights(labels, strength=1.0) / patient_weights(labels, strength=1.0)[2], [2, 1.5, 1, 1])


@pytest.mark.parametrize(("labels", "strength"), [(np.full((2, 2), 0.5), 1.0), (np.zeros(3), 1.0), (np.zeros((2, 2)), 1.5)])
def test_what_is_no_label_and_no_strength_is_refused(labels: np.ndarray, strength: float) -> None:
    with pytest.raises(DataError, match="expected"):
        patient_weights(labels, strength=strength)
