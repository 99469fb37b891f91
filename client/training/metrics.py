"""AUROC, AUPRC, Brier score and calibration error per finding, with intervals over patients.

Values by scikit-learn. Intervals by the percentile bootstrap over patients (Efron 1979): a patient is drawn with all of its images.
A replicate is a weight per image, so that one sort per finding serves all replicates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from rainhill.adapter import Array
from rainhill.recipe import EvaluationSection

if TYPE_CHECKING:
    from client.reporting.reading import Reading

CALIBRATION_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A value and what it becomes when patients are drawn again: (B,) replicates, NaN where a draw held one class only."""

    value: float
    replicates: Array

    def interval(self, confidence: float) -> tuple[float, float]:
        """The percentile interval; (nan, nan) where there is nothing to draw from."""
        return percentile_interval(self.replicates, confidence)

    def minus(self, other: "Measured") -> "Measured":
        """The paired difference: both were measured on the same draws of the same patients."""
        return Measured(value=self.value - other.value, replicates=self.replicates - other.replicates)


@dataclass(frozen=True, kw_only=True)
class Drafted:
    """What was written of one image, held against its report."""

    text: str
    sure: float
    """How sure the model was: `client.drafting.confidence.Confidence.value`."""
    said: "Reading"
    """What the draft says."""
    wanted: "Reading"
    """And what the report does."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One model on one cohort: per metric the mean over findings, and each finding."""

    means: Mapping[str, Measured]
    findings: Mapping[str, Mapping[str, Measured]]
    left_out: tuple[str, ...]
    """Findings with too few positive or negative images to count."""
    drafts: tuple[Drafted, ...] = ()
    """Of a task that writes, for each image that has a report to hold them against."""


def score(
    probabilities: Array, targets: Array, patients: Array, *, names: list[str], section: EvaluationSection, seed: Sequence[int]
) -> Scored:
    """(N, K) probabilities and targets (NaN = not labelled), (N,) patient numbers."""
    draws = patient_draws(patients, section.bootstraps, seed)
    findings, left_out = {}, []
    for column, name in enumerate(names):
        labelled = ~np.isnan(targets[:, column])
        truth = targets[labelled, column]
        if not _countable(truth, section):
            left_out.append(name)
            continue
        findings[name] = {
            metric: measure(probabilities[labelled, column], truth, draws[:, labelled]) for metric, measure in METRICS.items()
        }
    means = {metric: _mean([finding[metric] for finding in findings.values()]) for metric in METRICS} if findings else {}
    return Scored(means=means, findings=findings, left_out=tuple(left_out))


def mean_auroc(scores: Array, targets: Array, section: EvaluationSection) -> float:
    """Over the findings that have enough of both classes; NaN where none has."""
    values = []
    for column in range(targets.shape[1]):
        labelled = ~np.isnan(targets[:, column])
        truth = targets[labelled, column]
        if _countable(truth, section):
            values.append(roc_auc_score(truth, scores[labelled, column]))
    return float(np.mean(values)) if values else float("nan")


def _countable(truth: Array, section: EvaluationSection) -> bool:
    return bool(min(np.sum(truth == 1), np.sum(truth == 0)) >= section.min_positives)


def patient_draws(patients: Array, count: int, seed: Sequence[int]) -> Array:
    """(count, N) how often each image is in each draw of as many patients as there are, with replacement."""
    _, index = np.unique(patients, return_inverse=True)
    total = int(index.max()) + 1 if len(index) else 0
    times = np.random.default_rng(seed).multinomial(total, np.full(total, 1 / max(total, 1)), size=count)
    return times[:, index].astype(np.float32)


def percentile_interval(replicates: Array, confidence: float) -> tuple[float, float]:
    known = replicates[np.isfinite(replicates)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def weighted_auroc(scores: Array, truth: Array, weights: Array) -> Array:
    """(N,), (N,), (B, N) -> (B,) the Mann-Whitney statistic, ties counted half."""
    order, starts = _tied_groups(scores)
    weights = weights[:, order].astype(np.float64)
    positive = np.add.reduceat(weights * (truth[order] == 1), starts, axis=1)
    negative = np.add.reduceat(weights * (truth[order] == 0), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    with np.errstate(invalid="ignore"):
        return np.asarray((positive * (below + negative / 2)).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1)))


def weighted_average_precision(scores: Array, truth: Array, weights: Array) -> Array:
    """(B,) sum over thresholds of (recall step) * precision, as scikit-learn defines it."""
    order, starts = _tied_groups(-scores)
    weights = weights[:, order].astype(np.float64)
    positive = np.add.reduceat(weights * (truth[order] == 1), starts, axis=1)
    all_ = np.add.reduceat(weights, starts, axis=1)
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(np.cumsum(positive, axis=1) / np.cumsum(all_, axis=1))
        return np.asarray((positive * precision).sum(axis=1) / positive.sum(axis=1))


def weighted_brier(scores: Array, truth: Array, weights: Array) -> Array:
    return _weighted_mean(np.square(scores - truth), weights)


def weighted_calibration_error(scores: Array, truth: Array, weights: Array) -> Array:
    """(B,) expected calibration error over equal-width bins. Naeini et al. 2015, AAAI."""
    bins = np.minimum((scores * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.stack([(weights * (bins == number)) @ (truth - scores) for number in range(CALIBRATION_BINS)])
    return np.asarray(np.abs(gaps).sum(axis=0) / weights.sum(axis=1))


def _tied_groups(scores: Array) -> tuple[Array, Array]:
    """The rising order, and where in it each distinct score begins."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    return order, np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))


def _weighted_mean(values: Array, weights: Array) -> Array:
    return np.asarray(weights @ values / weights.sum(axis=1))


def _mean(measured: list[Measured]) -> Measured:
    replicates = np.stack([one.replicates for one in measured])
    known = np.isfinite(replicates)
    with np.errstate(invalid="ignore"):
        means = np.where(known, replicates, 0.0).sum(axis=0) / known.sum(axis=0)
    return Measured(value=float(np.mean([one.value for one in measured])), replicates=means)


def _auroc(scores: Array, truth: Array, draws: Array) -> Measured:
    return Measured(value=float(roc_auc_score(truth, scores)), replicates=weighted_auroc(scores, truth, draws))


def _auprc(scores: Array, truth: Array, draws: Array) -> Measured:
    return Measured(value=float(average_precision_score(truth, scores)), replicates=weighted_average_precision(scores, truth, draws))


def _brier(scores: Array, truth: Array, draws: Array) -> Measured:
    return Measured(value=float(brier_score_loss(truth, scores)), replicates=weighted_brier(scores, truth, draws))


def _calibration(scores: Array, truth: Array, draws: Array) -> Measured:
    one = np.ones((1, len(scores)))
    return Measured(
        value=float(weighted_calibration_error(scores, truth, one)[0]), replicates=weighted_calibration_error(scores, truth, draws)
    )


METRICS: dict[str, Callable[[Array, Array, Array], Measured]] = {
    "auroc": _auroc,
    "auprc": _auprc,
    "brier": _brier,
    "ece": _calibration,
}
