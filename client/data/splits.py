"""Patients, never images, dealt into train, val and test, or into folds, with their labels spread evenly over the parts."""

import hashlib
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from rainhill.config import SplitConfig
from rainhill.errors import DataError

Labels = NDArray[np.float32]
Parts = NDArray[np.str_]

PARTS = ("train", "val", "test")


def patient_labels(labels: Labels, patients: NDArray[np.int64]) -> Labels:
    """(N, F) of images -> (P, F) of patients: the largest label of any of a patient's images, NaN where none is labelled."""
    together = np.full((int(patients.max(initial=-1)) + 1, labels.shape[1]), np.nan, dtype=np.float32)
    np.fmax.at(together, patients, labels)
    return together


def strata(labels: Labels, at_least: int) -> NDArray[np.int64]:
    """(P, F) -> (P,) stratum of each patient: its set of positive findings.

    A set that fewer than `at_least` patients share is merged into the one of its rarest finding alone. Patients without any label form a
    stratum of their own.
    """
    positive = labels == 1
    prevalence = positive.sum(axis=0)
    labelled = np.isfinite(labels).sum(axis=1) > 0
    sets = [tuple(np.flatnonzero(row).tolist()) if known else (-1,) for row, known in zip(positive, labelled, strict=True)]
    shared_by = Counter(sets)
    keys = [(min(key, key=lambda f: (prevalence[f], f)),) if len(key) > 1 and shared_by[key] < at_least else key for key in sets]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def k_fold(labels: Labels, *, folds: int, seed: int) -> NDArray[np.int64]:
    """(P, F) -> (P,) fold in 0..folds-1. Folds differ by at most one patient, in all and in each stratum."""
    n = len(labels)
    # Of two folds one is the test part, and the other must hold both train and val.
    needed = max(folds, 4) if folds == 2 else folds
    if n < needed:
        raise DataError(f"needs at least {needed} patients for {folds} folds, has {n}")
    rng = np.random.default_rng(seed)
    fold = np.empty(n, dtype=np.int64)
    fold[_by_stratum(strata(labels, at_least=folds), rng)] = rng.permutation(folds)[np.arange(n) % folds]
    return fold


def by_fraction(labels: Labels, *, val: float, test: float, seed: int) -> Parts:
    """(P, F) -> (P,) "train", "val" or "test"; a part asked for gets at least one patient."""
    n = len(labels)
    needed, parts = (3, "train, val and test") if test else (2, "train and val")
    if n < needed:
        raise DataError(f"needs at least {needed} patients for {parts}, has {n}")
    n_test, n_val = (max(1, round(n * share)) if share else 0 for share in (test, val))
    if n - n_test - n_val < 1:
        raise DataError(f"val {val} and test {test} leave none of {n} patients to train on")
    rng = np.random.default_rng(seed)
    part = np.full(n, "train", dtype="<U5")
    part[_sample(labels, np.arange(n), n_test, rng)] = "test"
    part[_sample(labels, np.flatnonzero(part == "train"), n_val, rng)] = "val"
    return part


def by_fold(labels: Labels, *, fold: int, folds: int, val: float, seed: int) -> Parts:
    """(P, F) -> (P,) parts with fold number `fold` as test; `val` is a share of all patients, taken from the other folds."""
    part = np.where(k_fold(labels, folds=folds, seed=seed) == fold, "test", "train").astype("<U5")
    others = np.flatnonzero(part == "train")
    n_val = min(max(1, round(len(labels) * val)), len(others) - 1)
    part[_sample(labels, others, n_val, np.random.default_rng([seed, fold]))] = "val"
    return part


def by_lot(names: NDArray[np.str_], split: SplitConfig) -> Parts:
    """(P,) pseudonyms -> (P,) "train", "val" or "test", each by its own name, whoever else is there. Raises DataError for an empty part."""
    first, second = np.array([_lots(name, split.seed) for name in names]).reshape(-1, 2).T
    if split.folds is None:
        test, val = first < split.test, first >= 1 - split.val
    else:
        test, val = np.floor(first * split.folds) == split.fold, second < split.val / (1 - 1 / split.folds)
    part = np.select([test, val], ["test", "val"], "train")
    empty = [name for name in PARTS if not (part == name).any() and (name != "test" or split.folds or split.test)]
    if empty:
        raise DataError(f"by = 'patient': none of {len(names)} patients fell into {' or '.join(empty)}; another seed deals anew")
    return part


def _lots(name: str, seed: int) -> tuple[float, float]:
    """Two numbers from 0 to below 1 that nobody else's name has a part in."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48, int.from_bytes(digest[6:12]) / 2**48


def deal(labels: Labels, patients: NDArray[np.int64], names: NDArray[np.str_], split: SplitConfig) -> Parts:
    """(N, F) labels, (N,) patients and (N,) their pseudonyms, of images -> (N,) parts of images.

    Raises DataError where the patients are too few.
    """
    if split.by == "patient":
        _, first = np.unique(patients, return_index=True)
        return by_lot(names[first], split)[patients]
    together = patient_labels(labels, patients)
    if split.folds is None:
        parts = by_fraction(together, val=split.val, test=split.test, seed=split.seed)
    else:
        parts = by_fold(together, fold=split.fold, folds=split.folds, val=split.val, seed=split.seed)
    return parts[patients]


def _by_stratum(stratum: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The patients stratum after stratum, in random order within each."""
    return np.lexsort((rng.permutation(len(stratum)), stratum))


def _sample(labels: Labels, among: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` of the patients `among`, at equal steps through the strata: each stratum gives its share, to within one patient."""
    if count == 0:
        return among[:0]
    order = among[_by_stratum(strata(labels[among], at_least=max(2, round(len(among) / count))), rng)]
    steps = np.floor(np.arange(len(order) + 1) * count / len(order) + rng.random()).astype(np.int64)
    return order[np.diff(steps) > 0]
