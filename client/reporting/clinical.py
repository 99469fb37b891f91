"""Drafts against references by what they say: agreement of labels, sides, contradictions, comparisons, and the six errors of ReXVal.

Label F1 is first, for scores of wording follow a department's style more than what it says (Banerjee et al. 2024, arXiv:2408.16208).
Intervals are percentile bootstraps over patients, who are drawn with all of their reports; what two models were measured on the same draws
is compared in pairs (`Measured.minus`). Errors: Yu et al. 2023, Patterns 4(9), doi:10.1016/j.patter.2023.100802.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from client.data.vocabulary import FINDINGS
from client.reporting.reading import CLASSES, THERE, Reading, present
from client.training.metrics import Measured, patient_draws
from rainhill.errors import DataError
from rainhill.recipe import EvaluationSection

Counts = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Of one draft. Each finding is at most one of the first four."""

    false_finding: int
    missed_finding: int
    wrong_location: int
    wrong_severity: int
    hallucinated_comparison: int
    """1 where the draft compares and the reference does not."""
    missed_comparison: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class Clinical:
    means: Mapping[str, Measured]
    """`label_f1` (micro), `label_precision`, `label_recall`, `label_macro_f1` over the findings that count, NaN of none; a report's mean of
    `wrong_sides`, `contradictions`, `comparisons` (reports that compare where the reference does not), `silent` (that say of nothing
    whether it is there, where the reference does) and `errors`."""
    findings: Mapping[str, Mapping[str, Measured]]
    """Finding -> `f1`, `precision`, `recall`; no_finding too."""
    left_out: tuple[str, ...]
    """Findings that too few references have, or have not: they count in the micro average alone."""
    errors: Errors
    """All drafts together."""


def clinical(
    drafts: Sequence[Reading],
    references: Sequence[Reading],
    patients: NDArray[np.int64],
    *,
    section: EvaluationSection,
    seed: Sequence[int],
) -> Clinical:
    """N of each, of (N,) patient numbers. DataError where there is not one draft of each reference, or none at all."""
    if not len(drafts) == len(references) == len(patients) or not len(drafts):
        raise DataError(f"{len(drafts)} drafts of {len(references)} references and {len(patients)} patients: one of each is wanted")
    said, truth = (np.array(present(readings), dtype=bool) for readings in (drafts, references))
    weights = np.vstack([np.ones(len(drafts)), patient_draws(patients, section.bootstraps, seed)])
    hits, claims, facts = (weights @ table.astype(np.float64) for table in (said & truth, said, truth))
    positives = truth.sum(axis=0)
    countable = np.minimum(positives, len(truth) - positives) >= section.min_positives
    # What is no finding is not one more finding.
    classes = [place for place, finding in enumerate(FINDINGS) if finding in CLASSES]
    summed = [table[:, classes].sum(axis=1) for table in (hits, claims, facts)]
    each = {name: of(hits, claims, facts) for name, of in SCORES.items()}
    counted = [place for place in classes if countable[place]]
    errors = [errors_of(draft, reference) for draft, reference in zip(drafts, references, strict=True)]
    per_report = {
        "wrong_sides": [one.wrong_location for one in errors],
        "contradictions": [len(one.contradicted) for one in drafts],
        "comparisons": [one.hallucinated_comparison for one in errors],
        "silent": [falls_silent(*pair) for pair in zip(drafts, references, strict=True)],
        "errors": [one.total for one in errors],
    }
    means = {f"label_{name}": _measured(of(*summed)) for name, of in SCORES.items()}
    if counted:
        means["label_macro_f1"] = _measured(_mean_of_known(each["f1"][:, counted]))
    return Clinical(
        means=means | {name: _measured(weights @ np.array(of, dtype=np.float64) / weights.sum(axis=1)) for name, of in per_report.items()},
        findings={
            finding: {name: _measured(table[:, place]) for name, table in each.items()}
            for place, finding in enumerate(FINDINGS)
            if countable[place]
        },
        left_out=tuple(finding for place, finding in enumerate(FINDINGS) if not countable[place]),
        errors=Errors(**{name: sum(getattr(one, name) for one in errors) for name in asdict(errors[0])}),
    )


def _f1(hits: Counts, claims: Counts, facts: Counts) -> Counts:
    return _share(2 * hits, claims + facts)


def _precision(hits: Counts, claims: Counts, facts: Counts) -> Counts:  # noqa: ARG001 - as all scores are called
    return _share(hits, claims)


def _recall(hits: Counts, claims: Counts, facts: Counts) -> Counts:  # noqa: ARG001
    return _share(hits, facts)


def _share(part: Counts, whole: Counts) -> Counts:
    """0 of 0 is no number: where neither says that anything is there, nothing was measured."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _mean_of_known(values: Counts) -> Counts:
    """(B, K) -> (B,), NaN where none is known."""
    known = np.isfinite(values)
    return _share(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


SCORES: Mapping[str, Callable[[Counts, Counts, Counts], Counts]] = {"f1": _f1, "precision": _precision, "recall": _recall}


def _measured(values: Counts) -> Measured:
    """The first is of all reports, the others of the draws."""
    return Measured(value=float(values[0]), replicates=values[1:])


def falls_silent(draft: Reading, reference: Reading) -> bool:
    """Such as gibberish, which has not one of ReXVal's errors where nothing is to be found."""
    return draft.silent and not reference.silent


def errors_of(draft: Reading, reference: Reading, *, but: Collection[str] = ()) -> Errors:
    """Findings in `but` are not looked at. DataError where one of them is none."""
    if unknown := sorted(set(but) - set(CLASSES)):
        raise DataError(f"{', '.join(unknown)}: no such finding")
    looked = [finding for finding in CLASSES if finding not in but]
    drafted, there = (frozenset(finding for finding in looked if one.labels[finding] in THERE) for one in (draft, reference))
    shared = drafted & there
    # A side or size that the reference does not give is no error of the draft's.
    moved = {finding for finding in shared if reference.sides[finding] and draft.sides[finding] != reference.sides[finding]}
    resized = {
        finding
        for finding in shared - moved
        if reference.severities[finding] and draft.severities[finding] and draft.severities[finding] != reference.severities[finding]
    }
    return Errors(
        false_finding=len(drafted - there),
        missed_finding=len(there - drafted),
        wrong_location=len(moved),
        wrong_severity=len(resized),
        hallucinated_comparison=int(bool(draft.comparisons) and not reference.comparisons),
        missed_comparison=int(bool(reference.comparisons) and not draft.comparisons),
    )
