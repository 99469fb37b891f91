"""How sure a model was of its draft, and from where on a site lets it speak: the rest is abstained, and says so with its numbers.

Selective prediction with a guaranteed risk: Geifman, El-Yaniv 2017, arXiv:1705.08500; thresholds tried in a fixed order as in Angelopoulos
et al. 2021, arXiv:2110.01052; bounds by Clopper, Pearson 1934, doi:10.1093/biomet/26.4.404.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from client.drafting._witness import Ratios
from client.reporting.clinical import Errors, errors_of, falls_silent
from client.reporting.reading import Reading
from rainhill.errors import DataError

if TYPE_CHECKING:
    from client.models import Written

ERRORS = tuple(each.name for each in fields(Errors))
GRAVE = ("false_finding", "missed_finding", "wrong_location")
"""Of them those that are not of size or comparison."""
CLAIMED = ("false_finding", "wrong_location")
"""Those that the draft says, and does not leave out: of what it never wrote no word tells how sure it was."""
CERTAINTY = 0.95
TRIED = tuple(share / 20 for share in range(1, 21))
"""Coverages that are tried in turn for a promised error rate."""


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """By the log-probabilities of a draft's tokens."""

    least: float
    """Of the least likely token."""
    mean: float
    """Over all tokens."""
    ended: bool

    @property
    def value(self) -> float:
        """By which drafts are ranked: the mean; of one that was cut at the limit -inf, for nobody knows what else it would have said."""
        return self.mean if self.ended else -np.inf


def confidence_of(written: "Written") -> Confidence:
    """DataError for a draft without a token, or with one whose log-probability is no number."""
    values = np.asarray(written.logprobs, dtype=np.float64)
    if not values.size or np.isnan(values).any():
        raise DataError(f"a draft of {values.size} tokens, {int(np.isnan(values).sum())} without a log-probability: confidence is of none")
    return Confidence(least=float(values.min()), mean=float(values.mean()), ended=written.ended)


def of_claims(ratios: Sequence[Ratios]) -> float:
    """Of a draft by what it says and not by how: the least of its sentences' log-odds (`client.drafting.quality.ratios_of`).

    A model that hesitates between two ways to say the same is sure of it. Of a draft that claims nothing 0: nobody knows.
    """
    return min((value for one in ratios for value in one.values()), default=0.0)


def is_wrong(draft: Reading, reference: Reading, *, kinds: Sequence[str] = ERRORS, but: Collection[str] = ()) -> bool:
    """Whether the draft makes any of ReXVal's six errors, or of those that are named, where findings in `but` are not looked at; one that
    says nothing leaves all out.
    """
    found = errors_of(draft, reference, but=but)
    return any(getattr(found, kind) for kind in kinds) or ("missed_finding" in kinds and falls_silent(draft, reference))


@dataclass(frozen=True, kw_only=True)
class Decision:
    abstains: bool
    confidence: float
    threshold: "Threshold"

    def __str__(self) -> str:
        at = self.threshold
        said = "abstained: confidence {:.3g} is not above {:.3g}" if self.abstains else "drafted: confidence {:.3g} is above {:.3g}"
        promise = f"above it {at.wrong} of {at.kept} drafts were wrong, at most {at.most_wrong:.1%} with {at.certainty:.0%} certainty"
        return f"{said.format(self.confidence, at.at)}; {promise}"


@dataclass(frozen=True, kw_only=True)
class Threshold:
    at: float
    """What is not above it is abstained."""
    of: int
    """Drafts of validation patients."""
    kept: int
    wrong: int
    """Of those kept."""
    most_wrong: float
    """Upper bound of the error rate of what is kept, for patients like these."""
    certainty: float
    """That the bound holds, over draws of validation patients."""

    @property
    def coverage(self) -> float:
        return self.kept / self.of

    @classmethod
    def calibrated(
        cls,
        confidences: Sequence[float] | NDArray[Any],
        wrong: Sequence[bool] | NDArray[Any],
        *,
        coverage: float | None = None,
        most_wrong: float | None = None,
        certainty: float = CERTAINTY,
    ) -> "Threshold":
        """For a coverage, or for the highest coverage at which the error rate is bounded by `most_wrong`.

        N of each, of one draft per patient: the bound takes them for independent. DataError where they do not fit, where not exactly one of
        the two is asked for, and where no threshold keeps the promise.
        """
        values, errors = _checked(confidences, np.asarray(wrong, dtype=np.bool_))
        if (coverage is None) == (most_wrong is None):
            raise DataError(f"coverage = {coverage} and most_wrong = {most_wrong}: one of them is to be given")
        for name, asked in (("coverage", coverage), ("most_wrong", most_wrong), ("certainty", certainty)):
            if (asked is not None and not 0 < asked <= 1) or (name == "certainty" and asked == 1):
                raise DataError(f"{name} = {asked}: expected more than 0 and at most 1, and a certainty below 1")
        if coverage is not None:
            return _at_coverage(values, errors, coverage, certainty)
        assert most_wrong is not None
        # The surest first, and on while the bound holds: of thresholds in a fixed order each may be tried with all of the doubt. It begins
        # where a third of the errors that are allowed would pass, which is known before any error is seen.
        counts = [int(share * len(values)) for share in TRIED]
        begin = next((place for place, n in enumerate(counts) if upper_bound(int(most_wrong * n / 3), n, certainty) <= most_wrong), -1)
        tried = [_at_coverage(values, errors, share, certainty) for share in TRIED[begin:]]
        passed = list(takewhile(lambda one: one.most_wrong <= most_wrong, tried))
        if not passed:
            raise DataError(
                f"no threshold keeps the error rate at {most_wrong:.1%} or less: of the {tried[0].kept} surest of {len(values)} drafts "
                f"{tried[0].wrong} were wrong, which bounds it by {tried[0].most_wrong:.1%}"
            )
        return passed[-1]

    def decide(self, confidence: float) -> Decision:
        """Abstains where the confidence is no number."""
        return Decision(abstains=self.abstains(confidence), confidence=confidence, threshold=self)

    def abstains(self, confidence: float) -> bool:
        return not confidence > self.at


def _at_coverage(values: NDArray[np.float64], errors: NDArray[np.bool_], coverage: float, certainty: float) -> Threshold:
    count = int(np.floor(coverage * len(values) + 1e-9))
    # The confidence of the first that is left out. Those above it are draws of all that lie above it, whatever they got wrong.
    at = -np.inf if count == len(values) else float(np.sort(values)[::-1][count])
    kept = values > at
    wrong, of = int(errors[kept].sum()), int(kept.sum())
    return Threshold(at=at, of=len(values), kept=of, wrong=wrong, most_wrong=upper_bound(wrong, of, certainty), certainty=certainty)


def upper_bound(wrong: int, of: int, certainty: float = CERTAINTY) -> float:
    """One-sided, of a binomial share; 1 where nothing was seen."""
    return 1.0 if wrong >= of else float(beta.ppf(certainty, wrong + 1, of - wrong))


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """What drafts cost as ever more of them are kept, the surest first: the share that is wrong, or their mean number of errors."""

    coverage: NDArray[np.float64]
    """(N,) 1/N to 1."""
    error: NDArray[np.float64]
    """(N,) mean of what is kept; of equally sure ones, in any order."""

    @cached_property
    def area(self) -> float:
        """Mean error over all coverages: the less, the better wrong and right are told apart."""
        return float(self.error.mean())

    def error_at(self, coverage: float) -> float:
        """Of the largest share that is not above `coverage`. DataError where that is no draft."""
        count = int(np.floor(coverage * len(self.error) + 1e-9))
        if not 0 < count <= len(self.error):
            raise DataError(f"coverage = {coverage} of {len(self.error)} drafts is {count} of them, expected 1 to {len(self.error)}")
        return float(self.error[count - 1])


def risk_coverage(confidences: Sequence[float] | NDArray[Any], errors: Sequence[float] | NDArray[Any]) -> Curve:
    """N of each; of `errors` whether a draft is wrong, or how many it has. DataError where they do not fit."""
    values, costs = _checked(confidences, np.asarray(errors, dtype=np.float64))
    _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, weights=costs) / sizes)[np.sort(group)]
    kept = np.arange(1, len(values) + 1)
    return Curve(coverage=kept / len(values), error=np.cumsum(expected) / kept)


def _checked(confidences: Sequence[float] | NDArray[Any], errors: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    values = np.asarray(confidences, dtype=np.float64)
    if values.ndim != 1 or values.shape != errors.shape or not len(values):
        raise DataError(f"confidences {values.shape} of drafts {errors.shape}: expected one of each, and at least one")
    if np.isnan(values).any():
        raise DataError(f"{int(np.isnan(values).sum())} of {len(values)} confidences are no number")
    return values, errors
