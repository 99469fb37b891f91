from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from client.data.splits import by_fold, by_fraction, by_lot, deal, k_fold, patient_labels, strata
from rainhill.config import SplitConfig
from rainhill.errors import DataError

seeds = st.integers(0, 2**32)


def labels(least=6, most=80):
    values = st.sampled_from([0.0, 0.0, 1.0, np.nan])
    shape = st.tuples(st.integers(least, most), st.integers(1, 4))
    return shape.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=values))


@settings(max_examples=60, deadline=None)
@given(labels=labels(), folds=st.integers(2, 6), seed=seeds)
def test_folds_differ_by_at_most_one_patient_in_all_and_in_each_stratum(labels, folds, seed):
    fold = k_fold(labels, folds=folds, seed=seed)
    assert fold.shape == (len(labels),)
    stratum = strata(labels, at_least=folds)
    for members in [np.full(len(labels), True), *(stratum == number for number in set(stratum.tolist()))]:
        counts = np.bincount(fold[members], minlength=folds)
        assert len(counts) == folds
        assert np.ptp(counts) <= 1


@settings(max_examples=60, deadline=None)
@given(labels=labels(), val=st.floats(0.05, 0.45), test=st.floats(0.05, 0.5), seed=seeds)
def test_fractions_are_met_to_within_one_patient_in_each_stratum(labels, val, test, seed):
    n = len(labels)
    n_test, n_val = max(1, round(n * test)), max(1, round(n * val))
    if n_test + n_val >= n:
        with pytest.raises(DataError, match=f"leave none of {n} patients to train on"):
            by_fraction(labels, val=val, test=test, seed=seed)
        return
    part = by_fraction(labels, val=val, test=test, seed=seed)
    assert Counter(part.tolist()) == Counter({"test": n_test, "val": n_val, "train": n - n_test - n_val})
    stratum = strata(labels, at_least=max(2, round(n / n_test)))
    for number in set(stratum.tolist()):
        expected = (stratum == number).sum() * n_test / n
        assert abs((part[stratum == number] == "test").sum() - expected) < 1 + 1e-6


@settings(max_examples=30, deadline=None)
@given(labels=labels(), folds=st.integers(2, 6), seed=seeds)
def test_each_patient_is_tested_once_over_the_folds_and_each_fold_has_all_parts(labels, folds, seed):
    parts = [by_fold(labels, fold=fold, folds=folds, val=0.15, seed=seed) for fold in range(folds)]
    assert (np.sum([part == "test" for part in parts], axis=0) == 1).all()
    assert all(set(part.tolist()) == {"train", "val", "test"} for part in parts)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), labels=labels(most=60), seed=seeds, folds=st.sampled_from([None, 3]))
def test_a_patient_never_straddles_and_the_same_seed_deals_the_same(data, labels, seed, folds):
    # Any number of images per patient, at least one, in any order.
    extra = data.draw(st.lists(st.integers(0, 5), max_size=30))
    patients = np.array(data.draw(st.permutations([*range(6), *extra])))
    images = labels[np.arange(len(patients)) % len(labels)]
    split = SplitConfig(folds=folds, seed=seed)
    names = np.array([f"p{patient}" for patient in patients])
    part = deal(images, patients, names, split)
    for patient in range(6):
        assert len(set(part[patients == patient].tolist())) == 1
    assert (part == deal(images, patients, names, split)).all()


@settings(max_examples=50, deadline=None)
@given(gone=st.integers(0, 199), seed=seeds, folds=st.sampled_from([None, 2, 5]))
def test_by_lot_a_patient_who_is_gone_moves_nobody_else(gone, seed, folds):
    names = np.array([f"{number:032x}" for number in range(200)])
    split = SplitConfig(by="patient", val=0.3, folds=folds, seed=seed)
    whole, without = by_lot(names, split), by_lot(np.delete(names, gone), split)
    assert (without == np.delete(whole, gone)).all()


def test_by_labels_a_patient_who_is_gone_moves_others_which_is_why_privacy_asks_for_lots():
    table = (np.random.default_rng(0).random((80, 3)) < 0.3).astype(np.float32)
    patients, names = np.arange(80), np.array([f"{number:032x}" for number in range(80)])
    whole = deal(table, patients, names, SplitConfig())
    without = deal(table[1:], patients[1:] - 1, names[1:], SplitConfig())
    assert (whole[1:] != without).sum() > 1


def test_lots_deal_parts_about_as_large_as_asked_and_each_fold_tests_once():
    names = np.array([f"{number:032x}" for number in range(4000)])
    part = by_lot(names, SplitConfig(by="patient", val=0.1, test=0.2))
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        # Five standard deviations of a share of 4,000.
        assert abs((part == name).mean() - share) < 5 * np.sqrt(share * (1 - share) / 4000)
    folds = [by_lot(names, SplitConfig(by="patient", val=0.1, folds=4, fold=fold)) for fold in range(4)]
    assert (np.sum([part == "test" for part in folds], axis=0) == 1).all()
    assert abs((folds[0] == "val").mean() - 0.1) < 0.024
    with pytest.raises(DataError, match="none of 2 patients fell into"):
        by_lot(names[:2], SplitConfig(by="patient"))


def test_another_seed_deals_otherwise():
    table = np.tile(np.array([[0.0], [1.0]], np.float32), (50, 1))
    assert (k_fold(table, folds=5, seed=0) != k_fold(table, folds=5, seed=1)).any()
    assert (by_fraction(table, val=0.1, test=0.2, seed=0) != by_fraction(table, val=0.1, test=0.2, seed=1)).any()


def test_a_rare_finding_is_spread_over_the_folds():
    table = np.zeros((150, 2), np.float32)
    table[:5, 0] = 1
    table[2:60, 1] = 1
    fold = k_fold(table, folds=5, seed=3)
    assert np.bincount(fold[:5], minlength=5).max() <= 2
    assert np.ptp(np.bincount(fold[2:60])) <= 2


def test_a_set_of_findings_that_few_share_joins_its_rarest():
    nan = np.nan
    table = np.array([[1, 0]] * 6 + [[0, 1]] * 3 + [[1, 1]] + [[0, 0]] * 4 + [[nan, nan]] * 2, dtype=np.float32)
    stratum = strata(table, at_least=2)
    assert stratum[9] == stratum[6]  # the second finding is rarer than the first
    assert len(set(stratum.tolist())) == 4
    shared = strata(np.vstack([table, [[1, 1]]]), at_least=2)
    assert shared[9] not in shared[:9]


def test_a_patient_has_a_finding_when_one_image_has():
    nan = np.nan
    images = np.array([[0, nan], [1, nan], [nan, 0], [0, 0]], np.float32)
    np.testing.assert_array_equal(patient_labels(images, np.array([0, 0, 1, 1])), np.array([[1, nan], [0, 0]], np.float32))


def zeros(n):
    return np.zeros((n, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: k_fold(zeros(3), folds=5, seed=0), "needs at least 5 patients for 5 folds, has 3"),
        (lambda: k_fold(zeros(3), folds=2, seed=0), "needs at least 4 patients for 2 folds, has 3"),
        (lambda: by_fraction(zeros(2), val=0.2, test=0.2, seed=0), "needs at least 3 patients for train, val and test, has 2"),
        (lambda: by_fraction(zeros(1), val=0.2, test=0.0, seed=0), "needs at least 2 patients for train and val, has 1"),
        (lambda: by_fraction(zeros(3), val=0.9, test=0.05, seed=0), "val 0.9 and test 0.05 leave none of 3 patients to train on"),
    ],
)
def test_too_few_patients_are_refused_with_both_numbers(call, message):
    with pytest.raises(DataError, match=f"^{message}$"):
        call()


def test_no_test_part_where_none_is_asked_for():
    assert set(by_fraction(zeros(10), val=0.2, test=0.0, seed=0).tolist()) == {"train", "val"}


def test_folds_that_leave_nothing_to_train_on_are_refused():
    with pytest.raises(ValueError, match=r"val 0\.6 and one of 2 folds leave no patient to train on"):
        SplitConfig(folds=2, val=0.6)
